//! The agents this host owns: their leases, and the drivers of those that are resident.
//!
//! A parked agent is a lease and nothing else. Nothing here is authority: the store decides who owns an agent, and asking it
//! twice is harmless, so there is no lock around the asking.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_core::agent::{self, Grant, Handle, WarmGuest};
use godwit_core::failpoint;
use godwit_core::id::{AgentId, FencingToken};
use godwit_core::lease::{Lease, LeaseGuard, LeaseState};
use godwit_core::store::{AgentRow, Owner, StoreError};
use tokio::sync::{Notify, OnceCell};

use super::Runtime;
use super::delivery::Credentials;

/// Leases and drivers by agent.
#[derive(Default)]
pub(crate) struct Directory {
    tables: Mutex<Tables>,
    /// Set when a lease was lost that nobody has told of.
    pub(crate) has_lost: Notify,
}

/// Two maps, because a host may own a hundred times as many agents as it runs, and looks through the running ones.
#[derive(Default)]
struct Tables {
    owned: BTreeMap<AgentId, Entry>,
    /// Drivers; one that has ended may stay for a moment.
    residents: BTreeMap<AgentId, Resident>,
    /// Leases that were taken from this host: those of `owned` once, that nobody has told of.
    lost: Vec<Lease>,
}

struct Entry {
    owned: Owned,
    /// Tells its publisher of new outputs, while there is one.
    publisher: Option<Arc<Notify>>,
}

struct Resident {
    handle: Handle,
    /// Boot time of the last use, for choosing whom to park.
    used: Duration,
}

impl Tables {
    fn holds(&self, agent: &AgentId, token: FencingToken) -> bool {
        self.owned.get(agent).is_some_and(|entry| entry.owned.lease.token == token)
    }

    fn remove(&mut self, agent: &AgentId) -> Option<Entry> {
        self.residents.remove(agent);
        self.owned.remove(agent)
    }

    /// As `remove`, of a lease that was taken from this host.
    fn remove_lost(&mut self, agent: &AgentId) {
        if let Some(entry) = self.remove(agent) {
            entry.owned.guard.lose();
            self.lost.push(entry.owned.lease);
        }
    }
}

/// A lease that this host holds, with its guard.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) lease: Lease,
    pub(crate) guard: LeaseGuard,
    /// Made when its outbox is looked at first.
    pub(crate) credentials: Arc<OnceCell<Credentials>>,
}

impl Owned {
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            agent: self.lease.agent.clone(),
            generation: self.lease.generation,
            incarnation: self.lease.incarnation,
            token: self.lease.token,
        }
    }
}

impl Directory {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease, when this host believes that it holds one.
    pub(crate) fn owned(&self, agent: &AgentId) -> Option<Owned> {
        let tables = self.lock();
        let entry = tables.owned.get(agent)?;
        let is_lost = entry.owned.guard.state() == LeaseState::Lost;
        (!is_lost).then(|| entry.owned.clone())
    }

    /// The driver, when there is one that takes commands.
    pub(crate) fn handle(&self, agent: &AgentId) -> Option<Handle> {
        let tables = self.lock();
        tables.residents.get(agent).map(|resident| resident.handle.clone()).filter(Handle::is_alive)
    }

    /// As `handle`, for a use at boot time `now`.
    pub(crate) fn handle_for_use(&self, agent: &AgentId, now: Duration) -> Option<Handle> {
        let mut tables = self.lock();
        let resident = tables.residents.get_mut(agent).filter(|resident| resident.handle.is_alive())?;
        resident.used = now;
        Some(resident.handle.clone())
    }

    /// How many leases this host believes that it holds.
    pub(crate) fn owned_count(&self) -> usize {
        self.lock().owned.values().filter(|entry| entry.owned.guard.state() != LeaseState::Lost).count()
    }

    /// How many drivers there are.
    pub(crate) fn residents(&self) -> usize {
        self.lock().residents.values().filter(|resident| resident.handle.is_alive()).count()
    }

    /// Enters a lease that the store granted. An entry with the same token stays as it is, and one with a higher token:
    /// that grant came later. An older one is lost.
    pub(crate) fn enter(&self, lease: Lease, guard: LeaseGuard) -> Owned {
        let mut tables = self.lock();
        if let Some(entry) = tables.owned.get(&lease.agent) {
            if entry.owned.lease.token >= lease.token && entry.owned.guard.state() != LeaseState::Lost {
                return entry.owned.clone();
            }
            if entry.owned.guard.state() == LeaseState::Lost {
                tables.remove_lost(&lease.agent);
                self.has_lost.notify_one();
            } else {
                entry.owned.guard.lose();
            }
        }
        tables.remove(&lease.agent);
        let owned = Owned { lease, guard, credentials: Arc::default() };
        tables.owned.insert(owned.lease.agent.clone(), Entry { owned: owned.clone(), publisher: None });
        owned
    }

    /// Forgets an agent that this host has let go of, or sent elsewhere, if it still has it under this token.
    pub(crate) fn lose(&self, agent: &AgentId, token: FencingToken) {
        let mut tables = self.lock();
        if tables.holds(agent, token)
            && let Some(entry) = tables.remove(agent)
        {
            entry.owned.guard.lose();
        }
    }

    /// Forgets an agent whose lease under this token the store has refused. That of a successor, under a token of its own,
    /// stays.
    pub(crate) fn lose_fenced(&self, agent: &AgentId, token: FencingToken) {
        let mut tables = self.lock();
        if tables.holds(agent, token) {
            tables.remove_lost(agent);
            self.has_lost.notify_one();
        }
    }

    /// Forgets an agent whose driver says that its lease is lost. The entry of a successor, with a guard of its own, stays.
    pub(crate) fn forget_lost(&self, agent: &AgentId) {
        let mut tables = self.lock();
        if tables.owned.get(agent).is_some_and(|entry| entry.owned.guard.state() == LeaseState::Lost) {
            tables.remove_lost(agent);
            self.has_lost.notify_one();
        }
    }

    /// Lets go of what is left of a driver that has ended.
    pub(crate) fn drop_dead_handle(&self, agent: &AgentId) {
        let mut tables = self.lock();
        if tables.residents.get(agent).is_some_and(|resident| !resident.handle.is_alive()) {
            tables.residents.remove(agent);
        }
    }

    /// Forgets everything: the session is dead, or given up. Answers how many leases that were held are lost.
    pub(crate) fn lose_all(&self) -> usize {
        let mut tables = self.lock();
        let Tables { owned, residents, lost } = &mut *tables;
        residents.clear();
        let mut count = 0;
        for (_, entry) in std::mem::take(owned) {
            count += usize::from(entry.owned.guard.state() != LeaseState::Lost);
            entry.owned.guard.lose();
            lost.push(entry.owned.lease);
        }
        count
    }

    /// All drivers that take commands.
    pub(crate) fn handles(&self) -> Vec<Handle> {
        let tables = self.lock();
        let handles = tables.residents.values().map(|resident| resident.handle.clone());
        handles.filter(Handle::is_alive).collect()
    }

    /// The leases that were lost since it was asked last.
    pub(crate) fn take_lost(&self) -> Vec<Lease> {
        std::mem::take(&mut self.lock().lost)
    }

    /// Claims the right to publish an agent's outputs. Answers what tells of new ones, or nothing when somebody already does.
    pub(crate) fn begin_publishing(&self, agent: &AgentId) -> Option<Arc<Notify>> {
        let mut tables = self.lock();
        let entry = tables.owned.get_mut(agent).filter(|entry| entry.publisher.is_none())?;
        Some(entry.publisher.insert(Arc::default()).clone())
    }

    /// Tells whoever publishes an agent's outputs of new ones. Answers `false` when nobody does.
    pub(crate) fn tell_publisher(&self, agent: &AgentId) -> bool {
        let tables = self.lock();
        let publisher = tables.owned.get(agent).and_then(|entry| entry.publisher.as_ref());
        publisher.inspect(|publisher| publisher.notify_one()).is_some()
    }

    /// Gives the right back.
    pub(crate) fn end_publishing(&self, agent: &AgentId) {
        if let Some(entry) = self.lock().owned.get_mut(agent) {
            entry.publisher = None;
        }
    }

    /// The driver that was used longest ago, apart from `except`.
    fn least_recent(&self, except: &AgentId) -> Option<Handle> {
        let tables = self.lock();
        let others = tables
            .residents
            .iter()
            .filter(|(agent, resident)| *agent != except && resident.handle.is_alive());
        others.min_by_key(|(_, resident)| resident.used).map(|(_, resident)| resident.handle.clone())
    }
}

impl Runtime {
    /// Takes the lease of an agent at home here, or answers the one already held.
    ///
    /// # Errors
    /// As `RuntimeStore::acquire`: `Fenced` names another live holder. `Closed` while the agent is held (`standby`).
    pub(crate) async fn own(&self, agent: &AgentId) -> Result<Owned, StoreError> {
        if let Some(owned) = self.inner().directory.owned(agent) {
            return Ok(owned);
        }
        self.check_may_own(agent)?;
        self.acquire(agent).await
    }

    /// As `own`, also of an agent that is held: it must not run then.
    pub(crate) async fn acquire(&self, agent: &AgentId) -> Result<Owned, StoreError> {
        let current = self.session();
        let mut granted =
            self.inner().store.acquire(current.incarnation, std::slice::from_ref(agent)).await?;
        let lease = granted.pop().unwrap_or(Err(StoreError::NoAgent))?;
        failpoint::hit("lease.after-acquire");
        let guard = LeaseGuard::new(current.lease.clone(), lease.token);
        Ok(self.inner().directory.enter(lease, guard))
    }

    /// Takes the leases of agents at home here, in one transaction. What another host holds is left to it.
    ///
    /// # Errors
    /// As `RuntimeStore::acquire` for the whole call.
    pub(crate) async fn own_all(&self, rows: &[AgentRow]) -> Result<(), StoreError> {
        let is_free =
            |agent| self.inner().directory.owned(agent).is_none() && self.check_may_own(agent).is_ok();
        let free = rows.iter().filter(|row| is_free(&row.agent));
        let agents: Vec<_> = free.map(|row| row.agent.clone()).collect();
        if agents.is_empty() {
            return Ok(());
        }
        let current = self.session();
        for lease in self.inner().store.acquire(current.incarnation, &agents).await?.into_iter().flatten() {
            let guard = LeaseGuard::new(current.lease.clone(), lease.token);
            self.inner().directory.enter(lease, guard);
        }
        failpoint::hit("lease.after-acquire");
        Ok(())
    }

    /// Enters a lease that a migration's commit point gave, with a guest that may be warm, and starts the driver.
    pub(crate) fn take_up(&self, lease: Lease, guard: LeaseGuard, warm: Option<WarmGuest>) -> Handle {
        let agent = lease.agent.clone();
        let owned = self.inner().directory.enter(lease, guard);
        self.drive(&agent, owned, warm)
    }

    /// The driver of an agent, started if it is parked.
    ///
    /// # Errors
    /// As `own`.
    pub(crate) async fn resident(&self, agent: &AgentId) -> Result<Handle, StoreError> {
        let owned = self.own(agent).await?;
        Ok(self.drive(agent, owned, None))
    }

    fn drive(&self, agent: &AgentId, owned: Owned, warm: Option<WarmGuest>) -> Handle {
        let inner = self.inner();
        let now = inner.clock.boot();
        let mut tables = inner.directory.lock();
        let Tables { owned: entries, residents, .. } = &mut *tables;
        let entry = entries.entry(agent.clone()).or_insert_with(|| Entry { owned, publisher: None });
        if let Some(resident) = residents.get_mut(agent).filter(|resident| resident.handle.is_alive()) {
            resident.used = now;
            return resident.handle.clone();
        }
        let grant = Grant { lease: entry.owned.lease.clone(), guard: entry.owned.guard.clone(), warm };
        let handle = agent::spawn(inner.env.clone(), &inner.drivers, grant);
        residents.insert(agent.clone(), Resident { handle: handle.clone(), used: now });
        let is_full = residents.len() > inner.resident_max;
        drop(tables);
        if is_full && inner.directory.residents() > inner.resident_max {
            self.make_room(agent);
        }
        handle
    }

    /// Parks whoever was used longest ago, for the sake of `agent`.
    pub(crate) fn make_room(&self, agent: &AgentId) {
        if let Some(idle) = self.inner().directory.least_recent(agent) {
            self.inner().tasks.spawn(async move { idle.park().await });
        }
    }
}

#[cfg(test)]
mod tests;

//! The rows of one agent, and the log of which row changed when.
//!
//! Each row has a name. The log keeps, per name, the agent's change number of the row's last write; a name whose row is
//! gone is a delete that an open migration still has to tell the target. So exporting is reading the log in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::digest::Digest;
use crate::edge::Edge;
use crate::id::{
    AgentId, FencingToken, Generation, Incarnation, InputId, OperationId, Revision, Seq, SpecRevision,
};
use crate::identity::EntityKeyRow;
use crate::input::{InputState, Kind, Scope};
use crate::journal::{JournalEntry, JournaledTurn};
use crate::lease::GrantCause;
use crate::lifecycle::Lifecycle;
use crate::operation::StoredOperation;
use crate::output::{OutputState, StoredOutput};
use crate::receipt::{Receipt, ReceiptCheckpoint};
use crate::snapshot::Snapshot;
use crate::spec::Spec;
use crate::store::agent::{Home, StoredInput, Tombstone};
use crate::store::error::Pin;
use crate::store::memory::channels::ChannelRows;
use crate::store::rows::{AgentPortable, Receiver, Row, RowFrame, RowKey, Slot};
use crate::timer::StoredTimer;

mod name;

use name::RowName;

/// Where an agent is, and who may act for it: what does not travel.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) home: Home,
    pub(super) token: FencingToken,
    /// Whose session was granted the token, unless it was released since.
    pub(super) holder: Option<Incarnation>,
    pub(super) cause: GrantCause,
}

/// All rows of one agent.
#[derive(Debug, Clone)]
pub(super) struct AgentRows {
    pub(super) standing: Standing,
    portable: AgentPortable,
    specs: BTreeMap<SpecRevision, Spec>,
    inputs: BTreeMap<Seq, StoredInput>,
    open: BTreeSet<Seq>,
    /// Those of the open ones that wake.
    waking: BTreeSet<Seq>,
    /// Payloads and headers of those that are open.
    open_bytes: u64,
    by_id: HashMap<InputId, Seq>,
    by_key: HashMap<String, Seq>,
    receipts: BTreeMap<(Generation, Revision), Receipt>,
    snapshots: BTreeMap<Slot, Snapshot>,
    journal: BTreeMap<(Generation, Revision), JournalEntry>,
    state: BTreeMap<String, Bytes>,
    outputs: BTreeMap<u64, StoredOutput>,
    positions: BTreeMap<RowName, u64>,
    /// Pending outputs by destination.
    waiting: BTreeMap<AgentId, u64>,
    destinations: BTreeMap<(AgentId, Generation), u64>,
    receivers: BTreeMap<AgentId, Receiver>,
    timers: BTreeMap<String, StoredTimer>,
    checkpoints: BTreeMap<Generation, ReceiptCheckpoint>,
    operations: BTreeMap<OperationId, StoredOperation>,
    edges: BTreeMap<AgentId, Edge>,
    entity_key: Option<EntityKeyRow>,
    channels: ChannelRows,
    change: u64,
    by_change: BTreeMap<u64, RowName>,
    changes: BTreeMap<RowName, u64>,
    /// Whether deletes are kept in the log: an open migration may have sent the row already.
    pub(super) is_travelling: bool,
}

impl AgentRows {
    /// An agent without any row, the log of which is empty.
    pub(super) fn empty(agent: &AgentId, home: Home) -> Self {
        Self {
            standing: Standing { home, token: FencingToken(0), holder: None, cause: GrantCause::Acquired },
            portable: AgentPortable {
                agent: agent.clone(),
                lifecycle: Lifecycle::Active,
                generation: Generation(0),
                revision: Revision(0),
                head: Digest::ZERO,
                next_seq: Seq(1),
                spec_revision: SpecRevision(0),
                labels: BTreeMap::new(),
                time_ms: 0,
                created_at_ms: 0,
                next_output: 1,
                inputs_pruned: 0,
                failed_starts: 0,
                next_event: 1,
            },
            specs: BTreeMap::new(),
            inputs: BTreeMap::new(),
            open: BTreeSet::new(),
            waking: BTreeSet::new(),
            open_bytes: 0,
            by_id: HashMap::new(),
            by_key: HashMap::new(),
            receipts: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            journal: BTreeMap::new(),
            state: BTreeMap::new(),
            outputs: BTreeMap::new(),
            positions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            destinations: BTreeMap::new(),
            receivers: BTreeMap::new(),
            timers: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            operations: BTreeMap::new(),
            edges: BTreeMap::new(),
            entity_key: None,
            channels: ChannelRows::default(),
            change: 0,
            by_change: BTreeMap::new(),
            changes: BTreeMap::new(),
            is_travelling: false,
        }
    }

    /// What is left of an agent that went away and whose rows were deleted.
    pub(super) fn tombstone(&self, tombstone: Tombstone) -> Self {
        let mut rows = Self::empty(&self.portable.agent, Home::Moved(tombstone));
        rows.entity_key = self.entity_key.as_ref().map(EntityKeyRow::without_secret);
        rows.standing.token = tombstone.token;
        rows.portable.generation = tombstone.generation;
        rows
    }

    // --- reading

    pub(super) fn portable(&self) -> &AgentPortable {
        &self.portable
    }

    pub(super) fn entity_key(&self) -> Option<&EntityKeyRow> {
        self.entity_key.as_ref()
    }

    /// Lets go of the secret, if it is here.
    pub(super) fn erase_secret(&mut self) {
        if let Some(key) = self.entity_key.as_ref().filter(|key| key.key().is_some()) {
            let public = key.without_secret();
            self.put(Row::EntityKey(public));
        }
    }

    pub(super) fn spec(&self) -> Option<&Spec> {
        self.specs.get(&self.portable.spec_revision)
    }

    pub(super) fn input(&self, seq: Seq) -> Option<&StoredInput> {
        self.inputs.get(&seq)
    }

    pub(super) fn input_by_id(&self, id: InputId) -> Option<&StoredInput> {
        self.inputs.get(self.by_id.get(&id)?)
    }

    pub(super) fn input_by_key(&self, key: &str) -> Option<&StoredInput> {
        self.inputs.get(self.by_key.get(key)?)
    }

    pub(super) fn inputs_after(&self, after: u64) -> impl Iterator<Item = &StoredInput> {
        self.inputs.range(Seq(after).next()..).map(|(_, input)| input)
    }

    pub(super) fn open_inputs(&self) -> u64 {
        self.open.len() as u64
    }

    /// Payloads and headers of the open inputs.
    pub(super) fn open_bytes(&self) -> u64 {
        self.open_bytes
    }

    pub(super) fn waking_inputs(&self) -> u64 {
        self.waking.len() as u64
    }

    /// The queued inputs that a newer one of this kind and scope replaces.
    pub(super) fn queued_in(&self, kind: &Kind, scope: &Scope) -> impl Iterator<Item = &StoredInput> {
        let open = self.open.iter().filter_map(|seq| self.inputs.get(seq));
        open.filter(move |input| {
            input.state == InputState::Queued
                && input.input.kind.name() == kind.name()
                && input.placing.scope.as_ref() == Some(scope)
        })
    }

    pub(super) fn receipt(&self, generation: Generation, revision: Revision) -> Option<&Receipt> {
        self.receipts.get(&(generation, revision))
    }

    /// Receipts of a generation from a revision on, ascending.
    pub(super) fn receipts_from(
        &self,
        generation: Generation,
        from: Revision,
    ) -> impl Iterator<Item = &Receipt> {
        let range = (generation, from)..=(generation, Revision(u64::MAX));
        self.receipts.range(range).map(|(_, receipt)| receipt)
    }

    /// The newest snapshot, with its place.
    pub(super) fn newest_snapshot(&self) -> Option<(Slot, &Snapshot)> {
        let snapshots = self.snapshots.iter().map(|(slot, snapshot)| (*slot, snapshot));
        snapshots.max_by_key(|(_, snapshot)| (snapshot.generation, snapshot.revision))
    }

    /// All kept snapshots, oldest first.
    pub(super) fn snapshots(&self) -> Vec<&Snapshot> {
        let mut snapshots: Vec<_> = self.snapshots.values().collect();
        snapshots.sort_by_key(|snapshot| (snapshot.generation, snapshot.revision));
        snapshots
    }

    /// Journal entries of a generation behind a revision, with their inputs.
    pub(super) fn journal_after(
        &self,
        generation: Generation,
        after: Revision,
    ) -> BTreeMap<Revision, JournaledTurn> {
        let range = (generation, after.next())..=(generation, Revision(u64::MAX));
        let turn = |(&(_, revision), entry): (&(Generation, Revision), &JournalEntry)| {
            let named = self.receipt(generation, revision).map_or(&[][..], |receipt| &receipt.inputs);
            let inputs = named.iter().filter_map(|id| self.input_by_id(*id));
            let inputs = inputs.map(|stored| stored.input.clone()).collect();
            (revision, JournaledTurn { entry: entry.clone(), inputs })
        };
        self.journal.range(range).map(turn).collect()
    }

    pub(super) fn is_journaled(&self, generation: Generation, revision: Revision) -> bool {
        self.journal.contains_key(&(generation, revision))
    }

    /// What of the agent needs a plugin.
    pub(super) fn pin_of(&self, plugin: Digest) -> Option<Pin> {
        if matches!(self.standing.home, Home::Moved(_)) || self.portable().lifecycle == Lifecycle::Deleted {
            return None;
        }
        if self.spec().is_some_and(|spec| spec.plugin == plugin) {
            return Some(Pin::Spec);
        }
        let ran = |generation, revision| {
            self.receipt(generation, revision).is_some_and(|receipt| receipt.plugin == plugin)
        };
        let snapshot = self.snapshots().into_iter().find(|kept| ran(kept.generation, kept.revision));
        let turn = || self.journal.keys().find(|(generation, revision)| ran(*generation, *revision));
        snapshot
            .map(|kept| Pin::Snapshot { revision: kept.revision })
            .or_else(|| turn().map(|(_, revision)| Pin::Turn { revision: *revision }))
    }

    /// Drops journal entries that no kept snapshot needs.
    pub(super) fn prune_journal(&mut self) {
        let Some(oldest) = self.snapshots().first().map(|snapshot| (snapshot.generation, snapshot.revision))
        else {
            return;
        };
        let kept = self.journal.split_off(&(oldest.0, oldest.1.next()));
        let pruned = std::mem::replace(&mut self.journal, kept);
        for (generation, revision) in pruned.into_keys() {
            self.unlog(&RowName::Journal(generation, revision));
        }
    }

    /// How many state rows there are, and the bytes of their keys and values.
    pub(super) fn state_size(&self) -> (u64, u64) {
        let bytes: usize = self.state.iter().map(|(key, value)| key.len() + value.len()).sum();
        (self.state.len() as u64, bytes as u64)
    }

    /// As `state_size`, after these writes of different keys.
    pub(super) fn state_size_after(&self, writes: &[(String, Option<Bytes>)]) -> (u64, u64) {
        let (mut keys, mut bytes) = self.state_size();
        for (key, value) in writes {
            if let Some(known) = self.state.get(key) {
                keys -= 1;
                bytes -= (key.len() + known.len()) as u64;
            }
            if let Some(value) = value {
                keys += 1;
                bytes += (key.len() + value.len()) as u64;
            }
        }
        (keys, bytes)
    }

    pub(super) fn state(&self) -> &BTreeMap<String, Bytes> {
        &self.state
    }

    pub(super) fn outputs_after(&self, after: u64) -> impl Iterator<Item = &StoredOutput> {
        self.outputs.range(after.saturating_add(1)..).map(|(_, output)| output)
    }

    pub(super) fn output(
        &self,
        destination: &AgentId,
        generation: Generation,
        number: u64,
    ) -> Option<&StoredOutput> {
        let name = RowName::Output(destination.clone(), generation, number);
        self.outputs.get(self.positions.get(&name)?)
    }

    /// Outputs that wait for a destination.
    pub(super) fn waiting(&self, destination: &AgentId) -> u64 {
        self.waiting.get(destination).copied().unwrap_or(0)
    }

    /// The number that the next output to a destination gets. Under a token of a later epoch also a new destination may have
    /// had outputs that nothing here knows of.
    pub(super) fn next_number(&self, destination: &AgentId) -> u64 {
        let key = (destination.clone(), self.portable.generation);
        self.destinations.get(&key).copied().unwrap_or_else(|| self.standing.token.first_number())
    }

    pub(super) fn pending_outputs(&self) -> u64 {
        self.outputs_after(0).filter(|output| output.state == OutputState::Pending).count() as u64
    }

    pub(super) fn receiver(&self, origin: &AgentId) -> Option<&Receiver> {
        self.receivers.get(origin)
    }

    /// Timers by name.
    pub(super) fn timers(&self) -> impl Iterator<Item = &StoredTimer> {
        self.timers.values()
    }

    /// Its channels, who subscribes to them, and what it subscribes to.
    pub(super) fn channels(&self) -> &ChannelRows {
        &self.channels
    }

    /// Edges by the other agent.
    pub(super) fn edges(&self) -> &BTreeMap<AgentId, Edge> {
        &self.edges
    }

    pub(super) fn operations(&self) -> impl Iterator<Item = &StoredOperation> {
        self.operations.values()
    }

    pub(super) fn operation(&self, id: OperationId) -> Option<&StoredOperation> {
        self.operations.get(&id)
    }

    pub(super) fn timer(&self, name: &str) -> Option<&StoredTimer> {
        self.timers.get(name)
    }

    /// The revision of the oldest kept snapshot of this generation; 0 without one.
    pub(super) fn kept_from(&self) -> Revision {
        let snapshots = self.snapshots.values();
        let of_this = snapshots.filter(|snapshot| snapshot.generation == self.portable.generation);
        of_this.map(|snapshot| snapshot.revision).min().unwrap_or(Revision(0))
    }

    /// Checkpoints by generation.
    pub(super) fn checkpoints(&self) -> impl Iterator<Item = &ReceiptCheckpoint> {
        self.checkpoints.values()
    }

    pub(super) fn checkpoint(&self, generation: Generation) -> Option<&ReceiptCheckpoint> {
        self.checkpoints.get(&generation)
    }

    /// Number of the last change to any row.
    pub(super) fn change(&self) -> u64 {
        self.change
    }

    /// Rows whose last change is above `after`, in order of change.
    pub(super) fn frames_after(&self, after: u64) -> impl Iterator<Item = RowFrame> {
        self.by_change
            .range(after.saturating_add(1)..)
            .map(|(change, name)| RowFrame { change: *change, row: self.row(name) })
    }

    fn row(&self, name: &RowName) -> Row {
        let row = match name {
            RowName::Agent => Some(Row::Agent(self.portable.clone())),
            RowName::Spec(revision) => {
                self.specs.get(revision).cloned().map(|spec| Row::Spec { revision: *revision, spec })
            }
            RowName::Input(seq) => self.inputs.get(seq).cloned().map(Row::Input),
            RowName::Receipt(generation, revision) => {
                self.receipt(*generation, *revision).cloned().map(Row::Receipt)
            }
            RowName::Snapshot(slot) => {
                let snapshot = self.snapshots.get(slot).cloned();
                snapshot.map(|snapshot| Row::Snapshot { slot: *slot, snapshot })
            }
            RowName::Journal(generation, revision) => {
                let entry = self.journal.get(&(*generation, *revision)).cloned();
                entry.map(|entry| Row::Journal { generation: *generation, revision: *revision, entry })
            }
            RowName::State(key) => {
                let value = self.state.get(key).cloned();
                let deleted = Row::Deleted(RowKey::State(key.clone()));
                Some(value.map_or(deleted, |value| Row::State { key: key.clone(), value }))
            }
            RowName::Output(destination, generation, number) => {
                let output = self.output(destination, *generation, *number).cloned();
                let key = RowKey::Output(destination.clone(), *generation, *number);
                Some(output.map_or(Row::Deleted(key), Row::Output))
            }
            RowName::Destination(destination, generation) => self
                .destinations
                .get(&(destination.clone(), *generation))
                .map(|next_number| Row::Destination {
                    destination: destination.clone(),
                    generation: *generation,
                    next_number: *next_number,
                }),
            RowName::Receiver(origin) => self.receivers.get(origin).cloned().map(Row::Receiver),
            RowName::Timer(name) => {
                let deleted = Row::Deleted(RowKey::Timer(name.clone()));
                Some(self.timers.get(name).cloned().map_or(deleted, Row::Timer))
            }
            RowName::ReceiptCheckpoint(generation) => {
                self.checkpoint(*generation).cloned().map(Row::ReceiptCheckpoint)
            }
            RowName::Operation(id) => {
                let deleted = Row::Deleted(RowKey::Operation(*id));
                Some(self.operation(*id).cloned().map_or(deleted, Row::Operation))
            }
            RowName::Edge(peer) => {
                let deleted = Row::Deleted(RowKey::Edge(peer.clone()));
                Some(self.edges.get(peer).cloned().map_or(deleted, Row::Edge))
            }
            RowName::EntityKey => self.entity_key.clone().map(Row::EntityKey),
            RowName::Channel(name) => Some(self.channels.channel_row(name)),
            RowName::Subscriber(channel, agent) => Some(self.channels.subscriber_row(channel, agent)),
            RowName::Subscription(owner, channel) => Some(self.channels.subscription_row(owner, channel)),
        };
        row.expect(
            "only state rows, outputs, timers, operations, edges and those of channels are ever deleted",
        )
    }

    // --- writing: each changes one row and logs it

    /// Writes a row under the next change number.
    pub(super) fn put(&mut self, row: Row) {
        let name = RowName::of(&row);
        self.change += 1;
        self.log(name, self.change);
        self.set(row);
    }

    /// Changes the agent's own row.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut AgentPortable)) {
        let mut portable = self.portable.clone();
        change(&mut portable);
        self.put(Row::Agent(portable));
    }

    /// Deletes a row, when it is there.
    pub(super) fn delete(&mut self, key: RowKey) {
        let name = RowName::of(&Row::Deleted(key.clone()));
        if !self.changes.contains_key(&name) {
            return;
        }
        if self.keeps_deletes() {
            self.put(Row::Deleted(key));
        } else {
            self.unlog(&name);
            self.set(Row::Deleted(key));
        }
    }

    /// Removes an ended input, as if it had never been here. Its seq is not given again.
    pub(super) fn forget_input(&mut self, seq: Seq) {
        if let Some(input) = self.inputs.remove(&seq) {
            self.by_id.remove(&input.input.id);
            if let Some(key) = &input.idempotency_key {
                self.by_key.remove(key);
            }
            self.unlog(&RowName::Input(seq));
        }
    }

    /// Lets go of what only the guest's own history explains: its snapshots and journal, its `state` rows,
    /// its timers. No migration is open.
    pub(super) fn clear_state(&mut self) {
        debug_assert!(!self.is_travelling, "the raised token has closed the migrations");
        for slot in std::mem::take(&mut self.snapshots).into_keys() {
            self.unlog(&RowName::Snapshot(slot));
        }
        for (generation, revision) in std::mem::take(&mut self.journal).into_keys() {
            self.unlog(&RowName::Journal(generation, revision));
        }
        for key in std::mem::take(&mut self.state).into_keys() {
            self.unlog(&RowName::State(key));
        }
        for name in std::mem::take(&mut self.timers).into_keys() {
            self.unlog(&RowName::Timer(name));
        }
        for operation in std::mem::take(&mut self.operations).into_keys() {
            self.unlog(&RowName::Operation(operation));
        }
    }

    /// Removes the edges of an agent that is deleted. No migration is open.
    pub(super) fn clear_edges(&mut self) {
        for peer in std::mem::take(&mut self.edges).into_keys() {
            self.unlog(&RowName::Edge(peer));
        }
    }

    /// Lets the numbers of outputs go on above all that may have been used since the rows were copied.
    pub(super) fn skip_numbers(&mut self, epochs: u64) {
        let skipped = FencingToken::NUMBERS_PER_EPOCH * epochs;
        for ((destination, generation), next_number) in self.destinations.clone() {
            self.put(Row::Destination { destination, generation, next_number: next_number + skipped });
        }
    }

    /// Removes the receipts of a generation up to a revision, and answers how many there were.
    pub(super) fn forget_receipts(&mut self, generation: Generation, to: Revision) -> u64 {
        let range = (generation, Revision(0))..=(generation, to);
        let gone: Vec<_> = self.receipts.range(range).map(|(key, _)| *key).collect();
        for (generation, revision) in &gone {
            self.receipts.remove(&(*generation, *revision));
            self.unlog(&RowName::Receipt(*generation, *revision));
        }
        gone.len() as u64
    }

    /// Takes a row from another store under its own change number, unless a later one of the same name is here.
    ///
    /// # Errors
    /// When the change number is another row's, or the row is another agent's.
    pub(super) fn receive(&mut self, frame: RowFrame) -> Result<(), String> {
        let RowFrame { change, mut row } = frame;
        if let Some(owner) = row.owner().filter(|owner| **owner != self.portable.agent) {
            return Err(format!("a row is of agent {owner}"));
        }
        if let Row::Input(input) = &mut row {
            input.accepted_by = Incarnation(0);
        }
        let name = RowName::of(&row);
        if self.changes.get(&name).is_some_and(|here| *here >= change) {
            return Ok(());
        }
        if self.by_change.get(&change).is_some_and(|other| *other != name) {
            return Err(format!("change {change} is two rows"));
        }
        self.change = self.change.max(change);
        self.log(name, change);
        self.set(row);
        Ok(())
    }

    /// Whether the agent's own row has been written or received.
    pub(super) fn has_agent_row(&self) -> bool {
        self.changes.contains_key(&RowName::Agent)
    }

    /// Forgets deletes up to a change number: nobody asks for them any more.
    pub(super) fn forget_deletes(&mut self, up_to: u64) {
        let old = self.by_change.range(..=up_to).map(|(_, name)| name);
        let gone: Vec<RowName> =
            old.filter(|name| matches!(self.row(name), Row::Deleted(_))).cloned().collect();
        gone.iter().for_each(|name| self.unlog(name));
    }

    fn log(&mut self, name: RowName, change: u64) {
        self.unlog(&name);
        self.by_change.insert(change, name.clone());
        self.changes.insert(name, change);
    }

    fn unlog(&mut self, name: &RowName) {
        if let Some(change) = self.changes.remove(name) {
            self.by_change.remove(&change);
        }
    }

    fn set(&mut self, row: Row) {
        match row {
            Row::Agent(portable) => self.portable = portable,
            Row::Spec { revision, spec } => {
                self.specs.insert(revision, spec);
            }
            Row::Input(input) => self.set_input(input),
            Row::Receipt(receipt) => {
                self.receipts.insert((receipt.generation, receipt.revision), receipt);
            }
            Row::Snapshot { slot, snapshot } => {
                self.snapshots.insert(slot, snapshot);
            }
            Row::Journal { generation, revision, entry } => {
                self.journal.insert((generation, revision), entry);
            }
            Row::State { key, value } => {
                self.state.insert(key, value);
            }
            Row::Output(output) => {
                self.positions.insert(RowName::of_output(&output), output.position);
                self.count_waiting(&output, 1);
                if let Some(before) = self.outputs.insert(output.position, output) {
                    self.count_waiting(&before, -1);
                }
            }
            Row::Destination { destination, generation, next_number } => {
                self.destinations.insert((destination, generation), next_number);
            }
            Row::Receiver(receiver) => {
                self.receivers.insert(receiver.origin.clone(), receiver);
            }
            Row::ReceiptCheckpoint(signed) => {
                self.checkpoints.insert(signed.checkpoint.generation, signed);
            }
            Row::Deleted(RowKey::State(key)) => {
                self.state.remove(&key);
            }
            Row::Timer(timer) => {
                self.timers.insert(timer.name.clone(), timer);
            }
            Row::Deleted(RowKey::Timer(name)) => {
                self.timers.remove(&name);
            }
            Row::Operation(stored) => {
                self.operations.insert(stored.id(), stored);
            }
            Row::EntityKey(key) => self.entity_key = Some(key),
            Row::Channel(_)
            | Row::Subscriber(_)
            | Row::Subscription(_)
            | Row::Deleted(RowKey::Channel(_) | RowKey::Subscriber(..) | RowKey::Subscription(..)) => {
                self.channels.set(row);
            }
            Row::Deleted(RowKey::Operation(operation)) => {
                self.operations.remove(&operation);
            }
            Row::Edge(edge) => {
                self.edges.insert(edge.peer.clone(), edge);
            }
            Row::Deleted(RowKey::Edge(peer)) => {
                self.edges.remove(&peer);
            }
            Row::Deleted(RowKey::Output(destination, generation, number)) => {
                self.remove_output(&RowName::Output(destination, generation, number));
            }
        }
    }

    fn remove_output(&mut self, name: &RowName) {
        let position = self.positions.remove(name);
        if let Some(before) = position.and_then(|position| self.outputs.remove(&position)) {
            self.count_waiting(&before, -1);
        }
    }

    fn count_waiting(&mut self, output: &StoredOutput, more: i64) {
        if output.state == OutputState::Pending {
            let waiting = self.waiting.entry(output.output.destination.clone()).or_default();
            *waiting = waiting.saturating_add_signed(more);
        }
    }

    fn set_input(&mut self, input: StoredInput) {
        debug_assert_eq!(input.state.is_open(), input.ended_at_ms.is_none(), "what has ended says when");
        let seq = input.seq;
        let is_open = input.state.is_open();
        for (set, is_in) in [(&mut self.open, is_open), (&mut self.waking, is_open && input.placing.wakes)] {
            if is_in {
                set.insert(seq);
            } else {
                set.remove(&seq);
            }
        }
        self.by_id.insert(input.input.id, input.seq);
        if let Some(key) = &input.idempotency_key {
            self.by_key.insert(key.clone(), input.seq);
        }
        self.open_bytes += if is_open { input.input.bytes() } else { 0 };
        let before = self.inputs.insert(input.seq, input).filter(|before| before.state.is_open());
        self.open_bytes -= before.map_or(0, |before| before.input.bytes());
    }
}

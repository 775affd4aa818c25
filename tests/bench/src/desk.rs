//! Units as a driver makes them, for figures of the store alone: the turns are not run, but all that a commit looks at is
//! what it would be.

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::future::try_join_all;
use godwit_core::digest::Digest;
use godwit_core::id::{AgentId, Revision, RunId, Seq, SpecRevision};
use godwit_core::input::{Outcome, Reply, ReplyOutcome};
use godwit_core::lease::Lease;
use godwit_core::receipt::{BoundaryKind, Receipt};
use godwit_core::snapshot::Snapshot;
use godwit_core::store::{Boundary, InputEnd, Owner, RuntimeStore, Step, Unit};
use godwit_core::time::{Clock, SystemClock};

use crate::product::{self, Product};

/// Agents that are set up at the same time.
const LANES: usize = 64;

/// An agent's owner, who knows where its history ends.
pub(crate) struct Desk {
    owner: Owner,
    plugin: Digest,
    /// After every turn.
    state: Bytes,
    head: Digest,
    revision: Revision,
    next_seq: Seq,
}

/// Makes agents of a plugin in a store and takes them; each has the state `state` after every turn.
///
/// # Errors
/// When the store refuses.
pub(crate) async fn open(
    store: &dyn RuntimeStore,
    product: &Product,
    agents: &[AgentId],
    state: &Bytes,
) -> Result<Vec<Desk>> {
    product.put(store).await?;
    let session = product::join(store).await?;
    let lanes = agents.chunks(agents.len().div_ceil(LANES).max(1));
    let made = try_join_all(lanes.map(|lane| async move {
        for agent in lane {
            product.create(store, agent.clone()).await?;
        }
        let leases = store.acquire(session.incarnation, lane).await?;
        leases
            .into_iter()
            .map(|lease| Ok(Desk::new(lease?, product.digest(), state.clone())))
            .collect::<Result<Vec<_>>>()
    }))
    .await?;
    Ok(made.into_iter().flatten().collect())
}

impl Desk {
    fn new(lease: Lease, plugin: Digest, state: Bytes) -> Self {
        let Lease { agent, generation, incarnation, token, .. } = lease;
        let owner = Owner { agent, generation, incarnation, token };
        Self { owner, plugin, state, head: Digest::ZERO, revision: Revision(0), next_seq: Seq(1) }
    }

    /// Commits `init` and one ask, so that the agent has a history.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn begin(&mut self, store: &dyn RuntimeStore) -> Result<()> {
        let (base, init) = (self.revision, self.boundary(BoundaryKind::Init, None));
        let unit = Unit { owner: self.owner.clone(), base, steps: vec![Step::Boundary(Box::new(init))] };
        for unit in [unit, self.ask("begin")] {
            let outcome = store.commit_turns(unit).await;
            anyhow::ensure!(outcome.failure.is_none(), "{:?}", outcome.failure);
        }
        Ok(())
    }

    /// One ask: an input that is accepted and answered in one unit, with the state after it.
    pub(crate) fn ask(&mut self, payload: &str) -> Unit {
        let (base, seq) = (self.revision, self.next_seq);
        let input = product::new_input(self.owner.agent.clone(), payload);
        let boundary = self.boundary(BoundaryKind::Turn, Some((seq, &input)));
        self.next_seq = seq.next();
        let steps = vec![Step::Accept { input: Box::new(input), seq }, Step::Boundary(Box::new(boundary))];
        Unit { owner: self.owner.clone(), base, steps }
    }

    fn boundary(
        &mut self,
        kind: BoundaryKind,
        input: Option<(Seq, &godwit_core::input::NewInput)>,
    ) -> Boundary {
        let clock: &dyn Clock = &SystemClock;
        let now_ms = clock.wall_ms();
        self.revision = self.revision.next();
        let Owner { generation, token, incarnation, .. } = self.owner;
        let snapshot = Snapshot {
            generation,
            revision: self.revision,
            token,
            time_ms: now_ms,
            plugin_version: product::VERSION.to_owned(),
            state: self.state.clone(),
        };
        let receipt = Receipt {
            agent: self.owner.agent.clone(),
            generation,
            revision: self.revision,
            run: RunId::generate(now_ms, clock.random()),
            sequence: 0,
            kind,
            inputs: input.iter().map(|(_, input)| input.input.id).collect(),
            token,
            host: product::host(),
            incarnation,
            plugin: self.plugin,
            spec_revision: SpecRevision(1),
            effects: Digest::ZERO,
            state: Some(snapshot.state_digest()),
            journal: None,
            parent: self.head,
            elapsed_us: 1,
            fuel: None,
            committed_at_ms: now_ms,
            from: None,
        };
        self.head = receipt.digest();
        let reply = Reply {
            outcome: ReplyOutcome::Ok(Bytes::from_static(b"1")),
            content_type: "text/plain".to_owned(),
            headers: Vec::new(),
        };
        let outcome = Outcome::Committed { revision: self.revision, token, reply };
        Boundary {
            ends: input.into_iter().map(|(seq, _)| InputEnd { seq, outcome: outcome.clone() }).collect(),
            receipt,
            snapshot: Some(snapshot),
            journal: None,
            state: Vec::new(),
            outputs: Vec::new(),
            channels: Vec::new(),
            timers: Vec::new(),
            operations: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// The state of the guest `hostile` once it has noted something.
///
/// # Errors
/// When the guest fails.
pub(crate) fn state(product: &Product) -> Result<Bytes> {
    let (mut guest, context) = (product.start()?, product::context());
    guest.init(&context)?;
    guest.handle(&context, &[product::input(&crate::bench::note())])?;
    guest.snapshot(&context).context("the guest gives no snapshot")
}

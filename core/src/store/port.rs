//! The port itself: every method, with its errors and what a crash leaves.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::digest::Digest;
use crate::edge::Edge;
use crate::event::{Event, EventKind, NewEvent};
use crate::id::{
    AgentId, ClaimId, Generation, HostId, Incarnation, InputId, MigrationId, OperationId, Revision, Seq,
    StoreId,
};
use crate::identity::EntityKey;
use crate::input::{AbandonReason, InputState, NewInput};
use crate::lease::Lease;
use crate::operation::{OperationEnd, StoredOperation};
use crate::output::StoredOutput;
use crate::receipt::{Receipt, ReceiptCheckpoint};
use crate::snapshot::Snapshot;
use crate::spec::{PluginInfo, Spec};
use crate::timer::{DueTimer, StoredTimer};

use super::{
    AcceptError, Accepted, Adoption, AgentImage, AgentRow, Handoff, ImportRequest, KeptSnapshot,
    LifecycleCommit, MigrationRecord, NewAgent, OutputEnd, OutputKey, Owner, Page, PrepareRequest, Pruned,
    Receiver, Restored, Retention, RowFrame, RowSink, Session, SessionRequest, SessionRow, Standing,
    StoreChannels, StoreDocuments, StoreError, StoreGroups, StoreMark, StoreStandbys, StoredInput, Unit,
    UnitOutcome,
};

/// Everything durable. The contract is in the documentation of `store`.
#[async_trait]
pub trait RuntimeStore: StoreDocuments + StoreChannels + StoreGroups + StoreStandbys {
    /// The store's own id, made with it. **R**
    fn id(&self) -> StoreId;

    /// How far the store has come. **R**
    async fn mark(&self) -> Result<StoreMark, StoreError>;

    /// Writes a consistent copy of the store to a new file, durably, while the store is used. No host can join it before it was
    /// restored. **R**
    ///
    /// # Errors
    /// `Unsupported` by stores that are no file. `Conflict` when there is such a file. After any error there is none.
    ///
    /// Crash: perhaps a file beside it that is to be deleted.
    async fn backup(&self, _to: &Path) -> Result<(), StoreError> {
        Err(StoreError::Unsupported { what: "backups" })
    }

    /// Makes a restored backup usable, above a mark that was noted of the store it is a copy of: a higher epoch, session and event
    /// than both have. All sessions die. The tokens of all agents rise by as many epochs as the store's does, so that they are
    /// above all that were ever given. Agents at home here or being handed off are at home here afterwards, held by nobody and
    /// suspended: they may live on elsewhere. Prepared ones stay so, suspended as well; unbound copies go. Open migrations are
    /// closed as `Aborted` with `Failure::Fenced`, but for those of prepared agents. Appends `StoreRestored`, and
    /// `AgentSuspended` for each agent.
    ///
    /// # Errors
    /// `Conflict` while another host uses the store, or when a token has no room above.
    ///
    /// Crash: restored or not; restored, it is above the mark.
    async fn restore(&self, above: StoreMark) -> Result<Restored, StoreError>;

    // --- host sessions

    /// Opens a session: a new incarnation. Older sessions of the same host key die; in an exclusive store all do, and copies go
    /// that no open migration feeds and that do not stand by. Appends `HostJoined`.
    ///
    /// Crash: a session nobody uses; it expires, or dies at the next exclusive join.
    async fn join(&self, request: SessionRequest) -> Result<Session, StoreError>;

    /// Extends a session by its ttl.
    ///
    /// # Errors
    /// `SessionDead` once it was buried, replaced or left: for ever.
    async fn heartbeat(&self, incarnation: Incarnation) -> Result<(), StoreError>;

    /// Marks sessions whose time has passed as dead, for ever, and answers which. Appends `HostGone` for each.
    async fn bury_expired(&self) -> Result<Vec<Incarnation>, StoreError>;

    /// Ends a session and frees its agents' leases. Tokens stay. Appends `HostGone`. A dead session is left as it is.
    async fn leave(&self, incarnation: Incarnation) -> Result<(), StoreError>;

    /// All sessions that are not dead, by incarnation. **R**
    async fn sessions(&self) -> Result<Vec<SessionRow>, StoreError>;

    // --- leases

    /// Takes agents that are free or whose holder's session is dead; each taken agent's token rises by one, and
    /// `LeaseAcquired` is appended. One answer per agent, in order. **H**
    ///
    /// An agent this incarnation already holds is answered with its lease as it stands (rule 7).
    ///
    /// # Errors
    /// Per agent `Fenced` names a live holder; `NotHome`, `NoAgent`. For the whole call `SessionDead`.
    ///
    /// Crash: a lease under a session that will die.
    async fn acquire(
        &self,
        incarnation: Incarnation,
        agents: &[AgentId],
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError>;

    /// Frees a lease; the token stays. Appends `LeaseReleased`. Repeating it while nobody else took the agent is success, and
    /// no event. **F** (no revision)
    async fn release(&self, owner: &Owner) -> Result<(), StoreError>;

    // --- agents

    /// Claims an id for a host that is about to create an agent or to take one in from an archive, for `CLAIM_MAX` by the store's wall clock. It takes the place
    /// of the host's claim before it: what that one stood for may have yielded to others meanwhile. **H** but that nobody
    /// need be there.
    async fn claim(&self, agent: &AgentId, host: HostId, claim: ClaimId) -> Result<(), StoreError>;

    /// What a host says when host `to`, of another store, is about to create an agent: the lowest host that has claimed the id
    /// here, if it is lower than `to`. Otherwise the claims of others go: `to` comes first.
    async fn yield_claims(&self, agent: &AgentId, to: HostId) -> Result<Option<HostId>, StoreError>;

    /// Creates an agent at home here: generation 1, revision 0, token 0, no holder, with an entity key of its own, if the
    /// store can seal secrets. Appends `AgentCreated`.
    /// The same content again is success (`false`); a tombstone of the id is `NotHome`, a deleted agent `Lifecycle`.
    ///
    /// # Errors
    /// `Conflict` when the id exists with another spec or other labels; `NoPlugin` when the plugin of a new agent is not
    /// stored; `Unclaimed` when the claim that a new one is made under stands no more. A claim goes with the creation.
    async fn create(&self, agent: NewAgent) -> Result<bool, StoreError>;

    /// An agent's row, whatever its home. **R**
    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRow>, StoreError>;

    /// Rows of agents with ids after `after`, ascending. **R**
    async fn agents(&self, after: Option<&AgentId>, limit: usize) -> Result<Vec<AgentRow>, StoreError>;

    /// Agents at home here that this incarnation should look after, held by it, by nobody, or under a dead session: those that
    /// run (`Lifecycle::runs`) with open inputs that wake, those that retire, those that publish (`Lifecycle::publishes`) with
    /// pending outputs. In an order that starves nobody: repeated calls come to each of them, though none of them changes. **R**
    async fn runnable(&self, incarnation: Incarnation, limit: usize) -> Result<Vec<AgentId>, StoreError>;

    /// All that is needed to run an agent: row, spec, plugin, newest snapshot, receipts and journal since it. With `at` the
    /// kept snapshot of that revision of the current generation takes the newest one's place.
    /// Its digests are checked by the store as far as rows go and by `AgentImage::check` across rows. `None` when it has
    /// moved away, or no snapshot of that revision is kept. **R**
    ///
    /// # Errors
    /// `Corrupt` when stored bytes don't match their digest or can't be read.
    async fn image(&self, agent: &AgentId, at: Option<Revision>) -> Result<Option<AgentImage>, StoreError>;

    /// As `image`, for who has a snapshot and its state's digest at hand: if it is the newest, it is not read again. **R**
    ///
    /// # Errors
    /// As `image`; not of bytes that were not read.
    async fn image_with(
        &self,
        agent: &AgentId,
        _snapshot: Snapshot,
        _state: Digest,
    ) -> Result<Option<AgentImage>, StoreError> {
        self.image(agent, None).await
    }

    /// An agent's current spec, `None` when it has none here. **R**
    async fn spec(&self, agent: &AgentId) -> Result<Option<Spec>, StoreError>;

    /// The entity key of an agent at home here, from its creation over resets, upgrades and moves until it is made anew, or is
    /// deleted and nothing that it has sent waits. `None` where the secret is not: then, and where none came or is sealed. **R**
    ///
    /// # Errors
    /// `Conflict` when another key seals it, `Corrupt` when its seal is damaged.
    async fn entity_key(&self, agent: &AgentId) -> Result<Option<EntityKey>, StoreError>;

    /// The kept snapshots of an agent, oldest first. **R**
    async fn kept_snapshots(&self, agent: &AgentId) -> Result<Vec<KeptSnapshot>, StoreError>;

    /// Replaces an agent's labels and appends `LabelsChanged`; nothing, when they are so already. **H**
    ///
    /// # Errors
    /// `Lifecycle` when the agent is deleted.
    async fn set_labels(&self, agent: &AgentId, labels: BTreeMap<String, String>) -> Result<(), StoreError>;

    /// Writes an agent's side of an edge, and appends `EdgeWired`. One that is there already stays as it is (`false`), but
    /// that one which a roster manages becomes one that it does not, when that is asked. **H**
    ///
    /// # Errors
    /// `Lifecycle` when the agent is deleted; `Conflict` when it has `EDGES_MAX`.
    async fn put_edge(&self, agent: &AgentId, edge: Edge) -> Result<bool, StoreError>;

    /// Removes an agent's side of an edge, and appends `EdgeUnwired`. Answers whether it was there. **H**
    async fn remove_edge(&self, agent: &AgentId, peer: &AgentId) -> Result<bool, StoreError>;

    /// The sides of edges of the agents at home here, or of one of them, by agent and peer, behind `after`. They are gone
    /// with the agent's deletion. **R**
    async fn edges(
        &self,
        agent: Option<&AgentId>,
        after: Option<&(AgentId, AgentId)>,
        limit: usize,
    ) -> Result<Vec<(AgentId, Edge)>, StoreError>;

    /// Makes an agent anew whose state is `Deleted`: `Active`, generation + 1, token + 1, revision 0, the next spec revision,
    /// nobody holds it, another entity key. What the deleted one sent before is still delivered first. Appends `AgentCreated`. An agent that is
    /// `Active` with this very content is success (`false`): a repetition. **H**
    ///
    /// # Errors
    /// `Lifecycle` when it is in any other state, `Conflict` when it is active with other content; `NoAgent`, `NoPlugin`.
    ///
    /// Crash: deleted or made anew.
    async fn recreate(&self, agent: NewAgent) -> Result<bool, StoreError>;

    /// Moves an agent along the table of lifecycles: state, inputs, token, generation and events together. **F** (no
    /// revision)
    ///
    /// | the commit says | what happens |
    /// |---|---|
    /// | token `Raise`, `RaiseAndFree` | token + 1, held on by the owner, or by nobody: a grant as any other (rule 5) |
    /// | a raised generation | generation + 1, revision 0, head `Digest::ZERO`; seqs, receipts and outputs go on as they are |
    /// | a cleared state | the snapshot, the `state` rows and the timers are gone |
    /// | `Deleted` is next | the secret of the entity key is gone, the public half stays |
    /// | inputs to abandon | those that are open end as `Outcome::Abandoned`; `InputsAbandoned` with their number and the reason |
    ///
    /// A commit that was made before, under the token that it raised, is a repetition: it is answered as it stands.
    ///
    /// # Errors
    /// `Lifecycle` when the agent is in another state than `commit.from()`, and not already in the next one; `Conflict` when
    /// inputs would stay open in a terminal state.
    ///
    /// Crash: all of it or nothing.
    async fn commit_lifecycle(&self, owner: &Owner, commit: LifecycleCommit) -> Result<Standing, StoreError>;

    // --- inputs

    /// Accepts an input durably. Any host on the store may accept; the owner finds the row. **H**
    ///
    /// Order of checks: home, delivery stamp, idempotency key, id, lifecycle, reach, inbox bound. So what is here already is
    /// answered whatever the agent's state: a client that asks again learns the truth. With a delivery stamp the
    /// receiver's row for (agent, origin) decides, in this transaction: no origin hash where the row has one is `Unproven`; another
    /// is `Namesake` in the same epoch of the token and no higher `origin_generation`, else `AnotherKey` unless vouched for
    /// (without a row, by the origin's own or another's); a lower token is `StalePublisher`; a lower generation is
    /// `Accepted::AlreadyEnded`; a higher one starts the row anew at number 1; then next = max(next, lowest_open); number < next
    /// is `AlreadyEnded`; number > next is `Gap`; else it is accepted, next = number + 1. The row keeps the highest token, also
    /// when it is `AlreadyEnded`; an error leaves it alone.
    ///
    /// `accepted_at_ms` becomes the store's wall time. A key or id that is here already answers `Duplicate` under the same
    /// body digest; the key is looked up first. Where the stored one is open and silent and this one would wake, it wakes
    /// from now on. `by` is recorded and not checked.
    ///
    /// A delivery that has to do with a channel does to the rows what `crate::channel::rules` says, in its turn and no other. A
    /// request becomes no input: `Answered`, and the answer is in the agent's outbox; while too much waits there for whoever
    /// asks it is `Busy`. An event that the agent does not subscribe to is `NotSubscribed`.
    ///
    /// What admission makes of it, `NewInput::placing` under the current spec's silent intents, is stored with it. All
    /// queued inputs of the same kind and scope, and no staged ones, end as `Replaced` by it, with an `InputReplaced` each.
    ///
    /// # Errors
    /// `AcceptError`; nothing was written, but for `AcceptError::Store(Unknown)`. Another body under a known key is `KeyReused`,
    /// under a known id `Conflict`; `Lifecycle` when the agent accepts nothing (`Lifecycle::accepts`); `NotAddressable` and
    /// `NoEdge` when the input's reach (`Reach`) does not take it to the agent. But the end of a request (`crate::reply`) is a
    /// `Duplicate` of the end that is here; accepting the first deletes the timer that watches the request.
    ///
    /// Crash: accepted or not; the client reads back by key or input id.
    async fn accept(&self, input: NewInput, by: Incarnation) -> Result<Accepted, AcceptError>;

    /// One input. **R**
    async fn input(&self, agent: &AgentId, input: InputId) -> Result<Option<StoredInput>, StoreError>;

    /// The input that was accepted under an idempotency key. **R**
    async fn input_by_key(&self, agent: &AgentId, key: &str) -> Result<Option<StoredInput>, StoreError>;

    /// Open inputs in admission order after `page.after` (a seq). **R**
    async fn open_inputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredInput>, StoreError>;

    /// What agents that have rows here have heard from an origin, at most `PAGE_MAX` of them. **R**
    async fn heard_of(&self, origin: &AgentId) -> Result<Vec<Receiver>, StoreError>;

    /// Inputs in admission order, of one state or all. **R**
    async fn inputs(
        &self,
        agent: &AgentId,
        state: Option<InputState>,
        page: Page,
    ) -> Result<Vec<StoredInput>, StoreError>;

    /// Gives a dead letter another chance: queued, no attempts, no outcome, at its old place, and it wakes. **H**
    ///
    /// # Errors
    /// `Conflict` when it is not dead-lettered, or not here; `Lifecycle` when the agent accepts nothing.
    async fn redrive(&self, agent: &AgentId, input: InputId) -> Result<(), StoreError>;

    /// Ends one input that is in the state `from` as abandoned, and appends `InputsAbandoned` with its id. One that was
    /// abandoned for this reason is left as it is. **H**
    ///
    /// # Errors
    /// `Conflict` when it is in another state, when inputs in that state can't be abandoned, or when it is not here.
    async fn abandon(
        &self,
        agent: &AgentId,
        input: InputId,
        from: InputState,
        reason: AbandonReason,
    ) -> Result<(), StoreError>;

    // --- retention

    /// Removes what has ended and is no longer kept: looks at `PRUNE_ROWS_MAX` inputs behind seq `after`, and at as many
    /// outputs. The ages are judged by the store's clock. **H**
    ///
    /// An input stays while it is open, young, one of the newest dead letters, or ended by a turn of this generation whose
    /// journal entry is kept, which needs it to run again, if the agent is not deleted. While a migration of the agent is open, nothing
    /// goes. The agent's row counts what went.
    ///
    /// Crash: all of it or nothing.
    async fn prune(&self, agent: &AgentId, retention: &Retention, after: Seq) -> Result<Pruned, StoreError>;

    /// The revision of the oldest kept snapshot of the agent's generation: what is above it may be replayed. 0 without one.
    /// **R**
    async fn kept_from(&self, agent: &AgentId) -> Result<Revision, StoreError>;

    /// Replaces the receipts of a generation up to a revision by a signed checkpoint, which replaces the one before it.
    /// Answers how many receipts went. **H**
    ///
    /// # Errors
    /// `Conflict` when it is not signed by its host; when there is no receipt of its revision and digest, or one before it is
    /// missing; when it is not below the oldest kept snapshot of the agent's generation. `Busy` while a migration of the
    /// agent is open.
    ///
    /// Crash: replaced or not.
    async fn checkpoint_receipts(&self, checkpoint: ReceiptCheckpoint) -> Result<u64, StoreError>;

    /// The checkpoints of an agent's generations, ascending. **R**
    async fn receipt_checkpoints(&self, agent: &AgentId) -> Result<Vec<ReceiptCheckpoint>, StoreError>;

    // --- boundaries

    /// Commits a chain of steps of one agent, in order: a prefix of it. The first step that fails ends the chain, and
    /// nothing of that step is written. **F**
    ///
    /// A boundary that ends inputs as `KilledHost` counts them for its receipt's plugin (`PluginInfo::killed_hosts`) and
    /// appends `PluginFlagged` for each. A boundary raises the revision by one and must build on the revision before; its receipt's parent must be the
    /// row's head. Attempts and checkpoints leave the revision. Outputs get their numbers here.
    ///
    /// | what does not fit | answer |
    /// |---|---|
    /// | home; owner; `base`; a receipt's or checkpoint's revision; an accepted seq | `NotHome`; `Fenced`; `Stale` |
    /// | a boundary that the state does not take (`Lifecycle::takes_boundary`) | `Lifecycle` |
    /// | a receipt's parent, agent, generation, token or incarnation | `Conflict` |
    /// | an end of, or an attempt at, an input that was replaced or abandoned meanwhile | `Stale` |
    /// | `receipt.inputs` are not the ids of `ends`, in order; an end of another input that is not open | `Conflict` |
    /// | an end's revision is not the receipt's, a committed end's token not the owner's, another kind of end | `Conflict` |
    /// | `receipt.state` is not the digest of `snapshot`, or only one of them is there | `Conflict` |
    /// | an attempt at another input that is not open, or with a state that is not open | `Conflict` |
    /// | `receipt.journal` is not the digest of `journal`, or only one of them is there | `Conflict` |
    /// | attempts at `init` after the first boundary | `Conflict` |
    /// | a checkpoint other than the sound snapshot that is stored for the same revision | `Conflict` |
    /// | `Step::Accept` of a delivery, or of an input with a supersession key | `Unsupported`: those go through `accept` |
    ///
    /// | a spec revision that is not the one after the current one; unless it is the current one, with this very spec, already | `Conflict` |
    /// | `Step::Configure` with another plugin after the first boundary; a boundary of kind `Upgrade` outside `Step::Upgrade` | `Conflict` |
    /// | an upgrade whose receipt does not name both plugins and the new spec revision, or that ends inputs | `Conflict` |
    /// | a boundary of kind `Repair` outside `Step::Repair`; a repair that is not `Repair::is_sound` | `Conflict` |
    /// | a repair of an agent in another state than it names | `Lifecycle` |
    /// | a plugin that is not stored | `NoPlugin` |
    ///
    /// `Step::Configure` appends `SpecChanged`.
    ///
    /// Two snapshots are kept, in slots; the newest is the one with the higher generation and revision. A boundary with a
    /// snapshot and no journal entry writes the first slot. One with both, and a checkpoint, writes the slot that the newest
    /// does not hold, and then the journal entries up to the older one go: nothing kept needs them. So does a repair, but it
    /// takes the newest one's slot when that one is damaged. A checkpoint of a kept revision writes over damaged bytes alone.
    ///
    /// `Step::Accept` checks as `accept` does, then the seq; it keeps `accepted_at_ms`, which the guest has seen.
    ///
    /// A unit that builds on an older revision and whose boundaries (at least one) are all stored with these very receipts
    /// is a repetition: all of it is answered as committed. Any other is `Stale`.
    ///
    /// A unit is handed over with the first poll. Units of one agent that build on each other may be handed over one after
    /// the other, without waiting for answers: each is taken after those before it, or answered `Stale`.
    ///
    /// Crash: a prefix of the chain, each step whole.
    async fn commit_turns(&self, unit: Unit) -> UnitOutcome;

    /// `commit_turns` on the calling thread, which blocks: spares a lone caller two hand-overs between threads. Gives the unit
    /// back when other writes wait or are under way, or for any reason of the store's; nothing of it has happened then. **F**
    ///
    /// # Errors
    /// The unit.
    ///
    /// Crash: as `commit_turns`.
    fn commit_turns_here(&self, unit: Unit) -> Result<UnitOutcome, Unit> {
        Err(unit)
    }

    /// Receipts of a generation after a revision, ascending. **R**
    async fn receipts(
        &self,
        agent: &AgentId,
        generation: Generation,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<Receipt>, StoreError>;

    /// The committed value of a guest's `state` key. **R**
    async fn state_value(&self, agent: &AgentId, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// Committed `state` keys with a prefix, after a key, ascending. **R**
    async fn state_keys(
        &self,
        agent: &AgentId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError>;

    // --- outbox

    /// Pending outputs of an agent in commit order, after a position. **R**
    async fn pending_outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError>;

    /// All outputs of an agent that still have a row, in commit order. **R**
    async fn outputs(&self, agent: &AgentId, page: Page) -> Result<Vec<StoredOutput>, StoreError>;

    /// Ends outputs. Those without a row, and those undeliverable already that would be so again, are skipped.
    /// **F** (no revision)
    async fn end_outputs(&self, owner: &Owner, ends: &[(OutputKey, OutputEnd)]) -> Result<(), StoreError>;

    // --- timers

    /// The timers of an agent that wait, by name. **R**
    async fn timers(&self, agent: &AgentId) -> Result<Vec<StoredTimer>, StoreError>;

    /// Timers whose time has come by `now_ms`, earliest first, of agents that this incarnation should look after: at home
    /// here, active, with room in their inbox, and held by it, by nobody, or under a dead session. **R**
    async fn due_timers(
        &self,
        incarnation: Incarnation,
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StoreError>;

    /// When the earliest timer of such agents is due, Unix milliseconds; it may be past. **R**
    async fn next_timer_at(&self, incarnation: Incarnation) -> Result<Option<u64>, StoreError>;

    /// Fires a timer: deletes its row and accepts its input. Answers the input's place. `None` when there is no timer of
    /// this name and revision and none has fired: it was cancelled or set anew; nothing happens then. The time is not
    /// looked at. Repeating it answers the same. **F** (no revision)
    ///
    /// # Errors
    /// As `accept`; nothing was written, but for `AcceptError::Store(Unknown)`.
    ///
    /// Crash: fired or not, never half: there is either the timer or its input.
    async fn fire_timer(
        &self,
        owner: &Owner,
        name: &str,
        revision: Revision,
    ) -> Result<Option<Seq>, AcceptError>;

    // --- operations

    /// The operations of an agent that have not ended, in the order of their starts. **R**
    async fn operations(&self, agent: &AgentId) -> Result<Vec<StoredOperation>, StoreError>;

    /// Agents at home here with operations, with ids after `after`, ascending. Of an incarnation: only those that it should
    /// look after, which are active, and held by it, by nobody, or under a dead session. **R**
    async fn operating(
        &self,
        incarnation: Option<Incarnation>,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<Vec<AgentId>, StoreError>;

    /// Makes it durable that the owner is about to do an operation; nothing of it may leave before. Answers the operation
    /// as it is then, `None` when it has ended. Repeating it is success. **F** (no revision)
    ///
    /// # Errors
    /// `Conflict` when an earlier owner has begun it, and it may be done once at most.
    ///
    /// Crash: begun or not; the next owner must take it for begun if it is.
    async fn begin_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
    ) -> Result<Option<StoredOperation>, StoreError>;

    /// Ends an operation: deletes its row and accepts its input, also into a full inbox. Answers the input's place; `None` when
    /// there is no such operation and no such input. Repeating it answers the same, whatever the end. **F** (no revision)
    ///
    /// # Errors
    /// As `accept`; nothing was written, but for `AcceptError::Store(Unknown)`. `Conflict` for an end that can't follow on
    /// its state.
    ///
    /// Crash: ended or not, never half: there is either the operation or its input.
    async fn end_operation(
        &self,
        owner: &Owner,
        operation: OperationId,
        end: OperationEnd,
    ) -> Result<Option<Seq>, AcceptError>;

    // --- plugins

    /// Stores a plugin under its digest. The same digest again is success (`false`). Appends `PluginLoaded`.
    ///
    /// # Errors
    /// `Conflict` when another digest has the same name and version; `Corrupt` when the bytes have another digest.
    async fn put_plugin(&self, plugin: PluginInfo, component: Bytes) -> Result<bool, StoreError>;

    /// All plugins by name, version. **R**
    async fn plugins(&self) -> Result<Vec<PluginInfo>, StoreError>;

    /// A plugin's component, checked against its digest. **R**
    async fn component(&self, plugin: Digest) -> Result<Option<Bytes>, StoreError>;

    /// Removes a plugin. Appends `PluginRemoved`. Answers whether it was there.
    ///
    /// # Errors
    /// `Pinned` while an agent needs it that is neither deleted nor `Moved`: its current spec, the receipt of a kept snapshot,
    /// or that of a journal entry names it.
    async fn remove_plugin(&self, plugin: Digest) -> Result<bool, StoreError>;

    // --- events

    /// Appends events that belong to no other write. As all, those about an agent at home here are counted in its row
    /// (rule 12).
    async fn append_events(&self, events: Vec<NewEvent>) -> Result<(), StoreError>;

    /// The events of an agent that have a place (`EventPlace`) with a number above `after`, ascending by number: as far as
    /// they happened in this store and are kept. **R**
    async fn agent_events(&self, agent: &AgentId, after: u64, limit: usize)
    -> Result<Vec<Event>, StoreError>;

    /// Changes when this process has appended events: the newest seq. A hint: other processes' events are not told.
    fn event_hints(&self) -> watch::Receiver<u64>;

    /// Events after a seq, ascending, of one agent or kind or all. **R**
    async fn events(
        &self,
        after: u64,
        agent: Option<&AgentId>,
        kind: Option<EventKind>,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError>;

    /// The lowest and the highest seq that are kept; `(0, 0)` when there is none. **R**
    async fn event_range(&self) -> Result<(u64, u64), StoreError>;

    // --- migration within the store (hosts that share it)

    /// The commit point between hosts that share the store: gives the agent to a live session of `target`, token + 1,
    /// cause `Transferred`. **F** with `base`. Repeating it after success answers the same lease.
    ///
    /// # Errors
    /// `NoSession` when the target has no session that is neither dead nor expired.
    ///
    /// Crash: transferred or not; the row's cause tells.
    async fn transfer(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Lease, StoreError>;

    /// The agent's current lease with its cause, `None` while nobody holds it. **R**
    async fn lease(&self, agent: &AgentId) -> Result<Option<Lease>, StoreError>;

    // --- handoff between stores; the steps are in `handoff.rs`

    /// Rows of an agent whose change number is above `after`, ascending by change number, about `bytes_max` bytes of them
    /// (at least one row). Works in homes `Here` and `HandingOff`, in others it is `NotHome`. Deletes since the migration
    /// was recorded appear as `Row::Deleted`: an open record with `Role::Source` is what starts keeping them. The entity key is
    /// among the rows, whole if it can be opened: they are for another store over an encrypted way, and no file. **R**
    async fn export_rows(
        &self,
        agent: &AgentId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<RowFrame>, StoreError>;

    /// Step 1 at the source: `Here` to `HandingOff`, granting token + 1. Nobody holds the agent and nothing of it is
    /// accepted from here. Repeating it answers the same. **F** with `base`.
    async fn begin_handoff(
        &self,
        owner: &Owner,
        base: Revision,
        migration: MigrationId,
        target: HostId,
    ) -> Result<Handoff, StoreError>;

    /// Takes rows into the target's invisible copy. Repeatable, in any order: of two rows of one key the one with the higher
    /// change number stays. Rows keep their change numbers. Inputs get `accepted_by` 0, which no session has: another
    /// store's incarnations mean nothing here. Once `prepare` has bound the copy it does nothing. Ok means that the rows survive
    /// the process; what makes them outlive the machine's power is the write that binds them, or any other after them.
    ///
    /// # Errors
    /// `Conflict` when the rows are another agent's, or the migration's copy is.
    async fn receive_rows(
        &self,
        migration: MigrationId,
        agent: &AgentId,
        frames: Vec<RowFrame>,
    ) -> Result<(), StoreError>;

    /// Step 2 at the target: the last rows, and `Prepared`, in one transaction. Rows left under a replaced tombstone go.
    /// Repeating it, also after `adopt`, is success.
    ///
    /// # Errors
    /// `Conflict` when a living agent, or a tombstone with a token at or above the granted one or a higher generation, has
    /// the id; when the copy's agent row is missing or of another generation or revision; when it was prepared otherwise. `NoPlugin`.
    async fn prepare(&self, request: PrepareRequest) -> Result<(), StoreError>;

    /// Step 3 at the source, **the commit point**: `HandingOff` to `Moved`. Appends `HomeMoved`.
    ///
    /// # Errors
    /// `Conflict` when the agent is neither handed off nor moved by this migration.
    async fn finish_handoff(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError>;

    /// Step 4 at the target: `Prepared` to `Here`, held by `incarnation` under the granted token. Appends `HomeMoved`
    /// and `LeaseAcquired`. Repeating it answers the same lease. `Forced` is an operator's word instead of the source's: the
    /// token is then higher than any that the source could still give.
    ///
    /// # Errors
    /// `SessionDead`. `Fenced` when it was adopted and then taken by another; `NotHome` in any other home; `Conflict` when
    /// it is here for another reason.
    async fn adopt(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
        how: Adoption,
    ) -> Result<Lease, StoreError>;

    /// Back out at the source, before the commit point: `HandingOff` to `Here` under the granted token + 1, so that the
    /// granted one is never valid anywhere. Held by `incarnation`, cause `Acquired`. When the agent is `Here` already and
    /// held by `incarnation`, answers its lease as it stands.
    ///
    /// # Errors
    /// `SessionDead`. `NotHome` once it has moved, or when another migration has it; `Fenced` when it is `Here` and not held
    /// by `incarnation`.
    async fn abort_handoff(
        &self,
        agent: &AgentId,
        migration: MigrationId,
        incarnation: Incarnation,
    ) -> Result<Lease, StoreError>;

    /// Gives all rows of an agent at home here to a sink, as of one moment, ascending by change number, in batches: what may be
    /// written into a file, so the entity key without its secret. Answers the agent's row of that moment. **R**
    ///
    /// The sink is called while a read transaction is open, so it must not wait for long.
    async fn export_whole(&self, agent: &AgentId, sink: RowSink) -> Result<Option<AgentRow>, StoreError>;

    /// Binds a copy whose rows `receive_rows` took from an archive: at home here, held by nobody, under the token of the
    /// archive or the tombstone, whichever is higher, raised by one epoch. Suspended when that is asked; otherwise a suspended
    /// one is active again. Numbers of its outputs jump above all that may have been used since. It gets a new entity key: the
    /// one whose name it has may live on. Appends `AgentImported` with the `public_key`.
    ///
    /// # Errors
    /// `Conflict` when the agent is here or had a later generation; when the copy's agent row is missing or of another
    /// generation or revision; when the token has no room above. `NotHome` for a tombstone that is not to be replaced;
    /// `NoPlugin`; `Unclaimed`.
    ///
    /// Crash: bound, or a copy that goes at the next exclusive join.
    async fn import(&self, request: ImportRequest) -> Result<AgentRow, StoreError>;

    /// Back out at the target: drops the copy, bound or not, and puts back the tombstone that it replaced. Only on the
    /// source's word once `Prepared`. An adopted agent is no copy any more: nothing happens.
    async fn discard_copy(&self, migration: MigrationId) -> Result<(), StoreError>;

    /// Deletes the rows that a `Moved` agent left behind; the tombstone stays. Nothing happens to an agent that is not
    /// `Moved` by this migration.
    async fn forget_moved(&self, agent: &AgentId, migration: MigrationId) -> Result<(), StoreError>;

    /// Writes a migration's record and appends a `Migration` event when its phase changed. A store that both sides share
    /// keeps one record per side. Of an agent's records that are over, `MIGRATIONS_KEPT_MAX` of each side stay; of all agents' that
    /// are over at the target and did not complete, `FRUITLESS_KEPT_MAX`.
    ///
    /// # Errors
    /// `Conflict` when another open migration of the agent is recorded by the same side; when the record is of another
    /// agent; when the migration is over in another phase.
    async fn put_migration(&self, record: MigrationRecord) -> Result<(), StoreError>;

    /// One migration; the source's record where both sides have one. **R**
    async fn migration(&self, migration: MigrationId) -> Result<Option<MigrationRecord>, StoreError>;

    /// All migrations: those that are open, then those that are over, each with the newest start first. **R**
    async fn migrations(&self, limit: usize) -> Result<Vec<MigrationRecord>, StoreError>;

    // --- health

    /// Proves that a write would be durable now.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Puts off for about so long what this process does in the background of the store that makes writes wait, and waits for
    /// what is under way of it.
    async fn keep_quiet(&self, _time: Duration) {}
}

//! The driver: one task that owns one resident agent, from activation to parking.
//!
//! It takes commands, runs turns on the guest threads, commits them, and only then answers. Everything it holds can be
//! thrown away at any time: after each failure it loads the agent from the store again. Running what waits is in
//! `driver/work.rs`, running ahead of commits in `driver/flight.rs`, what happens after a commit or a failed turn in
//! `driver/settle.rs`, standing still in `driver/hold.rs`, starts that fail in `driver/start.rs`.
//!
//! ```text
//!            Ask                    nothing waits                        commit
//! mailbox --------> direct asks ------------------> chain of turns ----------------> answers
//!            Wake                 queue (durable)  -/
//! ```
//! A direct ask is accepted by the commit of its own turn: one fsync. When durable inputs wait, it is accepted into the
//! queue first, behind them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::agent::control::Control;
use crate::agent::inbox::Inbox;
use crate::agent::loading::{LoadFailure, Loaded};
use crate::agent::pool::aside;
use crate::agent::{
    AgentEnv, Answer, AskRequest, Command, End, Grant, Handle, MAILBOX_MAX, NotAccepted, Notice,
    RespecRequest, Started,
};
use crate::failpoint;
use crate::id::{AgentId, InputId, Revision, Seq};
use crate::lease::{Lease, LeaseGuard, LeaseState};
use crate::lifecycle::{Lifecycle, LifecycleCommit, Verb};
use crate::limits::PAGE_MAX;
use crate::retry::Backoff;
use crate::store::{Accepted, BrokenReason, Owner, Page, Standing, StoreError};
use crate::task::TaskGroup;
use crate::time::{sleep, within};

mod ending;
mod flight;
mod hold;
mod respec;
mod settle;
mod start;
mod work;

use flight::Flights;
use start::Starts;

/// How often an agent that may not act now looks at its lease again.
const EXPIRING_RECHECK: Duration = Duration::from_millis(20);
/// Tries of a restore before the agent is broken: a slow moment of the host must not break it.
const RESTORE_TRIES_MAX: u32 = 3;
/// An agent without work for this long gives up the guest that is kept for its proofs.
const SPARE_IDLE: Duration = Duration::from_secs(1);
/// First and longest delay between tries of a turn or of the store.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Starts the driver of an agent. It ends by itself when idle; `Notice::Ended` says so.
pub fn spawn(env: AgentEnv, tasks: &TaskGroup, grant: Grant) -> Handle {
    let (mailbox, commands) = mpsc::channel(MAILBOX_MAX);
    let thaw = Arc::new(Notify::new());
    let control = Control::default();
    let handle = Handle::new(mailbox.clone(), thaw.clone(), control.clone());
    let driver = Driver {
        agent: grant.lease.agent.clone(),
        lease: grant.lease.clone(),
        guard: grant.guard.clone(),
        env,
        commands,
        own_mailbox: mailbox.downgrade(),
        thaw,
        control,
        loaded: None,
        flights: Flights::default(),
        inbox: Inbox::default(),
        direct: VecDeque::new(),
        waiters: BTreeMap::new(),
        known: Seq(0),
        is_inbox_stale: true,
        pause: None,
        backoff: new_backoff(),
        failures: 0,
        is_quick: false,
        starts: Starts::default(),
        broken: None,
        starting: Vec::new(),
        overfull: None,
    };
    let shutdown = tasks.shutdown();
    tasks.spawn(async move { driver.live(grant, shutdown).await });
    handle
}

fn new_backoff() -> Backoff {
    Backoff::new(BACKOFF_FIRST, BACKOFF_MAX)
}

struct Driver {
    env: AgentEnv,
    agent: AgentId,
    lease: Lease,
    guard: LeaseGuard,
    commands: mpsc::Receiver<Command>,
    own_mailbox: mpsc::WeakSender<Command>,
    thaw: Arc<Notify>,
    control: Control,
    /// Its head is that of the last chain on its way.
    loaded: Option<Loaded>,
    /// Chains on their way to the store.
    flights: Flights,
    /// Durable inputs, by lane.
    inbox: Inbox,
    /// Asks that nothing durable knows of.
    direct: VecDeque<Box<AskRequest>>,
    waiters: BTreeMap<Seq, Waiters>,
    /// The highest seq that was loaded into the queue.
    known: Seq,
    is_inbox_stale: bool,
    /// Work waits this long before the next try.
    pause: Option<Duration>,
    backoff: Backoff,
    /// Failed loads in a row.
    failures: u32,
    /// Whether the last burst's turns were quick.
    is_quick: bool,
    starts: Starts,
    broken: Option<BrokenReason>,
    /// Who waits for the end of the start.
    starting: Vec<oneshot::Sender<Started>>,
    /// The input whose turn would have left the agent above a limit of its rows, and which limit.
    overfull: Option<(Seq, String)>,
}

/// Callers that wait for one durable input.
struct Waiters {
    input: InputId,
    answers: Vec<oneshot::Sender<Answer>>,
}

impl Waiters {
    fn of(input: InputId) -> Self {
        Self { input, answers: Vec::new() }
    }

    /// Adds a caller. Those who have gone are forgotten before the list grows: a client may repeat a key for days.
    fn add(&mut self, answer: oneshot::Sender<Answer>) {
        if self.answers.len() == self.answers.capacity() {
            self.answers.retain(|answer| !answer.is_closed());
        }
        self.answers.push(answer);
    }
}

/// Whether the driver goes on.
type Flow = Result<(), End>;

impl Driver {
    async fn live(mut self, grant: Grant, shutdown: tokio_util::sync::CancellationToken) {
        let mut first = Some(grant);
        let end = loop {
            if shutdown.is_cancelled() {
                break End::Parked;
            }
            if let Err(end) = self.step(&mut first, &shutdown).await {
                break end;
            }
        };
        // What is on its way arrives, and is told, before anybody hears of the end.
        let end = self.land().await.err().unwrap_or(end);
        self.control.rest();
        if end == End::Parked {
            self.shorten_tail().await;
        }
        self.finish(end).await;
    }

    /// One round: commands, then lease, then loading, then work, else waiting.
    async fn step(
        &mut self,
        first: &mut Option<Grant>,
        shutdown: &tokio_util::sync::CancellationToken,
    ) -> Flow {
        while let Ok(command) = self.commands.try_recv() {
            self.on_command(command).await?;
        }
        if !self.starting.is_empty() {
            self.tell_started();
        }
        if !self.flights.is_empty() && !self.may_run_ahead() {
            return self.land().await;
        }
        match self.guard.state() {
            LeaseState::Lost => return Err(End::Lost),
            LeaseState::Expiring => return self.wait(EXPIRING_RECHECK, shutdown).await,
            LeaseState::Held => {}
        }
        if let Some(pause) = self.pause.take() {
            return self.wait(pause, shutdown).await;
        }
        if self.loaded.as_ref().is_none_or(|loaded| loaded.guest.is_none()) {
            return self.load(first.take()).await;
        }
        if self.is_inbox_stale {
            return self.read_inbox().await;
        }
        let state = self.loaded.as_ref().map_or(Lifecycle::Active, |loaded| loaded.lifecycle.clone());
        if state != Lifecycle::Active && !self.direct.is_empty() {
            // The store says what becomes of them: it takes them for later, knows them already, or refuses.
            self.admit_direct().await;
            return Ok(());
        }
        if !state.runs() {
            return self.wait_idle(shutdown).await;
        }
        if let Some((seq, what)) = self.overfull.take() {
            return self.on_overfull(seq, what).await;
        }
        if state == Lifecycle::Retiring && self.inbox.is_empty() {
            return self.retired().await;
        }
        if self.loaded.as_ref().is_some_and(|loaded| loaded.head.revision == Revision(0)) {
            return self.work().await;
        }
        if self.must_admit_direct() {
            self.admit_direct().await;
            return Ok(());
        }
        if self.inbox.is_due() || !self.direct.is_empty() {
            return self.work().await;
        }
        self.wait_idle(shutdown).await
    }

    /// Waits for a command, at most for a time; commands that arrive don't cut a back-off short.
    async fn wait(&mut self, time: Duration, shutdown: &tokio_util::sync::CancellationToken) -> Flow {
        let pause = sleep(time);
        tokio::pin!(pause);
        loop {
            // Cancel safe: `recv` and `cancelled` lose nothing when dropped.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(End::Parked),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command).await?,
                    None => return Err(End::Parked),
                },
                () = &mut pause => return Ok(()),
            }
        }
    }

    async fn wait_idle(&mut self, shutdown: &tokio_util::sync::CancellationToken) -> Flow {
        let prover =
            self.loaded.as_mut().map(|loaded| &mut loaded.prover).filter(|prover| prover.has_spare());
        let patience =
            if prover.is_some() { SPARE_IDLE.min(self.env.park_after) } else { self.env.park_after };
        // Cancel safe: `recv`, `cancelled` and `arrival` lose nothing when dropped.
        let command = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Err(End::Parked),
            () = self.flights.arrival() => return self.on_arrival().await,
            command = within(patience, self.commands.recv()) => command,
        };
        match (command, prover) {
            (Some(Some(command)), _) => self.on_command(command).await,
            (None, Some(prover)) => {
                prover.drop_spare();
                Ok(())
            }
            (Some(None), _) | (None, None) => Err(End::Parked),
        }
    }

    /// Before the guest is given up: a snapshot, where loading the agent would run many turns again.
    async fn shorten_tail(&mut self) {
        let is_worth = |loaded: &Loaded| loaded.guest.is_some() && loaded.tail.is_worth_a_snapshot();
        if !self.guard.is_held() || !self.loaded.as_ref().is_some_and(is_worth) {
            return;
        }
        match self.checkpoint().await {
            Ok(_) => (self.env.notify)(Notice::Checkpointed(self.agent.clone())),
            Err(error) => tracing::warn!(agent = %self.agent, %error, "no snapshot before parking"),
        }
    }

    async fn on_command(&mut self, command: Command) -> Flow {
        match command {
            Command::Ask(request) if self.direct.len() >= MAILBOX_MAX => {
                self.answer(request.answer, Answer::NotAccepted(NotAccepted::Busy));
            }
            Command::Ask(request) => self.direct.push_back(request),
            Command::Join { input, seq, answer } => self.join(input, seq, answer).await,
            // It has read all that is new, and what must run is not there: it is at a place that was read before.
            Command::Remind if self.is_idle() => self.forget_queue(),
            Command::Wake | Command::Remind => self.is_inbox_stale = true,
            Command::Reload => self.forget_queue(),
            Command::Checkpoint { done } => {
                self.land().await?;
                // The caller may be gone; the checkpoint is then simply there.
                let _ = done.send(self.checkpoint().await);
            }
            Command::Freeze { done } => return self.freeze(done).await,
            Command::Started { done } => self.starting.push(done),
            Command::Recycle { done } => return self.recycle(done).await,
            Command::Respec(request) => {
                let RespecRequest { spec, plugin, done } = *request;
                self.land().await?;
                // The caller may be gone; what is committed is so all the same.
                let _ = done.send(self.respec(spec, &plugin).await);
            }
            Command::Stop { end, done } => {
                let landed = self.land().await;
                if end == End::Parked {
                    self.shorten_tail().await;
                }
                self.finish_stop(done);
                return Err(landed.err().unwrap_or(end));
            }
        }
        Ok(())
    }

    /// Whether it believes that nothing must run.
    fn is_idle(&self) -> bool {
        let knows_nothing = !self.is_inbox_stale && !self.inbox.is_due() && self.direct.is_empty();
        let may_run = self.loaded.as_ref().is_some_and(|loaded| loaded.lifecycle.runs());
        knows_nothing && may_run && self.pause.is_none() && self.flights.is_empty()
    }

    fn finish_stop(&mut self, done: oneshot::Sender<()>) {
        self.commands.close();
        // The one who asked may be gone.
        let _ = done.send(());
    }

    /// Loads the agent from the store, and a guest with it.
    async fn load(&mut self, first: Option<Grant>) -> Flow {
        let grant = first.unwrap_or_else(|| Grant {
            lease: self.lease.clone(),
            guard: self.guard.clone(),
            warm: None,
        });
        self.loaded = None;
        match self.start(grant).await {
            Ok(loaded) => {
                self.loaded = Some(loaded);
                self.forget_queue();
                if self.failures == 0 {
                    self.backoff = new_backoff();
                }
                Ok(())
            }
            Err(LoadFailure::Lost) => self.lose("load").await,
            Err(LoadFailure::Resting) => Err(End::Parked),
            Err(LoadFailure::Store(error)) => {
                if error == StoreError::Busy {
                    (self.env.notify)(Notice::NoRoom(self.agent.clone()));
                }
                tracing::warn!(agent = %self.agent, %error, "agent can't be loaded now");
                self.pause_longer();
                Ok(())
            }
            Err(LoadFailure::Broken(
                BrokenReason::Restore { message } | BrokenReason::Diverged { message },
            )) if self.failures + 1 < RESTORE_TRIES_MAX => {
                tracing::warn!(agent = %self.agent, error = message, "restore failed");
                self.failures += 1;
                self.pause_longer();
                Ok(())
            }
            Err(LoadFailure::Broken(reason) | LoadFailure::UsedUp(reason)) => self.break_down(reason).await,
        }
    }

    /// The queue is read again from the start of what is open.
    fn forget_queue(&mut self) {
        self.inbox.clear();
        self.known = Seq(0);
        self.is_inbox_stale = true;
    }

    fn pause_longer(&mut self) {
        let [random] = self.env.clock.random();
        self.pause = Some(self.backoff.delay(random));
    }

    /// Makes it durable that the agent can't run, and ends.
    async fn break_down(&mut self, reason: BrokenReason) -> Flow {
        tracing::error!(agent = %self.agent, reason = reason.name(), error = reason.message(), "agent is broken");
        match self.change(&Verb::Break(reason.clone())).await {
            Ok(_) => {
                failpoint::hit("agent.after-broken");
                (self.env.notify)(Notice::Broke(self.agent.clone(), reason.clone()));
                self.broken = Some(reason);
                Err(End::Broken)
            }
            Err(error) => self.on_store_error("lifecycle", error).await,
        }
    }

    /// Moves the agent along the table of lifecycles, from the state that is stored.
    async fn change(&mut self, verb: &Verb) -> Result<Standing, StoreError> {
        let row = self.env.store.agent(&self.agent).await?.ok_or(StoreError::NoAgent)?;
        let commit = LifecycleCommit::plan(&self.agent, &row.lifecycle, verb, self.env.clock.wall_ms());
        let commit = commit.map_err(|_| StoreError::Lifecycle { state: row.lifecycle })?;
        self.env.store.commit_lifecycle(&self.owner(), commit).await
    }

    /// A retiring agent has run everything: it rests from here.
    async fn retired(&mut self) -> Flow {
        failpoint::hit("lifecycle.before-drained");
        match self.change(&Verb::Drained).await {
            Ok(_) => {
                tracing::info!(agent = %self.agent, "agent is retired");
                Err(End::Parked)
            }
            // An input that was not read yet, or is open again at a place that was.
            Err(StoreError::Conflict { .. }) => {
                self.forget_queue();
                Ok(())
            }
            Err(error) => self.on_store_error("lifecycle", error).await,
        }
    }

    fn owner(&self) -> Owner {
        Owner {
            agent: self.agent.clone(),
            generation: self.lease.generation,
            incarnation: self.lease.incarnation,
            token: self.lease.token,
        }
    }

    async fn read_inbox(&mut self) -> Flow {
        let page = Page { after: self.known.0, limit: PAGE_MAX };
        match self.env.store.open_inputs(&self.agent, page).await {
            Ok(inputs) => {
                self.is_inbox_stale = inputs.len() == PAGE_MAX;
                if let Some(last) = inputs.last() {
                    self.known = last.seq;
                }
                // What retires has no later turn that the silent ones could wait for.
                let is_last_call =
                    self.loaded.as_ref().is_some_and(|loaded| loaded.lifecycle == Lifecycle::Retiring);
                for mut input in inputs {
                    input.placing.wakes |= is_last_call;
                    self.inbox.insert(input);
                }
                for seq in self.waiters.keys() {
                    self.inbox.rouse(*seq);
                }
                if let Some(loaded) = &mut self.loaded {
                    loaded.head.next_seq = loaded.head.next_seq.max(self.known.next());
                }
                self.answer_ended_waiters().await;
                Ok(())
            }
            Err(error) => self.on_store_error("inbox", error).await,
        }
    }

    /// Whether asks must be accepted before they run: durable inputs wait, or one of them takes another's place, which a
    /// unit can't do.
    fn must_admit_direct(&self) -> bool {
        !self.direct.is_empty()
            && (!self.inbox.is_empty()
                || self.direct.iter().any(|request| request.input.supersedes.is_some()))
    }

    /// Accepts asks into the inbox, among the durable inputs that wait.
    async fn admit_direct(&mut self) {
        let requests: Vec<_> = self.direct.drain(..).filter(|request| !request.answer.is_closed()).collect();
        let has_replaced = requests.iter().any(|request| request.input.supersedes.is_some());
        let store = self.env.store.clone();
        let incarnation = self.lease.incarnation;
        let accepting = requests.iter().map(|request| store.accept(request.input.clone(), incarnation));
        let accepted = join_all(accepting).await;
        failpoint::hit("input.after-accept-behind");
        for (request, accepted) in requests.into_iter().zip(accepted) {
            let AskRequest { input, answer } = *request;
            let id = input.input.id;
            match accepted {
                Ok(Accepted::New { seq }) => self.add_waiter(seq, id, answer),
                Ok(Accepted::Duplicate(stored)) => self.answer_duplicate(*stored, answer),
                Ok(Accepted::AlreadyEnded | Accepted::Answered) => {
                    self.answer(answer, Answer::Follow { input: id })
                }
                Err(error) => {
                    let refused = settle::refusal(id, error);
                    self.answer(answer, refused);
                }
            }
        }
        if has_replaced {
            self.forget_queue();
        }
        self.is_inbox_stale = true;
    }

    /// Answers everybody who still waits, and tells the host.
    async fn finish(mut self, end: End) {
        self.commands.close();
        // Waits for senders that were about to deliver when the mailbox closed.
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Ask(request) => self.direct.push_back(request),
                Command::Join { input, answer, .. } => self.answer(answer, Answer::Follow { input }),
                Command::Stop { done, .. } => self.finish_stop(done),
                Command::Wake
                | Command::Remind
                | Command::Reload
                | Command::Checkpoint { .. }
                | Command::Recycle { .. }
                | Command::Respec(_)
                | Command::Freeze { .. } => {}
                Command::Started { done } => self.starting.push(done),
            }
        }
        if let Some(reason) = &self.broken {
            for done in std::mem::take(&mut self.starting) {
                // As above: who waited may be gone.
                let _ = done.send(Started::Broken(reason.clone()));
            }
        }
        for request in std::mem::take(&mut self.direct) {
            let answer = match &self.broken {
                Some(reason) => Answer::NotAccepted(NotAccepted::Broken(reason.clone())),
                None => Answer::Elsewhere,
            };
            self.answer(request.answer, answer);
        }
        for Waiters { input, answers } in std::mem::take(&mut self.waiters).into_values() {
            for answer in answers {
                self.answer(answer, Answer::Follow { input });
            }
        }
        // The guest is dropped before the host hears of the end, so that its slot is free for the next. A large one takes
        // milliseconds, and who was just told that the agent may go on elsewhere is often the next on this thread.
        aside(|| self.loaded = None);
        (self.env.notify)(Notice::Ended(self.agent.clone(), end));
    }

    /// Tells those who wait that the agent has started, when it has.
    fn tell_started(&mut self) {
        let Some(loaded) = self.loaded.as_ref().filter(|loaded| loaded.guest.is_some()) else { return };
        let revision = loaded.head.revision;
        if revision > Revision(0) || !loaded.lifecycle.runs() {
            for done in std::mem::take(&mut self.starting) {
                // Who waited may be gone.
                let _ = done.send(Started::Loaded { revision });
            }
        }
    }

    fn answer(&self, to: oneshot::Sender<Answer>, answer: Answer) {
        // A caller that is gone needs no answer.
        let _ = to.send(answer);
    }
}

#[cfg(test)]
mod tests;

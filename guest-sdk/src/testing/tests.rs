//! The harness keeps the rules that it claims to keep.

use serde::{Deserialize, Serialize};

use super::*;
use crate::{Bytes, Host, Level, Query, ReadHost, StateError};

/// Obeys one word a turn; what it holds and does tells what was kept.
#[derive(Default, Serialize, Deserialize)]
struct Probe {
    turns: u64,
    blob: Bytes,
    #[serde(skip)]
    cache: u64,
}

impl Agent for Probe {
    fn init(&mut self, host: &mut impl Host) -> Result<(), AgentError> {
        if let Some(reason) = host.config("fail")? {
            return Err(AgentError::fatal(reason));
        }
        host.state_set("born", b"yes")?;
        Ok(())
    }

    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        self.turns += 1;
        self.cache += 1;
        self.blob.extend_from_slice(&input.payload);
        host.info("turn");
        host.state_set("last", &input.payload)?;
        host.send_message("other", &input.payload)?;
        match input.text() {
            Some("fatal") => Err(AgentError::fatal("asked to")),
            Some("attempt") if host.turn().attempt < 3 => Err(AgentError::retryable("not yet")),
            Some("delete") => {
                host.state_delete("last")?;
                Ok(Reply::none())
            }
            Some("cache") => Ok(Reply::text(self.cache.to_string())),
            _ => Ok(Reply::text(self.turns.to_string())),
        }
    }
}

impl Query for Probe {
    fn query(&self, payload: &[u8], host: &mut impl ReadHost) -> Result<Reply, AgentError> {
        match payload {
            b"fatal" => Err(AgentError::fatal("asked to")),
            b"cache" => Ok(Reply::text(self.cache.to_string())),
            b"last" => Ok(Reply::bytes(host.state_get("last")?.unwrap_or_default())),
            b"turn" => Ok(Reply::text(format!("{} {}", host.turn().revision, host.turn().attempt))),
            _ => Ok(Reply::text(self.turns.to_string())),
        }
    }
}

#[test]
fn a_query_sees_what_is_committed_in_an_agent_of_its_own() {
    let mut probe = Harness::<Probe>::new();
    probe.ask("one");
    let mut query = |payload: &str| probe.query(payload).map(|reply| reply.outcome);
    let text = |text: &str| Ok(Outcome::Ok(text.into()));
    assert_eq!(query("turns"), text("1"));
    assert_eq!(query("last"), text("one"));
    assert_eq!(query("cache"), text("0"), "no part of the snapshot");
    assert_eq!(query("turn"), text("2 0"), "the last committed revision, and no attempt");
    assert_eq!(query("fatal"), Err(AgentError::fatal("asked to")));
    assert_eq!(probe.ask_text("two"), "2", "nothing has changed");
}

#[test]
fn a_good_turn_is_committed_whole() {
    let mut probe = Harness::<Probe>::new();
    assert_eq!(probe.state()["born"], b"yes");
    assert_eq!(probe.ask_text("one"), "1");
    assert_eq!(probe.state()["last"], b"one");
    let sent = probe.take_sent();
    assert_eq!((sent.len(), sent[0].to.as_str()), (1, "other"));
    assert_eq!(probe.host().turn().revision, 2);
    assert_eq!(probe.agent().blob.as_slice(), b"one");
}

#[test]
fn a_failed_turn_leaves_nothing_but_its_log() {
    let mut probe = Harness::<Probe>::new();
    probe.ask("one");
    let before = probe.snapshot().to_vec();
    let error = probe.handle(Input::message("fatal")).unwrap_err();
    assert_eq!(error, AgentError::fatal("asked to"));
    assert_eq!(probe.snapshot(), before);
    assert_eq!(probe.state()["last"], b"one");
    assert_eq!(probe.take_sent().len(), 1);
    assert_eq!(probe.host().log_lines(), vec![(Level::Info, "turn".into()); 2]);
    assert_eq!(probe.ask_text("two"), "2");
}

#[test]
fn attempts_count_until_a_turn_is_good() {
    let mut probe = Harness::<Probe>::new();
    assert!(probe.handle(Input::message("attempt")).is_err());
    assert!(probe.handle(Input::message("attempt")).is_err());
    assert_eq!(probe.ask_text("attempt"), "1");
}

#[test]
fn what_is_not_in_the_snapshot_is_gone_in_the_next_turn() {
    let mut probe = Harness::<Probe>::new();
    probe.ask("one");
    assert_eq!(probe.ask_text("cache"), "1");
}

#[test]
fn a_turn_reads_its_own_writes() {
    let mut probe = Harness::<Probe>::new();
    probe.ask("one");
    probe.ask("delete");
    assert!(!probe.state().contains_key("last"));
}

#[test]
fn an_agent_whose_init_fails_does_not_start() {
    let error = Harness::<Probe>::create("p", &[("fail", "broken")]).err();
    assert_eq!(error, Some(AgentError::fatal("broken")));
}

#[test]
fn the_test_host_has_the_limits_of_a_real_one() {
    let mut host = TestHost::new("probe", &[]);
    let long = "k".repeat(1025);
    for key in ["", "a\nb", long.as_str()] {
        assert_eq!(host.state_set(key, b""), Err(StateError::InvalidKey));
    }
    assert_eq!(host.state_set("k", &vec![0; 256 * 1024 + 1]), Err(StateError::TooLarge));
    for index in 0..1000 {
        host.state_set(&format!("{index:04}"), b"").unwrap();
    }
    assert_eq!(host.state_set("one more", b""), Err(StateError::Quota));
    assert_eq!(host.state_keys("099", Some("0997"), 10).unwrap(), ["0998", "0999"]);
    assert_eq!(host.state_keys("", None, 2).unwrap(), ["0000", "0001"]);
    for id in ["", "Upper", "-x", "a b"] {
        assert!(host.send_message(id, b"").is_err());
    }
    for _ in 0..256 {
        host.send_message("x", b"").unwrap();
    }
    assert!(host.send_message("x", b"").is_err());
}

#[test]
fn a_snapshot_of_another_form_is_refused() {
    let probe = Harness::<Probe>::new();
    let mut longer = probe.snapshot().to_vec();
    longer.push(0);
    for bytes in [&[][..], &[9, 0, 0], &[1], &longer] {
        assert!(Probe::restore(bytes, "0.1.0").is_err(), "{bytes:?}");
    }
}

/// Breaks the rule that it is told to break.
#[derive(Default, Serialize, Deserialize)]
struct Breaker {
    rule: String,
    snapshots: std::cell::Cell<u8>,
}

impl Agent for Breaker {
    fn handle(&mut self, input: &Input, _host: &mut impl Host) -> Result<Reply, AgentError> {
        self.rule = input.text().unwrap_or_default().into();
        Ok(Reply::none())
    }

    fn handle_batch(&mut self, inputs: &[Input], host: &mut impl Host) -> Result<Vec<Reply>, AgentError> {
        self.handle(&inputs[0], host)?;
        let count = if self.rule == "count" { 2 } else { inputs.len() };
        Ok(vec![Reply::none(); count])
    }

    fn snapshot(&self) -> Result<Vec<u8>, AgentError> {
        if self.rule == "pure" {
            self.snapshots.set(self.snapshots.get() + 1);
        }
        Ok(vec![self.snapshots.get(), self.rule.len() as u8])
    }

    fn restore(_state: &[u8], _from_version: &str) -> Result<Self, AgentError> {
        Ok(Self::default())
    }
}

#[test]
#[should_panic(expected = "one reply per input")]
fn another_number_of_replies_fails_the_test() {
    Harness::<Breaker>::new().ask("count");
}

#[test]
#[should_panic(expected = "two snapshots of one state are the same")]
fn a_snapshot_that_changes_fails_the_test() {
    Harness::<Breaker>::new().ask("pure");
}

#[test]
#[should_panic(expected = "a restored agent has the same snapshot")]
fn a_restore_that_loses_state_fails_the_test() {
    Harness::<Breaker>::new().ask("lossy");
}

/// Sets timers as its input says: `NAME AT` a line, or fails after doing so.
#[derive(Default, Serialize, Deserialize)]
struct Waker {
    woken: Vec<String>,
}

impl Agent for Waker {
    fn handle(&mut self, input: &Input, host: &mut impl Host) -> Result<Reply, AgentError> {
        if let Some(name) = input.timer_name() {
            self.woken.push(format!("{name} at {}", host.turn().now_ms));
            return Ok(Reply::none());
        }
        let text = input.text().unwrap_or_default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some((name, at_ms)) => host.timer_set(name, at_ms.parse().unwrap(), line.as_bytes())?,
                None if line == "fail" => return Err(AgentError::retryable("asked to")),
                None => host.timer_cancel(line)?,
            }
        }
        Ok(Reply::none())
    }
}

#[test]
fn timers_fire_once_in_order_of_their_time() {
    let mut waker = Harness::<Waker>::new();
    waker.ask("b 30\na 20\nc 10\nd 99");
    waker.ask("c\nb 25");
    assert_eq!(waker.pass_to(50).len(), 2);
    assert_eq!(waker.agent().woken, ["a at 20", "b at 25"]);
    assert_eq!(waker.timers().keys().collect::<Vec<_>>(), ["d"]);
    assert_eq!(waker.timers()["d"].payload, b"d 99");
}

#[test]
fn timers_of_a_failed_turn_are_not_set() {
    let mut waker = Harness::<Waker>::new();
    waker.ask("a 1");
    waker.handle(Input::message("b 2\na\nfail")).unwrap_err();
    assert_eq!(waker.timers().keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn an_agent_has_so_many_timers_and_no_more() {
    let mut waker = Harness::<Waker>::new();
    let lines: Vec<String> = (0..crate::limits::TIMERS_MAX).map(|number| format!("t{number} 1")).collect();
    waker.ask(lines.join("\n"));
    let error = waker.handle(Input::message("one-more 1")).unwrap_err();
    assert_eq!(error, crate::TimerError::Quota.into());
    waker.ask("t0 2\nt1\none-more 1");
    let error = waker.handle(Input::message("x 253402300800000")).unwrap_err();
    assert_eq!(error, crate::TimerError::InvalidTime.into());
}

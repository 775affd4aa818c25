//! Every cell of the table, and what each commit carries.

use super::*;

fn broken() -> Lifecycle {
    Lifecycle::Broken(BrokenReason::Restore { message: "no".into() })
}

fn forked() -> Lifecycle {
    Lifecycle::Broken(BrokenReason::Forked)
}

fn suspended() -> Lifecycle {
    Lifecycle::Suspended(SuspendReason::Restored)
}

/// The columns.
fn states() -> [Lifecycle; 8] {
    use Lifecycle::{Active, Deleted, Paused, Retired, Retiring};
    [Active, Paused, Retiring, Retired, broken(), suspended(), Deleted, forked()]
}

/// The rows as the header shows them: A active, P paused, g retiring, R retired, B broken, S suspended, D deleted, then forked,
/// `.` as it was, `-` illegal.
fn table() -> Vec<(Verb, &'static str)> {
    let corrupt = || BrokenReason::Corrupt { what: "a row".into() };
    vec![
        (Verb::Pause, "P.------"),
        (Verb::Resume, ".AAA-A--"),
        (Verb::Retire, "gg..R---"),
        (Verb::Drained, "--R.----"),
        (Verb::Stop { is_abandoning: false }, "P.P-----"),
        (Verb::Stop { is_abandoning: true }, "P.P-----"),
        (Verb::Interrupt { inputs: vec![Seq(1)] }, "...-----"),
        (Verb::Recycle, "...-----"),
        (Verb::Respawn, "...-----"),
        (Verb::Checkpoint, "...-----"),
        (Verb::Configure, "...-----"),
        (Verb::Upgrade, "...-.---"),
        (Verb::Recover, ".---A---"),
        (Verb::Reset, "..AAA---"),
        (Verb::Delete, "DDDDDD.D"),
        (Verb::Recreate, "------A-"),
        (Verb::Break(corrupt()), "BBBBBB-."),
        (Verb::Suspend(SuspendReason::Restored), "SSS-S.-S"),
    ]
}

fn cell(from: &Lifecycle, verb: &Verb, letter: char) -> Option<Lifecycle> {
    Some(match letter {
        '.' => from.clone(),
        'A' => Lifecycle::Active,
        'P' => Lifecycle::Paused,
        'g' => Lifecycle::Retiring,
        'R' => Lifecycle::Retired,
        'S' => suspended(),
        'D' => Lifecycle::Deleted,
        'B' => match verb {
            Verb::Break(reason) => Lifecycle::Broken(reason.clone()),
            _ => panic!("only `break` leads there"),
        },
        '-' => return None,
        other => panic!("no state is called {other}"),
    })
}

#[test]
fn every_cell_of_the_table_holds() {
    for (verb, row) in table() {
        assert_eq!(row.len(), states().len());
        for (from, letter) in states().iter().zip(row.chars()) {
            let at = format!("{} from {}", verb.name(), from.name());
            match cell(from, &verb, letter) {
                Some(next) => assert_eq!(from.after(&verb), Ok(next), "{at}"),
                None => {
                    let illegal = from.after(&verb).unwrap_err();
                    assert_eq!((illegal.state.as_str(), illegal.verb.as_str()), (from.name(), verb.name()));
                    let text = illegal.to_string();
                    assert!(text.contains(from.name()) && text.contains(verb.name()), "{text}");
                }
            }
        }
    }
}

fn plan(from: &Lifecycle, verb: &Verb) -> Option<LifecycleCommit> {
    let agent: AgentId = "agent".parse().unwrap();
    LifecycleCommit::plan(&agent, from, verb, 7).ok()
}

fn all_plans() -> Vec<(Lifecycle, Verb, LifecycleCommit)> {
    let mut plans = Vec::new();
    for (verb, _) in table() {
        for from in states() {
            if let Some(commit) = plan(&from, &verb) {
                plans.push((from, verb.clone(), commit));
            }
        }
    }
    assert!(plans.len() > 60, "{}", plans.len());
    plans
}

#[test]
fn every_change_is_an_event_and_nothing_else_is() {
    for (from, verb, commit) in all_plans() {
        let is_change = from != *commit.next() || commit.token() != TokenMove::Keep;
        assert_eq!(commit.events().len(), usize::from(is_change), "{verb:?} from {from:?}");
        for event in commit.events() {
            let detail =
                |name: &str| event.data.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
            assert_eq!(detail("from").as_deref(), Some(from.name()));
            assert_eq!(detail("to").as_deref(), Some(commit.next().name()));
            assert_eq!(detail("verb").as_deref(), Some(verb.name()));
        }
    }
}

#[test]
fn destructive_verbs_raise_the_token_and_only_reset_and_recreate_the_generation() {
    for (from, verb, commit) in all_plans() {
        let at = format!("{verb:?} from {from:?}");
        if verb.is_destructive() && from != Lifecycle::Deleted {
            assert_ne!(commit.token(), TokenMove::Keep, "{at}");
            assert!(commit.is_state_cleared(), "{at}");
        }
        let raises = matches!(verb, Verb::Reset | Verb::Recreate);
        assert_eq!(commit.is_generation_raised(), raises, "{at}");
        if commit.is_state_cleared() {
            assert!(verb.is_destructive(), "{at}");
        }
    }
}

#[test]
fn inputs_are_given_up_by_named_verbs_only() {
    use AbandonReason::{Cancelled, Destroyed, Reset, Retired, Stopped};
    for (from, verb, commit) in all_plans() {
        let expected = match (&from, &verb) {
            (Lifecycle::Deleted, _) => OpenInputs::Keep,
            (Lifecycle::Broken(_), Verb::Retire) => OpenInputs::Abandon(Retired),
            (_, Verb::Reset) => OpenInputs::Abandon(Reset),
            (_, Verb::Delete) => OpenInputs::Abandon(Destroyed),
            (_, Verb::Stop { is_abandoning: true }) => OpenInputs::Abandon(Stopped),
            (_, Verb::Interrupt { inputs }) => {
                OpenInputs::AbandonThese { inputs: inputs.clone(), reason: Cancelled }
            }
            _ => OpenInputs::Keep,
        };
        assert_eq!(*commit.inputs(), expected, "{verb:?} from {from:?}");
    }
}

#[test]
fn what_a_state_means_is_said_once() {
    let means = |state: &Lifecycle| (state.accepts(), state.runs(), state.publishes(), state.is_terminal());
    let expected = [
        (true, true, true, false),
        (true, false, true, false),
        (false, true, true, false),
        (false, false, true, true),
        (true, false, false, false),
        (false, false, false, false),
        (false, false, true, true),
    ];
    for (state, expected) in states().iter().zip(expected) {
        assert_eq!(means(state), expected, "{}", state.name());
        let turns = [BoundaryKind::Init, BoundaryKind::Turn, BoundaryKind::DeadLetter];
        assert!(turns.iter().all(|kind| state.takes_boundary(*kind) == state.runs()));
        let is_broken = matches!(state, Lifecycle::Broken(_));
        let upgrades = state.runs() || *state == Lifecycle::Paused || is_broken;
        assert_eq!(state.takes_boundary(BoundaryKind::Upgrade), upgrades);
        assert_eq!(state.takes_boundary(BoundaryKind::Repair), is_broken);
    }
}

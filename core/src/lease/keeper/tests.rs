//! Every phase with everything that can be told to it.

use super::*;

const NOW: Duration = Duration::from_secs(100);
const SENT: Duration = Duration::from_secs(99);
const PROFILE: LeaseProfile = LeaseProfile::FAST;

fn keeper(phase: Phase) -> Keeper {
    Keeper { profile: PROFILE, phase }
}

/// What all that can be told makes of a phase, in one order.
fn after_each(phase: Phase) -> [Phase; 9] {
    let tells: [fn(&mut Keeper); 9] = [
        |keeper| keeper.heard(SENT, NOW, Heard::Renewed),
        |keeper| keeper.heard(SENT, NOW, Heard::Unclear),
        |keeper| keeper.heard(SENT, NOW, Heard::Dead),
        |keeper| keeper.stopped(NOW),
        |keeper| keeper.looked(NOW, Some(true)),
        |keeper| keeper.looked(NOW, Some(false)),
        |keeper| keeper.looked(NOW, None),
        |keeper| keeper.joined(SENT),
        |keeper| keeper.not_joined(NOW),
    ];
    tells.map(|tell| {
        let mut keeper = keeper(phase);
        tell(&mut keeper);
        keeper.phase
    })
}

#[test]
fn the_table_of_phases() {
    let beat = |at: Duration| Phase::Kept { beat_at: at };
    let (kept, soon) = (beat(SENT + PROFILE.heartbeat), beat(NOW + PROFILE.heartbeat / 4));
    let (dying, superseded) = (Phase::Dying, Phase::Superseded);
    let (look, look_later) = (Phase::Looking { at: NOW }, Phase::Looking { at: NOW + RETRY_PAUSE });
    let join = Phase::Joining { at: NOW };
    for (phase, expected) in [
        (beat(NOW), [kept, soon, dying, beat(NOW), beat(NOW), beat(NOW), beat(NOW), beat(NOW), beat(NOW)]),
        (dying, [dying, dying, dying, look, dying, dying, dying, dying, dying]),
        (look, [look, look, look, look, superseded, join, look_later, look, look]),
        (join, [join, join, join, join, join, join, join, kept, look_later]),
        (superseded, [superseded; 9]),
    ] {
        assert_eq!(after_each(phase), expected, "{phase:?}");
    }
}

#[test]
fn what_is_due_is_done_and_nothing_earlier() {
    let later = NOW + Duration::from_nanos(1);
    for (phase, next) in [
        (Phase::Kept { beat_at: NOW }, Next::Beat),
        (Phase::Kept { beat_at: later }, Next::Wait(later)),
        (Phase::Dying, Next::Stop),
        (Phase::Looking { at: NOW }, Next::Look),
        (Phase::Looking { at: later }, Next::Wait(later)),
        (Phase::Joining { at: NOW }, Next::Join),
        (Phase::Joining { at: later }, Next::Wait(later)),
        (Phase::Superseded, Next::Exit),
    ] {
        assert_eq!(keeper(phase).next(NOW), next, "{phase:?}");
    }
}

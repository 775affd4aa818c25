//! The bounds of a migration's phases.

use super::*;

/// In virtual time: what takes as long as its phase may is over, and what takes longer says which phase that was.
#[tokio::test(start_paused = true)]
async fn a_phase_that_takes_too_long_ends_with_its_name() {
    for phase in [Phase::Reserve, Phase::Transfer, Phase::Restore, Phase::Replay] {
        let most = phase.time_max().expect("it has a bound");
        let step = |takes| async move {
            sleep(takes).await;
            Ok(())
        };
        assert_eq!(bounded(phase, step(most - Duration::from_millis(1))).await, Ok(()));
        let late = bounded(phase, step(most + Duration::from_millis(1))).await;
        assert_eq!(late, Err(Failure::Timeout { phase }));
    }
}

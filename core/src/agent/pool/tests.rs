//! Tests of the guest threads.

use std::sync::mpsc;
use std::time::Duration;

use super::*;

#[tokio::test]
async fn one_plugin_can_not_hold_all_threads() {
    let pool = GuestPool::start(2);
    let (release, gate) = mpsc::sync_channel::<()>(4);
    let gate = Arc::new(Mutex::new(gate));
    let (greedy, other) = (Digest([1; 32]), Digest([2; 32]));
    let blocked: Vec<_> = (0..4)
        .map(|_| {
            let (pool, gate) = (pool.clone(), gate.clone());
            tokio::spawn(async move {
                pool.run(greedy, move || {
                    let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(10));
                })
                .await
            })
        })
        .collect();
    let passed = crate::time::within(Duration::from_secs(5), pool.run(other, || 42)).await;
    assert_eq!(passed.expect("the other plugin's job runs while the greedy one blocks"), Ok(42));
    for _ in 0..4 {
        release.send(()).unwrap();
    }
    for job in blocked {
        assert_eq!(job.await.unwrap(), Ok(()));
    }
    tokio::task::spawn_blocking(move || pool.close()).await.unwrap();
}

#[tokio::test]
async fn a_panicking_job_is_reported_and_the_thread_lives() {
    let pool = GuestPool::start(2);
    let plugin = Digest([1; 32]);
    assert_eq!(pool.run(plugin, || -> u32 { panic!("guest job") }).await, Err(PoolClosed));
    assert_eq!(pool.run(plugin, || 1).await, Ok(1));
    pool.close();
    assert_eq!(pool.run(plugin, || 1).await, Err(PoolClosed));
}

#[tokio::test]
async fn a_thread_that_was_slowed_down_is_replaced() {
    let pool = GuestPool::start(2);
    let plugin = Digest([1; 32]);
    let slow_down = || rustix::process::setpriority_process(None, 5).is_ok();
    for _ in 0..8 {
        assert_eq!(pool.run(plugin, slow_down).await, Ok(true));
    }
    assert_eq!(pool.run(plugin, own_priority).await, Ok(own_priority()));
    assert!(pool.shared.threads().len() <= 6, "finished threads are forgotten");
    pool.close();
}

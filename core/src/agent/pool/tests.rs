//! Tests of the guest threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::time::within;

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
    assert_eq!(pool.run(plugin, || -> u32 { panic!("guest job") }).await, Err(PoolError::Panicked));
    assert_eq!(pool.run(plugin, || 1).await, Ok(1));
    pool.close();
    assert_eq!(pool.run(plugin, || 1).await, Err(PoolError::Closed));
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
    // Each replacement forgets those that have finished by then.
    let forgotten = async {
        while pool.shared.threads().len() > 6 + QUERIES_RUNNING_MAX {
            assert_eq!(pool.run(plugin, slow_down).await, Ok(true));
        }
    };
    assert!(within(Duration::from_secs(20), forgotten).await.is_some(), "finished threads are not forgotten");
    pool.close();
}

#[tokio::test]
async fn queries_run_while_turns_hold_all_their_threads_and_the_other_way_round() {
    let pool = GuestPool::start(2);
    let (release, gate) = mpsc::sync_channel::<()>(64);
    let gate = Arc::new(Mutex::new(gate));
    let plugins: Vec<Digest> = (1..=4).map(|number| Digest([number; 32])).collect();
    let hold = |is_query: bool, plugin: Digest| {
        let (pool, gate) = (pool.clone(), gate.clone());
        let job = move || {
            let _ = gate.lock().unwrap().recv_timeout(Duration::from_secs(10));
        };
        tokio::spawn(async move {
            match is_query {
                true => pool.run_query(plugin, job).await,
                false => pool.run(plugin, job).await,
            }
        })
    };
    let soon = Duration::from_secs(5);
    let turns: Vec<_> = plugins.iter().map(|plugin| hold(false, *plugin)).collect();
    let held = || pool.shared.lock().turns.running;
    while held() < 2 {
        tokio::task::yield_now().await;
    }
    let passed = crate::time::within(soon, pool.run_query(plugins[0], || 1)).await;
    assert_eq!(passed, Some(Ok(1)), "a query passes the turns");
    assert_eq!(held(), 2, "a turn does not take a query's thread");
    for _ in 0..turns.len() {
        release.send(()).unwrap();
    }
    for job in turns {
        assert_eq!(job.await.unwrap(), Ok(()));
    }
    let queries: Vec<_> = (0..3).flat_map(|_| plugins.iter().map(|plugin| hold(true, *plugin))).collect();
    let passed = crate::time::within(soon, pool.run(plugins[0], || 2)).await;
    assert_eq!(passed, Some(Ok(2)), "a turn passes the queries");
    for _ in 0..queries.len() {
        release.send(()).unwrap();
    }
    for job in queries {
        assert_eq!(job.await.unwrap(), Ok(()));
    }
    tokio::task::spawn_blocking(move || pool.close()).await.unwrap();
}

#[tokio::test]
async fn who_runs_alone_holds_queries_back_as_well() {
    let pool = GuestPool::start(2);
    let plugin = Digest([1; 32]);
    let alone = pool.alone().await;
    {
        let query = pool.run_query(plugin, || 1);
        tokio::pin!(query);
        assert_eq!(crate::time::within(Duration::from_millis(20), &mut query).await, None);
        assert_eq!(alone.run(|| 2).await, Ok(2));
        drop(alone);
        assert_eq!(query.await, Ok(1));
    }
    tokio::task::spawn_blocking(move || pool.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lone_job_stays_where_it_comes_from() {
    let pool = GuestPool::start(2);
    let plugin = Digest([1; 32]);
    // Tests run on the main thread's task; jobs come from a spawned one, as drivers do.
    let staying = pool.clone();
    let stays = async move {
        let here = std::thread::current().id();
        let ran = staying.run_here(plugin, move || (std::thread::current().id() == here, is_replaceable()));
        let panicked = staying.run_here(plugin, || -> u32 { panic!("guest job") });
        // The runtime's tasks and timers go on meanwhile.
        let (answer, answered) = mpsc::sync_channel(1);
        tokio::spawn(async move {
            crate::time::sleep(Duration::from_millis(20)).await;
            answer.send(true)
        });
        let served = staying.run_here(plugin, move || answered.recv_timeout(Duration::from_secs(10)));
        (ran.ok(), panicked.ok(), served.ok())
    };
    let (ran, panicked, served) = tokio::spawn(stays).await.unwrap();
    assert_eq!(ran, Some(Ok((true, false))));
    assert_eq!(panicked, Some(Err(PoolError::Panicked)));
    assert_eq!(served, Some(Ok(Ok(true))));
    assert_eq!(pool.run(plugin, is_replaceable).await, Ok(true));

    // Beside another turn it goes to a thread of the pool.
    let (release, gate) = mpsc::sync_channel::<()>(1);
    let (started, running) = tokio::sync::oneshot::channel();
    let beside = pool.clone();
    let other = tokio::spawn(async move {
        let wait = move || {
            started.send(()).unwrap();
            gate.recv_timeout(Duration::from_secs(10))
        };
        beside.run(Digest([2; 32]), wait).await
    });
    running.await.unwrap();
    assert!(pool.run_here(plugin, || ()).is_err());
    release.send(()).unwrap();
    assert_eq!(other.await.unwrap(), Ok(Ok(())));
    tokio::task::spawn_blocking({
        let pool = pool.clone();
        move || pool.close()
    })
    .await
    .unwrap();
    assert!(pool.run_here(plugin, || ()).is_err());
}

#[tokio::test]
async fn nothing_stays_where_it_would_block_the_other_tasks() {
    let pool = GuestPool::start(2);
    assert!(pool.run_here(Digest([1; 32]), || ()).is_err());
    pool.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_closes_or_runs_alone_waits_for_what_stays() {
    let pool = GuestPool::start(2);
    let (release, gate) = mpsc::sync_channel::<()>(1);
    let (started, running) = tokio::sync::oneshot::channel();
    let staying = pool.clone();
    let job = tokio::spawn(async move {
        let wait = move || {
            started.send(()).unwrap();
            gate.recv_timeout(Duration::from_secs(10)).is_ok()
        };
        staying.run_here(Digest([1; 32]), wait).ok()
    });
    running.await.unwrap();
    let alone = crate::time::within(Duration::from_millis(50), pool.alone()).await;
    assert!(alone.is_none(), "it is not alone");
    let closing = tokio::task::spawn_blocking({
        let pool = pool.clone();
        move || pool.close()
    });
    crate::time::sleep(Duration::from_millis(50)).await;
    assert!(!closing.is_finished(), "it closed beside a job");
    release.send(()).unwrap();
    closing.await.unwrap();
    assert_eq!(job.await.unwrap(), Some(Ok(true)));
}

#[tokio::test]
async fn jobs_that_come_together_are_worked_on_together() {
    let pool = GuestPool::start(8);
    let plugins = [Digest([1; 32]), Digest([2; 32])];
    for round in 0..200 {
        // Each job ends when all have begun: a thread that is not called leaves them all waiting.
        let meeting = Arc::new((Mutex::new(0), Condvar::new()));
        let jobs = (0..8).map(|number| {
            let meeting = meeting.clone();
            pool.run(plugins[number % 2], move || {
                let (begun, all) = &*meeting;
                let mut begun = begun.lock().unwrap();
                *begun += 1;
                all.notify_all();
                let met = all.wait_timeout_while(begun, Duration::from_secs(10), |begun| *begun < 8);
                !met.unwrap().1.timed_out()
            })
        });
        let met = futures::future::join_all(jobs).await;
        assert!(met.iter().all(|met| *met == Ok(true)), "round {round}: {met:?}");
    }
    tokio::task::spawn_blocking(move || pool.close()).await.unwrap();
}

#[tokio::test]
async fn an_inline_pool_runs_jobs_on_the_calling_thread_one_at_a_time() {
    let paced = Arc::new(AtomicUsize::new(0));
    let counted = paced.clone();
    let pool = GuestPool::inline(Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }));
    let here = std::thread::current().id();
    assert_eq!(pool.run(Digest([1; 32]), move || std::thread::current().id()).await, Ok(here));
    assert_eq!(paced.load(Ordering::Relaxed), 2, "before and behind it");
    let panicked: Result<(), _> = pool.run(Digest([1; 32]), || panic!("asked to")).await;
    assert_eq!(panicked, Err(PoolError::Panicked));

    let alone = pool.alone().await;
    let mut other = Box::pin(pool.run(Digest([1; 32]), || "other"));
    assert!(futures::poll!(&mut other).is_pending(), "nobody runs beside a lone job");
    assert_eq!(alone.run(|| "lone").await, Ok("lone"));
    drop(alone);
    assert_eq!(other.await, Ok("other"));
    pool.close();
    assert_eq!(pool.run(Digest([1; 32]), || ()).await, Err(PoolError::Closed));
}

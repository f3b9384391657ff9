//! Tests of the deterministic executor.

use super::*;

fn ms(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// Counts how many of its clones were dropped.
struct Dropped(Rc<Cell<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Five tasks that sleep and pass a few times; returns the order of their steps and the trace.
fn order(seed: u64) -> (Vec<u32>, u64) {
    let executor = Executor::new(seed);
    let group = executor.group();
    let steps = Rc::new(RefCell::new(Vec::new()));
    for number in 0..5 {
        let (runner, steps) = (executor.clone(), steps.clone());
        executor.spawn(group, async move {
            for round in 0..4 {
                steps.borrow_mut().push(number);
                runner.pass().await;
                runner.sleep_until(group, ms(round)).await;
            }
        });
    }
    executor.run_for(Duration::from_millis(50));
    assert_eq!(executor.tasks(), 0);
    (Rc::try_unwrap(steps).unwrap().into_inner(), executor.trace_hash())
}

#[test]
fn a_seed_repeats_and_seeds_differ() {
    for seed in 0..20 {
        assert_eq!(order(seed), order(seed));
    }
    let orders: BTreeSet<Vec<u32>> = (0..20).map(|seed| order(seed).0).collect();
    assert!(orders.len() > 15, "only {} orders from 20 seeds", orders.len());
}

#[test]
fn the_clock_jumps_to_the_next_timer() {
    let executor = Executor::new(1);
    let group = executor.group();
    let hour = ms(3_600_000);
    executor.run_in(group, executor.sleep_until(group, hour)).unwrap();
    assert!(executor.now() >= hour && executor.now() < hour.after(Duration::from_millis(1)));
    assert!(executor.polls() < 10);
    executor.run_for(Duration::from_secs(5));
    assert!(executor.now() >= hour.after(Duration::from_secs(5)));
}

#[test]
fn timers_fire_beside_a_task_that_never_waits() {
    for seed in 0..20 {
        let executor = Executor::new(seed);
        let group = executor.group();
        let hog = executor.clone();
        executor.spawn(group, async move {
            loop {
                hog.pass().await;
            }
        });
        executor.run_in(group, executor.sleep_until(group, ms(20))).unwrap();
        assert!(executor.now() < ms(40), "late: {:?}", executor.now());
        executor.shut_down();
    }
}

#[test]
fn a_dropped_sleep_leaves_no_timer() {
    let executor = Executor::new(1);
    let group = executor.group();
    executor.run_in(group, async {
        let mut sleep = pin!(executor.sleep_until(group, ms(1_000)));
        assert!(futures_lite::future::poll_once(sleep.as_mut()).await.is_none());
    });
    assert!(executor.0.events.borrow().is_empty());
}

#[test]
fn a_killed_group_is_dropped_at_once_and_does_nothing_more() {
    for seed in 0..50 {
        let executor = Executor::new(seed);
        let (world, node) = (executor.group(), executor.group());
        let (dropped, ran) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        for task in 0..10 {
            let (runner, mark, ran) = (executor.clone(), Dropped(dropped.clone()), ran.clone());
            executor.spawn(node, async move {
                let _mark = mark;
                loop {
                    ran.set(ran.get() + 1);
                    runner.sleep_until(node, runner.now().after(Duration::from_micros(50))).await;
                    if task == 0 && ran.get() > 100 {
                        // From inside: this very task is dropped after its poll.
                        runner.kill(node);
                    }
                }
            });
        }
        executor.run_in(world, executor.sleep_until(world, ms(50))).unwrap();
        assert_eq!(dropped.get(), 10);
        assert_eq!(executor.tasks(), 0);
        let ran_before = ran.get();
        executor.spawn(node, async move { ran.set(0) });
        executor.run_for(Duration::from_secs(1));
        assert_eq!(executor.tasks(), 0);
        assert!(ran_before > 100);
        assert_eq!(executor.run_in(node, async { 1 }), None, "the group is dead");
    }
}

#[test]
fn shutting_down_drops_tasks_that_own_the_executor() {
    let executor = Executor::new(1);
    let group = executor.group();
    let (dropped, owner) = (Rc::new(Cell::new(0)), executor.clone());
    let mark = Dropped(dropped.clone());
    executor.spawn(group, async move {
        let _mark = mark;
        owner.sleep_until(group, ms(u64::MAX / 2_000_000)).await;
    });
    executor.run_for(Duration::from_secs(1));
    executor.shut_down();
    assert_eq!(dropped.get(), 1);
    assert_eq!(Rc::strong_count(&executor.0), 1, "nobody keeps it alive");
}

#[test]
fn a_spawned_task_is_sometimes_polled_before_spawn_returns_and_sometimes_after() {
    let inline: BTreeSet<bool> = (0..50)
        .map(|seed| {
            let executor = Executor::new(seed);
            let group = executor.group();
            let ran = Rc::new(Cell::new(false));
            let inside = ran.clone();
            executor
                .run_in(group, async {
                    executor.spawn(group, async move { inside.set(true) });
                    ran.get()
                })
                .unwrap()
        })
        .collect();
    assert_eq!(inline.len(), 2);
}

#[test]
#[should_panic(expected = "livelock")]
fn a_livelock_is_a_panic() {
    let executor = Executor::new(1);
    let group = executor.group();
    executor.run_in(group, async {
        loop {
            executor.pass().await;
        }
    });
}

#[test]
#[should_panic(expected = "livelock")]
fn a_run_that_takes_too_many_polls_is_a_panic() {
    let executor = Executor::new(1);
    let group = executor.group();
    executor.set_polls_max(1_000);
    executor.run_in(group, async {
        loop {
            executor.sleep_until(group, executor.now().after(Duration::from_micros(1))).await;
        }
    });
}

#[test]
#[should_panic(expected = "asleep for ever: 1 tasks wait")]
fn waiting_for_nobody_is_a_panic() {
    let executor = Executor::new(1);
    let group = executor.group();
    executor.spawn(group, std::future::pending());
    executor.run_in(group, std::future::pending::<()>());
}

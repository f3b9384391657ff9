//! What clocks, tasks and waiting promise.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use engine::env::{Env, File, Open, Persist, Queue};
use engine::wait::{Closed, Gate, Watch};
use futures_lite::future::{or, poll_once, zip};

use crate::{filled, sleep};

const QUEUES: [Queue; 4] = [Queue::Request, Queue::Replication, Queue::Storage, Queue::Background];

const MS: Duration = Duration::from_millis(1);

pub async fn timers_fire_in_order_and_never_early<E: Env>(env: E, _dir: PathBuf) {
    let start = env.now();
    let order = Rc::new(RefCell::new(Vec::new()));
    let fired = Watch::default();
    for wait in [60, 20, 0, 40] {
        let (env2, order, fired) = (env.clone(), order.clone(), fired.clone());
        env.spawn(Queue::Request, async move {
            let at = start.after(wait * MS);
            env2.sleep_until(at).await;
            assert!(env2.now() >= at, "early");
            order.borrow_mut().push(wait);
            fired.raise(fired.value() + 1);
        });
    }
    fired.reach(4).await.unwrap();
    assert_eq!(*order.borrow(), [0, 20, 40, 60]);
    env.sleep_until(start).await;
    assert!(poll_once(env.sleep_until(env.now())).await.is_some(), "it has passed");
}

pub async fn a_dropped_timer_is_forgotten<E: Env>(env: E, _dir: PathBuf) {
    let start = env.now();
    for _ in 0..100 {
        assert!(poll_once(sleep(&env, 5_000 * MS)).await.is_none());
    }
    or(sleep(&env, 3_600_000 * MS), sleep(&env, MS)).await;
    // A long one that is polled again and again fires once, in time.
    let mut long = std::pin::pin!(sleep(&env, 30 * MS));
    while poll_once(long.as_mut()).await.is_none() {
        sleep(&env, MS).await;
    }
    assert!(env.now().since(start) >= 30 * MS);
    assert!(env.now().since(start) < 4_000 * MS);
}

pub async fn clocks_and_random_numbers<E: Env>(env: E, _dir: PathBuf) {
    let (now, wall) = (env.now(), env.wall());
    sleep(&env, 20 * MS).await;
    assert!(env.now().since(now) >= 20 * MS);
    assert!((19..10_000).contains(&env.wall().millis_since(wall)));
    assert!(env.wall().0 > 1_577_836_800_000, "after the year 2020");
    let numbers: BTreeSet<u64> = (0..100).map(|_| env.random()).collect();
    assert_eq!(numbers.len(), 100);
    let ones: u32 = numbers.iter().map(|number| number.count_ones()).sum();
    assert!((2_900..3_500).contains(&ones), "{ones} of 6,400 bits");
}

pub async fn tasks_run_on_every_queue_in_whatever_order<E: Env>(env: E, _dir: PathBuf) {
    let ran = Watch::default();
    let numbers = Rc::new(RefCell::new(BTreeSet::new()));
    for number in 0..40 {
        let (ran, numbers) = (ran.clone(), numbers.clone());
        env.spawn(QUEUES[number % 4], async move {
            assert!(numbers.borrow_mut().insert(number), "{number} ran twice");
            ran.raise(ran.value() + 1);
        });
    }
    ran.reach(40).await.unwrap();
    assert_eq!(numbers.borrow().len(), 40);
}

pub async fn tasks_spawn_tasks_and_outlive_their_parents<E: Env>(env: E, _dir: PathBuf) {
    fn descend<E: Env>(env: &E, left: u64, reached: Watch) {
        let child = env.clone();
        env.spawn(QUEUES[left as usize % 4], async move {
            reached.raise(reached.value() + 1);
            if left > 0 {
                descend(&child, left - 1, reached.clone());
                if left.is_multiple_of(2) {
                    sleep(&child, MS).await;
                }
            }
        });
    }
    let reached = Watch::default();
    descend(&env, 30, reached.clone());
    reached.reach(31).await.unwrap();
}

/// A hog that only ever takes turns must not keep anything else from happening.
pub async fn a_turn_lets_timers_tasks_and_the_disk_through<E: Env>(env: E, dir: PathBuf) {
    let stop = Rc::new(Cell::new(false));
    let gate = Gate::default();
    for queue in [Queue::Request, Queue::Storage] {
        let (env2, stop, pass) = (env.clone(), stop.clone(), gate.enter().unwrap());
        env.spawn(queue, async move {
            let _pass = pass;
            while !stop.get() {
                env2.turn().await;
            }
        });
    }
    let start = env.now();
    let ticks = async {
        for _ in 0..20 {
            sleep(&env, MS).await;
        }
    };
    let writes = async {
        let file = env.open(&dir.join("a"), Open::Create).await.unwrap();
        for pos in 0..10 {
            let block = filled(&env, 4_096, pos as u8);
            file.write_at(block, pos * 4_096, Persist::Written).await.unwrap();
            assert_eq!(*file.read_at(pos * 4_096, 1).await.unwrap(), [pos as u8]);
        }
    };
    let (ping, pong) = (Watch::default(), Watch::default());
    let (ping2, pong2) = (ping.clone(), pong.clone());
    env.spawn(Queue::Background, async move {
        for round in 1..=10 {
            ping2.reach(round).await.unwrap();
            pong2.raise(round);
        }
    });
    let rallies = async {
        for round in 1..=10 {
            ping.raise(round);
            pong.reach(round).await.unwrap();
        }
    };
    zip(ticks, zip(writes, rallies)).await;
    stop.set(true);
    gate.close().await;
    assert!(env.now().since(start) < 20_000 * MS, "starved: {:?}", env.now().since(start));
}

pub async fn a_watch_wakes_across_tasks<E: Env>(env: E, _dir: PathBuf) {
    let (watch, done) = (Watch::default(), Watch::default());
    for value in 1..=20u64 {
        let (watch, done) = (watch.clone(), done.clone());
        env.spawn(QUEUES[value as usize % 4], async move {
            let reached = watch.reach(value).await;
            assert_eq!(reached, if value <= 15 { Ok(()) } else { Err(Closed) }, "{value}");
            assert!(watch.is_closed() || watch.value() >= value);
            done.raise(done.value() + 1);
        });
    }
    for value in [1, 7, 7, 3, 15] {
        sleep(&env, MS).await;
        watch.raise(value);
    }
    done.reach(15).await.unwrap();
    sleep(&env, 2 * MS).await;
    assert_eq!(done.value(), 15);
    watch.close();
    done.reach(20).await.unwrap();
}

pub async fn a_gate_waits_across_tasks<E: Env>(env: E, _dir: PathBuf) {
    let gate = Gate::default();
    let left = Rc::new(Cell::new(0));
    for number in 0..8u32 {
        let (env2, pass, left) = (env.clone(), gate.enter().unwrap(), left.clone());
        env.spawn(QUEUES[number as usize % 4], async move {
            sleep(&env2, number * MS).await;
            left.set(left.get() + 1);
            drop(pass);
        });
    }
    gate.close().await;
    assert_eq!((left.get(), gate.inside()), (8, 0));
    assert!(gate.enter().is_none());
}

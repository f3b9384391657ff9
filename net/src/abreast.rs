//! Many small tasks, some of them at the same time.

use std::cell::RefCell;
use std::rc::Rc;

use engine::env::{Env, Queue};
use engine::wait::Watch;

/// Runs all of `tasks` in `queue`, at most `at_once` of them side by side, and returns when the
/// last one has ended. If nobody waits any more, those not yet begun are left out.
pub(crate) async fn abreast<E: Env, F: Future<Output = ()> + 'static>(
    env: &E,
    queue: Queue,
    at_once: usize,
    tasks: impl Iterator<Item = F> + 'static,
) {
    let tasks = Rc::new(RefCell::new(tasks));
    let ended = Watch::new(0);
    for _ in 0..at_once {
        let (tasks, ended, env_of) = (Rc::downgrade(&tasks), ended.clone(), env.clone());
        env.spawn(queue, async move {
            loop {
                let next = tasks.upgrade().and_then(|tasks| tasks.borrow_mut().next());
                let Some(task) = next else { break };
                task.await;
                env_of.turn().await;
            }
            ended.raise(ended.value() + 1);
        });
    }
    // This watch is never closed.
    let _ = ended.reach(at_once as u64).await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use engine::env::sim::{Sim, SimEnv};

    use super::*;

    #[derive(Default)]
    struct Seen {
        running: Cell<usize>,
        most: Cell<usize>,
        done: Cell<usize>,
    }

    fn tasks(
        env: &SimEnv,
        seen: &Rc<Seen>,
    ) -> impl Iterator<Item = impl Future<Output = ()> + use<>> + use<> {
        let (env, seen) = (env.clone(), seen.clone());
        (0..100).map(move |number| {
            let (env, seen) = (env.clone(), seen.clone());
            async move {
                seen.running.set(seen.running.get() + 1);
                seen.most.set(seen.most.get().max(seen.running.get()));
                let until = env.now().after(Duration::from_millis(1 + number % 7));
                env.sleep_until(until).await;
                seen.running.set(seen.running.get() - 1);
                seen.done.set(seen.done.get() + 1);
            }
        })
    }

    #[test]
    fn all_run_and_as_many_at_once_as_may() {
        let sim = Sim::new(1);
        let (node, seen) = (sim.node(), Rc::new(Seen::default()));
        let env = node.env();
        let all = abreast(&env, Queue::Background, 8, tasks(&env, &seen));
        node.run(all).expect("nobody kills it");
        assert_eq!((seen.done.get(), seen.most.get(), seen.running.get()), (100, 8, 0));
    }

    #[test]
    fn what_nobody_waits_for_is_not_begun() {
        let sim = Sim::new(1);
        let (node, seen) = (sim.node(), Rc::new(Seen::default()));
        let env = node.env();
        node.run(async {
            let all = abreast(&env, Queue::Background, 8, tasks(&env, &seen));
            let late = env.sleep_until(env.now().after(Duration::from_millis(3)));
            futures_lite::future::or(all, late).await;
            env.sleep_until(env.now().after(Duration::from_secs(1))).await;
        })
        .expect("nobody kills it");
        assert_eq!(seen.running.get(), 0, "what was begun has ended");
        assert!((8..50).contains(&seen.done.get()), "{}", seen.done.get());
    }
}

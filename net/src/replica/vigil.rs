//! Watching thousands of partitions for one that waits: only those that have news are looked at
//! again. Each has a waker of its own that says which one it was; so an event costs the same however
//! many are watched, where one future over all of them would begin anew with each.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use engine::ids::TopicPartition;
use engine::wait::{self, Watch};

/// Some partitions, each with what is waited for.
#[derive(Default)]
pub struct Vigil {
    watched: BTreeMap<TopicPartition, Pin<Box<dyn Future<Output = ()>>>>,
    rung: Arc<Rung>,
}

/// Wakers may go anywhere; these never leave their shard, so that nobody ever waits for the lock.
#[derive(Default)]
struct Rung(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    ids: Vec<TopicPartition>,
    /// Who waits for the next one.
    waiter: Option<Waker>,
}

/// The waker of one partition.
struct Bell {
    id: TopicPartition,
    rung: Arc<Rung>,
}

impl Rung {
    fn with<T>(&self, act: impl FnOnce(&mut Heard) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ring(&self, id: TopicPartition) {
        let waiter = self.with(|heard| {
            heard.ids.push(id);
            heard.waiter.take()
        });
        waiter.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.ring(self.id);
    }
}

impl Vigil {
    /// Watches a partition until one of `watches` has reached its value or is closed; `None`: it
    /// has news already. Takes the place of what was watched of it before.
    pub fn post(&mut self, id: TopicPartition, watches: Option<[(Watch, u64); 2]>) {
        let Some(watches) = watches else {
            self.watched.remove(&id);
            return self.rung.ring(id);
        };
        let mut watching = Box::pin(async move { wait::any(&watches).await });
        let bell = Waker::from(Arc::new(Bell { id, rung: self.rung.clone() }));
        match watching.as_mut().poll(&mut Context::from_waker(&bell)) {
            Poll::Pending => drop(self.watched.insert(id, watching)),
            Poll::Ready(()) => {
                self.watched.remove(&id);
                self.rung.ring(id);
            }
        }
    }

    /// Those that have had news since the last time; they are not watched any more.
    pub fn take(&mut self) -> Vec<TopicPartition> {
        let ids = self.rung.with(|heard| std::mem::take(&mut heard.ids));
        ids.iter().for_each(|id| drop(self.watched.remove(id)));
        ids
    }

    /// Waits until there are some.
    pub fn heard(&self) -> impl Future<Output = ()> + use<> {
        let rung = self.rung.clone();
        poll_fn(move |cx| {
            rung.with(|heard| match heard.ids.is_empty() {
                true => {
                    heard.waiter = Some(cx.waker().clone());
                    Poll::Pending
                }
                false => Poll::Ready(()),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use engine::ids::{PartitionIndex, TopicId};

    use super::*;

    fn id(number: i32) -> TopicPartition {
        TopicPartition { topic: TopicId::random(1, 2), partition: PartitionIndex(number) }
    }

    fn is_heard(vigil: &Vigil) -> bool {
        let mut heard = std::pin::pin!(vigil.heard());
        heard.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn only_those_with_news_are_named() {
        let (grows, rises): (Vec<_>, Vec<_>) =
            (0..9).map(|_| (Watch::new(5), Watch::new(3))).unzip();
        let watches = |at: usize| Some([(grows[at].clone(), 6), (rises[at].clone(), 4)]);
        let mut vigil = Vigil::default();
        (0..8).for_each(|at| vigil.post(id(at as i32), watches(at)));
        assert!(!is_heard(&vigil) && vigil.take().is_empty());
        grows[2].raise(7);
        rises[4].raise(4);
        rises[6].close();
        assert!(is_heard(&vigil));
        assert_eq!(vigil.take(), [2, 4, 6].map(id));
        // Once only, until they are watched again.
        grows[2].raise(9);
        assert!(!is_heard(&vigil) && vigil.take().is_empty());
        vigil.post(id(2), watches(2));
        assert_eq!(vigil.take(), [id(2)], "it has grown since");
        vigil.post(id(8), None);
        assert_eq!(vigil.take(), [id(8)]);
    }

    #[test]
    fn whoever_waits_is_woken() {
        struct Counts(std::sync::atomic::AtomicUsize);
        impl Wake for Counts {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let counts = Arc::new(Counts(0.into()));
        let waker = Waker::from(counts.clone());
        let (grows, mut vigil) = (Watch::new(0), Vigil::default());
        vigil.post(id(0), Some([(grows.clone(), 1), (Watch::new(0), 1)]));
        let mut heard = std::pin::pin!(vigil.heard());
        let mut cx = Context::from_waker(&waker);
        assert!(heard.as_mut().poll(&mut cx).is_pending());
        grows.raise(1);
        assert_eq!(counts.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(heard.as_mut().poll(&mut cx).is_ready());
    }
}

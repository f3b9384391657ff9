//! Which partitions of a shard have something for somebody else: whoever carries asks and runs
//! fetch streams waits here, and looks at those only.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use engine::ids::TopicPartition;
use engine::wait::Watch;

/// The list, one per shard. Cloning shares it.
#[derive(Clone)]
pub struct Notices(Rc<Inner>);

struct Inner {
    noted: RefCell<BTreeSet<TopicPartition>>,
    /// Raised with each notice.
    count: Watch,
}

impl Default for Notices {
    fn default() -> Notices {
        Notices(Rc::new(Inner { noted: RefCell::default(), count: Watch::new(0) }))
    }
}

impl Notices {
    pub(super) fn note(&self, id: TopicPartition) {
        if self.0.noted.borrow_mut().insert(id) {
            self.0.count.raise(self.0.count.value() + 1);
        }
    }

    /// Rises with each notice; take its value, then the list, then wait for one more.
    pub fn count(&self) -> Watch {
        self.0.count.clone()
    }

    /// Takes the list: look at [`super::Partition::ask`] and [`super::Partition::follow_news`] of
    /// each.
    pub fn take(&self) -> BTreeSet<TopicPartition> {
        std::mem::take(&mut *self.0.noted.borrow_mut())
    }
}

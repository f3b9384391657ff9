//! The committed cluster of this node: what the quorum's entries make of it, and the newest image.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use engine::ids::{BrokerId, Offset};
use engine::wait::{Closed, Watch};

use crate::cluster::Cluster;
use crate::controller::Controller;
use crate::image::Image;
use crate::machine::{Machine, Stored};
use crate::quorum::{Memory, Picture};
use crate::records::{Record, snapshot};

/// Every entry that is committed, applied; nothing else.
pub(super) struct Published {
    cluster: RefCell<Cluster>,
    /// Exclusive end of what was applied.
    end: Cell<Offset>,
    controller: Cell<Option<BrokerId>>,
    newest: RefCell<Arc<Image>>,
    /// The newest image's offset; closed when there will be none any more.
    offset: Watch,
    /// Why the quorum ended on this node though nobody closed it.
    failure: RefCell<Option<String>>,
    /// Raised to 1 by that.
    failed: Watch,
}

impl Published {
    pub fn new(controller: Option<BrokerId>) -> Published {
        Published {
            cluster: RefCell::default(),
            end: Cell::new(Offset::ZERO),
            controller: Cell::new(controller),
            newest: RefCell::new(Arc::new(Image::empty())),
            offset: Watch::new(0),
            failure: RefCell::default(),
            failed: Watch::new(0),
        }
    }

    /// What is committed, and the exclusive end of it.
    pub fn committed(&self) -> (Cluster, Offset) {
        (self.cluster.borrow().clone(), self.end.get())
    }

    pub fn image(&self) -> Arc<Image> {
        self.newest.borrow().clone()
    }

    pub async fn reach(&self, offset: Offset) -> Result<(), Closed> {
        self.offset.reach(offset.value()).await
    }

    pub fn close(&self) {
        self.offset.close();
    }

    /// The quorum has ended on this node though nobody closed it.
    pub fn fail(&self, why: String) {
        self.failure.borrow_mut().get_or_insert(why);
        self.failed.raise(1);
    }

    pub async fn failure(&self) -> String {
        // This watch is never closed.
        let _ = self.failed.reach(1).await;
        self.failure.borrow().clone().unwrap_or_default()
    }

    /// From now on images name this node's controller as the active one.
    pub fn set_controller(&self, controller: Option<BrokerId>) {
        if self.controller.replace(controller) != controller {
            let mut image = Image::clone(&self.image());
            image.set_controller(controller);
            *self.newest.borrow_mut() = Arc::new(image);
        }
    }

    fn publish(&self, end: Offset) {
        self.end.set(end);
        let image = Image::new(self.cluster.borrow().clone(), end, self.controller.get());
        *self.newest.borrow_mut() = Arc::new(image);
        self.offset.raise(end.value());
    }
}

impl Memory for Published {
    fn apply(&self, at: Offset, records: &[Vec<u8>]) -> Result<(), String> {
        assert_eq!(at, self.end.get(), "entries come in order");
        // All or none: whether they can be read is known before the first is made true.
        let load = |value: &Vec<u8>| Record::load(None, Some(value));
        let records: Result<Vec<Record>, _> = records.iter().map(load).collect();
        let records = records.map_err(|error| error.to_string())?;
        let mut cluster = self.cluster.borrow_mut();
        for record in &records {
            Controller::apply(&mut cluster, at, record);
        }
        drop(cluster);
        self.publish(at.plus(1));
        Ok(())
    }

    fn picture(&self) -> Picture {
        let (cluster, end) = self.committed();
        Box::new(move || snapshot::encode(&cluster, end))
    }

    fn restore(&self, bytes: &[u8], end: Offset) -> Result<(), String> {
        let (cluster, at) = snapshot::decode(bytes).map_err(|error| error.to_string())?;
        if at != end {
            return Err(format!("a snapshot of everything below {at} says it is of {end}"));
        }
        *self.cluster.borrow_mut() = cluster;
        self.publish(end);
        Ok(())
    }
}

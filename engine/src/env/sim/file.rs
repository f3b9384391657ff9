//! Blocks and open files of the simulator.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use nix::errno::Errno;

use super::disk::{Done, FileId, Op};
use super::executor::Group;
use super::node::Node;
use crate::env::{BLOCK_ALIGN, Block, File, Persist, align_up};

/// Zeroed memory that begins at a multiple of [`BLOCK_ALIGN`], as a device would want it.
pub struct SimBlock {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

/// What memory holds that was used before: whoever forgets to fill a block will find it.
const USED: u8 = 0xa7;

impl SimBlock {
    pub(super) fn new(len: usize) -> SimBlock {
        let len = align_up(len);
        let memory = vec![USED; len + BLOCK_ALIGN];
        let start = memory.as_ptr().align_offset(BLOCK_ALIGN);
        assert!(start < BLOCK_ALIGN, "a byte pointer can always be aligned");
        SimBlock { memory, start, len }
    }
}

impl Deref for SimBlock {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl Block for SimBlock {
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    fn trim(&mut self, len: usize) {
        assert!(len <= self.len, "cannot trim {} bytes to {len}", self.len);
        self.len = len;
    }
}

/// An open file on a [`super::SimDisk`]. Belongs to one life of its node: after a kill its
/// operations never complete.
pub struct SimFile {
    node: Node,
    life: Group,
    id: FileId,
    writable: bool,
}

impl SimFile {
    pub(super) fn new(node: Node, life: Group, id: FileId, writable: bool) -> SimFile {
        SimFile { node, life, id, writable }
    }

    fn start(&self, op: Op) -> Doing {
        Doing::new(self.node.clone(), self.life, op)
    }

    /// Like `start`, for what changes the file.
    fn start_change(&self, op: Op) -> Doing {
        let change = self.start(op);
        if self.writable { change } else { change.refused(Errno::EBADF.into()) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.node.close(self.life, self.id);
    }
}

impl File for SimFile {
    type Block = SimBlock;
    type Read = Rc<[u8]>;

    fn write_at(
        &self,
        block: Rc<SimBlock>,
        pos: u64,
        persist: Persist,
    ) -> impl Future<Output = io::Result<()>> {
        assert!(pos.is_multiple_of(BLOCK_ALIGN as u64), "write at {pos} is not aligned");
        assert!(block.len().is_multiple_of(BLOCK_ALIGN), "write of {} bytes", block.len());
        let write = self.start_change(Op::Write { file: self.id, block, pos, persist });
        async move { write.await.map(|_| ()) }
    }

    fn read_at(&self, pos: u64, len: usize) -> impl Future<Output = io::Result<Rc<[u8]>>> {
        let read = self.start(Op::Read { file: self.id, pos, len });
        async move {
            match read.await? {
                Done::Bytes(bytes) => Ok(bytes),
                other => unreachable!("a read ended as {other:?}"),
            }
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> {
        // What it covers is decided here, by the call.
        let upto = self.node.next_change(self.life, self.id);
        let sync = self.start(Op::Sync { file: self.id, upto });
        async move { sync.await.map(|_| ()) }
    }

    fn len(&self) -> impl Future<Output = io::Result<u64>> {
        let len = self.start(Op::Len { file: self.id });
        async move {
            match len.await? {
                Done::Len(len) => Ok(len),
                other => unreachable!("a length ended as {other:?}"),
            }
        }
    }

    fn truncate(&self, len: u64) -> impl Future<Output = io::Result<()>> {
        let truncate = self.start_change(Op::Truncate { file: self.id, len });
        async move { truncate.await.map(|_| ()) }
    }

    fn allocate(&self, pos: u64, len: u64) -> impl Future<Output = io::Result<()>> {
        let allocate = self.start_change(Op::Allocate { file: self.id, pos, len });
        async move { allocate.await.map(|_| ()) }
    }
}

/// Where the end of an operation is left for the future that waits for it, if it still does.
#[derive(Default)]
pub(super) struct Slot {
    done: RefCell<Option<io::Result<Done>>>,
    /// Made with the answer, so that an answer that nobody takes closes its file again.
    opened: Cell<Option<SimFile>>,
    waker: Cell<Option<Waker>>,
}

impl Slot {
    pub(super) fn fill(&self, done: io::Result<Done>, opened: Option<SimFile>) {
        *self.done.borrow_mut() = Some(done);
        self.opened.set(opened);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn take_opened(&self) -> Option<SimFile> {
        self.opened.take()
    }
}

/// An operation of the disk as a future: handed in at its first poll, on its way even if dropped.
pub(super) struct Doing {
    node: Node,
    life: Group,
    op: Option<Op>,
    slot: Rc<Slot>,
}

impl Doing {
    pub(super) fn new(node: Node, life: Group, op: Op) -> Doing {
        Doing { node, life, op: Some(op), slot: Rc::default() }
    }

    /// Never gets as far as the device.
    fn refused(mut self, error: io::Error) -> Doing {
        self.op = None;
        self.slot.fill(Err(error), None);
        self
    }

    pub(super) fn slot(&self) -> Rc<Slot> {
        self.slot.clone()
    }
}

impl Future for Doing {
    type Output = io::Result<Done>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Done>> {
        if let Some(op) = self.op.take() {
            self.node.hand_in(self.life, op, self.slot.clone());
        }
        match self.slot.done.borrow_mut().take() {
            Some(done) => Poll::Ready(done),
            None => {
                self.slot.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

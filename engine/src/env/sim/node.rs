//! A simulated machine: a disk that stays, and one process at a time that uses it.
//!
//! Drives the pure [`Disk`]: hands operations in, lets their time pass, brings back what they
//! brought, and ends the process when it, or a test, or the plan of a cut says so.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::SimEnv;
use super::disk::{Arrival, Cut, Disk, Done, End, Fault, FileId, Op, OpKind};
use super::executor::{Executor, Group};
use super::file::{SimFile, Slot};
use super::random::{Random, Stream};
use crate::env::{Open, Space};

/// A machine; clones are the same machine.
#[derive(Clone)]
pub struct Node(Rc<Machine>);

struct Machine {
    executor: Executor,
    number: u64,
    disk: RefCell<Disk>,
    /// The running process, if any.
    life: Cell<Option<Group>>,
    lives: Cell<u64>,
    shards: Cell<u64>,
    /// Operations whose time came while the device hung, with whom to tell.
    hung: RefCell<Vec<(u64, Rc<Slot>)>>,
    wall_skew_millis: Cell<i64>,
    last_end: Cell<Option<End>>,
}

/// The machines of one simulation, by number.
#[derive(Default)]
struct Nodes(RefCell<Vec<Node>>);

impl Node {
    /// The next machine of the simulation.
    pub(super) fn add(executor: &Executor) -> Node {
        let nodes = executor.thing(Nodes::default);
        let mut nodes = nodes.0.borrow_mut();
        let node = Node::new(executor.clone(), nodes.len() as u64);
        nodes.push(node.clone());
        node
    }

    /// The machine of that number, if there is one.
    pub fn find(executor: &Executor, number: u64) -> Option<Node> {
        executor.thing(Nodes::default).0.borrow().get(usize::try_from(number).ok()?).cloned()
    }

    fn new(executor: Executor, number: u64) -> Node {
        let random = Random::new(executor.seed(), Stream::Disk, number);
        Node(Rc::new(Machine {
            executor,
            number,
            disk: RefCell::new(Disk::new(random)),
            life: Cell::new(None),
            lives: Cell::new(0),
            shards: Cell::new(0),
            hung: RefCell::default(),
            wall_skew_millis: Cell::new(0),
            last_end: Cell::new(None),
        }))
    }

    /// The environment of one more shard of the node's process; starts the process if none runs.
    pub fn env(&self) -> SimEnv {
        let machine = &self.0;
        let life = machine.life.get().unwrap_or_else(|| {
            let life = machine.executor.group();
            machine.life.set(Some(life));
            machine.lives.set(machine.lives.get() + 1);
            machine.shards.set(0);
            life
        });
        let shard = machine.shards.get();
        machine.shards.set(shard + 1);
        let stream = machine.number << 40 | machine.lives.get() << 16 | shard;
        let random = Random::new(machine.executor.seed(), Stream::Program, stream);
        SimEnv::new(machine.executor.clone(), self.clone(), life, random)
    }

    /// Which machine of the simulation this is, from 0.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Whether a process runs on it.
    pub fn is_up(&self) -> bool {
        self.0.life.get().is_some()
    }

    /// How its last process ended, if one has.
    pub fn last_end(&self) -> Option<End> {
        self.0.last_end.get()
    }

    /// Ends the process now: all its tasks are dropped where they stand, and the disk keeps what
    /// this kind of end leaves. Nothing happens if none runs.
    pub fn end(&self, end: End) {
        let machine = &self.0;
        if let Some(life) = machine.life.take() {
            // Before anything is dropped: connections end differently.
            machine.last_end.set(Some(end));
            machine.executor.kill(life);
            let hung = machine.hung.take();
            machine.disk.borrow_mut().end(end);
            drop(hung);
        }
    }

    /// Runs the simulation until `future`, as a task of this node's process, is ready; `None` if
    /// the process ends first. The process must be running: make the future with its [`SimEnv`].
    pub fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let life = self.0.life.get().expect("no process runs: ask for an env first");
        self.0.executor.run_in(life, future)
    }

    /// Its disk.
    pub fn disk(&self) -> SimDisk {
        SimDisk(self.clone())
    }

    /// How far its wall clock is ahead of the simulation's, in milliseconds.
    pub fn set_wall_skew(&self, millis: i64) {
        self.0.wall_skew_millis.set(millis);
    }

    pub(super) fn wall_skew(&self) -> i64 {
        self.0.wall_skew_millis.get()
    }

    pub(super) fn next_change(&self, life: Group, file: FileId) -> u64 {
        if self.0.life.get() == Some(life) { self.0.disk.borrow().next_change(file) } else { 0 }
    }

    pub(super) fn next_name_change(&self) -> u64 {
        self.0.disk.borrow().next_name_change()
    }

    pub(super) fn close(&self, life: Group, file: FileId) {
        if self.0.life.get() == Some(life) {
            self.0.disk.borrow_mut().close(file);
        }
    }

    /// Gives an operation to the device. For a process that has ended nothing happens, ever.
    pub(super) fn hand_in(&self, life: Group, op: Op, slot: Rc<Slot>) {
        if self.0.life.get() != Some(life) {
            return;
        }
        let (number, nanos) = self.0.disk.borrow_mut().start(op);
        let at = self.0.executor.now().after(Duration::from_nanos(nanos));
        let node = self.clone();
        self.0.executor.call_at(life, at, move || node.arrive(life, number, slot));
    }

    /// The operation's time has come, if the device does not hang.
    fn arrive(&self, life: Group, number: u64, slot: Rc<Slot>) {
        let arrival = self.0.disk.borrow_mut().arrive(number);
        match arrival {
            Arrival::Hangs => self.0.hung.borrow_mut().push((number, slot)),
            Arrival::EndsBefore(end) => self.end(end),
            Arrival::Completed(done, end) => {
                self.0.executor.trace(number << 8 | u64::from(done.is_ok()));
                if let Some(end) = end {
                    return self.end(end);
                }
                let opened = match &done {
                    Ok(Done::Opened(id, how)) => {
                        Some(SimFile::new(self.clone(), life, *id, *how != Open::Read))
                    }
                    _ => None,
                };
                slot.fill(done, opened);
            }
        }
    }
}

/// A node's disk, for tests: what is on it, what goes wrong with it, where its power is cut.
/// Everything can be switched at any moment.
#[derive(Clone)]
pub struct SimDisk(Node);

impl SimDisk {
    /// Adds a rule by which operations fail.
    pub fn fail(&self, fault: Fault) {
        self.with(|disk| disk.faults.failing.push(fault));
    }

    /// Takes away every rule by which operations fail.
    pub fn heal(&self) {
        self.with(|disk| disk.faults.failing.clear());
    }

    /// Size of the device in bytes (rounded up to 4 KiB), or no limit. Beyond it writes and
    /// allocations fail with [`io::ErrorKind::StorageFull`], having done what fitted.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.with(|disk| disk.faults.capacity = bytes.map(|bytes| bytes.div_ceil(4096)));
    }

    /// Bytes in use, in whole blocks of 4 KiB.
    pub fn used(&self) -> u64 {
        self.with(|disk| disk.blocks_used() * 4096)
    }

    /// How large the device is; one without a limit says 1 PiB.
    pub fn space(&self) -> Space {
        let total_bytes = self.with(|disk| disk.faults.capacity).map_or(1 << 50, |n| n * 4096);
        Space { total_bytes, usable_bytes: total_bytes.saturating_sub(self.used()) }
    }

    /// How many files may be open at once (then: EMFILE).
    pub fn set_open_files_max(&self, open_files_max: usize) {
        self.with(|disk| disk.faults.open_files_max = open_files_max);
    }

    /// Operations that begin from now on take `factor` times as long; 1 is normal.
    pub fn set_slow(&self, factor: u32) {
        self.with(|disk| disk.faults.slow = factor);
    }

    /// While it hangs, nothing completes; then everything that should have does.
    pub fn set_hang(&self, hang: bool) {
        self.with(|disk| disk.faults.hang = hang);
        let machine = &self.0.0;
        if hang {
            return;
        }
        let Some(life) = machine.life.get() else { return };
        for (number, slot) in machine.hung.take() {
            let node = self.0.clone();
            let now = machine.executor.now();
            machine.executor.call_at(life, now, move || node.arrive(life, number, slot));
        }
    }

    /// Flips one bit of a file's stored bytes; false if the file does not reach so far.
    pub fn rot(&self, path: &Path, bit: u64) -> bool {
        self.with(|disk| disk.rot(path, bit))
    }

    /// Flips a random bit in a random file whose path begins with `prefix`; says where.
    pub fn rot_somewhere(&self, prefix: &str) -> Option<(String, u64)> {
        self.with(|disk| disk.rot_somewhere(prefix))
    }

    /// How many steps (completed operations that change something) this disk has seen.
    pub fn steps(&self) -> u64 {
        self.with(|disk| disk.steps.len() as u64)
    }

    /// The kind of every step so far, in order.
    pub fn step_kinds(&self) -> Vec<OpKind> {
        self.with(|disk| disk.steps.clone())
    }

    /// Plans the end of the node's process at a step that lies ahead; replaces an earlier plan. To
    /// try every crash of a workload: run it once for [`SimDisk::steps`], then once per step and
    /// side with the same seed.
    pub fn cut_at(&self, cut: Cut) {
        self.with(|disk| {
            assert!(cut.step >= disk.steps.len() as u64, "step {} is over", cut.step);
            disk.cut = Some(cut);
        });
    }

    /// Paths of all files, from the root, sorted, as the process sees them.
    pub fn files(&self) -> Vec<String> {
        self.with(|disk| disk.files())
    }

    /// A file's bytes as the process sees them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.with(|disk| disk.bytes(path, false))
    }

    /// A file's bytes if the power were cut and took everything that it may (names apart).
    pub fn durable_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.with(|disk| disk.bytes(path, true))
    }

    fn with<T>(&self, what: impl FnOnce(&mut Disk) -> T) -> T {
        what(&mut self.0.0.disk.borrow_mut())
    }
}

/// The result of an operation that brings nothing.
pub(super) fn nothing(done: io::Result<Done>) -> io::Result<()> {
    match done? {
        Done::Nothing => Ok(()),
        other => unreachable!("an operation without result brought {other:?}"),
    }
}

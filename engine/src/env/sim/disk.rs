//! The simulated disk: a pure core that is told when operations begin, when they complete, and when
//! the process or the power ends. It knows no clock and no tasks; [`super::node`] drives it.
//!
//! What it promises is the least that a device and a journaling file system promise:
//!
//! | state of a change | process killed | power cut |
//! |---|---|---|
//! | in flight | wholly, by sector (512 bytes), or not | the same, then as below |
//! | completed | stays | each sector, each length, each name: kept or lost |
//! | completed, then synced | stays | stays |
//! | written with [`Persist::Synced`] | stays | stays; what was written before it does not gain |
//!
//! Names need [`crate::env::Env::sync_dir`] of their directory. Every completion that changes
//! something is a numbered *step*; a test can end the node exactly before or after any of them.

mod content;
mod faults;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;

use self::content::{Content, Sectors};
use self::tree::Tree;
use super::file::SimBlock;
use super::random::Random;
use crate::env::{Entry, Open, Persist};

pub(super) use self::faults::Faults;
pub use self::faults::{Fault, OpKind};
pub(super) use self::tree::FileId;

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// The process is killed (`kill -9`): what had completed stays.
    Kill,
    /// The power is cut: what had completed but was not synced is kept or lost, piece by piece.
    PowerCut,
}

/// On which side of a step a node ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// The operation is still in flight.
    Before,
    /// It has taken effect, and nobody has heard of it.
    After,
}

/// A planned end of a node, see [`super::SimDisk::cut_at`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cut {
    /// Which step, counted from 0 over the disk's whole life.
    pub step: u64,
    /// On which side of it.
    pub side: Side,
    /// How the node ends there.
    pub end: End,
}

/// An operation, as it is on its way to the device.
pub(super) enum Op {
    Write { file: FileId, block: Rc<SimBlock>, pos: u64, persist: Persist },
    Read { file: FileId, pos: u64, len: usize },
    Sync { file: FileId, upto: u64 },
    Len { file: FileId },
    Truncate { file: FileId, len: u64 },
    Allocate { file: FileId, pos: u64, len: u64 },
    Open { path: PathBuf, how: Open },
    CreateDir { path: PathBuf },
    List { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    RemoveDir { path: PathBuf },
    SyncDir { path: PathBuf, upto: u64 },
}

impl Op {
    pub(super) fn kind(&self) -> OpKind {
        match self {
            Op::Write { .. } => OpKind::Write,
            Op::Read { .. } => OpKind::Read,
            Op::Sync { .. } => OpKind::Sync,
            Op::Len { .. } => OpKind::Len,
            Op::Truncate { .. } => OpKind::Truncate,
            Op::Allocate { .. } => OpKind::Allocate,
            Op::Open { how: Open::Create, .. } => OpKind::Create,
            Op::Open { .. } => OpKind::Open,
            Op::CreateDir { .. } => OpKind::CreateDir,
            Op::List { .. } => OpKind::List,
            Op::Rename { .. } => OpKind::Rename,
            Op::Remove { .. } => OpKind::Remove,
            Op::RemoveDir { .. } => OpKind::RemoveDir,
            Op::SyncDir { .. } => OpKind::SyncDir,
        }
    }
}

impl Op {
    /// The open file that it is about.
    fn file(&self) -> Option<FileId> {
        match self {
            Op::Write { file, .. }
            | Op::Read { file, .. }
            | Op::Sync { file, .. }
            | Op::Len { file }
            | Op::Truncate { file, .. }
            | Op::Allocate { file, .. } => Some(*file),
            _ => None,
        }
    }
}

/// What an operation brought.
#[derive(Debug)]
pub(super) enum Done {
    Nothing,
    Bytes(Rc<[u8]>),
    Len(u64),
    Opened(FileId, Open),
    Entries(Vec<Entry>),
}

/// What is to happen when an operation's time has come.
pub(super) enum Arrival {
    /// The device hangs; it will be told again.
    Hangs,
    /// The node ends now, and the operation is still in flight.
    EndsBefore(End),
    /// It completed; the node may end before anyone hears of it.
    Completed(io::Result<Done>, Option<End>),
}

/// Longest file, in bytes. Its blocks are counted one by one.
const FILE_BYTES_MAX: u64 = 64 << 30;

const KEPT: &str = "what is open or in flight keeps its inode";

struct Inode {
    /// As it was last opened or renamed; for the rules of faults.
    path: String,
    content: Content,
    open: usize,
}

/// See the top of the file.
pub(super) struct Disk {
    random: Random,
    tree: Tree,
    inodes: BTreeMap<FileId, Inode>,
    /// Some inode may have no name (any more).
    unnamed: bool,
    in_flight: BTreeMap<u64, Op>,
    next_op: u64,
    pub(super) faults: Faults,
    pub(super) steps: Vec<OpKind>,
    pub(super) cut: Option<Cut>,
}

impl Disk {
    pub(super) fn new(random: Random) -> Disk {
        Disk {
            random,
            tree: Tree::new(),
            inodes: BTreeMap::new(),
            unnamed: false,
            in_flight: BTreeMap::new(),
            next_op: 0,
            faults: Faults::default(),
            steps: Vec::new(),
            cut: None,
        }
    }

    /// Takes an operation; says its number and how long it will take, in nanoseconds.
    pub(super) fn start(&mut self, op: Op) -> (u64, u64) {
        let number = self.next_op;
        self.next_op += 1;
        let (low, high) = op.kind().micros();
        let usual = self.random.between(low * 1_000, high * 1_000);
        // One in 64 is far slower, so that whole batches of others overtake it.
        let tail = if self.random.chance(1, 64) { self.random.between(2, 40) } else { 1 };
        self.in_flight.insert(number, op);
        (number, usual * tail * u64::from(self.faults.slow))
    }

    /// The operation's time has come.
    pub(super) fn arrive(&mut self, number: u64) -> Arrival {
        if self.faults.hang {
            return Arrival::Hangs;
        }
        let kind = self.in_flight[&number].kind();
        let cut = self.cut.filter(|cut| kind.is_step() && cut.step == self.steps.len() as u64);
        if let Some(Cut { side: Side::Before, end, .. }) = cut {
            return Arrival::EndsBefore(end);
        }
        let op = self.in_flight.remove(&number).expect("looked up above");
        if kind.is_step() {
            self.steps.push(kind);
        }
        let path = self.path_of(&op);
        let done = match self.faults.error(kind, &path, &self.random) {
            Some(error) => {
                self.fail(op);
                Err(error)
            }
            None => self.perform(op),
        };
        Arrival::Completed(done, cut.map(|cut| cut.end))
    }

    /// The node ends. What is in flight lands or does not; the rest see the top of the file.
    pub(super) fn end(&mut self, end: End) {
        self.cut = None;
        let mut in_flight: Vec<Op> = std::mem::take(&mut self.in_flight).into_values().collect();
        self.random.shuffle(&mut in_flight);
        for op in in_flight {
            match self.random.below(3) {
                0 => {}
                1 => self.fail_if_write(op),
                // Nobody will hear of its error.
                _ => drop(self.perform(op)),
            }
        }
        for inode in self.inodes.values_mut() {
            inode.open = 0;
        }
        if end == End::PowerCut {
            // All, nothing, and three mixtures.
            let keep = self.random.below(5);
            self.tree.power_cut(keep, &self.random);
            self.unnamed = true;
            self.forget_unreached();
            for inode in self.inodes.values_mut() {
                inode.content.power_cut(keep, &self.random);
            }
        }
        self.forget_unreached();
    }

    /// A handle was dropped.
    pub(super) fn close(&mut self, file: FileId) {
        if let Some(inode) = self.inodes.get_mut(&file) {
            inode.open -= 1;
            if inode.open == 0 {
                self.forget_unreached();
            }
        }
    }

    /// The point up to which a sync of the file that is called now must cover its changes.
    pub(super) fn next_change(&self, file: FileId) -> u64 {
        self.inodes.get(&file).map_or(0, |inode| inode.content.next_change())
    }

    /// The same for directories.
    pub(super) fn next_name_change(&self) -> u64 {
        self.tree.next_change()
    }

    /// Blocks that files occupy which have a name or are open.
    pub(super) fn blocks_used(&self) -> u64 {
        let named: BTreeSet<FileId> = self.tree.files().into_iter().map(|(_, id)| id).collect();
        let used = self.inodes.iter().filter(|(id, inode)| inode.open > 0 || named.contains(id));
        used.map(|(_, inode)| inode.content.blocks_used()).sum()
    }

    /// Files of the tree as the process sees them.
    pub(super) fn files(&self) -> Vec<String> {
        self.tree.files().into_iter().map(|(path, _)| path).collect()
    }

    /// A file's whole content, as the process sees it or as it would be if a power cut took all.
    pub(super) fn bytes(&self, path: &Path, durable: bool) -> Option<Vec<u8>> {
        let content = &self.inodes.get(&self.tree.find(path).ok()?)?.content;
        Some(if durable { content.durable() } else { content.read(0, usize::MAX >> 1).to_vec() })
    }

    /// Flips a bit of a file; false if there is no such file or bit.
    pub(super) fn rot(&mut self, path: &Path, bit: u64) -> bool {
        let inode = self.tree.find(path).ok().and_then(|id| self.inodes.get_mut(&id));
        inode.is_some_and(|inode| inode.content.rot(bit))
    }

    /// Flips a random bit in a random file under a path; says where.
    pub(super) fn rot_somewhere(&mut self, under: &str) -> Option<(String, u64)> {
        let mut files = self.tree.files();
        files.retain(|(path, id)| path.starts_with(under) && self.inodes[id].content.len() > 0);
        if files.is_empty() {
            return None;
        }
        let (path, id) = files.swap_remove(self.random.below(files.len() as u64) as usize);
        let content = &mut self.inodes.get_mut(&id).expect("listed above").content;
        let bit = self.random.below(content.len() * 8);
        assert!(content.rot(bit), "bit {bit} of {path} exists");
        Some((path, bit))
    }

    fn path_of(&self, op: &Op) -> String {
        match op {
            Op::Rename { from: path, .. }
            | Op::Open { path, .. }
            | Op::CreateDir { path }
            | Op::List { path }
            | Op::Remove { path }
            | Op::RemoveDir { path }
            | Op::SyncDir { path, .. } => rooted(path),
            _ => op.file().map(|file| self.inodes[&file].path.clone()).unwrap_or_default(),
        }
    }

    /// What a failed operation leaves behind.
    fn fail(&mut self, op: Op) {
        match op {
            Op::Sync { file, upto } => {
                let content = &mut self.inodes.get_mut(&file).expect(KEPT).content;
                content.lose(upto, &self.random);
            }
            op => self.fail_if_write(op),
        }
    }

    /// A write lands in part; anything else does not happen.
    fn fail_if_write(&mut self, op: Op) {
        if let Op::Write { file, block, pos, .. } = op
            && pos + block.len() as u64 <= FILE_BYTES_MAX
            && self.room_for(file, pos, block.len() as u64) == block.len() as u64
        {
            let keep = self.random.below(4);
            let sectors = Sectors::some(block.len(), keep, &self.random);
            self.inodes_mut(file).write(block, pos, sectors);
        }
    }

    fn perform(&mut self, op: Op) -> io::Result<Done> {
        match op {
            Op::Write { file, block, pos, persist } => self.write(file, block, pos, persist)?,
            Op::Read { file, pos, len } => {
                return Ok(Done::Bytes(self.inodes_mut(file).read(pos, len)));
            }
            Op::Sync { file, upto } => self.inodes_mut(file).sync(upto),
            Op::Len { file } => return Ok(Done::Len(self.inodes_mut(file).len())),
            Op::Truncate { len, .. } if len > FILE_BYTES_MAX => return Err(Errno::EFBIG.into()),
            Op::Truncate { file, len } => self.inodes_mut(file).truncate(len),
            Op::Allocate { file, pos, len } => self.allocate(file, pos, len)?,
            Op::Open { path, how } => return Ok(Done::Opened(self.open(&path, how)?, how)),
            Op::CreateDir { path } => drop(self.tree.create(&path, true)?),
            Op::List { path } => return self.list(&path).map(Done::Entries),
            Op::Rename { from, to } => self.rename(&from, &to)?,
            Op::Remove { path } => {
                self.tree.remove(&path, false)?;
                self.unnamed = true;
                self.forget_unreached();
            }
            Op::RemoveDir { path } => self.tree.remove(&path, true)?,
            Op::SyncDir { path, upto } => {
                self.tree.sync(&path, upto)?;
                self.forget_unreached();
            }
        }
        Ok(Done::Nothing)
    }

    fn write(
        &mut self,
        file: FileId,
        block: Rc<SimBlock>,
        pos: u64,
        persist: Persist,
    ) -> io::Result<()> {
        let len = block.len() as u64;
        if pos + len > FILE_BYTES_MAX {
            return Err(Errno::EFBIG.into());
        }
        let room = self.room_for(file, pos, len);
        let content = self.inodes_mut(file);
        if room < len {
            let sectors = Sectors::first(block.len(), room / content::SECTOR);
            content.write(block, pos, sectors);
            return Err(Errno::ENOSPC.into());
        }
        match persist {
            Persist::Written => {
                let sectors = Sectors::all(block.len());
                content.write(block, pos, sectors);
            }
            Persist::Synced => content.write_synced(&block, pos),
        }
        Ok(())
    }

    fn allocate(&mut self, file: FileId, pos: u64, len: u64) -> io::Result<()> {
        if pos.saturating_add(len) > FILE_BYTES_MAX {
            return Err(Errno::EFBIG.into());
        }
        let room = self.room_for(file, pos, len);
        if room < len {
            // File systems reserve piece by piece, and not all give back what they had got.
            if room > 0 && self.random.chance(1, 2) {
                self.inodes_mut(file).allocate(pos, room);
            }
            return Err(Errno::ENOSPC.into());
        }
        self.inodes_mut(file).allocate(pos, len);
        Ok(())
    }

    fn open(&mut self, path: &Path, how: Open) -> io::Result<FileId> {
        let open: usize = self.inodes.values().map(|inode| inode.open).sum();
        if open >= self.faults.open_files_max {
            return Err(Errno::EMFILE.into());
        }
        let id = match how {
            Open::Create => {
                let id = self.tree.create(path, false)?;
                let inode = Inode { path: rooted(path), content: Content::default(), open: 0 };
                self.inodes.insert(id, inode);
                id
            }
            Open::Read | Open::Write => self.tree.find(path)?,
        };
        let inode = self.inodes.get_mut(&id).ok_or(Errno::EISDIR)?;
        inode.path = rooted(path);
        inode.open += 1;
        Ok(id)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let entries = self.tree.list(path)?.map(|(name, id)| {
            let inode = self.inodes.get(&id);
            let len = inode.map_or(0, |inode| inode.content.len());
            Entry { name: name.to_owned(), is_dir: inode.is_none(), len }
        });
        Ok(entries.collect())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.tree.rename(from, to)?;
        if let Some(inode) = self.inodes.get_mut(&self.tree.find(to)?) {
            inode.path = rooted(to);
        } else {
            for (path, id) in self.tree.files() {
                self.inodes.get_mut(&id).expect("a name has its file").path = path;
            }
        }
        self.unnamed = true;
        self.forget_unreached();
        Ok(())
    }

    /// How much of `pos..pos + len` there is room for.
    fn room_for(&self, file: FileId, pos: u64, len: u64) -> u64 {
        let Some(capacity) = self.faults.capacity else { return len };
        let content = &self.inodes[&file].content;
        let free = capacity.saturating_sub(self.blocks_used());
        if content.blocks_needed(pos, len) <= free { len } else { content.fitting(pos, len, free) }
    }

    fn inodes_mut(&mut self, file: FileId) -> &mut Content {
        &mut self.inodes.get_mut(&file).expect(KEPT).content
    }

    /// Files that are neither named, nor may be named again, nor in use, cease to be.
    fn forget_unreached(&mut self) {
        if !self.unnamed {
            return;
        }
        let reached = self.tree.reached();
        let in_flight: BTreeSet<FileId> = self.in_flight.values().filter_map(Op::file).collect();
        self.inodes
            .retain(|id, inode| inode.open > 0 || reached.contains(id) || in_flight.contains(id));
        self.unnamed = self.tree.files().len() < self.inodes.len();
    }
}

/// The path as rules of faults name it.
fn rooted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('/') { text.into_owned() } else { format!("/{text}") }
}

//! What can go wrong with a simulated disk, and when.

use std::io;

use nix::errno::Errno;

use super::super::random::Random;

/// A kind of disk operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OpKind {
    /// [`crate::env::File::read_at`].
    Read,
    /// [`crate::env::File::write_at`], either persistence.
    Write,
    /// [`crate::env::File::sync`].
    Sync,
    /// [`crate::env::File::len`].
    Len,
    /// [`crate::env::File::truncate`].
    Truncate,
    /// [`crate::env::File::allocate`].
    Allocate,
    /// [`crate::env::Env::open`] of a file that exists.
    Open,
    /// [`crate::env::Env::open`] with [`crate::env::Open::Create`].
    Create,
    /// One missing directory of [`crate::env::Env::create_dir`].
    CreateDir,
    /// [`crate::env::Env::list`].
    List,
    /// [`crate::env::Env::rename`].
    Rename,
    /// [`crate::env::Env::remove`].
    Remove,
    /// [`crate::env::Env::remove_dir`].
    RemoveDir,
    /// [`crate::env::Env::sync_dir`].
    SyncDir,
}

impl OpKind {
    /// Whether its completion is a step of the disk: a moment before or after which a crash leaves
    /// different states behind.
    pub fn is_step(self) -> bool {
        !matches!(self, OpKind::Read | OpKind::Len | OpKind::Open | OpKind::List)
    }

    /// Usual latency in microseconds, from and to.
    pub(super) fn micros(self) -> (u64, u64) {
        match self {
            OpKind::Read => (40, 160),
            OpKind::Write => (30, 200),
            OpKind::Sync | OpKind::SyncDir => (80, 900),
            OpKind::Allocate | OpKind::Truncate => (10, 120),
            _ => (5, 60),
        }
    }
}

/// Operations that fail: those of one kind, under some path, after a few good ones.
///
/// ```
/// use engine::env::sim::{Fault, OpKind};
/// let every_write = Fault::eio(OpKind::Write);
/// let third_sync_of_one_log = Fault::eio(OpKind::Sync).under("/data/t-0").skip(2).times(1);
/// let full_at_sync = Fault::enospc(OpKind::Sync);
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    kind: OpKind,
    under: String,
    skip: u64,
    times: u64,
    one_in: u64,
    errno: Errno,
}

impl Fault {
    /// Every operation of this kind fails with EIO. A write that fails may have landed in part; a
    /// sync that fails drops what it should have synced, and the next one says nothing of it.
    pub fn eio(kind: OpKind) -> Fault {
        Fault { kind, under: String::new(), skip: 0, times: u64::MAX, one_in: 1, errno: Errno::EIO }
    }

    /// Every operation of this kind fails with ENOSPC (a thin-provisioned device, at sync).
    pub fn enospc(kind: OpKind) -> Fault {
        Fault { errno: Errno::ENOSPC, ..Fault::eio(kind) }
    }

    /// Opening fails with EMFILE: the process has no descriptors left.
    pub fn emfile(kind: OpKind) -> Fault {
        Fault { errno: Errno::EMFILE, ..Fault::eio(kind) }
    }

    /// Only where the path, written from the root (`/data/…`), begins with `prefix`.
    #[must_use]
    pub fn under(self, prefix: &str) -> Fault {
        Fault { under: prefix.to_owned(), ..self }
    }

    /// Not the first `skip` of them.
    #[must_use]
    pub fn skip(self, skip: u64) -> Fault {
        Fault { skip, ..self }
    }

    /// Then so many, then no more.
    #[must_use]
    pub fn times(self, times: u64) -> Fault {
        Fault { times, ..self }
    }

    /// Of these, one in `one_in` by the seed.
    #[must_use]
    pub fn one_in(self, one_in: u64) -> Fault {
        assert!(one_in > 0, "one in zero");
        Fault { one_in, ..self }
    }

    /// Whether it hits this operation; counts it.
    fn hits(&mut self, kind: OpKind, path: &str, random: &Random) -> bool {
        if self.kind != kind || !path.starts_with(&self.under) || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let hit = self.one_in == 1 || random.chance(1, self.one_in);
        self.times -= u64::from(hit);
        hit
    }
}

/// All that is wrong with a disk at the moment.
#[derive(Debug)]
pub(in super::super) struct Faults {
    /// In the order in which they were switched on.
    pub failing: Vec<Fault>,
    /// Device size in blocks of 4 KiB.
    pub capacity: Option<u64>,
    /// Files that may be open at once.
    pub open_files_max: usize,
    /// Factor on every latency.
    pub slow: u32,
    /// Nothing completes.
    pub hang: bool,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            failing: Vec::new(),
            capacity: None,
            open_files_max: usize::MAX,
            slow: 1,
            hang: false,
        }
    }
}

impl Faults {
    /// The error that this operation meets, if any. Every rule counts it.
    pub fn error(&mut self, kind: OpKind, path: &str, random: &Random) -> Option<io::Error> {
        let mut error = None;
        for fault in &mut self.failing {
            if fault.hits(kind, path, random) {
                error = error.or(Some(io::Error::from(fault.errno)));
            }
        }
        error
    }
}

//! What is checked before anything starts, and the one sentence that each failure gets: what is
//! wrong, and what to do. [`Failed`] ends the start; a [`Note`] goes into the banner.
//!
//! Everything here runs once, on the main thread, before the shards.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use engine::env::uring::UringEnv;
use engine::ids::BrokerId;
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::statfs::statfs;
use nix::sys::utsname::uname;

mod data_dir;
mod session;

pub use data_dir::{DataLock, Identity, check_identity};
pub use session::{Session, begin_session, end_session};

/// The oldest kernel with every io_uring operation that the shards use.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// What the executor insists on before it makes a ring.
const MEMLOCK_MIN_BYTES: u64 = 512 << 10;

/// What one shard registers with its three rings, if it may.
const MEMLOCK_SHARD_BYTES: u64 = 3 * (256 << 10);

/// Below this a broker with a thousand partitions runs out of descriptors.
const OPEN_FILES_WANTED: u64 = 65_536;

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The kernel is older than 5.8.
    #[error(
        "Linux {release} is too old: Ringbolt needs 5.8 or later for io_uring; \
         run it on a newer kernel"
    )]
    KernelTooOld {
        /// What `uname -r` prints.
        release: String,
    },
    /// ENOSYS.
    #[error(
        "this kernel has no io_uring; run on Linux 5.8 or later built with CONFIG_IO_URING (some \
         sandboxes, such as gVisor, have none either)"
    )]
    UringMissing,
    /// EPERM, and the sysctl says why.
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {level}); allow it \
         with `sysctl -w kernel.io_uring_disabled=0`"
    )]
    UringDisabled {
        /// 1: only for processes without privilege; 2: for all.
        level: u8,
    },
    /// EPERM from elsewhere.
    #[error(
        "io_uring is forbidden to this process, most likely by the container's seccomp profile; \
         use one that allows io_uring_setup, io_uring_enter and io_uring_register (Docker: \
         `--security-opt seccomp=unconfined`)"
    )]
    UringForbidden,
    /// RLIMIT_MEMLOCK.
    #[error(
        "the limit of locked memory is {limit_kib} KiB and io_uring needs 512; raise it with \
         `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity, Docker: --ulimit memlock=-1)"
    )]
    Memlock {
        /// The limit, after raising it as far as this process may.
        limit_kib: u64,
    },
    /// EADDRINUSE.
    #[error(
        "{address} is taken by another process; stop it (`ss -ltnp` shows which it is) or listen \
         elsewhere with --listen"
    )]
    PortTaken {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// Any other error of `bind`.
    #[error(
        "cannot listen on {address}: {source}; choose an address of this machine with --listen"
    )]
    Port {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The lock file is held.
    #[error(
        "the data directory {} is in use by a running node{}; stop that one or choose another \
         directory with --data",
        .dir.display(),
        .process.map_or(String::new(), |process| format!(" (process {process})"))
    )]
    DataLocked {
        /// The directory.
        dir: PathBuf,
        /// Its process, if it has written its number.
        process: Option<u32>,
    },
    /// The identity file names another cluster.
    #[error(
        "the data directory {} belongs to the cluster {found}, not to {expected}; choose another \
         directory with --data",
        .dir.display()
    )]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// What the file says.
        found: String,
        /// What was configured.
        expected: String,
    },
    /// The identity file names another node.
    #[error(
        "the data directory {} belongs to node {found}, and this is node {expected}; set \
         node.id={found} or choose another directory with --data",
        .dir.display()
    )]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// What the file says.
        found: BrokerId,
        /// What was configured.
        expected: BrokerId,
    },
    /// The identity file is no identity file.
    #[error(
        "{} is damaged ({problem}); restore it from a backup, or move the whole data directory \
         away",
        .file.display()
    )]
    IdentityDamaged {
        /// The file.
        file: PathBuf,
        /// In which way.
        problem: &'static str,
    },
    /// Anything else about the data directory.
    #[error(
        "cannot use the data directory {}: {source}; check its owner and its mount, or choose \
         another with --data",
        .dir.display()
    )]
    DataDir {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What works less well than it could.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Note {
    /// Buffered IO instead.
    #[error(
        "no direct IO on {} ({file_system}): writes go through the page cache, with the same \
         guarantees and less speed; put the data on ext4 or XFS",
        .dir.display()
    )]
    NoDirectIo {
        /// The data directory.
        dir: PathBuf,
        /// The kernel's name of the file system's kind, or its magic number.
        file_system: String,
    },
    /// Rings without registered memory.
    #[error(
        "the limit of locked memory is {limit_kib} KiB: some of {shards} shards read without \
         registered buffers; raise it to {wanted_kib} with `ulimit -l`"
    )]
    Memlock {
        /// The limit.
        limit_kib: u64,
        /// What the shards want together.
        wanted_kib: u64,
        /// How many there are.
        shards: usize,
    },
    /// Few descriptors.
    #[error(
        "the limit of open files is {limit}: a broker with many partitions needs more; raise the \
         hard limit to {OPEN_FILES_WANTED} (systemd: LimitNOFILE, Docker: --ulimit nofile)"
    )]
    OpenFiles {
        /// The hard limit, to which the soft one was raised.
        limit: u64,
    },
}

/// Checks the kernel, io_uring and the limits, raising soft limits as far as allowed.
pub fn machine(shards: usize) -> Result<Vec<Note>, Failed> {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    kernel(&release.unwrap_or_default())?;
    uring(setup_error(), &disabled_level())?;
    let mut notes = Vec::new();
    notes.extend(memlock(raise(Resource::RLIMIT_MEMLOCK), shards, exempt())?);
    notes.extend(open_files(raise(Resource::RLIMIT_NOFILE)));
    Ok(notes)
}

/// The sentence for an error of binding `address`.
pub fn port(address: SocketAddr, source: io::Error) -> Failed {
    if source.kind() == io::ErrorKind::AddrInUse {
        Failed::PortTaken { address }
    } else {
        Failed::Port { address, source }
    }
}

/// Whether files in `dir` are written directly; a note if not. Runs on a shard.
pub async fn direct_io(env: &UringEnv, dir: &Path) -> Result<Option<Note>, Failed> {
    let failed = |source| Failed::DataDir { dir: dir.to_owned(), source };
    if env.direct_io(dir).await.map_err(failed)? {
        return Ok(None);
    }
    let kind = statfs(dir).map_err(|errno| failed(errno.into()))?.filesystem_type().0;
    let file_system = match i128::from(kind) {
        0x0102_1994 => "tmpfs".into(),
        0x794c_7630 => "overlayfs".into(),
        0x0102_1997 => "9p".into(),
        0x6573_5546 => "fuse".into(),
        0x6969 => "nfs".into(),
        other => format!("{other:#x}"),
    };
    Ok(Some(Note::NoDirectIo { dir: dir.to_owned(), file_system }))
}

/// Old kernels only; a release that cannot be read is left to the check of io_uring itself.
fn kernel(release: &str) -> Result<(), Failed> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < KERNEL_MIN => {
            Err(Failed::KernelTooOld { release: release.to_owned() })
        }
        _ => Ok(()),
    }
}

/// What `io_uring_setup` says to a call that cannot succeed: whether it is there and allowed is
/// looked at before its arguments.
#[allow(unsafe_code)]
fn setup_error() -> Errno {
    // SAFETY: a null pointer for the parameters is refused with EFAULT; nothing is made or written.
    let outcome =
        unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null_mut::<libc::c_void>()) };
    assert_eq!(outcome, -1, "a ring without parameters");
    Errno::last()
}

fn disabled_level() -> String {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default()
}

fn uring(said: Errno, disabled: &str) -> Result<(), Failed> {
    match said {
        Errno::ENOSYS => Err(Failed::UringMissing),
        Errno::EPERM | Errno::EACCES => Err(match disabled.trim() {
            "1" => Failed::UringDisabled { level: 1 },
            "2" => Failed::UringDisabled { level: 2 },
            _ => Failed::UringForbidden,
        }),
        _ => Ok(()),
    }
}

/// Raises the soft limit to the hard one and returns what holds then.
fn raise(resource: Resource) -> u64 {
    let Ok((soft, hard)) = getrlimit(resource) else { return RLIM_INFINITY };
    if soft < hard && setrlimit(resource, hard, hard).is_err() {
        return soft;
    }
    hard
}

/// Whether this process may lock memory without limit (CAP_IPC_LOCK, which root mostly has).
fn exempt() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|capabilities| capabilities >> CAP_IPC_LOCK & 1 == 1)
}

fn memlock(limit: u64, shards: usize, exempt: bool) -> Result<Option<Note>, Failed> {
    let limit_kib = limit >> 10;
    if limit < MEMLOCK_MIN_BYTES {
        return Err(Failed::Memlock { limit_kib });
    }
    let wanted = MEMLOCK_SHARD_BYTES * shards as u64;
    let wanted_kib = wanted >> 10;
    let note = Note::Memlock { limit_kib, wanted_kib, shards };
    Ok((limit < wanted && !exempt).then_some(note))
}

fn open_files(limit: u64) -> Option<Note> {
    (limit < OPEN_FILES_WANTED).then_some(Note::OpenFiles { limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_passes_and_its_limits_are_raised() {
        machine(1).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }

    #[test]
    fn an_old_kernel_is_named_and_a_strange_one_is_not() {
        for old in ["5.7.19", "4.19.0-26-amd64", "3.10.0-1160.el7.x86_64"] {
            assert!(kernel(old).unwrap_err().to_string().contains(old));
        }
        for fine in ["5.8.0", "5.10", "6.18.44-fc-v657", "10.0", "", "unknown"] {
            kernel(fine).unwrap();
        }
    }

    #[test]
    fn each_reason_for_no_io_uring_has_its_own_fix() {
        let said = |errno, level| uring(errno, level).unwrap_err().to_string();
        assert!(said(Errno::ENOSYS, "").contains("CONFIG_IO_URING"));
        assert!(said(Errno::EPERM, "2\n").contains("io_uring_disabled = 2"));
        assert!(said(Errno::EPERM, "0\n").contains("seccomp"));
        assert!(said(Errno::EPERM, "").contains("seccomp"));
        uring(Errno::EFAULT, "0").unwrap();
    }

    #[test]
    fn limits_are_judged_per_shard() {
        // The executor looks at the limit whether it applies or not.
        assert!(matches!(memlock(64 << 10, 1, true), Err(Failed::Memlock { limit_kib: 64 })));
        assert_eq!(memlock(RLIM_INFINITY, 1_000, false).unwrap(), None);
        assert_eq!(memlock(8 << 20, 16, true).unwrap(), None);
        let wanted = Note::Memlock { limit_kib: 8_192, wanted_kib: 12_288, shards: 16 };
        assert_eq!(memlock(8 << 20, 16, false).unwrap(), Some(wanted));
        assert_eq!(open_files(1_024), Some(Note::OpenFiles { limit: 1_024 }));
        assert_eq!(open_files(1 << 20), None);
    }

    #[test]
    fn a_taken_port_is_told_from_a_wrong_address() {
        let door = crate::env::uring::bind(([127, 0, 0, 1], 0).into(), 1).unwrap().remove(0);
        let error = crate::env::uring::bind(door.local(), 1).err().unwrap();
        assert!(matches!(port(door.local(), error), Failed::PortTaken { .. }));
        let nowhere: SocketAddr = "192.0.2.1:9092".parse().unwrap();
        let error = crate::env::uring::bind(nowhere, 1).err().unwrap();
        assert!(matches!(port(nowhere, error), Failed::Port { .. }));
    }

    #[test]
    fn memory_is_said_to_have_no_direct_io() {
        let place = tempfile::tempdir_in("/dev/shm").unwrap();
        crate::env::uring::run(|env| async move {
            let note = direct_io(&env, place.path()).await.unwrap();
            let Some(Note::NoDirectIo { file_system, .. }) = note else { panic!("{note:?}") };
            assert_eq!(file_system, "tmpfs");
            let gone = direct_io(&env, &place.path().join("gone")).await;
            assert!(matches!(gone, Err(Failed::DataDir { .. })));
        })
        .unwrap();
    }
}

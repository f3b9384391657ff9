//! Whose data directory it is: a lock for as long as the process lives, and an identity for as
//! long as the data does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::ids::BrokerId;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Failed;

/// Locked while a node runs; holds its process number.
const LOCK_FILE: &str = ".lock";

/// Kafka's name for the same thing.
const IDENTITY_FILE: &str = "meta.properties";

/// An identity file is a few lines; anything longer is something else.
const IDENTITY_BYTES_MAX: u64 = 4_096;

/// The lock on a data directory. The kernel releases it however the process ends.
#[derive(Debug)]
pub struct DataLock {
    _file: Flock<File>,
}

impl DataLock {
    /// Takes the directory, which is made if need be.
    pub fn take(dir: &Path) -> Result<DataLock, Failed> {
        let failed = |source| Failed::DataDir { dir: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join(LOCK_FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(failed)?;
        let patient_until = Instant::now() + ENDING_MAX;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    file.set_len(0).map_err(failed)?;
                    file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
                        .map_err(failed)?;
                    return Ok(DataLock { _file: file });
                }
                Err((mut held, Errno::EWOULDBLOCK)) => {
                    let mut holder = String::new();
                    held.rewind().map_err(failed)?;
                    // Who it is, is a courtesy.
                    let _ = (&mut held).take(20).read_to_string(&mut holder);
                    let process = holder.trim().parse().ok();
                    if !process.is_some_and(is_ending) || Instant::now() > patient_until {
                        return Err(Failed::DataLocked { dir: dir.to_owned(), process });
                    }
                    file = held;
                    std::thread::sleep(ENDING_PAUSE);
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
    }
}

/// How long a process that was killed may take to let go of its files: the kernel takes its rings
/// and memory down first, which can last for seconds on a busy machine.
const ENDING_MAX: Duration = Duration::from_secs(10);
const ENDING_PAUSE: Duration = Duration::from_millis(20);

/// Whether a process has ended but for its last threads, which still hold its files.
fn is_ending(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, which comes before the state, is in parentheses and may hold anything.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_none_or(|state| matches!(state, 'Z' | 'X'))
}

/// Whose data it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster's id, printable and without spaces.
    pub cluster: String,
    /// The node within it.
    pub node: BrokerId,
}

/// Compares the directory with this node, and returns the identity that holds. Needs the lock.
///
/// A directory without an identity gets one: of `cluster`, or of a cluster named by `fresh` where
/// none was configured. It is durable before this returns.
pub fn check_identity(
    _lock: &DataLock,
    dir: &Path,
    cluster: Option<&str>,
    node: BrokerId,
    fresh: impl FnOnce() -> String,
) -> Result<Identity, Failed> {
    let path = dir.join(IDENTITY_FILE);
    let Some(found) = read(dir, &path)? else {
        let cluster = cluster.map_or_else(fresh, str::to_owned);
        let identity = Identity { cluster, node };
        write(dir, &path, &identity)
            .map_err(|source| Failed::DataDir { dir: dir.to_owned(), source })?;
        return Ok(identity);
    };
    if let Some(expected) = cluster
        && expected != found.cluster
    {
        let (found, expected) = (found.cluster, expected.to_owned());
        return Err(Failed::OtherCluster { dir: dir.to_owned(), found, expected });
    }
    if node != found.node {
        return Err(Failed::OtherNode { dir: dir.to_owned(), found: found.node, expected: node });
    }
    Ok(found)
}

fn read(dir: &Path, path: &Path) -> Result<Option<Identity>, Failed> {
    let failed = |source| Failed::DataDir { dir: dir.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(IDENTITY_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let damaged = |problem| Failed::IdentityDamaged { file: path.to_owned(), problem };
    parse(&bytes).map(Some).map_err(damaged)
}

/// What is written, up to and including the line before the checksum.
fn body(identity: &Identity) -> String {
    format!(
        "# Whose data this is. Do not copy it to another node.\n\
         version=1\ncluster.id={}\nnode.id={}\n",
        identity.cluster, identity.node
    )
}

fn parse(bytes: &[u8]) -> Result<Identity, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let (body, checksum) = text.rsplit_once("crc32c=").ok_or("it has no checksum")?;
    let checksum = u32::from_str_radix(checksum.trim(), 16).map_err(|_| "its checksum is none")?;
    if crc32c::crc32c(body.as_bytes()) != checksum {
        return Err("its checksum does not match");
    }
    let value = |key: &str| {
        body.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim)
    };
    if value("version") != Some("1") {
        return Err("it was written by another version");
    }
    let cluster = value("cluster.id").ok_or("it names no cluster")?.to_owned();
    let node = value("node.id").and_then(|id| id.parse().ok()).ok_or("it names no node")?;
    Ok(Identity { cluster, node: BrokerId(node) })
}

/// Writes it whole or not at all: a new file, synced, renamed, and the rename synced.
fn write(dir: &Path, path: &Path, identity: &Identity) -> io::Result<()> {
    let body = body(identity);
    let new: PathBuf = path.with_extension("properties.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{body}crc32c={:08x}", crc32c::crc32c(body.as_bytes()))?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dir: &Path, cluster: Option<&str>, node: i32) -> Result<Identity, Failed> {
        let lock = DataLock::take(dir)?;
        check_identity(&lock, dir, cluster, BrokerId(node), || "fresh-id".into())
    }

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("made/by/the/lock");
        let lock = DataLock::take(&dir).unwrap();
        let Err(Failed::DataLocked { process, .. }) = DataLock::take(&dir) else {
            panic!("it is locked")
        };
        assert_eq!(process, Some(std::process::id()));
        drop(lock);
        DataLock::take(&dir).unwrap();
    }

    #[test]
    fn a_process_that_is_ending_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let lock = DataLock::take(place.path()).unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        // It has ended, and nobody has asked how: a zombie.
        while !is_ending(ended.id()) {
            std::thread::sleep(ENDING_PAUSE);
        }
        fs::write(place.path().join(LOCK_FILE), ended.id().to_string()).unwrap();
        let until = Instant::now() + 5 * ENDING_PAUSE;
        let holds = std::thread::spawn(move || {
            std::thread::sleep(5 * ENDING_PAUSE);
            drop(lock);
        });
        DataLock::take(place.path()).unwrap();
        assert!(Instant::now() >= until && !is_ending(std::process::id()));
        holds.join().unwrap();
        ended.wait().unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = DataLock::take(&file.join("dir")).unwrap_err();
        assert!(matches!(error, Failed::DataDir { .. }));
        assert!(error.to_string().contains("file/dir"), "{error}");
    }

    #[test]
    fn an_identity_is_given_once_and_holds() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let first = check(dir, None, 1).unwrap();
        assert_eq!(first, Identity { cluster: "fresh-id".into(), node: BrokerId(1) });
        assert_eq!(check(dir, Some("fresh-id"), 1).unwrap(), first);
        assert_eq!(check(dir, None, 1).unwrap(), first);
        assert!(matches!(check(dir, Some("other"), 1), Err(Failed::OtherCluster { .. })));
        let error = check(dir, None, 2).unwrap_err();
        assert!(matches!(error, Failed::OtherNode { found: BrokerId(1), .. }));
        assert!(error.to_string().contains("node.id=1"), "{error}");
        let names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn any_damage_is_seen_and_never_repaired() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        check(dir, Some("c"), 7).unwrap();
        let path = dir.join(IDENTITY_FILE);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let outcome = check(dir, Some("c"), 7);
            assert!(matches!(outcome, Err(Failed::IdentityDamaged { .. })), "bit at {at}");
        }
        for cut in 0..good.len() - 1 {
            fs::write(&path, &good[..cut]).unwrap();
            let outcome = check(dir, Some("c"), 7);
            assert!(matches!(outcome, Err(Failed::IdentityDamaged { .. })), "cut at {cut}");
        }
        fs::write(&path, &good).unwrap();
        check(dir, Some("c"), 7).unwrap();
    }
}

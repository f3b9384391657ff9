//! What the last end of this node may have lost: a name for the data directory, and a note of how
//! the last run ended. Needs the lock of the directory.
//!
//! A killed process loses nothing that the system had taken; a power cut loses what was not synced.
//! The kernel's boot id tells the two apart: it is another one after each start of the machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use coordinator::cluster::DirectoryId;
use coordinator::controller::Loss;

use super::{DataLock, Failed};

const SESSION_FILE: &str = "session.properties";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// In place of a boot id, when the node stopped in good order.
const CLEAN: &str = "clean";
/// Such a file is a few lines.
const SESSION_BYTES_MAX: usize = 1_024;

/// This run of the node in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The directory's name, for life.
    pub directory: DirectoryId,
    /// What the last end of the node may have lost.
    pub lost: Loss,
}

/// Begins a run: reads how the last one ended, and notes that this one has begun. `fresh` names a
/// directory that has no name. Durable before this returns.
pub fn begin_session(
    _lock: &DataLock,
    dir: &Path,
    fresh: impl FnOnce() -> [u64; 2],
) -> Result<Session, Failed> {
    let failed = |source| Failed::DataDir { dir: dir.to_owned(), source };
    let boot = boot_id();
    let session = match fs::read(dir.join(SESSION_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Session { directory: DirectoryId::random(fresh()), lost: Loss::Everything }
        }
        Err(error) => return Err(failed(error)),
        Ok(bytes) => {
            let damaged =
                |problem| Failed::IdentityDamaged { file: dir.join(SESSION_FILE), problem };
            let (directory, last) = parse(&bytes).map_err(damaged)?;
            let same_boot = last == CLEAN || (!boot.is_empty() && last == boot);
            let lost = if same_boot { Loss::Nothing } else { Loss::Unsynced };
            Session { directory, lost }
        }
    };
    write(dir, session.directory, &boot).map_err(failed)?;
    Ok(session)
}

/// Notes that the run has ended in good order: everything is synced.
pub fn end_session(_lock: &DataLock, dir: &Path, directory: DirectoryId) -> io::Result<()> {
    write(dir, directory, CLEAN)
}

/// Which start of the machine this is; empty if the system does not say.
fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).map(|id| id.trim().to_string()).unwrap_or_default()
}

fn parse(bytes: &[u8]) -> Result<(DirectoryId, String), &'static str> {
    if bytes.len() > SESSION_BYTES_MAX {
        return Err("it is too long");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let (body, checksum) = text.rsplit_once("crc32c=").ok_or("it has no checksum")?;
    let checksum = u32::from_str_radix(checksum.trim(), 16).map_err(|_| "its checksum is none")?;
    if crc32c::crc32c(body.as_bytes()) != checksum {
        return Err("its checksum does not match");
    }
    let value = |key: &str| {
        body.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim)
    };
    let id = value("directory.id").ok_or("it names no directory")?;
    let id = u128::from_str_radix(id, 16).map_err(|_| "its directory is no id")?;
    Ok((DirectoryId(id), value("boot.id").ok_or("it names no start")?.to_string()))
}

fn write(dir: &Path, directory: DirectoryId, boot: &str) -> io::Result<()> {
    let body = format!(
        "# This directory's name, and how the last run here ended.\n\
         directory.id={:032x}\nboot.id={boot}\n",
        directory.0
    );
    let new = dir.join(format!("{SESSION_FILE}.new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{body}crc32c={:08x}", crc32c::crc32c(body.as_bytes()))?;
    file.sync_all()?;
    fs::rename(&new, dir.join(SESSION_FILE))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_loses_nothing_a_start_of_the_machine_what_was_unsynced() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let lock = DataLock::take(dir).unwrap();
        let first = begin_session(&lock, dir, || [1, 2]).unwrap();
        assert_eq!(first.lost, Loss::Everything);
        let killed = begin_session(&lock, dir, || unreachable!()).unwrap();
        assert_eq!(killed, Session { lost: Loss::Nothing, ..first });
        write(dir, first.directory, "another-start").unwrap();
        let cut = begin_session(&lock, dir, || unreachable!()).unwrap();
        assert_eq!(cut, Session { lost: Loss::Unsynced, ..first });
        write(dir, first.directory, "another-start").unwrap();
        end_session(&lock, dir, first.directory).unwrap();
        let clean = begin_session(&lock, dir, || unreachable!()).unwrap();
        assert_eq!(clean.lost, Loss::Nothing);
    }

    #[test]
    fn damage_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let lock = DataLock::take(dir).unwrap();
        begin_session(&lock, dir, || [1, 2]).unwrap();
        let good = fs::read(dir.join(SESSION_FILE)).unwrap();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(dir.join(SESSION_FILE), &bad).unwrap();
            let outcome = begin_session(&lock, dir, || [3, 4]);
            assert!(matches!(outcome, Err(Failed::IdentityDamaged { .. })), "bit at {at}");
        }
    }
}

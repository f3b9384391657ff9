//! What the device and the kernel can do: synced appends on a raw ring, nothing in between. The
//! baseline that the engine's log is held against.
//!
//! Each write is one `IORING_OP_WRITE` with `RWF_DSYNC` on a file opened with `O_DIRECT`, from
//! memory that was touched before, `depth` of them in flight, each resubmitted as soon as it
//! completes. With [`Space::Reserved`] the file is reserved by the same doubling steps as a segment
//! of the log and written in order, into space that the file system holds but nobody has written;
//! with [`Space::Written`] every block has been written before, which spares the file system its
//! journal: the best that a log with recycled files could reach.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::env::align_up;
use io_uring::{IoUring, opcode, types};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::{O_DIRECT, RWF_DSYNC};

use crate::latency::Latencies;

/// The log reserves in steps that double from this …
const RESERVE_BYTES_MIN: u64 = 64 << 10;
/// … up to this (`engine::log::writer`).
const RESERVE_BYTES_MAX: u64 = 32 << 20;
/// A file is left for the next one here, as the log's default segments are.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Size of a file that is overwritten again and again.
const OVERWRITTEN_BYTES: u64 = 64 << 20;

/// The state of the space that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Reserved in steps, never written.
    Reserved,
    /// Written and synced before.
    Written,
}

/// A ring, a file, and the memory that is written from.
pub struct RawLog {
    ring: IoUring,
    dir: PathBuf,
    file: File,
    space: Space,
    /// Bytes per write, a multiple of the block size.
    bytes: usize,
    slots: Vec<Slot>,
    files: u32,
    pos: u64,
    reserved: u64,
    in_flight: usize,
}

struct Slot {
    memory: Vec<u8>,
    /// First aligned byte in it.
    from: usize,
    begun: Instant,
}

impl RawLog {
    /// Writes of `bytes` (rounded up to whole blocks), `depth` in flight, to files in `dir`.
    pub fn new(dir: &Path, bytes: usize, depth: usize, space: Space) -> io::Result<RawLog> {
        let bytes = align_up(bytes);
        let ring = IoUring::new(depth.next_power_of_two() as u32)?;
        let slots = (0..depth).map(|slot| Slot::new(bytes, slot as u8)).collect();
        let (file, reserved) = match space {
            Space::Reserved => (create(dir, 0)?, 0),
            Space::Written => (written(dir)?, OVERWRITTEN_BYTES),
        };
        let dir = dir.to_owned();
        let (files, pos, in_flight) = (1, 0, 0);
        Ok(RawLog { ring, dir, file, space, bytes, slots, files, pos, reserved, in_flight })
    }

    /// Writes for that long; answers how many writes completed and how long it took.
    pub fn run(&mut self, time: Duration, into: &mut Latencies) -> io::Result<(u64, Duration)> {
        let begun = Instant::now();
        let mut completed = 0;
        for slot in 0..self.slots.len() {
            self.push(slot)?;
        }
        while self.in_flight > 0 {
            self.ring.submit_and_wait(1)?;
            let done: Vec<(usize, i32)> =
                self.ring.completion().map(|c| (c.user_data() as usize, c.result())).collect();
            for (slot, result) in done {
                self.in_flight -= 1;
                if result < 0 {
                    return Err(io::Error::from_raw_os_error(-result));
                }
                if result as usize != self.bytes {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                into.record(self.slots[slot].begun.elapsed().as_nanos() as u64);
                completed += 1;
                if begun.elapsed() < time {
                    self.push(slot)?;
                }
            }
        }
        Ok((completed, begun.elapsed()))
    }

    fn push(&mut self, slot: usize) -> io::Result<()> {
        let begun = Instant::now();
        let pos = self.make_room()?;
        let slot_state = &mut self.slots[slot];
        slot_state.begun = begun;
        let memory = &slot_state.memory[slot_state.from..slot_state.from + self.bytes];
        let fd = types::Fd(self.file.as_raw_fd());
        let write = opcode::Write::new(fd, memory.as_ptr(), self.bytes as u32)
            .offset(pos)
            .rw_flags(RWF_DSYNC)
            .build()
            .user_data(slot as u64);
        push(&mut self.ring, &write)?;
        self.in_flight += 1;
        Ok(())
    }

    /// Where the next write goes; reserves and changes files where the log would.
    fn make_room(&mut self) -> io::Result<u64> {
        let len = self.bytes as u64;
        match self.space {
            Space::Written if self.pos + len > OVERWRITTEN_BYTES => self.pos = 0,
            Space::Reserved if self.pos + len > FILE_BYTES_MAX => {
                // From here on the kernel itself holds the old file for what is in flight.
                self.ring.submit()?;
                std::fs::remove_file(name(&self.dir, self.files - 1))?;
                self.file = create(&self.dir, self.files)?;
                self.files += 1;
                (self.pos, self.reserved) = (0, 0);
            }
            _ => {}
        }
        if self.pos + len > self.reserved {
            let step = self.reserved.clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
            let to = (self.reserved + step).min(FILE_BYTES_MAX).max(self.pos + len);
            let (from, len) = (self.reserved as i64, (to - self.reserved) as i64);
            fallocate(&self.file, FallocateFlags::empty(), from, len)?;
            self.reserved = to;
        }
        let pos = self.pos;
        self.pos += len;
        Ok(pos)
    }
}

impl Slot {
    fn new(bytes: usize, fill: u8) -> Slot {
        let memory = vec![fill | 1; bytes + engine::env::BLOCK_ALIGN];
        let from = memory.as_ptr().align_offset(engine::env::BLOCK_ALIGN);
        Slot { memory, from, begun: Instant::now() }
    }
}

fn name(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("raw-{number}"))
}

fn create(dir: &Path, number: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).custom_flags(O_DIRECT);
    let file = options.open(name(dir, number))?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

/// A file whose every block has been written and synced.
fn written(dir: &Path) -> io::Result<File> {
    let path = dir.join("overwritten");
    let mut options = OpenOptions::new();
    let plain = options.read(true).write(true).create_new(true).open(&path)?;
    let zeros = vec![0; 1 << 20];
    for pos in (0..OVERWRITTEN_BYTES).step_by(zeros.len()) {
        plain.write_all_at(&zeros, pos)?;
    }
    plain.sync_all()?;
    OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(path)
}

/// Puts an operation into the ring.
#[allow(unsafe_code)]
fn push(ring: &mut IoUring, entry: &io_uring::squeue::Entry) -> io::Result<()> {
    // SAFETY: the only entries are writes by `RawLog::push`. Their memory belongs to a slot, which
    // is neither changed nor freed while its write is in flight: `RawLog::run` ends with nothing in
    // flight or with an error, and after an error `Drop` leaves the memory where it is.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|full| io::Error::other(full.to_string()))
}

impl Drop for RawLog {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // A closed ring may still read from it.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_in_the_file_in_order() {
        // Where the executable is there is a disk; /tmp may be memory, which refuses direct IO.
        let executable = std::env::current_exe().expect("this test has a file");
        let dir = tempfile::tempdir_in(executable.parent().expect("in a directory"));
        let dir = dir.expect("a directory");
        let mut raw = RawLog::new(dir.path(), 5_000, 2, Space::Reserved).expect("a ring");
        let mut latencies = Latencies::new();
        let (writes, _) = raw.run(Duration::from_millis(30), &mut latencies).expect("writes");
        assert_eq!((writes, raw.pos), (latencies.count(), writes * 8192));
        assert!(writes >= 2 && raw.reserved >= raw.pos);
        let bytes = std::fs::read(name(dir.path(), 0)).expect("the file");
        assert!(bytes[..raw.pos as usize].iter().all(|byte| *byte == 1));
        assert_eq!(bytes.len() as u64, raw.reserved);
    }
}

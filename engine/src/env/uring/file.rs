//! Files on io_uring: blocks, reads, and one open file with its second, synchronous descriptor.

use std::cell::OnceCell;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use glommio::io::{BufferedFile, DmaBuffer, DmaFile, OpenOptions, ReadResult};
use nix::libc::{EINTR, EMFILE, ENFILE, EOPNOTSUPP, O_DSYNC};

use super::{UringEnv, on_path, os_error};
use crate::env::{BLOCK_ALIGN, Block, Env, File, Open, Persist, align_down, align_up};

/// How long files have no second descriptor when there are few left.
const SCARCE: Duration = Duration::from_secs(1);

/// Device memory, aligned to [`BLOCK_ALIGN`]. It comes from the global
/// allocator: glommio's registered pool is small and serves reads.
pub struct UringBlock(Rc<DmaBuffer>);

impl UringBlock {
    /// Memory of `len` bytes, at least 1, rounded up to [`BLOCK_ALIGN`]. Not zeroed: whoever fills
    /// it touches it anyhow, and of a large block zeroing cost as much as the copy into it.
    pub(super) fn new(len: usize) -> UringBlock {
        UringBlock(Rc::new(glommio::allocate_dma_buffer_global(align_up(len.max(1)))))
    }

    fn buffer_mut(&mut self) -> &mut DmaBuffer {
        Rc::get_mut(&mut self.0).expect("only a write shares it, and that needs the block frozen")
    }
}

impl Deref for UringBlock {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Block for UringBlock {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer_mut().as_bytes_mut()
    }
    fn trim(&mut self, len: usize) {
        self.buffer_mut().trim_to_size(len);
    }
}

/// What a read returned; a clone is a pointer.
#[derive(Clone)]
pub struct UringRead(Bytes);

#[derive(Clone)]
enum Bytes {
    /// One operation brought it all.
    One(ReadResult),
    /// The kernel needed several; they were joined.
    Joined(Rc<[u8]>),
}

impl Deref for UringRead {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::One(read) => read,
            Bytes::Joined(bytes) => bytes,
        }
    }
}

/// An open file. Descriptors: one, and a second one from the first synced write on.
pub struct UringFile {
    env: UringEnv,
    device: Device,
    /// Whether it was opened for writing, too.
    writable: bool,
    /// The same file opened with `O_DSYNC`: one operation writes and flushes.
    synced: OnceCell<Device>,
}

/// How bytes reach the file.
enum Device {
    /// Past the page cache.
    Direct(DmaFile),
    /// Through the page cache, where direct IO is refused.
    Paged(BufferedFile),
}

/// Opens `path`.
///
/// It goes through a plain descriptor first, and from there by `/proc/self/fd`: glommio stats a
/// direct file by path after opening it and panics if the name is gone by then.
pub(super) async fn open(env: &UringEnv, path: &Path, how: Open) -> io::Result<UringFile> {
    let direct = env.direct_io(path.parent().unwrap_or(Path::new("/"))).await?;
    let mut options = OpenOptions::new();
    options.read(true).write(how != Open::Read).create_new(how == Open::Create);
    let plain = options.buffered_open(path).await.map_err(os_error)?;
    let device = if direct {
        match reopen(plain.as_raw_fd(), true, how != Open::Read, 0).await {
            Ok(device) => {
                plain.close().await.map_err(os_error)?;
                device
            }
            Err(error) => {
                drop(plain.close().await);
                if how == Open::Create {
                    // Nothing was made as far as the caller can tell; a second try must work.
                    drop(on_path(path, std::fs::remove_file).await);
                }
                return Err(error);
            }
        }
    } else {
        Device::Paged(plain)
    };
    Ok(UringFile { env: env.clone(), device, writable: how != Open::Read, synced: OnceCell::new() })
}

/// Another descriptor of the same open file, whatever its name is by now.
async fn reopen(fd: RawFd, direct: bool, write: bool, flags: i32) -> io::Result<Device> {
    let path = format!("/proc/self/fd/{fd}");
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(flags);
    if direct {
        Ok(Device::Direct(options.dma_open(path).await.map_err(os_error)?))
    } else {
        Ok(Device::Paged(options.buffered_open(path).await.map_err(os_error)?))
    }
}

impl UringFile {
    /// Whether it bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        matches!(self.device, Device::Direct(_))
    }

    #[cfg(test)]
    pub(super) fn fd(&self) -> RawFd {
        self.device.fd()
    }

    /// The descriptor whose writes are flushed, opened when first needed; `None` if it cannot be,
    /// or if descriptors are scarce: then it is one operation more for each write, but there is a
    /// first one for every file.
    async fn synced(&self) -> io::Result<Option<&Device>> {
        let shard = &self.env.0;
        let scarce = self.env.now() < shard.scarce_until.get();
        if self.synced.get().is_none() && shard.proc_fd && !scarce {
            let opened = reopen(self.device.fd(), self.is_direct(), self.writable, O_DSYNC).await;
            // The kernel gives the lowest free number, so that a high one says how many are taken.
            if opened.as_ref().map_or_else(is_out, |device| device.fd() >= shard.scarce_from) {
                shard.scarce_until.set(self.env.now().after(SCARCE));
            }
            match opened {
                // Another write may have been faster; both descriptors are the same to us.
                Ok(device) => drop(self.synced.set(device)),
                Err(error) if is_out(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.synced.get())
    }
}

/// Whether the process or the system has no descriptor to give.
fn is_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

impl File for UringFile {
    type Block = UringBlock;
    type Read = UringRead;

    async fn write_at(&self, block: Rc<UringBlock>, pos: u64, persist: Persist) -> io::Result<()> {
        assert!(
            block.len().is_multiple_of(BLOCK_ALIGN) && pos.is_multiple_of(BLOCK_ALIGN as u64),
            "whole blocks only: {} bytes at {pos}",
            block.len()
        );
        match persist {
            Persist::Written => self.device.write_all(block.0.clone(), pos).await,
            Persist::Synced => match self.synced().await? {
                Some(device) => device.write_all(block.0.clone(), pos).await,
                None => {
                    self.device.write_all(block.0.clone(), pos).await?;
                    self.sync().await
                }
            },
        }
    }

    async fn read_at(&self, pos: u64, len: usize) -> io::Result<UringRead> {
        let first = self.device.read(pos, len).await?;
        if first.len() == len {
            return Ok(UringRead(Bytes::One(first)));
        }
        // Short: the end of the file, or one operation that the kernel cut off.
        let end = self.len().await?;
        let want = usize::try_from(end.saturating_sub(pos)).unwrap_or(usize::MAX).min(len);
        if first.len() >= want {
            return Ok(UringRead(Bytes::One(first)));
        }
        let mut bytes = Vec::with_capacity(want);
        bytes.extend_from_slice(&first);
        while bytes.len() < want {
            let more = self.device.read(pos + bytes.len() as u64, want - bytes.len()).await?;
            if more.is_empty() {
                break;
            }
            bytes.extend_from_slice(&more);
        }
        Ok(UringRead(Bytes::Joined(bytes.into())))
    }

    async fn sync(&self) -> io::Result<()> {
        match &self.device {
            Device::Direct(file) => file.fdatasync().await.map_err(os_error),
            Device::Paged(file) => file.fdatasync().await.map_err(os_error),
        }
    }

    async fn len(&self) -> io::Result<u64> {
        // glommio stats by path, which is wrong after a rename.
        Ok(u64::try_from(nix::sys::stat::fstat(borrow(self.device.fd()))?.st_size).unwrap_or(0))
    }

    async fn truncate(&self, len: u64) -> io::Result<()> {
        match &self.device {
            Device::Direct(file) => file.truncate(len).await.map_err(os_error),
            Device::Paged(file) => file.truncate(len).await.map_err(os_error),
        }
    }

    async fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        // From 0, because glommio can do no other; what is there already costs one look at the
        // extents.
        let end = pos + len;
        loop {
            let outcome = match &self.device {
                Device::Direct(file) => file.pre_allocate(end, false).await,
                Device::Paged(file) => file.pre_allocate(end, false).await,
            };
            match outcome.map_err(os_error) {
                Err(error) if error.raw_os_error() == Some(EINTR) => {}
                Err(error) if error.raw_os_error() == Some(EOPNOTSUPP) => {
                    // No reservations on this file system: the length at least.
                    return if self.len().await? < end { self.truncate(end).await } else { Ok(()) };
                }
                other => return other,
            }
        }
    }
}

impl Device {
    fn fd(&self) -> RawFd {
        match self {
            Device::Direct(file) => file.as_raw_fd(),
            Device::Paged(file) => file.as_raw_fd(),
        }
    }

    /// Writes all of `buffer`. A short write (a device that fills up) is continued from the last
    /// whole block, so that the reason comes out as an error.
    async fn write_all(&self, buffer: Rc<DmaBuffer>, pos: u64) -> io::Result<()> {
        let mut done = self.write(buffer.clone(), pos).await?;
        while done < buffer.len() {
            let from = done - done % BLOCK_ALIGN;
            let mut rest = glommio::allocate_dma_buffer_global(buffer.len() - from);
            rest.as_bytes_mut().copy_from_slice(&buffer.as_bytes()[from..]);
            let more = self.write(Rc::new(rest), pos + from as u64).await?;
            if from + more <= done {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done = from + more;
        }
        Ok(())
    }

    async fn write(&self, buffer: Rc<DmaBuffer>, pos: u64) -> io::Result<usize> {
        match self {
            Device::Direct(file) => file.write_rc_at(buffer, pos).await.map_err(os_error),
            Device::Paged(file) => {
                file.write_at(buffer.as_bytes().to_vec(), pos).await.map_err(os_error)
            }
        }
    }

    /// One operation's worth of `pos..pos + len`: shorter at the end of the file, or anywhere.
    async fn read(&self, pos: u64, len: usize) -> io::Result<ReadResult> {
        if len == 0 {
            return Ok(ReadResult::default());
        }
        match self {
            Device::Paged(file) => file.read_at(pos, len).await.map_err(os_error),
            Device::Direct(file) => {
                // `DmaFile::read_at` would return bytes from past the end of the file.
                let from = align_down(pos);
                let skip = (pos - from) as usize;
                let read = file.read_at_aligned(from, align_up(skip + len)).await;
                let read = read.map_err(os_error)?;
                let got = read.len().saturating_sub(skip).min(len);
                Ok(ReadResult::slice(&read, skip, got).unwrap_or_default())
            }
        }
    }
}

/// The descriptor of a file that is open as long as the call lasts.
#[allow(unsafe_code)]
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: callers pass the descriptor of a glommio file that they hold, and use the result only
    // within that call; glommio offers no `AsFd`.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

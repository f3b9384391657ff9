//! Finding out, once per device, whether its files can be read and written directly.
//!
//! It must happen before any other direct open: glommio decides by reading the first file that it
//! opens on a device whether completions can be polled for, and mistakes an empty file for a yes;
//! from then on every direct read of the thread fails and writes spin. So the first file is ours
//! and not empty.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

use super::{UringEnv, on_path, os_error};
use crate::env::BLOCK_ALIGN;
use crate::wait::Watch;

/// What is known about a device.
#[derive(Clone)]
pub enum Probe {
    /// Somebody is finding out; the watch reaches 1 when it is known.
    Running(Watch),
    /// Whether direct IO works.
    Known(bool),
}

/// What the probe file holds.
const PATTERN: u8 = 0x5a;

/// Whether files in `dir` can be opened for direct IO.
pub async fn direct_io(env: &UringEnv, dir: &Path) -> io::Result<bool> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    // One uncontended stat of a directory that is about to be used: not worth a thread.
    let device = std::fs::metadata(dir)?.dev();
    loop {
        let known = env.0.probes.borrow().get(&device).cloned();
        match known {
            Some(Probe::Known(direct)) => return Ok(direct),
            // If the one who probes is dropped on the way the watch is closed, and we try.
            Some(Probe::Running(watch)) => drop(watch.reach(1).await),
            None => break,
        }
    }
    let running = Running { env, device, watch: Watch::new(0) };
    env.0.probes.borrow_mut().insert(device, Probe::Running(running.watch.clone()));
    let direct = match try_direct(env, dir).await {
        Ok(direct) => direct,
        Err(error) => {
            tracing::debug!(dir = %dir.display(), %error, "no direct IO");
            false
        }
    };
    env.0.probes.borrow_mut().insert(device, Probe::Known(direct));
    running.watch.raise(1);
    Ok(direct)
}

/// Forgets a probe that was given up, so that the next one to ask makes another.
struct Running<'a> {
    env: &'a UringEnv,
    device: u64,
    watch: Watch,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut probes = self.env.0.probes.borrow_mut();
        if matches!(probes.get(&self.device), Some(Probe::Running(_))) {
            probes.remove(&self.device);
        }
        drop(probes);
        self.watch.close();
    }
}

/// Reads and writes one block of a nameless file directly; an error or a wrong byte means no.
async fn try_direct(env: &UringEnv, dir: &Path) -> io::Result<bool> {
    if !env.0.proc_fd {
        return Ok(false);
    }
    let name = format!(".ringbolt-probe-{}-{}", std::process::id(), env.0.index);
    let file = on_path(dir, move |dir| nameless(&dir.join(name))).await?;
    if fstatfs(&file)?.filesystem_type() == TMPFS_MAGIC {
        // Memory; glommio never asks it for O_DIRECT.
        return Ok(false);
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let direct = glommio::io::OpenOptions::new()
        .read(true)
        .write(true)
        .dma_open(path)
        .await
        .map_err(os_error)?;
    let outcome = async {
        let read = direct.read_at_aligned(0, BLOCK_ALIGN).await.map_err(os_error)?;
        if read.len() != BLOCK_ALIGN || read.iter().any(|byte| *byte != PATTERN) {
            return Ok(false);
        }
        let mut block = glommio::allocate_dma_buffer_global(BLOCK_ALIGN);
        block.as_bytes_mut().fill(!PATTERN);
        let written = direct.write_at(block, BLOCK_ALIGN as u64).await.map_err(os_error)?;
        Ok(written == BLOCK_ALIGN)
    }
    .await;
    direct.close().await.map_err(os_error)?;
    outcome
}

/// A file of one block that has already lost its name, so that a crash leaves nothing behind.
fn nameless(path: &Path) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let written = file.write_all(&[PATTERN; BLOCK_ALIGN]).and_then(|()| file.sync_data());
    std::fs::remove_file(path)?;
    written.map(|()| file)
}

//! Files while descriptors are scarce: each is written and flushed with the one that it has, and
//! some are left for others. A test binary of its own, because it lowers the limit of its process.

use std::rc::Rc;

use engine::env::uring::run;
use engine::env::{BLOCK_ALIGN, Block, Env, File, Open, Persist};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the process may open.
const LIMIT: u64 = 160;
/// Files: with two descriptors each they would be more than that.
const FILES: u8 = 100;

#[test]
fn one_descriptor_is_enough_for_a_file() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it is known");
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).expect("it may be lowered");
    // Where the executable is there is a disk; /tmp may be memory.
    let executable = std::env::current_exe().expect("this test has a file");
    let dir = tempfile::tempdir_in(executable.parent().expect("in a directory"));
    let dir = dir.expect("a directory");
    let path = dir.path().to_owned();
    run(|env| async move {
        let mut files = Vec::new();
        for number in 0..FILES {
            let file = env.open(&path.join(number.to_string()), Open::Create).await;
            files.push(file.expect("a first descriptor"));
        }
        for (file, number) in files.iter().zip(1..) {
            let mut block = env.block(BLOCK_ALIGN);
            block.bytes_mut().fill(number);
            let written = file.write_at(Rc::new(block), 0, Persist::Synced).await;
            written.expect("a second one is not needed");
        }
        for (file, number) in files.iter().zip(1..) {
            let read = file.read_at(0, BLOCK_ALIGN).await.expect("it is there");
            assert!(read.iter().all(|byte| *byte == number), "file {number}");
        }
        let others: Vec<_> =
            (0..10).map(|_| std::fs::File::open("/dev/null").expect("some are left")).collect();
        drop(others);
    })
    .expect("a shard");
}

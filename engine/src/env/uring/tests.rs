//! Files, directories and time of [`UringEnv`] on real file systems: the disk's and memory's.

use std::cell::Cell;
use std::io::ErrorKind;

use futures_lite::future::{poll_once, zip};

use super::*;
use crate::env::{BLOCK_ALIGN, Block, File, Persist};

/// A directory on disk and one in memory (where there is no direct IO).
fn places() -> Vec<tempfile::TempDir> {
    // Beside the test binary, because /tmp may be memory.
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut places = vec![tempfile::tempdir_in(beside).unwrap()];
    if Path::new("/dev/shm").is_dir() {
        places.push(tempfile::tempdir_in("/dev/shm").unwrap());
    }
    places
}

fn block(env: &UringEnv, len: usize, fill: u8) -> Rc<UringBlock> {
    let mut block = env.block(len);
    block.bytes_mut().fill(fill);
    Rc::new(block)
}

/// Runs `test` on a shard in each kind of directory.
fn everywhere<Fut: Future<Output = ()>>(test: impl Fn(UringEnv, PathBuf) -> Fut) {
    for place in places() {
        run(|env| test(env, place.path().to_owned())).unwrap();
    }
}

#[test]
fn what_is_written_is_read_at_any_position_and_never_past_the_end() {
    everywhere(|env, dir| async move {
        let file = env.open(&dir.join("a"), Open::Create).await.unwrap();
        for (i, persist) in [Persist::Written, Persist::Synced].into_iter().enumerate() {
            let pos = (i * 2 * BLOCK_ALIGN) as u64;
            file.write_at(block(&env, 2 * BLOCK_ALIGN, 7 + i as u8), pos, persist).await.unwrap();
        }
        file.sync().await.unwrap();
        file.truncate(5_000).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 5_000);
        for (pos, len, got) in
            [(0, 5_000, 5_000), (4_999, 10, 1), (5_000, 10, 0), (9_999, 1, 0), (4_090, 20, 20)]
        {
            let read = file.read_at(pos, len).await.unwrap();
            assert_eq!((read.len(), &*read), (got, &[7; 5_000][..got]), "{len} bytes at {pos}");
        }
        file.truncate(3 * BLOCK_ALIGN as u64).await.unwrap();
        let read = file.read_at(4_999, 3).await.unwrap();
        assert_eq!(&*read, [7, 0, 0], "extending adds zeros");
        assert_eq!(file.read_at(0, 0).await.unwrap().len(), 0);
    });
}

#[test]
fn a_file_keeps_working_and_keeps_its_length_after_a_rename() {
    everywhere(|env, dir| async move {
        let file = env.open(&dir.join("a"), Open::Create).await.unwrap();
        env.rename(&dir.join("a"), &dir.join("b")).await.unwrap();
        // A new file under the old name must not be mistaken for it, least of all by the second
        // descriptor, which is opened only now.
        let other = env.open(&dir.join("a"), Open::Create).await.unwrap();
        file.write_at(block(&env, 8_192, 1), 0, Persist::Synced).await.unwrap();
        assert_eq!((file.len().await.unwrap(), other.len().await.unwrap()), (8_192, 0));
        env.remove(&dir.join("b")).await.unwrap();
        file.write_at(block(&env, 4_096, 2), 8_192, Persist::Synced).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 12_288, "a nameless file is still a file");
    });
}

#[test]
fn an_allocated_range_reads_as_zeros_and_keeps_what_was_there() {
    everywhere(|env, dir| async move {
        let file = env.open(&dir.join("a"), Open::Create).await.unwrap();
        file.write_at(block(&env, 4_096, 9), 0, Persist::Written).await.unwrap();
        file.allocate(4_096, 1 << 20).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 4_096 + (1 << 20));
        let read = file.read_at(4_000, 200).await.unwrap();
        assert_eq!((&read[..96], &read[96..]), (&[9; 96][..], &[0; 104][..]));
        file.allocate(0, 10).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 4_096 + (1 << 20), "it never shortens");
        let error = file.allocate(0, 1 << 55).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::FileTooLarge),
            "{error:?}"
        );
    });
}

#[test]
fn errors_keep_their_kind_and_number() {
    everywhere(|env, dir| async move {
        let missing = env.open(&dir.join("none"), Open::Write).await.err().unwrap();
        assert_eq!((missing.kind(), missing.raw_os_error()), (ErrorKind::NotFound, Some(2)));
        drop(env.open(&dir.join("a"), Open::Create).await.unwrap());
        let twice = env.open(&dir.join("a"), Open::Create).await.err().unwrap();
        assert_eq!((twice.kind(), twice.raw_os_error()), (ErrorKind::AlreadyExists, Some(17)));
        let file = env.open(&dir.join("a"), Open::Read).await.unwrap();
        let refused = file.write_at(block(&env, 4_096, 0), 0, Persist::Written).await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(9), "{refused:?}");
        let gone = env.sync_dir(&dir.join("none")).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn directories_list_sorted_and_nothing_is_left_of_the_probe() {
    everywhere(|env, dir| async move {
        env.create_dir(&dir.join("x/y")).await.unwrap();
        env.create_dir(&dir.join("x/y")).await.unwrap();
        let file = env.open(&dir.join("b"), Open::Create).await.unwrap();
        file.truncate(10).await.unwrap();
        env.sync_dir(&dir).await.unwrap();
        let entry = |name: &str, is_dir, len| Entry { name: name.into(), is_dir, len };
        assert_eq!(env.list(&dir).await.unwrap(), [entry("b", false, 10), entry("x", true, 0)]);
        assert!(env.remove_dir(&dir.join("x")).await.is_err(), "it is not empty");
        env.remove_dir(&dir.join("x/y")).await.unwrap();
        env.remove_dir(&dir.join("x")).await.unwrap();
        assert_eq!(env.list(&dir).await.unwrap().len(), 1);
    });
}

#[test]
fn memory_has_no_direct_io_and_many_may_ask_at_once() {
    everywhere(|env, dir| async move {
        let (a, b) = zip(env.direct_io(&dir), env.direct_io(&dir)).await;
        assert_eq!(a.unwrap(), b.unwrap());
        if dir.starts_with("/dev/shm") {
            assert!(!env.direct_io(&dir).await.unwrap());
        }
        let file = env.open(&dir.join("a"), Open::Create).await.unwrap();
        assert_eq!(file.is_direct(), env.direct_io(&dir).await.unwrap());
        assert!(env.direct_io(&dir.join("none")).await.is_err());
    });
}

#[test]
fn a_probe_that_is_given_up_is_made_by_the_next_one() {
    everywhere(|env, dir| async move {
        let mut first = Box::pin(env.direct_io(&dir));
        assert!(poll_once(&mut first).await.is_none());
        let mut second = Box::pin(env.direct_io(&dir));
        assert!(poll_once(&mut second).await.is_none());
        drop(first);
        second.await.unwrap();
    });
}

#[test]
fn an_empty_file_opened_first_does_not_break_reading() {
    // glommio would take the first file's emptiness for a device that can be polled.
    everywhere(|env, dir| async move {
        std::fs::write(dir.join("empty"), b"").unwrap();
        let empty = env.open(&dir.join("empty"), Open::Write).await.unwrap();
        assert_eq!(empty.read_at(0, 100).await.unwrap().len(), 0);
        empty.write_at(block(&env, 4_096, 3), 0, Persist::Synced).await.unwrap();
        assert_eq!(&*empty.read_at(10, 2).await.unwrap(), [3, 3]);
    });
}

#[test]
fn a_dropped_file_gives_its_descriptors_back() {
    everywhere(|env, dir| async move {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let file = env.open(&dir.join("a"), Open::Create).await.unwrap();
        let before = open();
        for _ in 0..50 {
            let file = env.open(&dir.join("a"), Open::Write).await.unwrap();
            file.write_at(block(&env, 4_096, 3), 0, Persist::Synced).await.unwrap();
        }
        env.sleep_until(env.now().after(Duration::from_millis(20))).await;
        // Other tests of this process open files, too.
        assert!(open() < before + 60, "{before} descriptors became {}", open());
        drop(file);
    });
}

#[test]
fn descriptors_are_not_inherited() {
    everywhere(|env, dir| async move {
        let file = env.open(&dir.join("a"), Open::Create).await.unwrap();
        let fd = file.fd();
        let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_ne!(flags & nix::libc::O_CLOEXEC, 0);
    });
}

#[test]
fn sleeping_and_spawning() {
    run(|env| async move {
        let start = env.now();
        let ran = Rc::new(Cell::new(0));
        for queue in [Queue::Request, Queue::Replication, Queue::Storage, Queue::Background] {
            let (ran, env2) = (ran.clone(), env.clone());
            env.spawn(queue, async move {
                env2.sleep_until(start.after(Duration::from_millis(5))).await;
                ran.set(ran.get() + 1);
            });
        }
        env.sleep_until(start).await;
        env.sleep_until(start.after(Duration::from_millis(20))).await;
        assert_eq!(ran.get(), 4);
        assert!(env.now().since(start) >= Duration::from_millis(20));
        assert!(env.wall().0 > 1_600_000_000_000);
        assert_ne!(env.random(), env.random());
    })
    .unwrap();
}

#[test]
fn every_shard_gets_its_own_end_and_a_common_clock() {
    let shards = start_shards(&ShardOptions::default(), vec!['a', 'b'], |env, end| async move {
        env.sleep_until(env.now().after(Duration::from_millis(1))).await;
        (env.shard(), env.shards(), end, env.now(), std::thread::current().name().map(String::from))
    })
    .unwrap();
    let ended: Vec<_> = shards.join().into_iter().map(Result::unwrap).collect();
    for (i, (shard, shards, end, _, name)) in ended.iter().enumerate() {
        assert_eq!((*shard, *shards, *end), (i, 2, ['a', 'b'][i]));
        assert_eq!(name.as_deref(), Some(format!("shard-{i}").as_str()));
    }
    assert!(ended[0].3.since(ended[1].3) < Duration::from_secs(1));
}

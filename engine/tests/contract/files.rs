//! What an open file promises.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use engine::env::{BLOCK_ALIGN, Block, BlockOf, Env, File, Open, Persist, align_down};
use futures_lite::future::{poll_once, zip};

use crate::{filled, sleep};

/// What the kernel says of a descriptor that is not open for writing.
const EBADF: i32 = 9;

async fn create<E: Env>(env: &E, dir: &std::path::Path) -> E::File {
    env.open(&dir.join("a"), Open::Create).await.unwrap()
}

/// A block in which every eight bytes say where in the file they are.
fn pattern<E: Env>(env: &E, pos: u64, len: usize) -> Rc<BlockOf<E>> {
    let mut block = env.block(len);
    for (index, word) in block.bytes_mut().chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(pos + 8 * index as u64).to_le_bytes());
    }
    Rc::new(block)
}

/// What [`pattern`] put at `pos..pos + len`.
fn patterned(pos: u64, len: usize) -> Vec<u8> {
    (pos..pos + len as u64).map(|at| (at & !7).to_le_bytes()[(at & 7) as usize]).collect()
}

pub async fn blocks_are_zeroed_aligned_and_trimmed<E: Env>(env: E, dir: PathBuf) {
    for len in [1, 4_096, 4_097, 1 << 20] {
        let mut block = env.block(len);
        assert_eq!(block.len(), len.next_multiple_of(BLOCK_ALIGN));
        assert!(block.iter().all(|&byte| byte == 0));
        assert_eq!(block.as_ptr().align_offset(BLOCK_ALIGN), 0);
        block.bytes_mut().fill(0xff);
    }
    // Memory may be used again; it is zeroed again.
    assert!(env.block(1 << 20).iter().all(|&byte| byte == 0));
    let mut block = env.block(8_192);
    block.bytes_mut().fill(3);
    block.trim(4_096);
    assert_eq!(block.len(), 4_096);
    let file = create(&env, &dir).await;
    file.write_at(Rc::new(block), 0, Persist::Written).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 4_096);
}

pub async fn what_is_written_is_read_at_any_position<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    file.write_at(pattern(&env, 0, 20_480), 0, Persist::Written).await.unwrap();
    for pos in [0, 1, 511, 512, 513, 4_095, 4_096, 4_097, 12_345] {
        for len in [1, 7, 512, 4_095, 4_096, 4_097, 8_000] {
            let read = file.read_at(pos, len).await.unwrap();
            assert_eq!(*read, patterned(pos, len), "{len} bytes at {pos}");
        }
    }
    assert_eq!(file.read_at(100, 0).await.unwrap().len(), 0);
    // Rewritten in the middle, the neighbours stay.
    file.write_at(filled(&env, 4_096, 0xaa), 8_192, Persist::Written).await.unwrap();
    let read = file.read_at(8_190, 4_100).await.unwrap();
    assert_eq!(read[..2], patterned(8_190, 2));
    assert!(read[2..4_098].iter().all(|&byte| byte == 0xaa));
    assert_eq!(read[4_098..], patterned(12_288, 2));
    // A write past the end leaves zeros before it.
    file.write_at(filled(&env, 4_096, 0xbb), 40_960, Persist::Written).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 45_056);
    assert!(file.read_at(20_480, 20_480).await.unwrap().iter().all(|&byte| byte == 0));
}

pub async fn reads_end_with_the_file<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    assert_eq!(file.read_at(0, 10).await.unwrap().len(), 0, "an empty file");
    file.write_at(pattern(&env, 0, 8_192), 0, Persist::Written).await.unwrap();
    file.truncate(5_000).await.unwrap();
    assert_eq!(*file.read_at(4_999, 10).await.unwrap(), patterned(4_999, 1));
    assert_eq!(*file.read_at(4_000, 100_000).await.unwrap(), patterned(4_000, 1_000));
    assert_eq!(*file.read_at(0, 5_000).await.unwrap(), patterned(0, 5_000));
    for pos in [5_000, 5_001, 8_192, 1 << 40] {
        assert_eq!(file.read_at(pos, 10).await.unwrap().len(), 0, "at {pos}");
    }
}

pub async fn truncation_cuts_and_extends_to_any_length<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    for cut in [0, 1, 511, 512, 4_095, 4_096, 4_097, 10_000] {
        file.write_at(pattern(&env, 0, 12_288), 0, Persist::Written).await.unwrap();
        file.truncate(cut).await.unwrap();
        assert_eq!(file.len().await.unwrap(), cut);
        file.truncate(30_001).await.unwrap();
        let read = file.read_at(0, 40_000).await.unwrap();
        assert_eq!(read.len(), 30_001);
        assert_eq!(read[..cut as usize], patterned(0, cut as usize));
        assert!(read[cut as usize..].iter().all(|&byte| byte == 0), "cut at {cut}");
        file.truncate(0).await.unwrap();
    }
}

pub async fn allocation_extends_with_zeros<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    file.allocate(0, 1 << 20).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1 << 20);
    assert!(file.read_at(0, 1 << 20).await.unwrap().iter().all(|&byte| byte == 0));
    file.write_at(pattern(&env, 8_192, 4_096), 8_192, Persist::Written).await.unwrap();
    file.allocate(0, 100).await.unwrap();
    file.allocate(4_096, 16_384).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1 << 20, "it never shortens");
    assert_eq!(*file.read_at(8_192, 4_096).await.unwrap(), patterned(8_192, 4_096));
    // Bytes that were cut off do not come back.
    file.truncate(9_000).await.unwrap();
    file.allocate(9_000, 5_000).await.unwrap();
    let read = file.read_at(8_192, 100_000).await.unwrap();
    assert_eq!(read[..808], patterned(8_192, 808));
    assert_eq!(read[808..], vec![0; 5_000]);
}

pub async fn what_does_not_fit_is_refused<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    file.write_at(pattern(&env, 0, 4_096), 0, Persist::Written).await.unwrap();
    let error = file.allocate(0, 1 << 55).await.unwrap_err();
    let kinds = [ErrorKind::StorageFull, ErrorKind::FileTooLarge];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert_eq!(*file.read_at(0, 4_096).await.unwrap(), patterned(0, 4_096));
}

pub async fn both_persistences_are_read_back<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    file.sync().await.unwrap();
    for pos in (0..8).map(|block| block * 4_096) {
        let persist = if pos % 8_192 == 0 { Persist::Synced } else { Persist::Written };
        file.write_at(pattern(&env, pos, 4_096), pos, persist).await.unwrap();
        // Seen at once, whichever descriptor it took.
        assert_eq!(*file.read_at(pos, 4_096).await.unwrap(), patterned(pos, 4_096));
        assert_eq!(file.len().await.unwrap(), pos + 4_096);
    }
    file.sync().await.unwrap();
    file.sync().await.unwrap();
    assert_eq!(*file.read_at(0, 32_768).await.unwrap(), patterned(0, 32_768));
}

pub async fn any_sequence_of_changes_reads_as_in_memory<E: Env>(env: E, dir: PathBuf) {
    const LEN_MAX: u64 = 100_000;
    let file = create(&env, &dir).await;
    let mut model: Vec<u8> = Vec::new();
    for step in 0..60 {
        let (what, pos, len) = (env.random() % 8, env.random() % LEN_MAX, env.random() % 20_000);
        match what {
            0 => {
                file.truncate(pos).await.unwrap();
                model.resize(pos as usize, 0);
            }
            1 => {
                file.allocate(pos, len + 1).await.unwrap();
                model.resize(model.len().max((pos + len + 1) as usize), 0);
            }
            2 => file.sync().await.unwrap(),
            what => {
                let (pos, fill) = (align_down(pos), env.random() as u8);
                let persist = if what < 5 { Persist::Synced } else { Persist::Written };
                let block = filled(&env, 1 + len as usize, fill);
                let end = pos as usize + block.len();
                file.write_at(block, pos, persist).await.unwrap();
                model.resize(model.len().max(end), 0);
                model[pos as usize..end].fill(fill);
            }
        }
        let (from, count) = (env.random() % LEN_MAX, env.random() % LEN_MAX);
        let from = from.min(model.len() as u64);
        let to = (from + count).min(model.len() as u64);
        let read = file.read_at(from, count as usize).await.unwrap();
        assert!(read[..] == model[from as usize..to as usize], "step {step}: {count} at {from}");
        assert_eq!(file.len().await.unwrap(), model.len() as u64, "step {step}");
    }
}

pub async fn writes_in_flight_do_not_disturb_each_other<E: Env>(env: E, dir: PathBuf) {
    const WRITES: u64 = 32;
    let file = Rc::new(create(&env, &dir).await);
    let done = engine::wait::Watch::default();
    for number in 0..WRITES {
        let (env2, file, done) = (env.clone(), file.clone(), done.clone());
        env.spawn(engine::env::Queue::Storage, async move {
            // Not in order, and of different lengths.
            let pos = (number * 7 % WRITES) * 16_384;
            let len = 4_096 * (1 + number as usize % 4);
            let persist = if number % 3 == 0 { Persist::Synced } else { Persist::Written };
            file.write_at(pattern(&env2, pos, len), pos, persist).await.unwrap();
            assert_eq!(*file.read_at(pos, len).await.unwrap(), patterned(pos, len));
            done.raise(done.value() + 1);
        });
    }
    done.reach(WRITES).await.unwrap();
    file.sync().await.unwrap();
    for number in 0..WRITES {
        let (pos, len) = ((number * 7 % WRITES) * 16_384, 4_096 * (1 + number as usize % 4));
        assert_eq!(*file.read_at(pos, len).await.unwrap(), patterned(pos, len));
    }
}

pub async fn long_reads_and_writes_are_whole<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    let len = (3 << 20) + 4_096;
    file.write_at(pattern(&env, 4_096, len), 4_096, Persist::Written).await.unwrap();
    let read = file.read_at(4_099, len - 7).await.unwrap();
    assert!(read[..] == patterned(4_099, len - 7));
}

pub async fn what_was_read_never_changes<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    file.write_at(filled(&env, 8_192, 1), 0, Persist::Written).await.unwrap();
    let read = file.read_at(100, 8_000).await.unwrap();
    let clone = read.clone();
    file.write_at(filled(&env, 8_192, 2), 0, Persist::Synced).await.unwrap();
    file.truncate(0).await.unwrap();
    drop(file);
    env.remove(&dir.join("a")).await.unwrap();
    for _ in 0..20 {
        // Whoever used its memory again would be seen.
        let other = env.open(&dir.join("b"), Open::Create).await.unwrap();
        other.write_at(filled(&env, 8_192, 3), 0, Persist::Written).await.unwrap();
        assert_eq!(*other.read_at(0, 8_192).await.unwrap(), [3; 8_192]);
        env.remove(&dir.join("b")).await.unwrap();
    }
    assert!(read.iter().chain(clone.iter()).all(|&byte| byte == 1));
}

pub async fn a_dropped_read_harms_nobody<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    file.write_at(pattern(&env, 0, 1 << 18), 0, Persist::Written).await.unwrap();
    for round in 0..50u64 {
        let dropped = file.read_at(round * 1_000, 100_000);
        drop(poll_once(dropped).await);
        let never_polled = file.read_at(0, 100_000);
        drop(never_polled);
        let pos = round * 777;
        assert_eq!(*file.read_at(pos, 5_000).await.unwrap(), patterned(pos, 5_000));
    }
    drop(poll_once(file.read_at(0, 1 << 18)).await);
    drop(file);
    sleep(&env, Duration::from_millis(5)).await;
    assert_eq!(env.list(&dir).await.unwrap()[0].len, 1 << 18);
}

pub async fn a_dropped_write_lands_in_its_place_or_not<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    file.write_at(filled(&env, 65_536, 1), 0, Persist::Synced).await.unwrap();
    for block in [1, 5, 9] {
        let dropped = file.write_at(filled(&env, 8_192, 2), block * 4_096, Persist::Written);
        drop(poll_once(dropped).await);
        // Beside it work goes on.
        file.write_at(filled(&env, 4_096, 3), (block + 2) * 4_096, Persist::Written).await.unwrap();
    }
    sleep(&env, Duration::from_millis(100)).await;
    let read = file.read_at(0, 65_536).await.unwrap();
    assert_eq!(read.len(), 65_536);
    for (index, sector) in read.chunks(512).enumerate() {
        let allowed: &[u8] = match index / 8 {
            1 | 2 | 5 | 6 | 9 | 10 => &[1, 2],
            3 | 7 | 11 => &[3],
            _ => &[1],
        };
        assert!(allowed.contains(&sector[0]), "sector {index} is {}", sector[0]);
        assert!(sector.iter().all(|&byte| byte == sector[0]), "sector {index} is torn");
    }
}

pub async fn two_openings_are_one_file<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    let reader = env.open(&dir.join("a"), Open::Read).await.unwrap();
    let writer = env.open(&dir.join("a"), Open::Write).await.unwrap();
    let first = file.write_at(filled(&env, 4_096, 1), 0, Persist::Written);
    let second = writer.write_at(filled(&env, 4_096, 2), 4_096, Persist::Synced);
    let (first, second) = zip(first, second).await;
    first.and(second).unwrap();
    assert_eq!(*reader.read_at(4_095, 2).await.unwrap(), [1, 2]);
    writer.truncate(100).await.unwrap();
    assert_eq!(reader.len().await.unwrap(), 100);
    assert_eq!(file.read_at(0, 4_096).await.unwrap().len(), 100);
}

pub async fn a_file_for_reading_refuses_changes<E: Env>(env: E, dir: PathBuf) {
    let file = create(&env, &dir).await;
    file.write_at(filled(&env, 4_096, 1), 0, Persist::Written).await.unwrap();
    let reader = env.open(&dir.join("a"), Open::Read).await.unwrap();
    for persist in [Persist::Written, Persist::Synced, Persist::Written] {
        let write = reader.write_at(filled(&env, 4_096, 2), 0, persist);
        let error = write.await.expect_err("it was opened for reading");
        assert_eq!(error.raw_os_error(), Some(EBADF), "{persist:?}: {error}");
    }
    assert!(reader.truncate(0).await.is_err());
    assert!(reader.allocate(0, 8_192).await.is_err());
    assert_eq!(*reader.read_at(0, 8_192).await.unwrap(), [1; 4_096]);
}

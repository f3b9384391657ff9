//! What a directory tree promises.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use engine::env::{Entry, Env, File, Open, Persist};

use crate::filled;

/// The kind and the number of an error that must be.
fn error<T>(result: io::Result<T>) -> (ErrorKind, Option<i32>) {
    match result {
        Ok(_) => panic!("it should have been refused"),
        Err(error) => (error.kind(), error.raw_os_error()),
    }
}

const ENOENT: (ErrorKind, Option<i32>) = (ErrorKind::NotFound, Some(2));
const EEXIST: (ErrorKind, Option<i32>) = (ErrorKind::AlreadyExists, Some(17));
const ENOTDIR: (ErrorKind, Option<i32>) = (ErrorKind::NotADirectory, Some(20));
const EISDIR: (ErrorKind, Option<i32>) = (ErrorKind::IsADirectory, Some(21));
const ENOTEMPTY: (ErrorKind, Option<i32>) = (ErrorKind::DirectoryNotEmpty, Some(39));

async fn make<E: Env>(env: &E, path: &std::path::Path, blocks: usize) -> E::File {
    let file = env.open(path, Open::Create).await.unwrap();
    for block in 0..blocks {
        let pos = block as u64 * 4_096;
        file.write_at(filled(env, 4_096, blocks as u8), pos, Persist::Written).await.unwrap();
    }
    file
}

pub async fn opening_finds_or_makes<E: Env>(env: E, dir: PathBuf) {
    let path = dir.join("a");
    assert_eq!(error(env.open(&path, Open::Read).await), ENOENT);
    assert_eq!(error(env.open(&path, Open::Write).await), ENOENT);
    let made = make(&env, &path, 1).await;
    assert_eq!(error(env.open(&path, Open::Create).await), EEXIST);
    drop(made);
    assert_eq!(error(env.open(&path, Open::Create).await), EEXIST);
    assert_eq!(env.open(&path, Open::Write).await.unwrap().len().await.unwrap(), 4_096);
    assert_eq!(env.open(&path, Open::Read).await.unwrap().len().await.unwrap(), 4_096);
    assert_eq!(error(env.open(&dir.join("x/y"), Open::Create).await), ENOENT);
    assert_eq!(error(env.open(&path.join("y"), Open::Create).await), ENOTDIR);
}

pub async fn the_length_is_of_the_open_file_not_of_its_name<E: Env>(env: E, dir: PathBuf) {
    let file = make(&env, &dir.join("a"), 2).await;
    env.rename(&dir.join("a"), &dir.join("b")).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 8_192);
    let other = make(&env, &dir.join("a"), 1).await;
    assert_eq!(file.len().await.unwrap(), 8_192);
    file.write_at(filled(&env, 4_096, 7), 8_192, Persist::Synced).await.unwrap();
    assert_eq!((file.len().await.unwrap(), other.len().await.unwrap()), (12_288, 4_096));
    let renamed = env.open(&dir.join("b"), Open::Read).await.unwrap();
    assert_eq!(*renamed.read_at(8_191, 2).await.unwrap(), [2, 7]);
}

pub async fn a_removed_file_lives_until_it_is_closed<E: Env>(env: E, dir: PathBuf) {
    let file = make(&env, &dir.join("a"), 2).await;
    env.remove(&dir.join("a")).await.unwrap();
    env.sync_dir(&dir).await.unwrap();
    assert_eq!(env.list(&dir).await.unwrap(), []);
    assert_eq!(error(env.open(&dir.join("a"), Open::Read).await), ENOENT);
    file.write_at(filled(&env, 4_096, 9), 8_192, Persist::Synced).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 12_288);
    assert_eq!(*file.read_at(8_191, 2).await.unwrap(), [2, 9]);
    let replacement = make(&env, &dir.join("a"), 1).await;
    assert_eq!((replacement.len().await.unwrap(), file.len().await.unwrap()), (4_096, 12_288));
    // So does one that a rename has replaced.
    make(&env, &dir.join("b"), 3).await;
    env.rename(&dir.join("b"), &dir.join("a")).await.unwrap();
    assert_eq!(*replacement.read_at(0, 4_096).await.unwrap(), [1; 4_096]);
}

pub async fn listings_are_sorted<E: Env>(env: E, dir: PathBuf) {
    assert_eq!(env.list(&dir).await.unwrap(), []);
    for (blocks, name) in ["10", "9", "b", "a", "B", "a.log"].into_iter().enumerate() {
        make(&env, &dir.join(name), blocks).await;
    }
    env.create_dir(&dir.join("aa/deep")).await.unwrap();
    let file = env.open(&dir.join("b"), Open::Write).await.unwrap();
    file.truncate(77).await.unwrap();
    let entry = |name: &str, is_dir, len| Entry { name: name.to_owned(), is_dir, len };
    let expected = [
        entry("10", false, 0),
        entry("9", false, 4_096),
        entry("B", false, 16_384),
        entry("a", false, 12_288),
        entry("a.log", false, 20_480),
        entry("aa", true, 0),
        entry("b", false, 77),
    ];
    assert_eq!(env.list(&dir).await.unwrap(), expected);
    assert_eq!(error(env.list(&dir.join("none")).await), ENOENT);
    assert_eq!(error(env.list(&dir.join("a")).await), ENOTDIR);
}

pub async fn directories_are_made_with_their_parents<E: Env>(env: E, dir: PathBuf) {
    let deep = dir.join("x/y/z");
    env.create_dir(&deep).await.unwrap();
    env.create_dir(&deep).await.unwrap();
    env.create_dir(&dir.join("x")).await.unwrap();
    make(&env, &deep.join("a"), 1).await;
    env.create_dir(&deep).await.unwrap();
    assert_eq!(env.list(&deep).await.unwrap().len(), 1, "it is left as it was");
    assert!(env.create_dir(&deep.join("a")).await.is_err(), "a file has that name");
    assert!(env.create_dir(&deep.join("a/b")).await.is_err(), "a file is in the way");
}

pub async fn renames_replace<E: Env>(env: E, dir: PathBuf) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    make(&env, &a, 1).await;
    make(&env, &b, 2).await;
    env.rename(&a, &b).await.unwrap();
    assert_eq!(env.list(&dir).await.unwrap().len(), 1);
    let file = env.open(&b, Open::Read).await.unwrap();
    assert_eq!(*file.read_at(0, 10_000).await.unwrap(), [1; 4_096]);
    assert_eq!(error(env.rename(&a, &b).await), ENOENT);
    env.rename(&b, &b).await.unwrap();
    env.create_dir(&dir.join("d")).await.unwrap();
    assert_eq!(error(env.rename(&b, &dir.join("d")).await), EISDIR);
    assert_eq!(error(env.rename(&dir.join("d"), &b).await), ENOTDIR);
    env.rename(&b, &dir.join("d/c")).await.unwrap();
    env.rename(&dir.join("d"), &dir.join("e")).await.unwrap();
    assert_eq!(env.list(&dir.join("e")).await.unwrap()[0].name, "c");
    assert_eq!(env.list(&dir).await.unwrap()[0].name, "e");
    assert_eq!(file.len().await.unwrap(), 4_096);
}

pub async fn removal_refuses_what_it_is_not_for<E: Env>(env: E, dir: PathBuf) {
    assert_eq!(error(env.remove(&dir.join("a")).await), ENOENT);
    assert_eq!(error(env.remove_dir(&dir.join("a")).await), ENOENT);
    env.create_dir(&dir.join("d")).await.unwrap();
    make(&env, &dir.join("d/a"), 1).await;
    assert_eq!(error(env.remove(&dir.join("d")).await), EISDIR);
    assert_eq!(error(env.remove_dir(&dir.join("d")).await), ENOTEMPTY);
    assert_eq!(error(env.remove_dir(&dir.join("d/a")).await), ENOTDIR);
    env.remove(&dir.join("d/a")).await.unwrap();
    env.remove_dir(&dir.join("d")).await.unwrap();
    assert_eq!(env.list(&dir).await.unwrap(), []);
}

pub async fn directories_are_synced<E: Env>(env: E, dir: PathBuf) {
    env.sync_dir(&dir).await.unwrap();
    make(&env, &dir.join("a"), 1).await;
    env.sync_dir(&dir).await.unwrap();
    env.sync_dir(&dir).await.unwrap();
    assert_eq!(error(env.sync_dir(&dir.join("none")).await), ENOENT);
}

pub async fn the_volume_has_a_size<E: Env>(env: E, dir: PathBuf) {
    let before = env.space(&dir).await.unwrap();
    assert!(0 < before.usable_bytes && before.usable_bytes <= before.total_bytes, "{before:?}");
    let file = make(&env, &dir.join("a"), 1).await;
    file.sync().await.unwrap();
    assert_eq!(env.space(&dir).await.unwrap().total_bytes, before.total_bytes);
    assert_eq!(env.space(&dir.join("none")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

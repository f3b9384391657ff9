//! The names on a simulated disk: the directories as the process sees them, as they would be after
//! a power cut for certain, and the changes in between.
//!
//! A change (create, rename, remove) is kept or lost as a whole, and only together with the earlier
//! unsynced changes that it builds on (same name, same file, or entries of a removed directory): no
//! file system that has a journal shows half a rename, or one file under two names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use nix::errno::Errno;

use super::super::random::Random;

/// Number of a file or directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in super::super) struct FileId(u64);

const ROOT: FileId = FileId(0);

type Names = BTreeMap<String, FileId>;

/// See the top of the file.
pub(in super::super) struct Tree {
    live: BTreeMap<FileId, Names>,
    durable: BTreeMap<FileId, Names>,
    unsynced: Vec<Change>,
    next_change: u64,
    next_file: u64,
}

struct Change {
    number: u64,
    edits: Vec<Edit>,
    /// Directories whose sync is still missing.
    waits_for: BTreeSet<FileId>,
}

/// In directory `dir`, `name` stopped meaning `old` and now means `new`.
struct Edit {
    dir: FileId,
    name: String,
    old: Option<FileId>,
    new: Option<FileId>,
}

impl Change {
    /// Whether it would make no sense without `earlier`.
    fn builds_on(&self, earlier: &Change) -> bool {
        let removes = self.edits.iter().all(|edit| edit.new.is_none());
        self.edits.iter().any(|mine| {
            earlier.edits.iter().any(|theirs| {
                let same_name = mine.dir == theirs.dir && mine.name == theirs.name;
                let same_file = mine.old.is_some() && [theirs.old, theirs.new].contains(&mine.old);
                let emptied = removes && mine.old == Some(theirs.dir);
                same_name || same_file || emptied
            })
        })
    }
}

/// Splits a path into its names; the root is the empty list.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(Errno::EINVAL)?);
            }
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Errno::EINVAL.into());
            }
        }
    }
    Ok(names)
}

impl Tree {
    /// A tree that has its root, durably.
    pub fn new() -> Tree {
        let root = BTreeMap::from([(ROOT, Names::new())]);
        Tree {
            live: root.clone(),
            durable: root,
            unsynced: Vec::new(),
            next_change: 0,
            next_file: 1,
        }
    }

    /// Number of the next change; every earlier one has completed.
    pub fn next_change(&self) -> u64 {
        self.next_change
    }

    /// What a path names.
    pub fn find(&self, path: &Path) -> io::Result<FileId> {
        self.walk(&names(path)?)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self, id: FileId) -> bool {
        self.live.contains_key(&id)
    }

    /// The entries of a directory.
    pub fn list(&self, path: &Path) -> io::Result<impl Iterator<Item = (&str, FileId)>> {
        let dir = self.names_in(self.find(path)?)?;
        Ok(dir.iter().map(|(name, &id)| (name.as_str(), id)))
    }

    /// All files (not directories) with their paths, sorted.
    pub fn files(&self) -> Vec<(String, FileId)> {
        let mut files = Vec::new();
        let mut dirs = vec![(String::new(), ROOT)];
        while let Some((prefix, dir)) = dirs.pop() {
            for (name, &id) in &self.live[&dir] {
                let path = format!("{prefix}/{name}");
                if self.is_dir(id) {
                    dirs.push((path, id));
                } else {
                    files.push((path, id));
                }
            }
        }
        files.sort();
        files
    }

    /// Makes a file's or directory's name.
    pub fn create(&mut self, path: &Path, as_dir: bool) -> io::Result<FileId> {
        let (dir, name) = self.parent(path)?;
        if self.names_in(dir)?.contains_key(name) {
            return Err(Errno::EEXIST.into());
        }
        let id = FileId(self.next_file);
        self.next_file += 1;
        if as_dir {
            self.live.insert(id, Names::new());
            self.durable.insert(id, Names::new());
        }
        self.change(vec![Edit { dir, name: name.to_owned(), old: None, new: Some(id) }]);
        Ok(id)
    }

    /// Renames a file or directory, as rename(2) does.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let id = self.find(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let old = self.names_in(to_dir)?.get(to_name).copied();
        if old == Some(id) {
            return Ok(());
        }
        if self.is_dir(id) && names(to)?.starts_with(&names(from)?) {
            return Err(Errno::EINVAL.into());
        }
        if let Some(old) = old {
            match (self.is_dir(id), self.live.get(&old)) {
                (true, None) => return Err(Errno::ENOTDIR.into()),
                (false, Some(_)) => return Err(Errno::EISDIR.into()),
                (true, Some(names)) if !names.is_empty() => {
                    return Err(Errno::ENOTEMPTY.into());
                }
                _ => {}
            }
        }
        self.change(vec![
            Edit { dir: from_dir, name: from_name.to_owned(), old: Some(id), new: None },
            Edit { dir: to_dir, name: to_name.to_owned(), old, new: Some(id) },
        ]);
        Ok(())
    }

    /// Removes the name of a file, or of an empty directory.
    pub fn remove(&mut self, path: &Path, as_dir: bool) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let id = self.find(path)?;
        match (as_dir, self.live.get(&id)) {
            (false, Some(_)) => return Err(Errno::EISDIR.into()),
            (true, None) => return Err(Errno::ENOTDIR.into()),
            (true, Some(names)) if !names.is_empty() => {
                return Err(Errno::ENOTEMPTY.into());
            }
            _ => {}
        }
        self.change(vec![Edit { dir, name: name.to_owned(), old: Some(id), new: None }]);
        Ok(())
    }

    /// Makes the entries of a directory durable, as far as they were changed below number `upto`.
    pub fn sync(&mut self, path: &Path, upto: u64) -> io::Result<()> {
        let dir = self.find(path)?;
        self.names_in(dir)?;
        for change in self.unsynced.iter_mut().filter(|change| change.number < upto) {
            change.waits_for.remove(&dir);
        }
        // What is durable takes with it all that it builds on.
        let mut durable: Vec<bool> =
            self.unsynced.iter().map(|change| change.waits_for.is_empty()).collect();
        for later in (0..durable.len()).rev() {
            for earlier in 0..later {
                durable[earlier] |=
                    durable[later] && self.unsynced[later].builds_on(&self.unsynced[earlier]);
            }
        }
        for (change, durable) in std::mem::take(&mut self.unsynced).into_iter().zip(durable) {
            if durable {
                apply(&mut self.durable, change);
            } else {
                self.unsynced.push(change);
            }
        }
        Ok(())
    }

    /// The power is gone: every unsynced change is kept with a chance of `keep` in 4, unless it
    /// builds on one that was lost.
    pub fn power_cut(&mut self, keep: u64, random: &Random) {
        let mut lost: Vec<Change> = Vec::new();
        for change in std::mem::take(&mut self.unsynced) {
            let kept = random.chance(keep, 4);
            if kept && !lost.iter().any(|lost| change.builds_on(lost)) {
                apply(&mut self.durable, change);
            } else {
                lost.push(change);
            }
        }
        self.live = self.durable.clone();
        let reached = self.reached();
        self.live.retain(|dir, _| reached.contains(dir));
        self.durable.retain(|dir, _| reached.contains(dir));
    }

    /// Everything that has a name, or may have one again after a power cut.
    pub fn reached(&self) -> BTreeSet<FileId> {
        let named = self.live.values().chain(self.durable.values()).flat_map(|dir| dir.values());
        let changed = self.unsynced.iter().flat_map(|change| &change.edits);
        let changed = changed.flat_map(|edit| edit.old.iter().chain(&edit.new));
        let all: BTreeSet<FileId> = named.chain(changed).copied().collect();
        if !self.unsynced.is_empty() {
            return all;
        }
        // Nothing is in the balance: what counts is what the root leads to.
        let mut reached = BTreeSet::from([ROOT]);
        let mut dirs = vec![ROOT];
        while let Some(dir) = dirs.pop() {
            for &id in self.live[&dir].values().chain(self.durable[&dir].values()) {
                if reached.insert(id) && self.durable.contains_key(&id) {
                    dirs.push(id);
                }
            }
        }
        reached
    }

    fn walk(&self, names: &[&str]) -> io::Result<FileId> {
        let mut at = ROOT;
        for name in names {
            at = *self.names_in(at)?.get(*name).ok_or(Errno::ENOENT)?;
        }
        Ok(at)
    }

    fn names_in(&self, dir: FileId) -> io::Result<&Names> {
        self.live.get(&dir).ok_or_else(|| Errno::ENOTDIR.into())
    }

    /// The directory that holds (or would hold) the path's last name.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(FileId, &'a str)> {
        let names = names(path)?;
        let (last, dirs) = names.split_last().ok_or(Errno::EINVAL)?;
        Ok((self.walk(dirs)?, last))
    }

    fn change(&mut self, edits: Vec<Edit>) {
        let waits_for = edits.iter().map(|edit| edit.dir).collect();
        let change = Change { number: self.next_change, edits, waits_for };
        self.next_change += 1;
        for edit in &change.edits {
            edit_in(&mut self.live, edit);
        }
        // A removed directory can still be in the balance; it is empty and has no name.
        self.unsynced.push(change);
    }
}

fn apply(dirs: &mut BTreeMap<FileId, Names>, change: Change) {
    for edit in &change.edits {
        edit_in(dirs, edit);
    }
}

fn edit_in(dirs: &mut BTreeMap<FileId, Names>, edit: &Edit) {
    let names = dirs.get_mut(&edit.dir).expect("a directory outlives the changes in it");
    match edit.new {
        Some(id) => names.insert(edit.name.clone(), id),
        None => names.remove(&edit.name),
    };
}

#[cfg(test)]
mod tests {
    use super::super::super::random::Stream;
    use super::*;

    /// The paths that are left after a power cut, for each of many seeds.
    fn cuts(make: impl Fn(&mut Tree) -> io::Result<()>) -> BTreeSet<Vec<String>> {
        (0..200)
            .map(|seed| {
                let random = Random::new(seed, Stream::Disk, 0);
                let mut tree = Tree::new();
                make(&mut tree).unwrap();
                tree.power_cut(random.below(5), &random);
                tree.files().into_iter().map(|(path, _)| path).collect()
            })
            .collect()
    }

    fn sync(tree: &mut Tree, path: &str) -> io::Result<()> {
        tree.sync(Path::new(path), tree.next_change())
    }

    fn create(tree: &mut Tree, path: &str) -> io::Result<()> {
        tree.create(Path::new(path), false).map(|_| ())
    }

    fn rename(tree: &mut Tree, from: &str, to: &str) -> io::Result<()> {
        tree.rename(Path::new(from), Path::new(to))
    }

    fn sets(of: &[&[&str]]) -> BTreeSet<Vec<String>> {
        of.iter().map(|set| set.iter().map(|&path| path.to_owned()).collect()).collect()
    }

    #[test]
    fn a_created_file_survives_only_after_the_directory_was_synced() {
        assert_eq!(cuts(|tree| create(tree, "a")), sets(&[&[], &["/a"]]));
        let synced = cuts(|tree| {
            create(tree, "a")?;
            sync(tree, "/")
        });
        assert_eq!(synced, sets(&[&["/a"]]));
    }

    #[test]
    fn a_file_in_an_unsynced_directory_goes_with_it() {
        let left = cuts(|tree| {
            tree.create(Path::new("/d"), true)?;
            create(tree, "/d/a")?;
            sync(tree, "/d")
        });
        assert_eq!(left, sets(&[&[], &["/d/a"]]));
    }

    #[test]
    fn a_rename_is_kept_or_lost_as_a_whole() {
        let replaced = cuts(|tree| {
            create(tree, "/a")?;
            create(tree, "/b")?;
            sync(tree, "/")?;
            rename(tree, "/a", "/b")
        });
        assert_eq!(replaced, sets(&[&["/a", "/b"], &["/b"]]));
        let moved = cuts(|tree| {
            tree.create(Path::new("/d"), true)?;
            create(tree, "/a")?;
            sync(tree, "/")?;
            rename(tree, "/a", "/d/b")?;
            sync(tree, "/d")
        });
        assert_eq!(moved, sets(&[&["/a"], &["/d/b"]]), "the old directory was not synced");
    }

    #[test]
    fn what_builds_on_a_lost_change_is_lost() {
        let left = cuts(|tree| {
            create(tree, "/a")?;
            sync(tree, "/")?;
            rename(tree, "/a", "/b")?;
            rename(tree, "/b", "/c")
        });
        assert_eq!(left, sets(&[&["/a"], &["/b"], &["/c"]]));
        let left = cuts(|tree| {
            tree.create(Path::new("/d"), true)?;
            create(tree, "/d/a")?;
            sync(tree, "/d")?;
            sync(tree, "/")?;
            rename(tree, "/d/a", "/a")?;
            tree.remove(Path::new("/d"), true)
        });
        assert_eq!(left, sets(&[&["/d/a"], &["/a"]]), "never without the file");
    }

    #[test]
    fn a_removed_file_may_come_back() {
        let left = cuts(|tree| {
            create(tree, "/a")?;
            sync(tree, "/")?;
            tree.remove(Path::new("/a"), false)
        });
        assert_eq!(left, sets(&[&[], &["/a"]]));
    }

    #[test]
    fn the_errors_are_those_of_the_kernel() {
        use io::ErrorKind::*;
        let mut tree = Tree::new();
        tree.create(Path::new("/d"), true).unwrap();
        create(&mut tree, "/d/a").unwrap();
        create(&mut tree, "/b").unwrap();
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(create(&mut tree, "/b")), AlreadyExists);
        assert_eq!(kind(create(&mut tree, "/x/y")), NotFound);
        assert_eq!(kind(create(&mut tree, "/b/y")), NotADirectory);
        assert_eq!(kind(rename(&mut tree, "/x", "/y")), NotFound);
        assert_eq!(kind(rename(&mut tree, "/b", "/d")), IsADirectory);
        assert_eq!(kind(rename(&mut tree, "/d", "/b")), NotADirectory);
        assert_eq!(kind(rename(&mut tree, "/d", "/d/e")), InvalidInput);
        assert_eq!(kind(tree.remove(Path::new("/d"), false)), IsADirectory);
        assert_eq!(kind(tree.remove(Path::new("/d"), true)), DirectoryNotEmpty);
        assert_eq!(kind(tree.remove(Path::new("/b"), true)), NotADirectory);
        assert_eq!(kind(tree.remove(Path::new("/x"), false)), NotFound);
        assert_eq!(tree.list(Path::new("/b")).err().unwrap().kind(), NotADirectory);
    }
}

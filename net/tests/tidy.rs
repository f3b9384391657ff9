//! tidy: the rules of the house that a compiler does not know, as a test. Who may import whom, what
//! cores must not touch, where the runtime may be named, how long a file may be. The rules about
//! single files are in `tidy/rules.rs`; here are those about the whole. Each is first shown something
//! that breaks it, so that a rule that finds nothing is known to be looking.
//!
//! `cargo test -p net --test tidy -- --nocapture` prints the median length of each crate's files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use rules::RULES;
use source::Source;

/// The line of crates; each imports only what stands before it.
const LINE: [&str; 5] = ["engine", "replication", "coordinator", "net", "perf"];

/// What lies at the top, dot-files apart.
const TOP: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "coordinator",
    "engine",
    "net",
    "perf",
    "replication",
    "scripts",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate lies in the root").to_owned()
}

/// What `.gitignore` names, as a set of directory names at any depth.
fn ignored() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(".gitignore")).expect("there is one");
    let names = text.lines().filter_map(|line| line.trim_matches('/').rsplit('/').next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// All Rust files of the repository, by path.
fn sources() -> Vec<Source> {
    fn walk(dir: &Path, ignored: &BTreeSet<String>, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a directory of the repository") {
            let entry = entry.expect("an entry of it");
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                let is_foreign = ["target", "node_modules", "venv"].contains(&&*name);
                if !name.starts_with('.') && !ignored.contains(&name) && !is_foreign {
                    walk(&path, ignored, found);
                }
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    walk(&root, &ignored(), &mut found);
    found.sort();
    let each = found.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).expect("Rust is UTF-8");
        let path = path.strip_prefix(&root).expect("it is below the root");
        Source::new(&path.to_string_lossy(), &text)
    });
    each.collect()
}

#[test]
fn every_file_keeps_the_rules() {
    let sources = sources();
    assert!(sources.len() > 150, "only {} files were found", sources.len());
    let mut broken = String::new();
    for source in &sources {
        for rule in RULES {
            for line in rule.found_in(source) {
                broken += &format!("{}:{line}: {}\n", source.path, rule.name);
            }
        }
    }
    assert!(broken.is_empty(), "\n{broken}");
    for name in LINE {
        let of_crate = sources.iter().filter(|source| source.path.starts_with(&format!("{name}/")));
        let mut lengths: Vec<_> = of_crate.map(|source| source.text.lines().count()).collect();
        lengths.sort_unstable();
        let (count, total) = (lengths.len(), lengths.iter().sum::<usize>());
        let (median, longest) = (lengths[count / 2], lengths[count - 1]);
        println!(
            "{name:<12} {count:>3} files {total:>6} lines, median {median}, longest {longest}"
        );
    }
}

#[test]
fn every_rule_finds_what_breaks_it_and_nothing_else() {
    for rule in RULES {
        for (path, text) in rule.bad {
            let found = rule.found_in(&Source::new(path, text));
            assert!(!found.is_empty(), "{}: nothing found in {path}: {text}", rule.name);
        }
        for (path, text) in rule.good {
            let found = rule.found_in(&Source::new(path, text));
            assert!(found.is_empty(), "{}: lines {found:?} of {path}: {text}", rule.name);
        }
    }
    let length = RULES.iter().find(|rule| rule.name.contains("900")).expect("it is a rule");
    let of_lines = |count| Source::new("net/src/x.rs", &"x\n".repeat(count));
    assert!(length.found_in(&of_lines(900)).is_empty());
    assert_eq!(length.found_in(&of_lines(901)), [901]);
}

/// What is wrong with a tree of dependencies as `cargo tree --prefix depth` prints it: imports to
/// the right in the line, and crates that are not in it.
fn wrong_imports(tree: &str) -> Vec<String> {
    let place = |name: &str| LINE.iter().position(|&of_line| of_line == name);
    let mut wrong = Vec::new();
    let mut importer = "";
    for line in tree.lines() {
        let (depth, package) = line.split_at(line.len().min(1));
        let name = package.split(' ').next().unwrap_or_default();
        let is_ours = package.contains(" (/");
        match (depth, place(name)) {
            ("0", Some(_)) => importer = name,
            ("0", None) if is_ours => wrong.push(format!("{name} is not in the line of crates")),
            ("1", Some(at)) if is_ours && place(importer).is_none_or(|of| at >= of) => {
                wrong.push(format!("{importer} imports {name}"));
            }
            ("1", None) if is_ours => wrong.push(format!("{importer} imports {name}")),
            _ => {}
        }
    }
    wrong
}

#[test]
fn crates_import_only_to_their_left() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .current_dir(root())
        .args(["tree", "--workspace", "--depth", "1", "--edges", "normal,build,dev"])
        .args(["--prefix", "depth", "--format", "{p}", "--no-dedupe", "--offline", "--locked"])
        .output()
        .expect("cargo is there");
    let (tree, why) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{why}");
    let crates: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.strip_prefix('0')?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(crates, LINE.into_iter().collect(), "the crates of the workspace");
    assert_eq!(wrong_imports(&tree), Vec::<String>::new());

    // It sees a step to the right, one to itself, and a sixth crate.
    let bad = "0engine v0.0.0 (/r/engine)\n1net v0.0.0 (/r/net)\n1nix v0.31.0\n\n\
               0net v0.0.0 (/r/net)\n1engine v0.0.0 (/r/engine)\n1net v0.0.0 (/r/net)\n\
               1common v0.0.0 (/r/common)\n\n0common v0.0.0 (/r/common)\n";
    let expected = [
        "engine imports net",
        "net imports net",
        "net imports common",
        "common is not in the line of crates",
    ];
    assert_eq!(wrong_imports(bad), expected);
}

/// What is at the top and should not be, and the other way round.
fn wrong_at_top<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let (ignored, expected) = (ignored(), BTreeSet::from(TOP));
    let names: BTreeSet<&str> = names
        .into_iter()
        .filter(|name| !name.starts_with('.') && !ignored.contains(*name))
        .collect();
    let stray = names.difference(&expected).map(|name| format!("{name} does not belong there"));
    let missing = expected.difference(&names).map(|name| format!("{name} is missing"));
    stray.chain(missing).collect()
}

#[test]
fn the_top_level_is_that_of_the_plan() {
    let entries = std::fs::read_dir(root()).expect("the root is there");
    let names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(wrong_at_top(names.iter().map(String::as_str)), Vec::<String>::new());

    let bad = TOP.into_iter().filter(|&name| name != "LICENSE").chain(["docs", ".ci", "target"]);
    assert_eq!(wrong_at_top(bad), ["docs does not belong there", "LICENSE is missing"]);
}

/// The files that the README tells to read first.
fn first_files(readme: &str) -> Option<Vec<&str>> {
    let (_, from) = readme.split_once("Eight files to read first")?;
    let paragraph = from.split("\n\n").next()?;
    Some(paragraph.split('`').skip(1).step_by(2).collect())
}

/// Paths that the README links to within the repository.
fn links(readme: &str) -> Vec<&str> {
    let targets = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with('#')).collect()
}

#[test]
fn what_the_readme_names_is_there() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README");
    let first = first_files(&readme).expect("it says what to read first");
    assert_eq!(first.len(), 7, "seven beside itself: {first:?}");
    for path in first.into_iter().chain(links(&readme)) {
        assert!(root().join(path).exists(), "the README names {path}, which is not there");
    }

    assert_eq!(first_files("no such list"), None);
    let text =
        "Eight files to read first: this, `a/b.rs`,\n`c`.\n\nOther `d`. [e](f.rs) [g](h://i)";
    assert_eq!(first_files(text), Some(vec!["a/b.rs", "c"]));
    assert_eq!(links(text), ["f.rs"]);
}

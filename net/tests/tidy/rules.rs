//! The rules about single files. Each brings snippets that break it and snippets that do not, and
//! is tried on them before it is trusted.

use crate::source::{Source, parts};

/// Most lines of a file.
const LINES_MAX: usize = 900;

/// A rule: where it applies, what it finds (lines, from 1), and proof that it can.
pub struct Rule {
    pub name: &'static str,
    pub applies: fn(&str) -> bool,
    pub find: fn(&Source) -> Vec<usize>,
    /// Path and text: something is found in each.
    pub bad: &'static [(&'static str, &'static str)],
    /// Path and text: nothing is found, or it does not apply.
    pub good: &'static [(&'static str, &'static str)],
}

impl Rule {
    /// What it finds in a file, if it applies there.
    pub fn found_in(&self, source: &Source) -> Vec<usize> {
        if (self.applies)(&source.path) { (self.find)(source) } else { Vec::new() }
    }
}

/// Whether a file is `module.rs` or lies below `module/`, for one of these modules of a crate.
fn is_of(path: &str, src: &str, modules: &[&str]) -> bool {
    let Some(inside) = path.strip_prefix(src) else { return false };
    let first = inside.split(['/', '.']).next().unwrap_or_default();
    modules.contains(&first)
}

/// Pure cores: `&mut self` and the time in, values out. `engine/src/checkpoint.rs` is not among
/// them: its arithmetic is a few lines beside its IO. Tests of a core may do as they like.
fn is_core(path: &str) -> bool {
    const ENGINE: [&str; 7] =
        ["batch", "compaction", "producers", "epochs", "ids", "time", "config"];
    const ENGINE_FILES: [&str; 5] = [
        "engine/src/log/tail.rs",
        "engine/src/segment/index.rs",
        "engine/src/env/sim/random.rs",
        "engine/src/env/sim/disk.rs",
        "engine/src/log/mutant.rs",
    ];
    const NET: [&str; 4] = ["wire", "fetch_session", "frame", "topic_config"];
    const NET_FILES: [&str; 3] =
        ["net/src/connection/inbox.rs", "net/src/api/errors.rs", "net/src/api.rs"];
    let driven = ["runtime", "journal", "metadata", "quorum"];
    let is_inside = path.starts_with("replication/src/")
        && !path.starts_with("replication/src/partition")
        || path.starts_with("coordinator/src/") && !is_of(path, "coordinator/src/", &driven);
    is_inside
        || is_of(path, "engine/src/", &ENGINE)
        || is_of(path, "net/src/", &NET)
        || path.starts_with("engine/src/env/sim/disk/")
        || ENGINE_FILES.contains(&path)
        || NET_FILES.contains(&path)
}

/// Whether it is a file of the product, and no test.
fn is_product(path: &str) -> bool {
    path.contains("/src/") && !path.ends_with("/tests.rs") && !path.starts_with("scripts/")
}

fn lines_with_any(source: &Source, sequences: &[&[&str]]) -> Vec<usize> {
    sequences.iter().flat_map(|sequence| source.lines_with(sequence)).collect()
}

/// The name that a line of `words` gives to a public item, with what kind of item it is.
fn public_item<'w>(words: &[&'w str]) -> Option<(&'w str, &'w str)> {
    let mut words = words.iter().copied().peekable();
    if words.next() != Some("pub") {
        return None;
    }
    if words.next_if_eq(&"(").is_some() {
        words.by_ref().find(|&word| word == ")");
    }
    while words.next_if(|word| ["const", "async", "unsafe"].contains(word)).is_some() {
        // A constant has no further keyword.
        if let Some(name) = words.peek()
            && name.chars().all(|c| c.is_uppercase() || c.is_numeric() || c == '_')
        {
            return Some(("const", name));
        }
    }
    let kind = words.next()?;
    let kinds = ["fn", "struct", "enum", "trait", "mod", "type", "static", "union"];
    kinds.contains(&kind).then(|| words.next().map(|name| (kind, name)))?
}

fn forbidden_names(source: &Source) -> Vec<usize> {
    const FORBIDDEN: [&str; 9] =
        ["manager", "util", "utils", "helper", "helpers", "info", "service", "impl", "purgatory"];
    let mut found = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        let words: Vec<_> = Source::new("", line).words().iter().map(|w| w.1.to_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some((kind, name)) = public_item(&words) else { continue };
        let parts = parts(name);
        let is_type = ["struct", "enum", "trait", "type", "union", "mod"].contains(&kind);
        let is_bad = parts.iter().any(|part| FORBIDDEN.contains(&&**part))
            || parts.iter().any(|part| part == "handler") && !source.path.starts_with("net/src/api")
            // Of a type it says nothing; a data directory is a thing.
            || is_type && parts.last().is_some_and(|last| last == "data")
            || kind == "fn" && parts.first().is_some_and(|first| first == "get") && parts.len() > 1;
        if is_bad {
            found.push(at + 1);
        }
    }
    found
}

fn clocks(source: &Source) -> Vec<usize> {
    // A duration is a number with a unit; a clock is not.
    let text = &source.code;
    let uses = text.lines().enumerate().filter(|(_, line)| {
        let squeezed: String = line.split_whitespace().collect();
        squeezed.replace("std::time::Duration", "").contains("std::time")
    });
    uses.map(|(at, _)| at + 1).collect()
}

fn unexplained_todos(source: &Source) -> Vec<usize> {
    // Words of prose, so of the text and not of the code; this file has to name them in parts.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK")];
    let lines = source.text.lines().enumerate();
    let found = lines.filter(|(_, line)| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| marks.contains(&word))
    });
    found.map(|(at, _)| at + 1).collect()
}

pub const RULES: &[Rule] = &[
    Rule {
        name: "cores do not wait: no async, no await",
        applies: is_core,
        find: |source| lines_with_any(source, &[&["async"], &[".", "await"]]),
        bad: &[
            ("replication/src/leader.rs", "pub async fn lead() {}"),
            ("coordinator/src/controller/topics.rs", "let x = f()\n    .await;"),
            ("engine/src/log/tail.rs", "let f = async move { 1 };"),
            ("net/src/wire/reader.rs", "x.await"),
        ],
        good: &[
            ("replication/src/leader.rs", "/// Not async.\nfn lead() { \"async\"; }"),
            ("replication/src/partition.rs", "async fn follow() {}"),
            ("coordinator/src/metadata/store.rs", "async fn load() {}"),
            ("coordinator/src/quorum/network.rs", "async fn send() {}"),
            ("engine/src/log.rs", "async fn open() {}"),
        ],
    },
    Rule {
        name: "cores ask no clock: std::time is for durations",
        applies: is_core,
        find: clocks,
        bad: &[
            ("replication/src/follower.rs", "use std::time::{Duration, Instant};"),
            ("engine/src/producers.rs", "let now = std::time::SystemTime::now();"),
            ("coordinator/src/cluster.rs", "use std::time;"),
        ],
        good: &[("engine/src/time.rs", "use std::time::Duration;")],
    },
    Rule {
        name: "cores touch no file and no runtime, and iterate in a defined order",
        applies: is_core,
        find: |source| {
            let banned: [&[&str]; 8] = [
                &["std", ":", ":", "fs"],
                &["std", ":", ":", "net"],
                &["std", ":", ":", "thread"],
                &["HashMap"],
                &["HashSet"],
                &["glommio"],
                &["Mutex"],
                &["thread_rng"],
            ];
            // The order of `use std::collections::{…}` does not matter: the name is looked for.
            lines_with_any(source, &banned)
        },
        bad: &[
            ("replication/src/leader.rs", "use std::collections::{BTreeMap, HashMap};"),
            ("coordinator/src/records.rs", "std::fs::read(path)"),
            ("engine/src/batch/check.rs", "use glommio::x;"),
        ],
        good: &[("coordinator/src/cluster.rs", "use std::collections::BTreeMap; // no HashMap")],
    },
    Rule {
        name: "the runtime is named by environment files and process start only",
        applies: |path| {
            let environment = ["engine/src/env/uring", "net/src/env/uring"];
            !environment.iter().any(|prefix| path.starts_with(prefix)) && path != "net/src/main.rs"
        },
        find: |source| source.lines_with(&["glommio"]),
        bad: &[
            ("engine/src/log.rs", "use glommio::io::DmaFile;"),
            ("net/tests/streams.rs", "glommio::spawn_local(x)"),
            ("net/src/node.rs", "fn f() -> glommio::Task<()> {}"),
        ],
        good: &[
            ("engine/src/env/uring/file.rs", "use glommio::io::DmaFile;"),
            ("net/src/main.rs", "glommio::LocalExecutor"),
            ("engine/src/wait.rs", "//! Alike under glommio and the simulator."),
        ],
    },
    Rule {
        name: "the storage half names nothing of the wire",
        // Tests may compare with what others make of the bytes.
        applies: |path| path.starts_with("engine/src/") || path.starts_with("replication/src/"),
        find: |source| {
            let of_the_wire = |word: &str| {
                let is_message = word.ends_with("Request") || word.ends_with("Response");
                let is_type = word.starts_with(char::is_uppercase);
                let words = ["ErrorCode", "kafka_protocol", "correlation_id", "api_key"];
                is_type && is_message && word.len() > 8 || words.contains(&word)
            };
            let words = source.words().into_iter();
            words.filter(|(_, word)| of_the_wire(word)).map(|(line, _)| line).collect()
        },
        bad: &[
            ("engine/src/log.rs", "fn answer() -> ErrorCode {}"),
            ("replication/src/leader.rs", "fn on(fetch: FetchRequest) {}"),
            ("engine/src/batch.rs", "let correlation_id = 1;"),
        ],
        good: &[
            ("engine/src/env.rs", "enum Queue { Request, Storage }"),
            ("net/src/api.rs", "use ErrorCode;"),
        ],
    },
    Rule {
        name: "net does file IO for the process itself only",
        applies: |path| {
            let for_the_process = ["checks", "process", "cli", "config", "watchdog", "main"];
            path.starts_with("net/src/") && !is_of(path, "net/src/", &for_the_process)
        },
        find: |source| {
            let banned: [&[&str]; 4] = [
                &["std", ":", ":", "fs"],
                &["OpenOptions"],
                &["File", ":", ":", "open"],
                &["File", ":", ":", "create"],
            ];
            lines_with_any(source, &banned)
        },
        bad: &[
            ("net/src/api/log_dirs.rs", "std::fs::read_dir(path)"),
            ("net/src/partitions.rs", "use std::fs::{self, File};"),
            ("net/src/shard.rs", "File::open(path)"),
        ],
        good: &[
            ("net/src/checks/data_dir.rs", "use std::fs::File;"),
            ("net/src/config/properties.rs", "std::fs::read(path)"),
            ("net/src/partitions.rs", "env.open(path, Open::Read)"),
        ],
    },
    Rule {
        name: "a file has at most 900 lines",
        applies: |_| true,
        find: |source| {
            let count = source.text.lines().count();
            if count > LINES_MAX { vec![count] } else { Vec::new() }
        },
        // Long ones are made by the test of this rule.
        bad: &[],
        good: &[("net/src/x.rs", "//! Short.")],
    },
    Rule {
        name: "a file begins with what it is",
        // No exception: a helper of a test is read by somebody, too.
        applies: |_| true,
        find: |source| {
            let says = source.text.lines().next().and_then(|line| line.strip_prefix("//! "));
            if says.is_some_and(|says| says.len() > 2) { Vec::new() } else { vec![1] }
        },
        bad: &[
            ("net/src/x.rs", "use std::io;"),
            ("net/tests/x.rs", ""),
            ("net/src/y.rs", "//!\n//! Late."),
        ],
        good: &[("net/src/x.rs", "//! A thing.\nuse std::io;")],
    },
    Rule {
        name: "what is to be done is in an issue, not in the code",
        applies: |_| true,
        find: unexplained_todos,
        bad: &[
            ("net/src/x.rs", concat!("// TO", "DO: later")),
            ("scripts/x.rs", concat!("let x = 1; // FIX", "ME")),
        ],
        good: &[("net/src/x.rs", "// What a mastodon. \\uXXXX")],
    },
    Rule {
        name: "public names say what a thing is",
        applies: |path| is_product(path) && !path.starts_with("net/fuzz/"),
        find: forbidden_names,
        bad: &[
            ("net/src/x.rs", "pub struct SessionManager;"),
            ("engine/src/x.rs", "pub mod utils;"),
            ("engine/src/x.rs", "    pub(crate) fn log_info(&self) {}"),
            ("net/src/shard.rs", "pub trait CallHandler {}"),
            ("perf/src/x.rs", "pub const HELPER_MAX: usize = 1;"),
            ("perf/src/x.rs", "pub struct TopicData {"),
            ("perf/src/x.rs", "pub async fn get_topic() {}"),
        ],
        good: &[
            ("net/src/metadata.rs", "pub mod metadata;"),
            ("net/src/x.rs", "pub fn data(&self) -> &Path {"),
            ("net/src/x.rs", "pub async fn get(&self) {}"),
            ("net/src/x.rs", "struct Manager;"),
            ("net/src/api/x.rs", "pub type Handler = ();"),
            ("net/src/x.rs", "pub const INFORM_MAX: u8 = 1; // pub struct Manager"),
        ],
    },
];

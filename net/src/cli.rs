//! The command line of `ringbolt`: which command, and the configuration that it runs with. Reads
//! the file that `--config` names and nothing else; prints nothing.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::properties::escape;
use crate::config::settings::SETTINGS;
use crate::config::{ConfigError, Inputs, Resolved, Source, log, resolve, variable_name};

#[derive(Parser, Debug)]
#[command(
    name = "ringbolt",
    version,
    about = "A broker for Kafka's clients, on io_uring.",
    args_conflicts_with_subcommands = true
)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    broker: Flags,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a broker (the default).
    Broker(Flags),
    /// Run a coordinator of a cluster: it holds a vote and no partitions.
    Coordinator(Flags),
    /// Show or change who agrees on the metadata; asks the coordinators that the settings name.
    Quorum {
        #[command(subcommand)]
        verb: QuorumVerb,
    },
    /// Show the settings that a broker would run with, and where each comes from.
    Config {
        /// Explain every setting instead.
        #[arg(long)]
        docs: bool,
        #[command(flatten)]
        flags: Flags,
    },
}

#[derive(Subcommand, Debug)]
enum QuorumVerb {
    /// Show the coordinators and how far each is.
    Status {
        #[command(flatten)]
        flags: Flags,
    },
    /// Let coordinators vote that run already and wait for it; two at once, or one for another, so
    /// that their number stays odd.
    Add {
        /// Where each answers coordinators.
        #[arg(required = true, value_name = "HOST:PORT")]
        endpoints: Vec<String>,
        /// Who goes in the same step.
        #[arg(long, value_name = "ID")]
        remove: Vec<i32>,
        #[command(flatten)]
        flags: Flags,
    },
    /// Take votes away; two at once, so that the number of voters stays odd.
    Remove {
        /// Whose.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i32>,
        #[command(flatten)]
        flags: Flags,
    },
}

#[derive(Args, Clone, Debug)]
struct Flags {
    /// Address to accept clients on [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address that clients are told to connect to [default: the one they are accepted on]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Directory that holds everything [default: ./ringbolt-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// How many cores to run on [default: all]
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Number of this broker in its cluster [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Settings, in the syntax and with the names of Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Flags {
    /// Each flag with the setting that it stands for.
    fn settings(self) -> Vec<(&'static str, &'static str, String)> {
        [
            ("--listen", "listeners", self.listen),
            ("--advertise", "advertised.listeners", self.advertise),
            ("--data", "log.dirs", self.data),
            ("--shards", "shards", self.shards),
            ("--node-id", "node.id", self.node_id),
        ]
        .into_iter()
        .filter_map(|(flag, setting, value)| Some((flag, setting, value?)))
        .collect()
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Run a broker.
    Broker(Box<Resolved>),
    /// Ask or change the quorum of these coordinators, each `host:port`.
    Quorum(Vec<String>, QuorumTask),
    /// Print this and end well.
    Print(String),
}

/// What is wanted of a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuorumTask {
    /// Its state.
    Status,
    /// Another set of voters.
    Change {
        /// Where those are reached who shall vote, `host:port`.
        add: Vec<String>,
        /// Who shall not vote any more, by node.
        remove: Vec<i32>,
    },
}

/// Why there is nothing to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line is wrong, or asks for help or the version; clap says what, where to print
    /// it, and the exit code.
    #[error(transparent)]
    Line(#[from] clap::Error),
    /// The file of `--config` cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The settings name no coordinators.
    #[error("the settings name no coordinators: controller.quorum.voters (see --config)")]
    NoVoters,
}

/// Decides what `arguments` (the program's name first) and `variables` ask for. `hostname` is this
/// machine's name.
pub fn decide(
    arguments: impl IntoIterator<Item = String>,
    variables: Vec<(String, String)>,
    hostname: String,
) -> Result<Action, CliError> {
    let line = Line::try_parse_from(arguments)?;
    match line.command {
        None => broker(line.broker, variables, hostname),
        Some(Command::Broker(flags)) => broker(flags, variables, hostname),
        Some(Command::Coordinator(flags)) => {
            let role = ("coordinator", "process.roles", "controller".to_string());
            Ok(Action::Broker(Box::new(configure(flags, &[role], variables, hostname)?)))
        }
        Some(Command::Quorum { verb }) => quorum(verb, variables, hostname),
        Some(Command::Config { docs: true, .. }) => Ok(Action::Print(docs())),
        Some(Command::Config { docs: false, flags }) => {
            Ok(Action::Print(effective(&configure(flags, &[], variables, hostname)?)))
        }
    }
}

fn broker(
    flags: Flags,
    variables: Vec<(String, String)>,
    hostname: String,
) -> Result<Action, CliError> {
    Ok(Action::Broker(Box::new(configure(flags, &[], variables, hostname)?)))
}

fn quorum(
    verb: QuorumVerb,
    variables: Vec<(String, String)>,
    hostname: String,
) -> Result<Action, CliError> {
    let (flags, task) = match verb {
        QuorumVerb::Status { flags } => (flags, QuorumTask::Status),
        QuorumVerb::Add { endpoints, remove, flags } => {
            (flags, QuorumTask::Change { add: endpoints, remove })
        }
        QuorumVerb::Remove { ids, flags } => {
            (flags, QuorumTask::Change { add: Vec::new(), remove: ids })
        }
    };
    // The file may be a broker's or a coordinator's, whose command says which it is.
    let role = ("quorum", "process.roles", "controller".to_string());
    let as_broker = configure(flags.clone(), &[], variables.clone(), hostname.clone());
    let resolved = as_broker.or_else(|_| configure(flags, &[role], variables, hostname))?;
    let voters = resolved.config.cluster.map(|cluster| cluster.voters).unwrap_or_default();
    match voters.is_empty() {
        true => Err(CliError::NoVoters),
        false => {
            Ok(Action::Quorum(voters.into_iter().map(|(_, endpoint)| endpoint).collect(), task))
        }
    }
}

fn configure(
    flags: Flags,
    more: &[(&'static str, &'static str, String)],
    variables: Vec<(String, String)>,
    hostname: String,
) -> Result<Resolved, CliError> {
    let by_variable = || {
        let found = variables.iter().find(|(name, _)| name == "RINGBOLT_CONFIG");
        found.map(|(_, path)| PathBuf::from(path))
    };
    let path = flags.config.clone().or_else(by_variable);
    let file = path.map(|path| read(&path).map(|text| (path, text))).transpose()?;
    Ok(resolve(Inputs {
        file,
        variables,
        flags: [flags.settings(), more.to_vec()].concat(),
        hostname,
    })?)
}

/// Longest file of settings, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn read(path: &Path) -> Result<String, CliError> {
    let read = || {
        let mut text = String::new();
        let read = File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if read as u64 > FILE_BYTES_MAX {
            let message = format!("longer than {FILE_BYTES_MAX} bytes, which no settings are");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(text)
    };
    read().map_err(|error| CliError::File { path: path.into(), error })
}

/// The settings as a file that would bring them about, each with its source.
fn effective(resolved: &Resolved) -> String {
    let mut text = String::new();
    for shown in resolved.shown() {
        let value = escape(shown.value.as_deref().unwrap_or(""));
        // Comments stand on lines of their own: what follows a value would be part of it.
        match &shown.source {
            Source::Default => _ = writeln!(text, "# {} = {value}", shown.name),
            source => _ = writeln!(text, "# from {source}\n{} = {value}", shown.name),
        }
    }
    for warning in &resolved.warnings {
        _ = writeln!(text, "# warning: {warning}");
    }
    text
}

/// Every setting, explained.
fn docs() -> String {
    let mut text = String::new();
    for row in SETTINGS {
        let unit = if row.unit.is_empty() { String::new() } else { format!(" {}", row.unit) };
        let default = if row.default.is_empty() { "none" } else { row.default };
        let default = format!("{default}{unit}");
        explain(&mut text, row.name, row.sentence, &row.values.describe(), &default);
    }
    text +=
        "Broker-wide values of what a topic can set for itself (the topic's name is given):\n\n";
    for log::Property { setting, synonym } in log::properties() {
        let sentence = format!("{}: {}", setting.name, setting.documentation());
        if synonym.unit == 1 {
            explain(
                &mut text,
                synonym.name,
                &sentence,
                &setting.valid.to_string(),
                setting.default,
            );
        } else {
            let values = format!("a number of {} ms", synonym.unit);
            explain(&mut text, synonym.name, &sentence, &values, "none");
        }
    }
    text
}

fn explain(text: &mut String, name: &str, sentence: &str, values: &str, default: &str) {
    let variable = variable_name(name);
    _ = writeln!(text, "{name}\n    {sentence}");
    _ = writeln!(text, "    values: {values}; default: {default}\n    variable: {variable}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;

    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Action, CliError> {
        let arguments = std::iter::once("ringbolt").chain(arguments.iter().copied());
        let variables = variables.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        decide(arguments.map(str::to_string), variables, "box".into())
    }

    #[track_caller]
    fn config(arguments: &[&str], variables: &[(&str, &str)]) -> BrokerConfig {
        match run(arguments, variables) {
            Ok(Action::Broker(resolved)) => resolved.config,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
        match run(arguments, variables) {
            Ok(Action::Print(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_said_is_a_broker_with_the_defaults() {
        assert_eq!(config(&[], &[]), BrokerConfig::default());
        assert_eq!(config(&["broker"], &[]), BrokerConfig::default());
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        let flags = [
            "--listen",
            "0.0.0.0:19092",
            "--advertise",
            "kafka.example:443",
            "--data",
            "/x",
            "--shards",
            "3",
            "--node-id",
            "7",
        ];
        let default = config(&flags, &[]);
        let named: Vec<&str> = std::iter::once("broker").chain(flags).collect();
        assert_eq!(config(&named, &[]), default);
        assert_eq!((default.listeners[0].port, default.advertised[0].port), (19092, 443));
        assert_eq!(default.advertised[0].host, "kafka.example");
        assert_eq!(default.data_dir, PathBuf::from("/x"));
        assert_eq!(default.shards.map(|n| n.get()), Some(3));
        assert_eq!(default.node_id.0, 7);
    }

    #[test]
    fn a_flag_wins_over_a_variable_and_that_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.properties");
        let text = "log.dirs=/file\nnode.id=1\nlisteners=PLAINTEXT://127.0.0.1:1\n";
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let variables = [("RINGBOLT_DATA", "/variable"), ("RINGBOLT_NODE_ID", "2")];
        let all = config(&["--config", path, "--node-id", "3"], &variables);
        assert_eq!(all.listeners[0].port, 1);
        assert_eq!(all.data_dir, PathBuf::from("/variable"));
        assert_eq!(all.node_id.0, 3);
        let by_variable = config(&[], &[("RINGBOLT_CONFIG", path)]);
        assert_eq!(by_variable.data_dir, PathBuf::from("/file"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = run(&["--config", "/no/such/file"], &[]).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/file: "), "{error}");
    }

    #[test]
    fn a_quorum_is_asked_at_the_coordinators_of_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coordinator.properties");
        let text = "node.id=1\ncluster.id=c\ncontroller.listener.names=CONTROLLER\n\
                    listeners=CONTROLLER://127.0.0.1:1\n\
                    controller.quorum.voters=1@a:1,2@b:2,3@c:3\n";
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let asked = |arguments: &[&str]| match run(&[arguments, &["--config", path]].concat(), &[])
        {
            Ok(Action::Quorum(voters, task)) => (voters.join(" "), task),
            other => panic!("{other:?}"),
        };
        let voters = "a:1 b:2 c:3".to_string();
        assert_eq!(asked(&["quorum", "status"]), (voters.clone(), QuorumTask::Status));
        let change = QuorumTask::Change { add: vec!["d:4".into(), "e:5".into()], remove: vec![] };
        assert_eq!(asked(&["quorum", "add", "d:4", "e:5"]), (voters.clone(), change));
        let change = QuorumTask::Change { add: vec!["d:4".into()], remove: vec![2] };
        assert_eq!(asked(&["quorum", "add", "d:4", "--remove", "2"]), (voters.clone(), change));
        let change = QuorumTask::Change { add: vec![], remove: vec![1, 2] };
        assert_eq!(asked(&["quorum", "remove", "1", "2"]), (voters, change));
        assert!(matches!(run(&["quorum", "status"], &[]), Err(CliError::NoVoters)));
    }

    #[test]
    fn help_version_and_typos_are_clap_errors() {
        for (arguments, code) in [
            (&["--help"][..], 0),
            (&["--version"], 0),
            (&["config", "--help"], 0),
            (&["--port", "1"], 2),
            (&["brocker"], 2),
        ] {
            match run(arguments, &[]) {
                Err(CliError::Line(error)) => assert_eq!(error.exit_code(), code, "{arguments:?}"),
                other => panic!("{arguments:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_config_prints_is_a_file_that_says_the_same() {
        let variables = [("RINGBOLT_NUM_PARTITIONS", "6"), ("RINGBOLT_LOG_DIRS", "a\\b")];
        let flags = ["config", "--node-id", "5", "--listen", "localhost:9"];
        let text = printed(&flags, &variables);
        assert!(text.contains("# from RINGBOLT_NUM_PARTITIONS\nnum.partitions = 6\n"), "{text}");
        assert!(text.contains("# from --node-id\nnode.id = 5\n"), "{text}");
        assert!(text.contains("# auto.create.topics.enable = true\n"), "{text}");
        let file = Some((PathBuf::from("f"), text));
        let again = resolve(Inputs { file, ..Inputs::default() }).unwrap();
        assert_eq!(again.config, config(&flags[1..], &variables));
    }

    #[test]
    fn the_docs_name_every_setting() {
        let text = printed(&["config", "--docs"], &[]);
        for row in SETTINGS {
            assert!(text.contains(&format!("{}\n    {}", row.name, row.sentence)));
        }
        for property in log::properties() {
            assert!(text.contains(&format!("\n{}\n    ", property.synonym.name)));
        }
    }
}

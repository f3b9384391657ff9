//! One typed tree of settings, and how it comes about: defaults, then a file in the syntax and with
//! the names of Kafka's `server.properties`, then `RINGBOLT_…` variables, then flags; a later layer
//! wins. Parsed once and checked once; nothing looks a setting up by its name afterwards, except to
//! show it.
//!
//! Every complaint names its place: file and line, variable, or flag. All are reported together,
//! and with one of them the broker does not start.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use coordinator::cluster::Endpoint;
use coordinator::group::GroupConfig;
use coordinator::group::consumer::times::BoundsError;
use engine::config::{EngineLimits, Kind, LogOverrides};
use engine::ids::BrokerId;
use replication::config::ReplicationConfig;

pub mod cluster;
pub mod listeners;
pub mod log;
pub mod names;
pub mod properties;
pub mod settings;

use cluster::ClusterConfig;
use listeners::Listener;

use crate::groups::OffsetsTopic;

/// What a broker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Its number.
    pub node_id: BrokerId,
    /// Where it stands.
    pub rack: Option<String>,
    /// Where it accepts clients; never empty.
    pub listeners: Vec<Listener>,
    /// How clients reach each listener; a port of 0 stands for the one that was bound.
    pub advertised: Vec<Endpoint>,
    /// Its place in a cluster of several nodes; `None`: it is all of it.
    pub cluster: Option<ClusterConfig>,
    /// How often it tells the controller that it is there.
    pub heartbeat: Duration,
    /// How long the leading coordinator may be silent.
    pub election_timeout: Duration,
    /// Numbers of replication.
    pub replication: ReplicationConfig,
    /// Everything it keeps.
    pub data_dir: PathBuf,
    /// How many shards; `None`: one on each core.
    pub shards: Option<NonZeroUsize>,
    /// Limits and defaults of the controller: topics, partitions, snapshots.
    pub topics: coordinator::config::Config,
    /// What consumer groups go by.
    pub groups: GroupConfig,
    /// Whether groups may speak the consumer protocol here, if the cluster has switched it on.
    pub consumer_protocol: bool,
    /// Numbers of the topic in which groups are kept.
    pub offsets_topic: OffsetsTopic,
    /// Whether asking for a topic's metadata may create it.
    pub auto_create_topics: bool,
    /// Longest request, in bytes, its length prefix not counted.
    pub request_bytes_max: usize,
    /// How long a connection may be silent; `None`: for ever.
    pub connection_idle_max: Option<Duration>,
    /// Bytes of requests and responses of one connection beyond which its socket is not read. One
    /// request of any permitted length is always read.
    pub connection_queued_bytes_max: usize,
    /// The same, for all connections of one shard together.
    pub shard_queued_bytes_max: usize,
    /// Most record bytes in one fetch response; its first batch is always whole.
    pub fetch_bytes_max: usize,
    /// Most incremental fetch sessions of the broker.
    pub fetch_sessions_max: usize,
    /// Most partitions in one answer to DescribeTopicPartitions.
    pub describe_partitions_max: usize,
    /// Broker-wide values of topic settings; only those given.
    pub log: LogOverrides,
    /// Limits of the engine of each shard.
    pub engine: EngineLimits,
}

impl Default for BrokerConfig {
    fn default() -> BrokerConfig {
        let address = || ("PLAINTEXT".to_string(), "127.0.0.1".to_string(), 9092);
        let (name, host, port) = address();
        let (listener, advertised_host, advertised_port) = address();
        BrokerConfig {
            node_id: BrokerId(1),
            rack: None,
            listeners: vec![Listener { name, host, port }],
            advertised: vec![Endpoint { listener, host: advertised_host, port: advertised_port }],
            cluster: None,
            heartbeat: Duration::from_millis(300),
            election_timeout: Duration::from_millis(300),
            replication: ReplicationConfig::default(),
            data_dir: PathBuf::from("./ringbolt-data"),
            shards: None,
            topics: coordinator::config::Config::default(),
            groups: GroupConfig::default(),
            consumer_protocol: true,
            offsets_topic: OffsetsTopic::default(),
            auto_create_topics: true,
            request_bytes_max: 104_857_600,
            connection_idle_max: Some(Duration::from_secs(600)),
            connection_queued_bytes_max: 16 << 20,
            shard_queued_bytes_max: 256 << 20,
            fetch_bytes_max: 55 << 20,
            fetch_sessions_max: 1000,
            describe_partitions_max: 2000,
            log: LogOverrides::default(),
            engine: EngineLimits::default(),
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said; the default.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A command-line flag.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Variable(name) => f.write_str(name),
            Source::Flag(name) => f.write_str(name),
        }
    }
}

/// One value as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The text.
    pub text: String,
    /// Where it stood.
    pub source: Source,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub source: Source,
    /// What.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.message)
    }
}

/// Why there is no configuration: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// What may say something about the settings.
#[derive(Debug, Default)]
pub struct Inputs {
    /// A file's path and text.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables; those that do not begin with `RINGBOLT_` are ignored.
    pub variables: Vec<(String, String)>,
    /// Flags: the flag, the setting that it stands for, its value.
    pub flags: Vec<(&'static str, &'static str, String)>,
    /// The machine's name, for listeners on every interface.
    pub hostname: String,
}

/// A configuration, and where each part of it came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The typed tree.
    pub config: BrokerConfig,
    /// What was given, by name.
    given: BTreeMap<&'static str, Given>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Puts the layers together.
pub fn resolve(inputs: Inputs) -> Result<Resolved, ConfigError> {
    let mut layers = Layers::default();
    if let Some((path, text)) = inputs.file {
        layers.read_file(path, &text);
    }
    layers.read_variables(inputs.variables);
    for (flag, setting, value) in inputs.flags {
        layers.begin();
        layers.give(setting, value, Source::Flag(flag));
    }
    layers.finish(&inputs.hostname)
}

/// What was said so far.
#[derive(Default)]
struct Layers {
    /// By the setting's first name.
    given: BTreeMap<&'static str, Given>,
    /// What the layer being read has given: the setting's first name, and the name it used.
    layer: BTreeMap<&'static str, String>,
    ignored: Vec<String>,
    removed: Vec<String>,
    warnings: Vec<String>,
    problems: Vec<Problem>,
}

impl Layers {
    /// A new layer begins: whatever it says wins over all before.
    fn begin(&mut self) {
        self.layer.clear();
    }

    fn problem(&mut self, source: Source, message: String) {
        self.problems.push(Problem { source, message });
    }

    fn read_file(&mut self, path: PathBuf, text: &str) {
        let entries = match properties::parse(text) {
            Ok(entries) => entries,
            Err(malformed) => {
                let source = Source::File { path, line: malformed.line };
                return self.problem(source, malformed.reason);
            }
        };
        self.begin();
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        for properties::Entry { line, key, value } in entries {
            let source = Source::File { path: path.clone(), line };
            if let Some(earlier) = lines.insert(key.clone(), line) {
                self.warnings.push(format!("{source}: {key} was set on line {earlier}, too"));
            }
            if settings::find(&key).is_some() || log::find(&key).is_some() {
                self.give(&key, value, source);
            } else if !self.ignore(&key) {
                let message = format!("unknown setting {key}{}", did_you_mean(&key));
                self.problem(source, message);
            }
        }
    }

    fn read_variables(&mut self, variables: Vec<(String, String)>) {
        self.begin();
        let ours = settings::SETTINGS.iter().flat_map(|s| [Some(s.name), s.alias]).flatten();
        let ours = ours.chain(log::properties().map(|property| property.synonym.name));
        let like_flags = FLAG_VARIABLES.map(|(variable, name)| (variable.to_string(), name));
        let by_variable: BTreeMap<String, &'static str> =
            ours.map(|name| (variable_name(name), name)).chain(like_flags).collect();
        let ignored: BTreeMap<String, &'static str> =
            names::all_ignored().map(|name| (variable_name(name), name)).collect();
        let mut variables: Vec<_> =
            variables.into_iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
        variables.sort();
        for (variable, value) in variables {
            if NOT_SETTINGS.contains(&variable.as_str()) || is_service_link(&variable) {
                continue;
            }
            if let Some(name) = by_variable.get(&variable) {
                self.give(name, value, Source::Variable(variable));
            } else if let Some(name) = ignored.get(&variable) {
                self.ignore(name);
            } else {
                self.warnings.push(format!("{variable} is no setting of this broker"));
            }
        }
    }

    /// Whether Kafka has the name and it means nothing here.
    fn ignore(&mut self, name: &str) -> bool {
        match names::ignored(name) {
            Some(names::Ignored::Meaningless) => self.ignored.push(name.to_string()),
            Some(names::Ignored::Removed) => self.removed.push(name.to_string()),
            None => return false,
        }
        true
    }

    /// A layer says a value. It wins over what earlier layers said of the same thing, under any
    /// name; within a layer, the name that counts is decided in the end.
    fn give(&mut self, name: &str, text: String, source: Source) {
        if let Some(row) = settings::find(name) {
            if let Some(other) = self.layer.insert(row.name, name.to_string())
                && other != name
                && self.given[row.name].text.trim() != text.trim()
            {
                let earlier = &self.given[row.name].text;
                let message = format!("{name} says {text}, but {other} says {earlier}");
                return self.problem(source, message);
            }
            self.given.insert(row.name, Given { text, source });
        } else if let Some(property) = log::find(name) {
            // Others for the same topic setting count only if this layer gave them.
            for other in property.setting.synonyms {
                if !self.layer.contains_key(other.name) {
                    self.given.remove(other.name);
                }
            }
            self.layer.insert(property.synonym.name, name.to_string());
            self.given.insert(property.synonym.name, Given { text, source });
        } else {
            unreachable!("{name} has a row");
        }
    }

    fn finish(mut self, hostname: &str) -> Result<Resolved, ConfigError> {
        let mut config = BrokerConfig::default();
        for row in settings::SETTINGS {
            if let Some(given) = self.given.get(row.name)
                && let Err(reason) = row.apply(&mut config, &given.text)
            {
                let message = format!("{} cannot be `{}`: {reason}", row.name, given.text);
                self.problem(given.source.clone(), message);
            }
        }
        self.finish_groups(&mut config);
        self.finish_listeners(&mut config, hostname);
        config.log = log::resolve(&self.given, &mut self.problems);
        self.finish_warnings();
        if self.problems.is_empty() {
            return Ok(Resolved { config, given: self.given, warnings: self.warnings });
        }
        Err(ConfigError { problems: self.problems })
    }

    /// The times of groups have to hold together; the controller goes by the same.
    fn finish_groups(&mut self, config: &mut BrokerConfig) {
        let groups = &config.groups;
        if groups.session_max < groups.session_min {
            // Kafka starts, and no member can join.
            let setting = "group.max.session.timeout.ms";
            self.wrong(setting, "must be greater than or equal to group.min.session.timeout.ms");
        }
        if let Err(BoundsError { setting, must, than }) = groups.consumer.times.check() {
            self.wrong(setting, &format!("must be {must} {than}"));
        }
        config.topics.group_times = config.groups.consumer.times;
    }

    fn finish_listeners(&mut self, config: &mut BrokerConfig, hostname: &str) {
        let text = |name: &'static str| {
            let default = settings::find(name).map_or("", |row| row.default);
            self.given.get(name).map_or(default, |given| given.text.as_str())
        };
        let given = listeners::Given {
            listeners: text("listeners"),
            advertised: Some(text("advertised.listeners")).filter(|text| !text.trim().is_empty()),
            controller_names: text("controller.listener.names"),
            protocol_map: text("listener.security.protocol.map"),
        };
        let resolved = match listeners::resolve(&given, hostname) {
            Ok(resolved) => resolved,
            Err(wrong) => return self.wrong(wrong.setting, &wrong.reason),
        };
        let place = cluster::resolve(&cluster::Given {
            me: config.node_id,
            roles: text("process.roles"),
            voters: text("controller.quorum.voters"),
            id: text("cluster.id"),
            peer_listener: text("inter.broker.listener.name"),
            bound: &resolved.bound,
            control: &resolved.control,
        });
        match place {
            Ok(None) if resolved.bound.is_empty() => {
                return self.wrong("listeners", "no listener is left for clients");
            }
            Ok(None) => {
                let unopened = |listener: &Listener| {
                    let name = &listener.name;
                    format!("listener {name} is not opened: this node is the whole cluster")
                };
                self.warnings.extend(resolved.control.iter().map(unopened));
            }
            Ok(Some(place)) => {
                if place.serves && resolved.bound.is_empty() {
                    return self.wrong("listeners", "no listener is left for clients");
                }
                config.cluster = Some(place);
            }
            Err((setting, why)) => return self.wrong(setting, &why),
        }
        config.listeners = resolved.bound;
        config.advertised = resolved.advertised;
        self.warnings.extend(resolved.warnings);
    }

    fn wrong(&mut self, setting: &'static str, why: &str) {
        let given = self.given.get(setting);
        let source = given.map_or(Source::Default, |given| given.source.clone());
        self.problem(source, format!("{setting}: {why}"));
    }

    fn finish_warnings(&mut self) {
        let mut sentences = Vec::new();
        for (names, why) in [
            (&mut self.ignored, "settings of Kafka that mean nothing here were ignored"),
            (&mut self.removed, "settings that Kafka 4 has no longer were ignored"),
        ] {
            names.sort();
            names.dedup();
            if !names.is_empty() {
                sentences.push(format!("{why}: {}", names.join(", ")));
            }
        }
        if !sentences.is_empty() {
            self.warnings.push(sentences.join("; "));
        }
    }
}

/// How variables begin that may be settings.
const VARIABLE_PREFIX: &str = "RINGBOLT_";

/// Variables that are read elsewhere: by the command line, and by the log.
const NOT_SETTINGS: [&str; 2] = ["RINGBOLT_CONFIG", "RINGBOLT_LOG"];

/// Variables called like flags, and the settings that they stand for.
const FLAG_VARIABLES: [(&str, &str); 3] = [
    ("RINGBOLT_LISTEN", "listeners"),
    ("RINGBOLT_ADVERTISE", "advertised.listeners"),
    ("RINGBOLT_DATA", "log.dirs"),
];

/// The environment variable of a setting: `log.retention.hours` → `RINGBOLT_LOG_RETENTION_HOURS`.
pub fn variable_name(setting: &str) -> String {
    let upper = setting.to_ascii_uppercase().replace(['.', '-'], "_");
    format!("{VARIABLE_PREFIX}{upper}")
}

/// Whether Kubernetes made the variable for a service called `ringbolt…` (`…_SERVICE_HOST`,
/// `…_PORT_9092_TCP_ADDR`).
fn is_service_link(variable: &str) -> bool {
    variable.contains("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.ends_with("_PORT")
        || (variable.contains("_PORT_") && variable.contains("_TCP"))
}

/// `; did you mean …?`, when a known name is near.
fn did_you_mean(name: &str) -> String {
    let known = settings::SETTINGS.iter().map(|row| row.name);
    let known = known
        .chain(log::properties().map(|property| property.synonym.name))
        .chain(names::all_ignored());
    let near = known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len().min(name.len()) / 6);
    near.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default()
}

/// One setting as it is shown: by `ringbolt config` and DescribeConfigs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Its value; `None`: nothing.
    pub value: Option<String>,
    /// Where the value came from.
    pub source: Source,
    /// Its type.
    pub kind: Kind,
    /// What it does, in a sentence or two.
    pub sentence: &'static str,
}

impl Resolved {
    /// Every setting with its value, in the order of the tables.
    pub fn shown(&self) -> impl Iterator<Item = Shown> {
        settings::SETTINGS.iter().map(|row| self.shown_row(row)).chain(self.shown_log())
    }

    fn shown_row(&self, row: &settings::Setting) -> Shown {
        let given = self.given.get(row.name);
        let text = given.map_or(row.default, |given| given.text.trim());
        Shown {
            name: row.name,
            value: (!text.is_empty()).then(|| text.to_string()),
            source: given.map_or(Source::Default, |given| given.source.clone()),
            kind: row.values.kind(),
            sentence: row.sentence,
        }
    }

    /// The broker-wide values of topic settings: each under its most exact name; under another
    /// (minutes, hours) where that was given.
    fn shown_log(&self) -> impl Iterator<Item = Shown> {
        log::properties().filter_map(|log::Property { setting, synonym }| {
            let given = self.given.get(synonym.name);
            let first = setting.synonyms[0].name == synonym.name;
            let by_another = || self.config.log.text(setting.name);
            let value = match given {
                Some(given) => given.text.trim().to_string(),
                None if first => by_another().unwrap_or_else(|| setting.default.to_string()),
                None => return None,
            };
            let of_any = setting.synonyms.iter().find_map(|synonym| self.given.get(synonym.name));
            Some(Shown {
                name: synonym.name,
                value: Some(value),
                source: of_any.map_or(Source::Default, |given| given.source.clone()),
                kind: setting.kind,
                sentence: setting.documentation(),
            })
        })
    }
}

#[cfg(test)]
mod tests;

//! DescribeConfigs: settings of topics, of groups and of this broker, each with its value, where the
//! value comes from, what else it could be, and what it does.
//!
//! Topics and the broker have the same settings under different names: the engine's table knows
//! both. Deliberately absent: settings that change while the broker runs (all of the broker's are
//! read-only), and resources without settings here (client metrics, loggers).

use std::borrow::Cow;

use coordinator::cluster::Topic;
use coordinator::controller::check_topic_name;
use coordinator::group::consumer::times::{self, Own};
use engine::config::{Kind, LogOverrides, SETTINGS, Setting};

use super::admin::Header;
use super::errors;
use crate::config::{Shown, Source, log, settings};
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::topic_config;
use crate::wire::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResponse, Entry, RESOURCE_BROKER, RESOURCE_GROUP,
    RESOURCE_TOPIC, RequestResource, ResponseResource, SOURCE_DEFAULT, SOURCE_GROUP,
    SOURCE_STATIC_BROKER, SOURCE_TOPIC, Synonym,
};
use crate::wire::{DecodeError, Encoded, ErrorCode, Reader};

/// About how many bytes of settings one answer holds at most. A resource that would be told beyond
/// that is refused; 20,000 topics fit, without documentation.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// A place that a value comes from, or could come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What the setting is called there.
    pub name: &'static str,
    /// Its value there.
    pub value: Option<String>,
    /// Which place: `SOURCE_…`.
    pub source: i8,
}

/// A setting as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub name: &'static str,
    /// Its value; `None`: nothing.
    pub value: Option<String>,
    /// Where the value comes from, then where it would come from otherwise.
    pub origins: Vec<Origin>,
    /// Its type.
    pub kind: Kind,
    /// What it does.
    pub documentation: &'static str,
}

impl Told {
    /// Where its value comes from: `SOURCE_…`.
    pub fn source(&self) -> i8 {
        self.origins.first().map_or(SOURCE_DEFAULT, |origin| origin.source)
    }
}

/// All settings of a topic, in the order of their names.
pub fn of_topic<E: NetEnv>(shard: &Shard<E>, topic: &Topic) -> impl Iterator<Item = Told> {
    let overrides = topic_config::overrides(topic);
    let options = shard.options();
    let (broker, shown) = (&options.log, &options.settings);
    SETTINGS.iter().map(move |setting| told(setting, &overrides, broker, shown))
}

/// One setting of a topic (Kafka's `ConfigHelper.createTopicConfigEntry`).
fn told(
    setting: &'static Setting,
    topic: &LogOverrides,
    broker: &LogOverrides,
    shown: &[Shown],
) -> Told {
    let own = topic.text(setting.name);
    let inherited = broker.text(setting.name).unwrap_or_else(|| setting.default.to_owned());
    let mut origins = Vec::new();
    if let Some(value) = own.clone() {
        let (name, value) = (setting.name, Some(value));
        origins.push(Origin { name, value, source: SOURCE_TOPIC });
    }
    for synonym in setting.synonyms {
        let given = |shown: &&Shown| shown.name == synonym.name && shown.source != Source::Default;
        origins.extend(shown.iter().find(given).map(|shown| Origin {
            name: shown.name,
            value: shown.value.clone(),
            source: SOURCE_STATIC_BROKER,
        }));
    }
    origins.extend(setting.synonyms.first().map(|synonym| Origin {
        name: synonym.name,
        value: Some(setting.default.to_owned()),
        source: SOURCE_DEFAULT,
    }));
    Told {
        name: setting.name,
        value: Some(own.unwrap_or(inherited)),
        origins,
        kind: setting.kind,
        documentation: setting.documentation(),
    }
}

/// All settings of a group, which need not be there: as they were set, even if this broker's bounds
/// are narrower by now (Kafka's `ConfigHelper.createGroupConfigEntry`).
pub fn of_group<E: NetEnv>(shard: &Shard<E>, group: &str) -> Vec<Told> {
    let options = shard.options();
    let image = shard.image();
    let overrides = image.group_overrides(group);
    let own = overrides.map(Own::of).unwrap_or_default();
    let times = own.over(&options.broker.groups.consumer.times.usual);
    let told = |setting: &'static times::Setting| {
        let value = Some(setting.millis(&times).to_string());
        let is_own = overrides.is_some_and(|overrides| overrides.contains_key(setting.name));
        let (name, source) = (setting.name, SOURCE_GROUP);
        let own = is_own.then(|| Origin { name, value: value.clone(), source });
        let given = |shown: &&Shown| shown.name == setting.usual && shown.source != Source::Default;
        let given = options.settings.iter().find(given).map(|shown| Origin {
            name: setting.usual,
            value: shown.value.clone(),
            source: SOURCE_STATIC_BROKER,
        });
        let default = Origin {
            name: setting.usual,
            value: Some(setting.default.to_owned()),
            source: SOURCE_DEFAULT,
        };
        Told {
            name: setting.name,
            value,
            origins: own.into_iter().chain(given).chain([default]).collect(),
            kind: Kind::Int,
            documentation: setting.sentence,
        }
    };
    times::SETTINGS.iter().map(told).collect()
}

/// One setting of the broker (Kafka's `ConfigHelper.createBrokerConfigEntry`).
fn of_broker(shown: &Shown) -> Told {
    let given = shown.source != Source::Default;
    let mut origins = Vec::new();
    if given {
        origins.push(Origin {
            name: shown.name,
            value: shown.value.clone(),
            source: SOURCE_STATIC_BROKER,
        });
    }
    let of_topics = || {
        let property = log::find(shown.name)?;
        let first = property.setting.synonyms[0].name == shown.name;
        first.then_some(property.setting.default)
    };
    let default = settings::find(shown.name).map(|row| row.default).or_else(of_topics);
    origins.extend(default.filter(|text| !text.is_empty()).map(|text| Origin {
        name: shown.name,
        value: Some(text.to_owned()),
        source: SOURCE_DEFAULT,
    }));
    Told {
        name: shown.name,
        value: shown.value.clone(),
        origins,
        kind: shown.kind,
        documentation: shown.sentence,
    }
}

/// Answers DescribeConfigs.
pub async fn describe_configs<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DescribeConfigsRequest::decode(&mut body, header.version)?;
    let mut left = ANSWER_BYTES_MAX;
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in request.resources.iter() {
        let found = find(shard, &resource).and_then(|found| {
            let entries: Vec<Entry<'_>> = found
                .into_iter()
                .filter(|told| is_wanted(&resource, told.name))
                .map(|told| entry(told, &resource, &request))
                .collect();
            let bytes = entries.iter().map(bytes_of).sum();
            left = left.checked_sub(bytes).ok_or((
                ErrorCode::InvalidRequest,
                "The answer would be too large; ask for fewer resources at once.".to_owned(),
            ))?;
            Ok(entries)
        });
        let of = ResponseResource {
            // Kafka has no null here.
            error_message: Some(Cow::Borrowed("")),
            resource_type: resource.resource_type,
            resource_name: Cow::Borrowed(resource.resource_name),
            ..Default::default()
        };
        results.push(match found {
            Ok(entries) => ResponseResource { configs: entries.into(), ..of },
            Err((error_code, message)) => {
                ResponseResource { error_code, error_message: Some(Cow::Owned(message)), ..of }
            }
        });
        shard.env().turn().await;
    }
    let results = results.into();
    Ok(header.encode(&DescribeConfigsResponse { results, ..Default::default() }))
}

fn find<E: NetEnv>(
    shard: &Shard<E>,
    resource: &RequestResource<'_>,
) -> Result<Vec<Told>, (ErrorCode, String)> {
    let name = resource.resource_name;
    let invalid = |message| Err((ErrorCode::InvalidRequest, message));
    match resource.resource_type {
        RESOURCE_TOPIC => {
            check_topic_name(name)
                .map_err(|refusal| (errors::of_refusal(refusal.why), refusal.message))?;
            match shard.image().topic(name) {
                Some(topic) => Ok(of_topic(shard, topic).collect()),
                None => Err((ErrorCode::UnknownTopicOrPartition, String::new())),
            }
        }
        RESOURCE_GROUP if name.is_empty() => invalid("Group name must not be empty".to_owned()),
        RESOURCE_GROUP => Ok(of_group(shard, name)),
        // What was changed for all brokers while they run: nothing can be.
        RESOURCE_BROKER if name.is_empty() => Ok(Vec::new()),
        RESOURCE_BROKER => {
            let me = shard.options().me;
            match name.parse::<i32>() {
                Ok(id) if id == me.0 => {
                    Ok(shard.options().settings.iter().map(of_broker).collect())
                }
                Ok(_) => invalid(format!(
                    "Unexpected broker id, expected {me} or empty string, but received {name}"
                )),
                Err(_) => invalid(format!("Broker id must be an integer, but it is: {name}")),
            }
        }
        other => invalid(format!("Unsupported resource type: {other}")),
    }
}

fn is_wanted(resource: &RequestResource<'_>, name: &str) -> bool {
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    keys.is_none_or(|keys| keys.iter().any(|key| key == name))
}

fn entry(
    told: Told,
    resource: &RequestResource<'_>,
    request: &DescribeConfigsRequest<'_>,
) -> Entry<'static> {
    let config_source = told.source();
    let origins = if request.include_synonyms { told.origins } else { Vec::new() };
    let synonyms = origins.into_iter().map(|origin| Synonym {
        name: Cow::Borrowed(origin.name),
        value: origin.value.map(Cow::Owned),
        source: origin.source,
    });
    let documentation = request.include_documentation.then_some(told.documentation);
    Entry {
        name: Cow::Borrowed(told.name),
        value: told.value.map(Cow::Owned),
        read_only: resource.resource_type == RESOURCE_BROKER,
        config_source,
        is_sensitive: false,
        synonyms: synonyms.collect(),
        config_type: told.kind.code(),
        documentation: documentation.map(Cow::Borrowed),
    }
}

/// About how many bytes an entry takes, in memory or on the wire, whichever is more.
fn bytes_of(entry: &Entry<'_>) -> usize {
    let text = |text: &Option<Cow<'_, str>>| text.as_ref().map_or(0, |text| text.len());
    let synonyms = entry.synonyms.iter().map(|synonym| 64 + text(&synonym.value));
    let own = 160 + text(&entry.value) + text(&entry.documentation);
    own + synonyms.sum::<usize>()
}

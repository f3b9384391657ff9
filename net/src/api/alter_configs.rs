//! AlterConfigs and IncrementalAlterConfigs: topics and groups change their settings; brokers do
//! not while they run. Kafka's `ConfigAdminManager.preprocess`, then its controller.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use coordinator::controller::{Change, ConfigChange, Edit, Refusal, Reply, Request};

use super::admin::{self, Header};
use super::errors;
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::alter_configs::{
    APPEND, AlterConfigsRequest, AlterConfigsResponse, ChangedEntry, DELETE,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, Outcome, SET, SUBTRACT,
};
use crate::wire::describe_configs::{RESOURCE_BROKER, RESOURCE_GROUP, RESOURCE_TOPIC};
use crate::wire::{DecodeError, Encoded, ErrorCode, Reader};

/// How long an answer waits for the controller; these requests bring no time of their own.
const DECISION_WAIT_MS: i32 = 30_000;

/// Why a resource stays as it is.
type Refused = (ErrorCode, String);

/// A resource's type and name, and what became of it; `None`: the controller decides.
type Decided<'a> = (i8, &'a str, Option<Result<(), Refused>>);

/// What a request wants of one resource.
struct Wanted<'a> {
    resource_type: i8,
    resource_name: &'a str,
    /// Names of the settings that it mentions.
    settings: Vec<&'a str>,
    change: Result<Change, Refused>,
}

/// Answers AlterConfigs: what is not named goes back to its default.
pub async fn alter_configs<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = AlterConfigsRequest::decode(&mut body, header.version)?;
    let wanted = request.resources.iter().map(|resource| {
        let entries = resource.configs.iter();
        let overrides =
            entries.map(|entry| (entry.name.to_owned(), entry.value.map(str::to_owned)));
        Wanted {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            settings: resource.configs.iter().map(|entry| entry.name).collect(),
            change: Ok(Change::Replace(overrides.collect())),
        }
    });
    let responses = alter(shard, wanted.collect(), request.validate_only).await.into();
    Ok(header.encode(&AlterConfigsResponse { responses, ..Default::default() }))
}

/// Answers IncrementalAlterConfigs: what is not named stays.
pub async fn incremental_alter_configs<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = IncrementalAlterConfigsRequest::decode(&mut body, header.version)?;
    let wanted = request.resources.iter().map(|resource| Wanted {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        settings: resource.configs.iter().map(|entry| entry.name).collect(),
        change: resource.configs.iter().map(edit).collect::<Result<_, _>>().map(Change::Edit),
    });
    let responses = alter(shard, wanted.collect(), request.validate_only).await.into();
    Ok(header.encode(&IncrementalAlterConfigsResponse { responses, ..Default::default() }))
}

fn edit(entry: ChangedEntry<'_>) -> Result<(String, Edit), Refused> {
    let value = entry.value.map(str::to_owned);
    let edit = match entry.config_operation {
        SET => Edit::Set(value),
        DELETE => Edit::Delete,
        APPEND => Edit::Append(value),
        SUBTRACT => Edit::Subtract(value),
        other => {
            return Err((ErrorCode::InvalidRequest, format!("Unknown operations type {other}")));
        }
    };
    Ok((entry.name.to_owned(), edit))
}

/// Lets the controller decide about topics and groups, and refuses the rest; one outcome for each
/// resource that was named, in that order.
async fn alter<'a, E: NetEnv>(
    shard: &Shard<E>,
    wanted: Vec<Wanted<'a>>,
    validate_only: bool,
) -> Vec<Outcome<'a>> {
    let mut mentions: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for one in &wanted {
        *mentions.entry((one.resource_type, one.resource_name)).or_default() += 1;
    }
    let (mut topics, mut groups) = (Vec::new(), Vec::new());
    let mut decided: Vec<Decided<'a>> = Vec::with_capacity(wanted.len());
    for one in wanted {
        let (kind, name) = (one.resource_type, one.resource_name);
        let outcome = if mentions[&(kind, name)] > 1 {
            let message = "Each resource must appear at most once.".to_owned();
            Some(Err((ErrorCode::InvalidRequest, message)))
        } else if kind == RESOURCE_TOPIC || kind == RESOURCE_GROUP {
            match one.change {
                Ok(change) => {
                    let changes = if kind == RESOURCE_TOPIC { &mut topics } else { &mut groups };
                    changes.push(ConfigChange { name: name.to_owned(), change });
                    None
                }
                Err(refused) => Some(Err(refused)),
            }
        } else {
            Some(of_another(shard.options().me.0, &one))
        };
        decided.push((kind, name, outcome));
    }
    let (count, request) = (topics.len(), Request::AlterConfigs { topics, validate_only });
    let mut of_topics = decide(shard, count, request).await.into_iter();
    let (count, request) = (groups.len(), Request::AlterGroupConfigs { groups, validate_only });
    let mut of_groups = decide(shard, count, request).await.into_iter();
    let each = decided.into_iter().map(|(kind, name, outcome)| {
        let found = if kind == RESOURCE_TOPIC { &mut of_topics } else { &mut of_groups };
        let outcome = outcome.unwrap_or_else(|| found.next().expect("each change was decided"));
        let of = Outcome {
            resource_type: kind,
            resource_name: Cow::Borrowed(name),
            ..Default::default()
        };
        match outcome {
            Ok(()) => of,
            Err((error_code, message)) => {
                Outcome { error_code, error_message: Some(Cow::Owned(message)), ..of }
            }
        }
    });
    each.collect()
}

/// One outcome for each of `count` changes that are asked for; their names are distinct.
async fn decide<E: NetEnv>(
    shard: &Shard<E>,
    count: usize,
    request: Request,
) -> Vec<Result<(), Refused>> {
    if count == 0 {
        return Vec::new();
    }
    match admin::decide(shard, request, DECISION_WAIT_MS).await {
        Ok(Reply::AlteredConfigs(outcomes)) => outcomes
            .into_iter()
            .map(|(_, outcome)| {
                let refused = |Refusal { why, message }| (errors::of_refusal(why), message);
                outcome.map_err(refused)
            })
            .collect(),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(why) => vec![Err((errors::of_no_reply(why), why.to_string())); count],
    }
}

/// What is said to changes of anything but a topic or a group: a broker takes those that change
/// nothing.
fn of_another(me: i32, wanted: &Wanted<'_>) -> Result<(), Refused> {
    let name = wanted.resource_name;
    let invalid = |message| Err((ErrorCode::InvalidRequest, message));
    if wanted.resource_type != RESOURCE_BROKER {
        return invalid(format!("Unknown resource type {}", wanted.resource_type));
    }
    if !name.is_empty() {
        match name.parse::<i32>() {
            Ok(id) if id == me => {}
            Ok(_) => {
                let message = format!("Unexpected broker id, expected {me}, but received {name}");
                return invalid(message);
            }
            Err(_) => return invalid(format!("Node id must be an integer, but it is: {name}")),
        }
    }
    let settings: BTreeSet<&str> = wanted.settings.iter().copied().collect();
    if settings.is_empty() {
        return Ok(());
    }
    let settings = settings.into_iter().collect::<Vec<_>>().join(", ");
    invalid(format!("Cannot update these configs dynamically: [{settings}]"))
}

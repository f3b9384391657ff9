//! FindCoordinator: which broker keeps a group.

use std::borrow::Cow;

use coordinator::cluster::Topic;
use coordinator::image::Image;

use super::admin::{self, Header};
use crate::env::NetEnv;
use crate::groups;
use crate::shard::Shard;
use crate::wire::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse, GROUP, SHARE, TRANSACTION,
};
use crate::wire::{DecodeError, DecodeErrorKind, Encoded, ErrorCode, Reader};

/// Most groups that one request may ask for.
const KEYS_MAX: usize = 100_000;

/// Why there is no coordinator, as code and sentence.
type Nobody = (ErrorCode, &'static str);

/// Answers FindCoordinator (Kafka's `KafkaApis.handleFindCoordinatorRequest`). The first group that
/// is looked for makes the topic in which groups are kept.
pub async fn find_coordinator<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = FindCoordinatorRequest::decode(&mut body, header.version)?;
    if request.coordinator_keys.len() > KEYS_MAX {
        return Err(body.error(DecodeErrorKind::CountTooLarge));
    }
    let topic = match request.key_type {
        GROUP => match groups::topic(shard).await {
            Some(topic) => Ok(topic),
            None => Err((
                ErrorCode::CoordinatorNotAvailable,
                "the topic in which groups are kept is not there yet",
            )),
        },
        TRANSACTION => Err((
            ErrorCode::CoordinatorNotAvailable,
            "transactions are not supported by this broker yet",
        )),
        SHARE => {
            Err((ErrorCode::InvalidRequest, "share groups are not supported by this broker yet"))
        }
        _ => Err((ErrorCode::InvalidRequest, "no such kind of coordinator")),
    };
    let image = shard.image();
    let one = |key: &'_ str| match &topic {
        Ok(topic) => found(&image, topic, key, header.listener),
        Err(nobody) => Err(*nobody),
    };
    if header.version >= 4 {
        let coordinators = request.coordinator_keys.iter().map(|key| {
            let found = told(one(key));
            Coordinator { key: Cow::Borrowed(key), ..found }
        });
        let coordinators = coordinators.collect();
        return Ok(header.encode(&FindCoordinatorResponse { coordinators, ..Default::default() }));
    }
    let Coordinator { node_id, host, port, error_code, error_message, .. } = told(one(request.key));
    Ok(header.encode(&FindCoordinatorResponse {
        error_code,
        // Kafka says NONE where nothing is wrong.
        error_message: error_message.or(Some(Cow::Borrowed("NONE"))),
        node_id,
        host,
        port,
        ..Default::default()
    }))
}

/// The broker that keeps a group, if it can be reached.
fn found<'i>(
    image: &'i Image,
    topic: &Topic,
    group: &str,
    listener: &str,
) -> Result<(i32, &'i str, u16), Nobody> {
    let leader = groups::home_in(topic, group).leader;
    let broker = leader.and_then(|leader| image.broker(leader)).filter(|broker| !broker.fenced);
    let broker = broker.ok_or((
        ErrorCode::CoordinatorNotAvailable,
        "the partition of the group has no leader now",
    ))?;
    let endpoint = admin::endpoint(broker, listener)
        .ok_or((ErrorCode::CoordinatorNotAvailable, "the coordinator does not listen there"))?;
    Ok((broker.id.0, &endpoint.host, endpoint.port))
}

fn told(found: Result<(i32, &str, u16), Nobody>) -> Coordinator<'_> {
    match found {
        Ok((node_id, host, port)) => Coordinator {
            node_id,
            host: Cow::Borrowed(host),
            port: i32::from(port),
            ..Default::default()
        },
        Err((error_code, why)) => Coordinator {
            node_id: -1,
            port: -1,
            error_code,
            error_message: Some(Cow::Borrowed(why)),
            ..Default::default()
        },
    }
}

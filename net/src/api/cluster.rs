//! The cluster as a whole: DescribeCluster, UnregisterBroker, ListConfigResources.

use std::borrow::Cow;

use coordinator::controller::{Reply, Request};
use engine::ids::BrokerId;

use super::admin::{self, Header};
use super::errors;
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::describe_cluster::{
    BROKERS, Broker, CONTROLLERS, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::wire::describe_configs::{
    RESOURCE_BROKER, RESOURCE_BROKER_LOGGER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP,
    RESOURCE_TOPIC,
};
use crate::wire::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use crate::wire::metadata::OPERATIONS_UNKNOWN;
use crate::wire::unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use crate::wire::{Array, DecodeError, Encoded, ErrorCode, Reader};

/// Answers DescribeCluster.
pub fn describe_cluster<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = DescribeClusterRequest::decode(&mut body, header.version)?;
    if let Some((error_code, message)) = of_endpoint_type(request.endpoint_type) {
        return Ok(header.encode(&DescribeClusterResponse {
            error_code,
            error_message: Some(Cow::Owned(message)),
            ..Default::default()
        }));
    }
    let image = shard.image();
    let told = image.brokers().filter(|broker| request.include_fenced_brokers || !broker.fenced);
    let brokers = told.filter_map(|broker| {
        let endpoint = admin::endpoint(broker, header.listener)?;
        Some(Broker {
            broker_id: broker.id.0,
            host: Cow::Borrowed(&endpoint.host),
            port: i32::from(endpoint.port),
            rack: broker.rack.as_deref().map(Cow::Borrowed),
            is_fenced: broker.fenced,
        })
    });
    Ok(header.encode(&DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: Cow::Borrowed(image.cluster_id().map_or("", |id| id.as_str())),
        controller_id: admin::controller_id(&image, header.listener),
        brokers: brokers.collect(),
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => admin::CLUSTER_OPERATIONS,
            false => OPERATIONS_UNKNOWN,
        },
        ..Default::default()
    }))
}

/// How long an answer waits for the controller, where a request does not say.
const DECISION_WAIT_MS: i32 = 60_000;

/// Answers UnregisterBroker. A broker that is alive is struck off, too, as in Kafka; it comes back
/// when it registers again.
pub async fn unregister_broker<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = UnregisterBrokerRequest::decode(&mut body, header.version)?;
    let decision = Request::UnregisterBroker { broker: BrokerId(request.broker_id) };
    let (error_code, error_message) = match admin::decide(shard, decision, DECISION_WAIT_MS).await {
        Ok(Reply::UnregisteredBroker(decided)) => admin::outcome(decided),
        Ok(_) => unreachable!("a reply is of its request's kind"),
        Err(why) => (errors::of_no_reply(why), Some(Cow::Owned(why.to_string()))),
    };
    let response = UnregisterBrokerResponse { error_code, error_message, ..Default::default() };
    Ok(header.encode(&response))
}

/// What is wrong with the kind of endpoints that is asked for: only brokers listen here.
fn of_endpoint_type(endpoint_type: i8) -> Option<(ErrorCode, String)> {
    match endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
             type CONTROLLER"
                .to_owned(),
        )),
        other => {
            Some((ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")))
        }
    }
}

/// Kinds of resources that may be listed. Only topics and brokers have a configuration here.
const RESOURCES: [i8; 5] = [
    RESOURCE_TOPIC,
    RESOURCE_BROKER,
    RESOURCE_BROKER_LOGGER,
    RESOURCE_CLIENT_METRICS,
    RESOURCE_GROUP,
];

/// Answers ListConfigResources.
pub fn list_config_resources<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let request = ListConfigResourcesRequest::decode(&mut body, header.version)?;
    let asked = request.resource_types;
    if asked.iter().any(|kind| !RESOURCES.contains(&kind)) {
        return Ok(header.encode(&ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion,
            ..Default::default()
        }));
    }
    // Version 0 lists client metrics only, of which there are none.
    let listed =
        |kind| header.version > 0 && (asked.is_empty() || asked.iter().any(|asked| asked == kind));
    let image = shard.image();
    let mut resources = Vec::new();
    if listed(RESOURCE_TOPIC) {
        resources.extend(image.topics().map(|topic| ConfigResource {
            resource_name: Cow::Borrowed(&topic.name),
            resource_type: RESOURCE_TOPIC,
        }));
    }
    if listed(RESOURCE_BROKER) {
        resources.extend(image.brokers().map(|broker| ConfigResource {
            resource_name: Cow::Owned(broker.id.to_string()),
            resource_type: RESOURCE_BROKER,
        }));
    }
    if listed(RESOURCE_GROUP) {
        let groups = image.cluster().configured_groups();
        resources.extend(groups.map(|(name, _)| ConfigResource {
            resource_name: Cow::Borrowed(name),
            resource_type: RESOURCE_GROUP,
        }));
    }
    let config_resources = Array::from(resources);
    Ok(header.encode(&ListConfigResourcesResponse { config_resources, ..Default::default() }))
}

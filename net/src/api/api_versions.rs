//! ApiVersions: the first request on most connections, and the one that may come in any version.

use std::borrow::Cow;
use std::sync::LazyLock;

use coordinator::cluster::features::FEATURES;
use coordinator::image::Image;

use super::{API_VERSIONS, APIS, admin::Header};
use crate::env::NetEnv;
use crate::shard::Shard;
use crate::wire::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeature, SupportedFeature,
};
use crate::wire::{Array, DecodeError, Encoded, ErrorCode, Reader};

/// What is told: the table, as the message has it.
static TOLD: LazyLock<Vec<ApiVersion>> = LazyLock::new(|| {
    let each = APIS.iter().map(|api| ApiVersion {
        api_key: api.key,
        min_version: api.advertised_min,
        max_version: api.version_max,
    });
    each.collect()
});

/// Answers ApiVersions. A version that is not known is answered in version 0, so that the client
/// can read which ones are (KIP-511); its body is not read.
pub fn api_versions<E: NetEnv>(
    shard: &Shard<E>,
    header: Header<'_>,
    mut body: Reader<'_>,
) -> Result<Encoded, DecodeError> {
    let api = super::lookup(API_VERSIONS).expect("it is in the table");
    if !api.accepts(header.version) {
        let error_code = ErrorCode::UnsupportedVersion;
        return Ok(Header { version: 0, ..header }.encode(&response(error_code)));
    }
    let request = ApiVersionsRequest::decode(&mut body, header.version)?;
    let image = shard.image();
    let here = Here {
        cluster_id: image.cluster_id().map(|id| id.as_str()),
        node_id: shard.options().me.0,
    };
    let told = response(check(&request, header.version, here));
    match told.error_code {
        ErrorCode::None => Ok(header.encode(&with_features(told, header.version, &image))),
        _ => Ok(header.encode(&told)),
    }
}

/// Adds what this release can do and what the cluster has switched on (KIP-584); before version 3
/// there is no room for it.
fn with_features<'i>(
    response: ApiVersionsResponse<'i>,
    version: i16,
    image: &'i Image,
) -> ApiVersionsResponse<'i> {
    // Older clients cannot read a lowest level of 0 (KAFKA-17492).
    let known = FEATURES.iter().filter(|feature| version >= 4 || feature.range.min > 0);
    let supported = known.map(|feature| SupportedFeature {
        name: Cow::Borrowed(feature.name),
        min_version: feature.range.min,
        max_version: feature.range.max,
    });
    let finalized = image.cluster().features().map(|(name, level)| FinalizedFeature {
        name: Cow::Borrowed(name),
        max_version_level: level,
        min_version_level: level,
    });
    ApiVersionsResponse {
        supported_features: supported.collect(),
        // Offset of the last record that the picture shows; -1 where there is none.
        finalized_features_epoch: image.offset().to_wire() - 1,
        finalized_features: finalized.collect(),
        ..response
    }
}

fn response(error_code: ErrorCode) -> ApiVersionsResponse<'static> {
    let all = matches!(error_code, ErrorCode::None | ErrorCode::UnsupportedVersion);
    let api_keys = if all { Array::from(&TOLD[..]) } else { Array::new() };
    ApiVersionsResponse { error_code, api_keys, ..Default::default() }
}

/// The node id of a client that names none.
const NO_NODE: i32 = -1;

/// Where the client is.
#[derive(Clone, Copy)]
struct Here<'h> {
    cluster_id: Option<&'h str>,
    node_id: i32,
}

fn check(request: &ApiVersionsRequest<'_>, version: i16, here: Here<'_>) -> ErrorCode {
    let names = [request.client_software_name, request.client_software_version];
    if version >= 3 && !names.iter().all(|name| is_software_name(name)) {
        return ErrorCode::InvalidRequest;
    }
    // A broker is named together with its cluster, or not at all (KIP-1242). Seen from outside, at
    // Kafka 4.4.0-rc1: it answers INVALID_REQUEST, without keys (franz-go pull request 1449).
    if request.cluster_id.is_none() && request.node_id != NO_NODE {
        return ErrorCode::InvalidRequest;
    }
    // Kafka's `KafkaApis.clusterIdOrNodeIdIsInvalid`.
    let elsewhere = |id| Some(id) != here.cluster_id || request.node_id != here.node_id;
    if request.cluster_id.is_some_and(elsewhere) {
        return ErrorCode::RebootstrapRequired;
    }
    ErrorCode::None
}

/// Letters, digits, `-` and `.`; neither of the last two at an end (Kafka's
/// `ApiVersionsRequest.isValid`).
fn is_software_name(name: &str) -> bool {
    let at_the_ends = name.as_bytes().first().zip(name.as_bytes().last());
    at_the_ends.is_some_and(|(a, z)| a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Here<'_> = Here { cluster_id: Some("ours"), node_id: 3 };

    fn request<'a>(name: &'a str, cluster_id: Option<&'a str>, node_id: i32) -> ErrorCode {
        let client_software_version = "1.0";
        let client_software_name = name;
        let request = ApiVersionsRequest {
            client_software_name,
            client_software_version,
            cluster_id,
            node_id,
        };
        check(&request, 5, HERE)
    }

    #[test]
    fn software_names_are_those_that_kafka_takes() {
        for good in ["a", "apache-kafka-java", "librdkafka", "1", "a-.b"] {
            assert_eq!(request(good, None, -1), ErrorCode::None, "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "ä", "a_b"] {
            assert_eq!(request(bad, None, -1), ErrorCode::InvalidRequest, "{bad}");
        }
        // Before version 3 there are none.
        assert_eq!(check(&ApiVersionsRequest::default(), 2, HERE), ErrorCode::None);
    }

    #[test]
    fn a_client_that_is_elsewhere_than_it_believes_is_told_so() {
        assert_eq!(request("a", Some("ours"), 3), ErrorCode::None);
        assert_eq!(request("a", Some("theirs"), 3), ErrorCode::RebootstrapRequired);
        assert_eq!(request("a", Some("ours"), 4), ErrorCode::RebootstrapRequired);
        assert_eq!(request("a", None, -1), ErrorCode::None, "none is meant");
        for node in [3, 4, 0] {
            assert_eq!(request("a", None, node), ErrorCode::InvalidRequest, "of which cluster?");
        }
    }

    #[test]
    fn an_unknown_version_is_answered_with_the_whole_table() {
        assert_eq!(response(ErrorCode::UnsupportedVersion).api_keys.len(), APIS.len());
        assert!(response(ErrorCode::InvalidRequest).api_keys.is_empty());
        let produce = response(ErrorCode::None).api_keys.first().expect("Produce");
        assert_eq!((produce.api_key, produce.min_version, produce.max_version), (0, 0, 13));
    }
}

//! The headers in front of every request and response.
//!
//! Request header: v1 before an API is flexible, v2 after (v0 served ControlledShutdown only and is
//! gone); the client id keeps the old string form in both. Response header: v0 or v1 likewise, but
//! ApiVersions always answers with v0, so that a client can read it before it knows any version.

use super::message::Version;
use super::reader::{DecodeError, Reader};
use super::writer::Sink;
use crate::api::{self, Api};

/// What precedes the body of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHeader<'a> {
    /// Which API is called.
    pub api: &'static Api,
    /// In which version. One that `api` accepts, except for ApiVersions, which must be answered
    /// whatever the version ([`Api::accepts`] says).
    pub version: i16,
    /// The client's number for this request; the response carries it.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<&'a str>,
}

/// Why a request cannot be answered at all: the connection must be closed, as Kafka does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Nothing with this number is served here.
    #[error("unknown API key {key}")]
    UnknownApi {
        /// The number.
        key: i16,
    },
    /// The API is served, but not in this version, whose layout is therefore unknown.
    #[error("{api} version {version} is not supported")]
    UnsupportedVersion {
        /// Name of the API.
        api: &'static str,
        /// The version.
        version: i16,
    },
    /// The header itself is broken.
    #[error("malformed request header: {0}")]
    Malformed(#[from] DecodeError),
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of a client's request; the body follows in `reader`. Private APIs do not
    /// exist here.
    pub fn decode(reader: &mut Reader<'a>) -> Result<RequestHeader<'a>, HeaderError> {
        Self::decode_of(reader, api::lookup)
    }

    /// Reads the header of a request that came by a listener of peers, where the private APIs
    /// ([`api::PRIVATE`]) exist, too; the body follows in `reader`.
    pub fn decode_from_peer(reader: &mut Reader<'a>) -> Result<RequestHeader<'a>, HeaderError> {
        Self::decode_of(reader, |key| api::lookup(key).or_else(|| api::lookup_private(key)))
    }

    fn decode_of(
        reader: &mut Reader<'a>,
        lookup: impl FnOnce(i16) -> Option<&'static Api>,
    ) -> Result<RequestHeader<'a>, HeaderError> {
        let (key, version) = (reader.i16()?, reader.i16()?);
        let correlation_id = reader.i32()?;
        let api = lookup(key).ok_or(HeaderError::UnknownApi { key })?;
        if !api.accepts(version) && key != api::API_VERSIONS {
            return Err(HeaderError::UnsupportedVersion { api: api.name, version });
        }
        let client_id = reader.string(false)?;
        if api.request_header_version(version) >= 2 {
            reader.tags(|_, _| Ok(false))?;
        }
        Ok(RequestHeader { api, version, correlation_id, client_id })
    }
}

/// Writes a request header.
pub(super) fn write_request_header<S: Sink>(
    sink: &mut S,
    key: i16,
    version: Version,
    correlation_id: i32,
    client_id: Option<&str>,
) {
    sink.put(&key.to_be_bytes());
    sink.put(&version.number.to_be_bytes());
    sink.put(&correlation_id.to_be_bytes());
    sink.put_string(client_id, false);
    if version.flexible {
        sink.put_uvarint(0);
    }
}

/// Whether responses of an API have header v1 (with a tagged section) in this version.
fn response_header_has_tags(key: i16, version: Version) -> bool {
    version.flexible && key != api::API_VERSIONS
}

/// Writes a response header.
pub(super) fn write_response_header<S: Sink>(
    sink: &mut S,
    key: i16,
    version: Version,
    correlation_id: i32,
) {
    sink.put(&correlation_id.to_be_bytes());
    if response_header_has_tags(key, version) {
        sink.put_uvarint(0);
    }
}

/// Reads a response header and returns the correlation id.
pub(super) fn read_response_header(
    reader: &mut Reader<'_>,
    key: i16,
    version: Version,
) -> Result<i32, DecodeError> {
    let correlation_id = reader.i32()?;
    if response_header_has_tags(key, version) {
        reader.tags(|_, _| Ok(false))?;
    }
    Ok(correlation_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: i16, version: i16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(key.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend(7i32.to_be_bytes());
        bytes.extend([0xff, 0xff]);
        bytes.push(0);
        bytes
    }

    #[test]
    fn only_api_versions_may_be_of_any_version() {
        for version in [0, 5, 6, 99, -1, i16::MIN] {
            let bytes = header(api::API_VERSIONS, version);
            let read = RequestHeader::decode(&mut Reader::new(&bytes)).expect("always answered");
            assert_eq!((read.version, read.correlation_id, read.client_id), (version, 7, None));
            assert_eq!(read.api.accepts(version), (0..=5).contains(&version));
        }
        let error = RequestHeader::decode(&mut Reader::new(&header(0, 2))).expect_err("gone");
        assert_eq!(error, HeaderError::UnsupportedVersion { api: "Produce", version: 2 });
        assert_eq!(error.to_string(), "Produce version 2 is not supported");
        let error = RequestHeader::decode(&mut Reader::new(&header(4, 0))).expect_err("no such");
        assert_eq!(error, HeaderError::UnknownApi { key: 4 });
        let error = RequestHeader::decode(&mut Reader::new(&header(0, 9)[..10])).expect_err("cut");
        assert!(matches!(error, HeaderError::Malformed(_)));
    }

    #[test]
    fn private_apis_exist_for_peers_only() {
        for api in api::PRIVATE {
            let bytes = header(api.key, 0);
            let error = RequestHeader::decode(&mut Reader::new(&bytes)).expect_err("not for you");
            assert_eq!(error, HeaderError::UnknownApi { key: api.key });
            let mut reader = Reader::new(&bytes);
            let read = RequestHeader::decode_from_peer(&mut reader).expect("a peer may");
            assert_eq!((read.api, read.version, reader.remaining()), (api, 0, 0));
            let bytes = header(api.key, 1);
            let error = RequestHeader::decode_from_peer(&mut Reader::new(&bytes));
            let unsupported = HeaderError::UnsupportedVersion { api: api.name, version: 1 };
            assert_eq!(error.expect_err("version 0 is all"), unsupported);
        }
        let mut bytes = header(3, 12);
        bytes.truncate(11);
        let read = RequestHeader::decode_from_peer(&mut Reader::new(&bytes)).expect("public");
        assert_eq!(read.api.name, "Metadata");
        let bytes = header(4, 0);
        let error = RequestHeader::decode_from_peer(&mut Reader::new(&bytes));
        assert_eq!(error.expect_err("no such"), HeaderError::UnknownApi { key: 4 });
    }

    #[test]
    fn api_versions_answers_with_the_header_that_every_client_can_read() {
        let version = |number| Version { number, flexible: true };
        assert!(!response_header_has_tags(api::API_VERSIONS, version(3)));
        assert!(response_header_has_tags(3, version(9)));
        assert!(!response_header_has_tags(3, Version { number: 8, flexible: false }));
    }
}

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
    /// Reads a request header; the body follows in `reader`.
    pub fn decode(reader: &mut Reader<'a>) -> Result<RequestHeader<'a>, HeaderError> {
        let (key, version) = (reader.i16()?, reader.i16()?);
        let correlation_id = reader.i32()?;
        let api = api::lookup(key).ok_or(HeaderError::UnknownApi { key })?;
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

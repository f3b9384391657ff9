//! A message ready to be sent: its own bytes, and the places where record bytes belong that are
//! sent from where they are (frozen tail blocks, disk reads), without a copy.

use std::ops::Deref;

use super::header::{read_response_header, write_request_header, write_response_header};
use super::message::{Message, Request, Version};
use super::reader::{DecodeError, DecodeErrorKind, Reader};
use super::writer::{Cut, Measure, Sink, Writer};

/// Bytes of the length in front of every frame.
pub const FRAME_LEN_BYTES: usize = 4;

/// A frame: 4-byte length, header, body; only records that are elsewhere are missing.
#[derive(Clone, Debug)]
pub struct Encoded {
    bytes: Vec<u8>,
    cuts: Vec<Cut>,
    /// Of the whole frame, records and the 4-byte length included.
    len: usize,
}

/// A piece of an [`Encoded`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part<'e> {
    /// Bytes of the frame itself; never empty.
    Bytes(&'e [u8]),
    /// The record bytes that the sender has under this number.
    Records {
        /// The number, as given in [`super::Records::Elsewhere`].
        slot: u32,
        /// How many bytes they are.
        len: usize,
    },
}

/// What stands in front of a body.
enum Head<'h> {
    Request { client_id: Option<&'h str> },
    Response,
}

impl Encoded {
    fn new<'a, M: Message<'a>>(
        message: &M,
        version: i16,
        correlation_id: i32,
        head: &Head<'_>,
    ) -> Encoded {
        let version = M::version(version).expect("the caller chose a version that is spoken");
        let mut measure = Measure { total: FRAME_LEN_BYTES, ..Measure::default() };
        write(message, version, correlation_id, head, &mut measure);
        let len = i32::try_from(measure.total - FRAME_LEN_BYTES);
        let len = len.expect("limits keep every frame below 2 GiB");

        let mut writer = Writer::with_room(measure);
        writer.put(&len.to_be_bytes());
        write(message, version, correlation_id, head, &mut writer);
        let Writer { bytes, cuts } = writer;
        assert_eq!(bytes.len(), measure.total - measure.elsewhere, "measured what was written");
        Encoded { bytes, cuts, len: measure.total }
    }

    /// Bytes of the whole frame, its 4-byte length and records elsewhere included.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The frame piece by piece.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let ends = self.cuts.iter().map(|cut| cut.at).chain([self.bytes.len()]);
        let mut start = 0;
        let own =
            ends.map(move |end| Part::Bytes(&self.bytes[std::mem::replace(&mut start, end)..end]));
        let records = self.cuts.iter().map(|cut| Part::Records { slot: cut.slot, len: cut.len });
        let records = records.map(Some).chain([None]);
        own.zip(records)
            .flat_map(|(own, records)| [Some(own), records])
            .flatten()
            .filter(|part| *part != Part::Bytes(&[]))
    }

    /// The frame as one run of bytes; no records may be elsewhere.
    pub fn into_bytes(self) -> Vec<u8> {
        assert!(self.cuts.is_empty(), "records elsewhere need `with_records`");
        self.bytes
    }

    /// Joins the frame with the records that were announced as [`super::Records::Elsewhere`]:
    /// `records[slot]` are the slices of that slot, in order, in all exactly as long as announced.
    pub fn with_records<S: Deref<Target = [u8]>>(self, records: Vec<Vec<S>>) -> Outgoing<S> {
        for cut in &self.cuts {
            let slices = records.get(cut.slot as usize).map_or(&[][..], Vec::as_slice);
            let len: usize = slices.iter().map(|slice| slice.len()).sum();
            assert_eq!(len, cut.len, "slot {} is as long as announced", cut.slot);
        }
        Outgoing { encoded: self, records }
    }
}

fn write<'a, S: Sink>(
    message: &impl Message<'a>,
    version: Version,
    correlation_id: i32,
    head: &Head<'_>,
    sink: &mut S,
) {
    fn key<'a, M: Message<'a>>(_: &M) -> i16 {
        M::KEY
    }
    match *head {
        Head::Request { client_id } => {
            write_request_header(sink, key(message), version, correlation_id, client_id);
        }
        Head::Response => write_response_header(sink, key(message), version, correlation_id),
    }
    message.write(sink, version);
}

/// A frame together with its records: all that a connection needs to send it. What keeps the
/// slices alive is freed with it, when the last byte is written.
#[derive(Debug)]
pub struct Outgoing<S> {
    encoded: Encoded,
    records: Vec<Vec<S>>,
}

impl<S: Deref<Target = [u8]>> Outgoing<S> {
    /// Bytes of the whole frame, its 4-byte length included.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        self.encoded.len
    }

    /// Everything to be sent, in order, for one vectored write. No slice is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.encoded.parts().flat_map(|part| {
            let (own, records) = match part {
                Part::Bytes(bytes) => (Some(bytes), &[][..]),
                Part::Records { slot, .. } => (None, &self.records[slot as usize][..]),
            };
            own.into_iter().chain(records.iter().map(|slice| &**slice)).filter(|s| !s.is_empty())
        })
    }
}

impl<S> From<Encoded> for Outgoing<S> {
    /// A frame that has no records elsewhere.
    fn from(encoded: Encoded) -> Self {
        assert!(encoded.cuts.is_empty(), "records elsewhere need `with_records`");
        Outgoing { encoded, records: Vec::new() }
    }
}

/// Encodes a request as a frame. `version` must be one that the message is declared for.
pub fn encode_request<'a>(
    request: &impl Request<'a>,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Encoded {
    Encoded::new(request, version, correlation_id, &Head::Request { client_id })
}

/// Encodes a response as a frame. `version` must be one that the message is declared for.
pub fn encode_response<'a>(
    response: &impl Message<'a>,
    version: i16,
    correlation_id: i32,
) -> Encoded {
    Encoded::new(response, version, correlation_id, &Head::Response)
}

/// Decodes a response frame (without its 4-byte length): the correlation id and the message.
pub fn decode_response<'a, M: Message<'a>>(
    frame: &'a [u8],
    version: i16,
) -> Result<(i32, M), DecodeError> {
    let mut reader = Reader::new(frame);
    let unsupported = reader.error(DecodeErrorKind::UnsupportedVersion);
    let version = M::version(version).ok_or(unsupported)?;
    let correlation_id = read_response_header(&mut reader, M::KEY, version)?;
    Ok((correlation_id, M::read(&mut reader, version)?))
}

#[cfg(test)]
mod tests {
    use super::super::fetch::{FetchResponse, ResponsePartition, ResponseTopic};
    use super::super::produce::{ProduceRequest, RequestPartition, RequestTopic};
    use super::super::{Array, Records};
    use super::*;

    fn fetched<'a>(records: [Option<Records<'a>>; 4]) -> FetchResponse<'a> {
        let partition = |records| ResponsePartition { records, ..Default::default() };
        let partitions = Array::from_iter(records.map(partition));
        let topics = vec![ResponseTopic { topic: "t".into(), partitions, ..Default::default() }];
        FetchResponse { topics: topics.into(), ..Default::default() }
    }

    #[test]
    fn records_that_are_elsewhere_make_the_same_frame() {
        let here = [Some(&b"first"[..]), None, Some(b""), Some(b"last, and longer")];
        for version in 4..=18 {
            let copied = fetched(here.map(|bytes| bytes.map(Records::Here)));
            let copied = copied.encode(version, 7).into_bytes();

            let mut slot = 0..;
            let announced = fetched(here.map(|bytes| {
                let slot = slot.next()?;
                bytes.map(|bytes| Records::Elsewhere { slot, len: bytes.len() })
            }));
            let encoded = announced.encode(version, 7);
            assert_eq!(encoded.len(), copied.len());
            assert_eq!(encoded.bytes.capacity(), encoded.bytes.len(), "allocated exactly");
            // Each slot as two slices, one of them empty at times.
            let slices = here.map(|bytes| {
                let (a, b) = bytes.unwrap_or_default().split_at(bytes.map_or(0, |b| b.len() / 3));
                vec![a, b]
            });
            let outgoing = encoded.with_records(slices.to_vec());
            assert_eq!(outgoing.len(), copied.len());
            assert_eq!(outgoing.slices().collect::<Vec<_>>().concat(), copied);
            assert!(outgoing.slices().all(|slice| !slice.is_empty()));
        }
    }

    #[test]
    fn a_produce_request_is_sent_from_where_its_records_are() {
        let partitions =
            [RequestPartition { index: 3, records: Some(Records::Elsewhere { slot: 0, len: 4 }) }];
        let topics =
            [RequestTopic { name: "t", partitions: (&partitions).into(), ..Default::default() }];
        let request = ProduceRequest { topics: (&topics).into(), ..Default::default() };
        let outgoing = request.encode(9, 1, None).with_records(vec![vec![&b"data"[..]]]);
        let frame = outgoing.slices().collect::<Vec<_>>().concat();
        let mut reader = Reader::new(&frame[FRAME_LEN_BYTES..]);
        super::super::RequestHeader::decode(&mut reader).expect("valid");
        let request = ProduceRequest::decode(&mut reader, 9).expect("valid");
        let partition = request.topics.first().and_then(|t| t.partitions.first()).expect("one");
        assert_eq!(partition.records, Some(Records::Here(b"data")));
    }

    #[test]
    #[should_panic(expected = "slot 0 is as long as announced")]
    fn records_of_another_length_than_announced_are_a_bug() {
        let response = fetched([Some(Records::Elsewhere { slot: 0, len: 5 }), None, None, None]);
        let _ = response.encode(12, 1).with_records(vec![vec![&b"four"[..]]]);
    }

    #[test]
    fn parts_alternate_and_name_their_slots() {
        let records = [9, 8].map(|slot| Some(Records::Elsewhere { slot, len: 1 }));
        let response = fetched([records[0], records[1], None, None]);
        let encoded = response.encode(4, 1);
        let slots: Vec<_> = encoded
            .parts()
            .filter_map(|part| match part {
                Part::Records { slot, .. } => Some(slot),
                Part::Bytes(_) => None,
            })
            .collect();
        assert_eq!(slots, [9, 8]);
        assert_eq!(encoded.parts().count(), 5);
    }
}

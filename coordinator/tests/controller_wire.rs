//! Requests to a controller on another node, and its replies, survive their way as bytes; damaged
//! ones are refused.

#[path = "controller_wire/any.rs"]
mod any;

use any::{Any, REPLIES, REQUESTS, number_of_reply, number_of_request};
use coordinator::controller::{Reply, Request};
use coordinator::quorum::SealError;

const SEEDS: u64 = 200;
/// Kinds that the first layout had.
const FIRST_KINDS: usize = 13;

/// Of each variant one with this seed.
fn requests(seed: u64) -> impl Iterator<Item = Request> {
    (0..REQUESTS).map(move |number| {
        let request = Any::new(seed * 100 + u64::from(number)).request(number);
        assert_eq!(number_of_request(&request), number);
        request
    })
}

/// Of each variant one with this seed.
fn replies(seed: u64) -> impl Iterator<Item = Reply> {
    (0..REPLIES).map(move |number| {
        let reply = Any::new(seed * 100 + u64::from(number)).reply(number);
        assert_eq!(number_of_reply(&reply), number);
        reply
    })
}

#[test]
fn every_request_comes_back_as_it_was() {
    for request in (0..SEEDS).flat_map(requests) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
}

#[test]
fn every_reply_comes_back_as_it_was() {
    for reply in (0..SEEDS).flat_map(replies) {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
}

#[test]
fn a_request_is_no_reply_and_neither_is_nothing() {
    for (request, reply) in requests(1).zip(replies(1)) {
        assert_eq!(Reply::decode(&request.encode()), Err(SealError::Foreign));
        assert_eq!(Request::decode(&reply.encode()), Err(SealError::Foreign));
    }
    assert_eq!(Request::decode(b""), Err(SealError::Foreign));
}

#[test]
fn another_version_is_named() {
    let mut bytes = Request::PurgedTopics { broker: Default::default(), topics: vec![] }.encode();
    bytes[4] = 9;
    assert_eq!(Request::decode(&bytes), Err(SealError::Unknown(9)));
}

#[test]
fn what_is_cut_short_is_refused() {
    for seed in 0..3 {
        for bytes in requests(seed).map(|request| request.encode()) {
            for len in 0..bytes.len() {
                assert!(Request::decode(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
            }
        }
        for bytes in replies(seed).map(|reply| reply.encode()) {
            for len in 0..bytes.len() {
                assert!(Reply::decode(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
            }
        }
    }
}

/// Calls `look` with each of `bytes`' copies that differs in one bit; with the checksum as it was,
/// and with the right one, so that the archive's own check is seen, too.
fn flipped(bytes: &[u8], mut look: impl FnMut(&[u8], bool)) {
    const HEAD: usize = 16;
    for bit in 0..bytes.len() * 8 {
        let mut copy = bytes.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        look(&copy, false);
        if bit / 8 >= HEAD {
            let sum = crc32c::crc32c(&copy[HEAD..]);
            copy[HEAD - 4..HEAD].copy_from_slice(&sum.to_le_bytes());
            look(&copy, true);
        }
    }
}

#[test]
fn a_flipped_bit_is_noticed_and_never_panics() {
    for seed in 0..2 {
        for request in requests(seed) {
            flipped(&request.encode(), |bytes, summed| {
                let decoded = Request::decode(bytes);
                assert!(summed || decoded.is_err(), "{request:?}");
                // Whatever passes is a request like any other.
                if let Ok(other) = decoded {
                    assert_eq!(Request::decode(&other.encode()), Ok(other));
                }
            });
        }
        for reply in replies(seed) {
            flipped(&reply.encode(), |bytes, summed| {
                let decoded = Reply::decode(bytes);
                assert!(summed || decoded.is_err(), "{reply:?}");
                if let Ok(other) = decoded {
                    assert_eq!(Reply::decode(&other.encode()), Ok(other));
                }
            });
        }
    }
}

/// Layouts are never changed, only succeeded: brokers of two releases talk to each other.
#[test]
fn the_first_layout_is_what_it_was() {
    let all = |sum, bytes: Vec<u8>| crc32c::crc32c_append(sum, &bytes);
    // Kinds that came later are at the end, and leave the earlier ones as they were.
    let asked = (0..5).flat_map(|seed| requests(seed).take(FIRST_KINDS));
    let asked = asked.map(|request| request.encode()).fold(0, all);
    let told = (0..5).flat_map(|seed| replies(seed).take(FIRST_KINDS));
    let told = told.map(|reply| reply.encode()).fold(0, all);
    assert_eq!((asked, told), (2_282_254_143, 115_974_087));
}

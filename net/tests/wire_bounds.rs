//! What hostile bytes can cost: nothing but the time to look at them.
//!
//! The limit that was asked for is 64 KiB + 8 × input of memory for every decoder. Decoding into
//! views of the frame reaches more: not a byte, which is what the tests demand, since "a little"
//! would have to be argued for message by message. Frames come from `wire/frames.rs`, are damaged
//! in the ways below, and go to every decoder in every version; the fuzzer's entry functions run
//! here, too, bounded and seeded (unbounded: `scripts/fuzz`).

#[path = "wire/counting.rs"]
mod counting;
#[path = "../fuzz/entries.rs"]
mod entries;
#[path = "wire/frames.rs"]
mod frames;

use counting::counted;
use entries::{Entry, REQUESTS, RESPONSES};
use frames::Random;
use net::api;
use net::wire::DecodeErrorKind::{BadNull, CountTooLarge, Truncated};
use net::wire::metadata::MetadataRequest;
use net::wire::produce::ProduceRequest;
use net::wire::{DecodeError, Reader, Records};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// The limit of the design, for whatever decoding may have to allocate one day.
const fn bytes_max(input: usize) -> usize {
    64 * 1024 + 8 * input
}

/// Every message in every version.
fn all() -> impl Iterator<Item = (&'static Entry, i16)> {
    let entries = REQUESTS.iter().chain(RESPONSES);
    entries.flat_map(|entry| (entry.min..=entry.max).map(move |version| (entry, version)))
}

fn valid(entry: &Entry, version: i16, random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    frames::body(&entry.shape, entry.version(version), random, &mut body);
    body
}

/// Decodes and walks, and holds the bound.
fn walk(entry: &Entry, version: i16, body: &[u8]) -> Result<usize, DecodeError> {
    let (result, asked) = counted(|| (entry.walk)(body, version));
    assert!(asked <= bytes_max(body.len()), "{} {version}: {asked} bytes", entry.name);
    assert_eq!(asked, 0, "{} {version} decodes without allocating: {body:02x?}", entry.name);
    result
}

#[test]
fn the_allocator_counts() {
    let (vec, asked) = counted(|| Vec::<u8>::with_capacity(1_000));
    assert_eq!((vec.capacity(), asked), (1_000, 1_000));
    assert_eq!(counted(|| vec![1u8, 2]).1, 2);
}

#[test]
fn a_valid_frame_is_read_to_its_end_and_every_shorter_one_is_refused() {
    let mut random = Random(1);
    for (entry, version) in all() {
        for _ in 0..10 {
            let body = valid(entry, version, &mut random);
            assert_eq!(walk(entry, version, &body), Ok(body.len()), "{} {version}", entry.name);
            for len in 0..body.len() {
                let error = walk(entry, version, &body[..len]).expect_err("the end is missing");
                assert!(matches!(error.kind, Truncated | CountTooLarge), "{error}");
                assert!(error.at <= len);
            }
        }
    }
}

#[test]
fn counts_and_lengths_that_lie_cost_nothing() {
    let bombs: [&[u8]; 7] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0x80, 0x00, 0x00, 0x00],
        &[0x00, 0x01, 0x00, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0x7f],
        &[0xff, 0x7f],
    ];
    let mut random = Random(2);
    for (entry, version) in all() {
        let body = valid(entry, version, &mut random);
        for at in 0..=body.len() {
            for bomb in bombs {
                // In place of what is there …
                let mut damaged = body[..at].to_vec();
                damaged.extend_from_slice(bomb);
                damaged.extend_from_slice(body.get(at + bomb.len()..).unwrap_or_default());
                let _ = walk(entry, version, &damaged);
                // … and before it, with zeros to count through.
                let mut damaged = body[..at].to_vec();
                damaged.extend_from_slice(bomb);
                damaged.extend_from_slice(&body[at..]);
                damaged.resize(damaged.len() + 300, 0);
                let _ = walk(entry, version, &damaged);
            }
        }
    }
}

#[test]
fn a_tiny_body_with_a_huge_count_is_refused_at_once() {
    let huge = [0x7f, 0xff, 0xff, 0xff, 0x01];
    let (result, asked) = counted(|| MetadataRequest::decode(&mut Reader::new(&huge), 1).err());
    let error = result.expect("2³¹ topics do not fit a byte");
    assert_eq!((error.kind, error.at, asked), (CountTooLarge, 0, 0));

    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let error = MetadataRequest::decode(&mut Reader::new(&huge), 12).expect_err("2³² topics");
    assert_eq!((error.kind, error.at), (CountTooLarge, 0));
}

#[test]
fn null_is_refused_where_the_version_does_not_allow_it() {
    let topics = |version, body: &[u8]| {
        MetadataRequest::decode(&mut Reader::new(body), version).map(|r| r.topics.is_none())
    };
    let null = DecodeError { kind: BadNull, at: 0 };
    assert_eq!(topics(0, &[0xff, 0xff, 0xff, 0xff]), Err(null), "null means all from 1 on");
    assert_eq!(topics(1, &[0xff, 0xff, 0xff, 0xff]), Ok(true));
    assert_eq!(topics(9, &[0, 1, 0, 0, 0]), Ok(true));
    // A topic without a name, which version 10 allows; it stands after the count (and the id).
    let unnamed = [2, 0, 0, 1, 0, 0, 0];
    assert_eq!(topics(9, &unnamed), Err(DecodeError { kind: BadNull, at: 1 }));
    let mut unnamed = vec![2];
    unnamed.extend([7; 16]);
    unnamed.extend([0, 0, 1, 0, 0, 0]);
    assert_eq!(topics(10, &unnamed), Ok(false));
}

#[test]
fn tagged_fields_are_skipped_without_being_kept() {
    // As many unknown tagged fields as fit, each as small as can be: CVE-2026-111115.
    let mut body = vec![0, 0, 1, 0, 0, 0, 1, 1];
    let tags: u32 = 200_000;
    let mut count = tags;
    while count >= 0x80 {
        body.push(count as u8 | 0x80);
        count >>= 7;
    }
    body.push(count as u8);
    body.extend((0..tags).flat_map(|_| [99, 0]));
    let mut reader = Reader::new(&body);
    let (request, asked) = counted(|| ProduceRequest::decode(&mut reader, 9));
    assert_eq!(request.expect("unknown tags are allowed").timeout_ms, 1);
    assert_eq!((asked, reader.remaining()), (0, 0));
}

#[test]
fn a_large_produce_is_iterated_without_allocating() {
    let mut body = Vec::new();
    body.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0x75, 0x30, 0, 0, 0, 1, 0, 1, b't']);
    body.extend(10_000i32.to_be_bytes());
    for partition in 0..10_000i32 {
        body.extend(partition.to_be_bytes());
        body.extend(3i32.to_be_bytes());
        body.extend(b"abc");
    }
    let (sum, asked) = counted(|| {
        let request = ProduceRequest::decode(&mut Reader::new(&body), 3).expect("valid");
        let mut sum = 0;
        for topic in &request.topics {
            for (at, partition) in topic.partitions.iter().enumerate() {
                assert_eq!(partition.index, at as i32);
                sum += partition.records.as_ref().map_or(0, Records::len);
            }
        }
        sum
    });
    assert_eq!((sum, asked), (30_000, 0));
}

/// APIs whose messages are declared and that are not served yet: what does not work is not
/// advertised.
const UNSERVED: &[i16] = &[];

#[test]
fn messages_and_the_table_of_apis_are_of_one_mind() {
    for entry in REQUESTS.iter().chain(RESPONSES) {
        let api = api::lookup(entry.key).or_else(|| api::lookup_private(entry.key));
        let Some(api) = api else {
            assert!(UNSERVED.contains(&entry.key), "{} belongs to no API", entry.name);
            continue;
        };
        let name = entry.name.trim_end_matches("Request").trim_end_matches("Response");
        assert_eq!(name, api.name);
        assert_eq!((entry.min, entry.max), (api.version_min, api.version_max), "{name}");
        assert_eq!(entry.flexible, api.flexible_min, "{name}");
    }
    let keys = |list: &[Entry]| list.iter().map(|entry| entry.key).collect::<Vec<_>>();
    let tables = api::APIS.iter().chain(api::PRIVATE);
    let mut declared: Vec<i16> = tables.map(|api| api.key).collect();
    declared.extend(UNSERVED);
    declared.sort_unstable();
    assert_eq!(keys(REQUESTS), declared);
    assert_eq!(keys(RESPONSES), declared);
}

/// Changes a few bytes, in ways that a fuzzer would.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    const TELLING: [u8; 8] = [0x00, 0x01, 0x02, 0x7f, 0x80, 0x81, 0xfe, 0xff];
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] = random.next() as u8,
            1 if at < bytes.len() => bytes[at] = TELLING[random.below(TELLING.len())],
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
            _ => {
                let from = random.below(bytes.len() + 1);
                let piece: Vec<u8> = bytes[from..].iter().take(random.below(16)).copied().collect();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// What the fuzzer does with a frame. The name of the message, if it is one.
fn enter_frame(frame: &[u8]) -> Option<&'static str> {
    let (found, asked) = counted(|| entries::walk_frame(frame));
    assert_eq!(asked, 0);
    let (entry, version, body) = found?;
    let _ = (entry.check)(body, version);
    Some(entry.name)
}

/// Rounds per message and version of what the fuzzer does without end.
const ROUNDS: usize = 5_000;

#[test]
fn damaged_bodies_neither_panic_nor_allocate() {
    let mut random = Random(3);
    let mut understood = 0;
    for (entry, version) in all() {
        for _ in 0..ROUNDS {
            let mut body = valid(entry, version, &mut random);
            damage(&mut body, &mut random);
            understood += usize::from(walk(entry, version, &body).is_ok());
        }
    }
    assert!(understood > ROUNDS, "some damage must stay unnoticed: {understood}");
}

#[test]
fn the_fuzzers_entries_hold_on_damaged_frames() {
    let mut random = Random(4);
    for entries in [REQUESTS, RESPONSES] {
        for (index, entry) in entries.iter().enumerate() {
            for version in entry.min..=entry.max {
                for _ in 0..ROUNDS / 10 {
                    let mut body = valid(entry, version, &mut random);
                    damage(&mut body, &mut random);
                    body.splice(..0, [index as u8, (version - entry.min) as u8]);
                    assert_eq!(counted(|| entries::walk_one(entries, &body)).1, 0);
                    entries::check_one(entries, &body);
                }
            }
        }
    }
    for entry in REQUESTS {
        for version in entry.min..=entry.max {
            for _ in 0..ROUNDS / 10 {
                let body = valid(entry, version, &mut random);
                let mut frame = (entry.frame)(&body, version).expect("valid").split_off(4);
                let served = !UNSERVED.contains(&entry.key);
                assert_eq!(enter_frame(&frame), served.then_some(entry.name));
                damage(&mut frame, &mut random);
                enter_frame(&frame);
            }
        }
    }
}

#[test]
fn random_bytes_as_a_frame_cost_nothing() {
    let mut random = Random(5);
    for _ in 0..200_000 {
        let mut bytes: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        if bytes.len() > 4 && random.once_in(2) {
            bytes[..4].copy_from_slice(&[0, random.below(80) as u8, 0, random.below(20) as u8]);
        }
        enter_frame(&bytes);
    }
}

//! Bytes laid out by hand from Kafka's published schemas, read and written. (The published
//! `kafka-protocol` crate has no schemas of records, only of requests.)

use super::*;

/// A key or value put together by hand: a big-endian number, or the bytes of a string literal.
macro_rules! bytes {
    ($($part:expr),* $(,)?) => {{
        let mut all: Vec<u8> = Vec::new();
        $(all.extend_from_slice(&Part::bytes(&$part));)*
        all
    }};
}

trait Part {
    fn bytes(&self) -> Vec<u8>;
}

impl Part for &str {
    fn bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

macro_rules! number_parts {
    ($($kind:ty),*) => {
        $(impl Part for $kind {
            fn bytes(&self) -> Vec<u8> {
                self.to_be_bytes().to_vec()
            }
        })*
    };
}

number_parts!(u8, i16, i32, i64);

fn offset_key() -> OffsetKey {
    OffsetKey { group: "grp".into(), topic: "tópic".into(), partition: 7 }
}

fn offset_value() -> OffsetValue {
    OffsetValue {
        offset: 0x0102_0304_0506,
        leader_epoch: Some(LeaderEpoch(9)),
        metadata: "md".into(),
        committed: Timestamp(1_700_000_000_000),
        expires: None,
    }
}

fn key_bytes(version: i16) -> Vec<u8> {
    // "ó" is two bytes.
    bytes![version, 3i16, "grp", 6i16, "tópic", 7i32]
}

fn load(key: &[u8], value: Option<&[u8]>) -> Result<Record, RecordError> {
    Record::load(Some(key), value)
}

#[test]
fn an_offset_is_written_and_read_in_every_version() {
    let now = 1_700_000_000_000i64;
    let (key, value) = (offset_key(), offset_value());
    let v3 = bytes![3i16, value.offset, 9i32, 2i16, "md", now];
    let stored = Record::Offset(key.clone(), Some(value.clone())).store();
    assert_eq!(stored, (Some(key_bytes(1)), Some(v3.clone())));
    let without_epoch = OffsetValue { leader_epoch: None, ..value.clone() };
    let expiring = OffsetValue { expires: Some(Timestamp(now + 5)), ..without_epoch.clone() };
    let v1 = bytes![1i16, value.offset, 2i16, "md", now, now + 5];
    let stored = Record::Offset(key.clone(), Some(expiring.clone())).store();
    assert_eq!(stored, (Some(key_bytes(1)), Some(v1.clone())));
    let short = bytes![value.offset, 2i16, "md", now];
    // Compact lengths are one more; a tagged field 5 of two bytes that nobody here knows.
    let v4 = bytes![4i16, value.offset, 9i32, 3u8, "md", now, 1u8, 5u8, 2u8, "xy"];
    for (bytes, expected) in [
        (bytes![0i16].into_iter().chain(short.clone()).collect(), &without_epoch),
        (v1, &expiring),
        (bytes![1i16, value.offset, 2i16, "md", now, -1i64], &without_epoch),
        (bytes![2i16].into_iter().chain(short).collect(), &without_epoch),
        (v3, &value),
        (bytes![3i16, value.offset, -1i32, 2i16, "md", now], &without_epoch),
        (v4, &value),
    ] {
        for version in [0, 1] {
            let loaded = load(&key_bytes(version), Some(&bytes)).unwrap();
            assert_eq!(loaded, Record::Offset(key.clone(), Some(expected.clone())), "{bytes:x?}");
        }
        for cut in 0..bytes.len() {
            assert!(load(&key_bytes(1), Some(&bytes[..cut])).is_err(), "{cut} of {bytes:x?}");
        }
    }
    assert_eq!(load(&key_bytes(1), None).unwrap(), Record::Offset(key.clone(), None));
    assert_eq!(Record::Offset(key, None).store(), (Some(key_bytes(1)), None));
}

fn group_value() -> ClassicValue {
    let member = |id: &str, instance: Option<&str>| MemberValue {
        id: id.into(),
        instance: instance.map(String::from),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_ms: 300_000,
        session_ms: 45_000,
        subscription: b"sub".as_slice().into(),
        assignment: b"".as_slice().into(),
    };
    ClassicValue {
        protocol_type: "consumer".into(),
        generation: 4,
        protocol: Some("range".into()),
        leader: Some("m1".into()),
        since: Some(Timestamp(77)),
        members: vec![member("m1", None), member("m2", Some("i2"))],
    }
}

#[test]
fn a_group_is_written_and_read_in_every_version() {
    let key = bytes![2i16, 3i16, "grp"];
    let value = group_value();
    let head = || bytes![8i16, "consumer", 4i32, 5i16, "range", 2i16, "m1"];
    let tail = || bytes![1i16, "c", 2i16, "/h"];
    let blobs = || bytes![3i32, "sub", 0i32];
    let mut v3 = [bytes![3i16], head(), bytes![77i64, 2i32]].concat();
    v3.extend([bytes![2i16, "m1", -1i16], tail(), bytes![300_000i32, 45_000i32], blobs()].concat());
    v3.extend(bytes![2i16, "m2", 2i16, "i2"]);
    v3.extend([tail(), bytes![300_000i32, 45_000i32], blobs()].concat());
    let group = Record::Classic("grp".into(), Some(Rc::new(value.clone())));
    assert_eq!(group.store(), (Some(key.clone()), Some(v3.clone())));
    let compact = || bytes![2u8, "c", 3u8, "/h", 300_000i32, 45_000i32, 4u8, "sub", 1u8, 0u8];
    let v4 = [
        bytes![4i16, 9u8, "consumer", 4i32, 6u8, "range", 3u8, "m1", 77i64, 3u8],
        [bytes![3u8, "m1", 0u8], compact()].concat(),
        [bytes![3u8, "m2", 3u8, "i2"], compact()].concat(),
        bytes![0u8],
    ]
    .concat();
    // Before version 3 there were no instances, before 2 no timestamp, before 1 no time to rejoin.
    let old = |version: i16, since: Vec<u8>, times: Vec<u8>| {
        let member = |id: &str| [bytes![2i16, id], tail(), times.clone(), blobs()].concat();
        let head = [bytes![version], head(), since, bytes![2i32]].concat();
        [head, member("m1"), member("m2")].concat()
    };
    let mut dynamic = value.clone();
    dynamic.members[1].instance = None;
    let untimed = ClassicValue { since: None, ..dynamic.clone() };
    let mut hasty = untimed.clone();
    hasty.members.iter_mut().for_each(|member| member.rebalance_ms = member.session_ms);
    let times = bytes![300_000i32, 45_000i32];
    for (bytes, expected) in [
        (old(0, vec![], bytes![45_000i32]), hasty),
        (old(1, vec![], times.clone()), untimed),
        (old(2, bytes![77i64], times), dynamic),
        (v3, value.clone()),
        (v4, value),
    ] {
        let loaded = load(&key, Some(&bytes)).unwrap();
        assert_eq!(loaded, Record::Classic("grp".into(), Some(Rc::new(expected))));
        for cut in 0..bytes.len() {
            assert!(load(&key, Some(&bytes[..cut])).is_err(), "{cut} of {bytes:x?}");
        }
    }
    assert_eq!(load(&key, None).unwrap(), Record::Classic("grp".into(), None));
}

#[test]
fn an_empty_group_has_no_protocol_and_no_leader() {
    let value = ClassicValue { protocol: None, leader: None, members: vec![], ..group_value() };
    let bytes = bytes![3i16, 8i16, "consumer", 4i32, -1i16, -1i16, 77i64, 0i32];
    let stored = Record::Classic("grp".into(), Some(Rc::new(value.clone()))).store();
    assert_eq!(stored.1, Some(bytes.clone()));
    let loaded = load(&bytes![2i16, 3i16, "grp"], Some(&bytes)).unwrap();
    assert_eq!(loaded, Record::Classic("grp".into(), Some(Rc::new(value))));
}

#[test]
fn newer_types_are_passed_over_and_newer_versions_are_not() {
    // Type 17, say a streams group of KIP-1071, with whatever it holds.
    let key = bytes![17i16, 3i16, "grp"];
    assert_eq!(load(&key, Some(b"anything")).unwrap(), Record::Unknown(17));
    let consumers = bytes![3i16, 3i16, "grp"];
    assert_eq!(load(&consumers, Some(&bytes![7i16])), Err(RecordError::Version(7)));
    assert_eq!(load(&bytes![-1i16], None).unwrap(), Record::Unknown(-1));
    assert_eq!(load(&key_bytes(1), Some(&bytes![5i16])), Err(RecordError::Version(5)));
    assert_eq!(Record::load(None, None), Err(RecordError::NoKey));
    assert_eq!(load(&[0], None), Err(RecordError::Short));
}

#[test]
fn no_count_is_believed() {
    let key = bytes![2i16, 3i16, "grp"];
    let head = bytes![8i16, "consumer", 4i32, -1i16, -1i16, 77i64];
    let count =
        |count: i32| load(&key, Some(&[bytes![3i16], head.clone(), bytes![count]].concat()));
    assert_eq!(count(i32::MAX), Err(RecordError::Short));
    assert_eq!(count(-2), Err(RecordError::Length));
    assert_eq!(count(-1), Err(RecordError::Null));
}

//! Batches as others write and read them: golden bytes of kafka-python 3.0.12 in every codec, and
//! the published crate `kafka-protocol` as an oracle in both directions.

use bytes::{Bytes, BytesMut};
use engine::batch::{
    Batch, BatchBuilder, BatchError, Codec, Depth, NewRecord, Producer, RecordHeader, Rules,
    Sequence, Stamp, TimestampRule, TimestampType, check,
};
use engine::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use engine::time::Timestamp;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType as TheirTimestampType,
};
use proptest::prelude::*;

/// Three records: ("key", 29 bytes, headers h=v and n=null) at 1700000000000, (null, 29 bytes) 250
/// ms later, ("key", null) 1 ms earlier.
const GOLDEN: [(&str, &str); 6] = [
    (
        "none",
        "00000000000000000000008e00000000024e0a75930000000000020000018bcfe568000000018bcfe568fa\
         ffffffffffffffffffffffffffff000000035a000000066b65793a68656c6c6f2068656c6c6f2068656c6c\
         6f2068656c6c6f2068656c6c6f0402680276026e014800f40302013a68656c6c6f2068656c6c6f2068656c\
         6c6f2068656c6c6f2068656c6c6f0012000104066b65790100",
    ),
    (
        "idempotent",
        "00000000000000000000008e000000000243bdb78c0000000000020000018bcfe568000000018bcfe568fa\
         000000000000126700037ffffffe000000035a000000066b65793a68656c6c6f2068656c6c6f2068656c6c\
         6f2068656c6c6f2068656c6c6f0402680276026e014800f40302013a68656c6c6f2068656c6c6f2068656c\
         6c6f2068656c6c6f2068656c6c6f0012000104066b65790100",
    ),
    (
        "gzip",
        "00000000000000000000006f00000000021e803ae30001000000020000018bcfe568000000018bcfe568fa\
         ffffffffffffffffffffffffffff000000031f8b0800e919036b02ff8b62606060cb4eadb4ca48cdc9c957\
         c041b23065309531e5317a307c616662c4af9641888191056424230300b5924b7c5d000000",
    ),
    (
        "snappy",
        "00000000000000000000007700000000022b3e3b990002000000020000018bcfe568000000018bcfe568fa\
         ffffffffffffffffffffffffffff0000000382534e41505059000000000100000001000000325d385a0000\
         00066b65793a68656c6c6f205a0600340402680276026e014800f4030201762c00280012000104066b6579\
         0100",
    ),
    (
        "lz4",
        "00000000000000000000007a00000000029fdf1d680003000000020000018bcfe568000000018bcfe568fa\
         ffffffffffffffffffffffffffff0000000304224d1868405d000000000000003132000000ff005a000000\
         066b65793a68656c6c6f20060004ef0402680276026e014800f40302012c000bb00012000104066b657901\
         0000000000",
    ),
    (
        "zstd",
        "00000000000000000000006c0000000002d63378c10004000000020000018bcfe568000000018bcfe568fa\
         ffffffffffffffffffffffffffff0000000328b52ffd205d95010084025a000000066b65793a68656c6c6f\
         200402680276026e014800f40302010012000104066b6579010002004f894aea5207",
    ),
];

const NOW: Timestamp = Timestamp(1_700_000_001_000);

fn rules(kind: TimestampType) -> Rules {
    Rules {
        depth: Depth::Records,
        batch_bytes_max: 1_048_588,
        decompressed_bytes_max: 1 << 26,
        timestamps: TimestampRule {
            kind,
            now: NOW,
            before_max_ms: i64::MAX as u64,
            after_max_ms: 3_600_000,
        },
        keys_required: false,
    }
}

fn golden(name: &str) -> Vec<u8> {
    let (_, hex) = GOLDEN.iter().find(|(found, _)| *found == name).expect("a golden batch");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

#[test]
fn batches_of_another_implementation_pass_in_every_codec() {
    for (name, _) in GOLDEN {
        let bytes = golden(name);
        let checked = check(&bytes, &rules(TimestampType::CreateTime)).expect(name);
        assert_eq!(checked.record_count(), 3);
        assert_eq!(checked.base_timestamp(), Timestamp(1_700_000_000_000));
        assert_eq!(checked.max_timestamp(), Timestamp(1_700_000_000_250));
        assert_eq!(checked.producer().is_some(), name == "idempotent");
    }
}

#[test]
fn stamping_leaves_the_crc_true_and_append_time_renews_it() {
    for (name, _) in GOLDEN {
        let bytes = golden(name);
        for kind in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
            let checked = check(&bytes, &rules(kind)).expect(name);
            let mut stored = vec![0; checked.size()];
            let at = Stamp { base_offset: Offset::new(1 << 40), leader_epoch: LeaderEpoch(7) };
            checked.copy_stamped(&mut stored, at);
            let batch = Batch::first(&stored).expect(name);
            assert!(batch.verify_crc());
            assert_eq!(
                (batch.base_offset(), batch.leader_epoch()),
                (at.base_offset, LeaderEpoch(7))
            );
            assert_eq!(batch.next_offset(), Offset::new((1 << 40) + 3));
            assert_eq!(batch.attributes().timestamp_type(), kind);
            let max = if kind == TimestampType::CreateTime { 1_700_000_000_250 } else { NOW.0 };
            assert_eq!(batch.max_timestamp(), Timestamp(max));
            assert_eq!(checked.max_timestamp(), Timestamp(max));
        }
    }
}

#[test]
fn any_flipped_bit_is_refused_or_outside_the_crc() {
    for (name, _) in GOLDEN {
        let bytes = golden(name);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let leader_epoch = (96..128).contains(&bit);
            let result = check(&damaged, &rules(TimestampType::CreateTime));
            assert_eq!(result.is_ok(), leader_epoch, "{name} bit {bit}: {result:?}");
        }
        for length in 0..bytes.len() {
            let cut = check(&bytes[..length], &rules(TimestampType::CreateTime));
            assert!(matches!(cut, Err(BatchError::Incomplete { .. })), "{name} cut at {length}");
        }
    }
}

/// A record that owns its bytes, to be written by either side.
#[derive(Debug, Clone, PartialEq)]
struct Plain {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..300))
}

fn plain() -> impl Strategy<Value = Plain> {
    // Their headers are a map, so that keys cannot come twice.
    let headers = prop::collection::btree_map("[a-zä]{0,5}", bytes(), 0..4);
    (0..1i64 << 45, bytes(), bytes(), headers).prop_map(|(timestamp, key, value, headers)| Plain {
        timestamp,
        key,
        value,
        headers: headers.into_iter().collect(),
    })
}

fn producer() -> impl Strategy<Value = Option<Producer>> {
    prop::option::of((0..1i64 << 40, 0..i16::MAX, 0..i32::MAX - 100).prop_map(
        |(id, epoch, sequence)| Producer {
            id: ProducerId(id),
            epoch: ProducerEpoch(epoch),
            base_sequence: Sequence::from_wire(sequence),
        },
    ))
}

fn wide_rules() -> Rules {
    let timestamps = TimestampRule {
        kind: TimestampType::CreateTime,
        now: NOW,
        before_max_ms: u64::MAX,
        after_max_ms: u64::MAX,
    };
    Rules { timestamps, ..rules(TimestampType::CreateTime) }
}

fn written_here(records: &[Plain], codec: Codec, producer: Option<Producer>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20).codec(codec);
    if let Some(producer) = producer {
        builder = builder.producer(producer);
    }
    for plain in records {
        let headers: Vec<RecordHeader<'_>> =
            plain.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let record = NewRecord {
            timestamp: Timestamp(plain.timestamp),
            key: plain.key.as_deref(),
            value: plain.value.as_deref(),
            headers: &headers,
        };
        builder.push(&record).expect("room for all");
    }
    builder.build().expect("every codec compresses")
}

fn written_there(records: &[Plain], codec: Codec, producer: Option<Producer>) -> Vec<u8> {
    let (id, epoch, sequence) = producer.map_or((-1, -1, -1), |producer| {
        (producer.id.0, producer.epoch.0, producer.base_sequence.expect("one").to_wire())
    });
    let to_bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map(Bytes::from);
    let theirs = (0..).zip(records).map(|(index, plain)| TheirRecord {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: id,
        producer_epoch: epoch,
        timestamp_type: TheirTimestampType::Creation,
        offset: index,
        sequence: if sequence < 0 { -1 + index as i32 } else { sequence + index as i32 },
        timestamp: plain.timestamp,
        key: to_bytes(&plain.key),
        value: to_bytes(&plain.value),
        headers: plain
            .headers
            .iter()
            .map(|(key, value)| (StrBytes::from_string(key.clone()), to_bytes(value)))
            .collect(),
    });
    let theirs: Vec<_> = theirs.collect();
    let compression = match codec {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
        Codec::Zstd => Compression::Zstd,
    };
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut out, &theirs, &options).expect("their encoder takes it");
    out.to_vec()
}

fn read_here(bytes: &[u8]) -> Vec<Plain> {
    let batch = Batch::first(bytes).expect("a batch");
    let mut scratch = Vec::new();
    let records = batch.records(&mut scratch, 1 << 26).expect("decompresses");
    let plain = records.enumerate().map(|(index, record)| {
        let record = record.expect("a record");
        assert_eq!(record.offset, batch.base_offset().plus(index as u64));
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("text");
        Plain {
            timestamp: record.timestamp.0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .map(|(key, value)| (text(key), value.map(<[u8]>::to_vec)))
                .collect(),
        }
    });
    plain.collect()
}

fn read_there(bytes: &[u8], producer: Option<Producer>) -> Vec<Plain> {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let set = RecordBatchDecoder::decode(&mut bytes).expect("their decoder takes it");
    let plain = set.records.into_iter().enumerate().map(|(index, record)| {
        assert_eq!(record.offset, index as i64);
        assert_eq!(record.producer_id, producer.map_or(-1, |producer| producer.id.0));
        Plain {
            timestamp: record.timestamp,
            key: record.key.map(|key| key.to_vec()),
            value: record.value.map(|value| value.to_vec()),
            headers: record
                .headers
                .into_iter()
                .map(|(key, value)| (key.to_string(), value.map(|value| value.to_vec())))
                .collect(),
        }
    });
    plain.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_here_is_read_there_and_the_other_way_round(
        records in prop::collection::vec(plain(), 1..12),
        codec in prop::sample::select(&Codec::ALL[..]),
        producer in producer(),
    ) {
        let ours = written_here(&records, codec, producer);
        prop_assert!(check(&ours, &wide_rules()).is_ok());
        prop_assert_eq!(&read_there(&ours, producer), &records);
        prop_assert_eq!(&read_here(&ours), &records);
        let theirs = written_there(&records, codec, producer);
        let checked = check(&theirs, &wide_rules()).expect("their batch passes");
        prop_assert_eq!(checked.attributes().codec(), Some(codec));
        prop_assert_eq!(checked.producer(), producer);
        let max = records.iter().map(|record| record.timestamp).max();
        prop_assert_eq!(Some(checked.max_timestamp().0), max);
        prop_assert_eq!(&read_here(&theirs), &records);
    }
}

/// Peak resident memory of this process, in KiB.
fn resident_peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// A batch that decompresses to 128 MiB is walked over in a window, never held: the peak of the
/// process stays far below it. Snappy's format cannot be streamed; its bound is its ratio.
#[test]
fn walking_over_a_bomb_costs_a_window_and_not_its_size() {
    let zeros = vec![0; 128 << 20];
    let record =
        NewRecord { timestamp: Timestamp(1), key: None, value: Some(&zeros), headers: &[] };
    let mut bombs = Vec::new();
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(u32::MAX).codec(codec);
        builder.push(&record).expect("room");
        bombs.push(builder.build().expect("compresses"));
    }
    drop(zeros);
    // Building needed the zeros; from here on nobody does.
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be reset");
    let before = resident_peak_kib();
    let rules =
        Rules { batch_bytes_max: u32::MAX, decompressed_bytes_max: 1 << 28, ..wide_rules() };
    for bomb in &bombs {
        assert!(check(bomb, &rules).is_ok());
        let small = Rules { decompressed_bytes_max: 1 << 20, ..rules };
        assert_eq!(check(bomb, &small).unwrap_err(), BatchError::Bomb { max: 1 << 20 });
    }
    let grown = resident_peak_kib() - before;
    assert!(grown < 32 << 10, "the peak grew by {grown} KiB");
}

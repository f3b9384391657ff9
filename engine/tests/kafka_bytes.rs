//! Batches as others write them: golden bytes of kafka-python 3.0.12 in every codec.

use engine::batch::{Batch, BatchError, Depth, Rules, Stamp, TimestampRule, TimestampType, check};
use engine::ids::{LeaderEpoch, Offset};
use engine::time::Timestamp;

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

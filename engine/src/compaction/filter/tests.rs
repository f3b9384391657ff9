//! Tests of the filter: one line per rule, for every codec.

use super::*;
use crate::batch::{
    BatchBuilder, Codec, Marker, NewRecord, Producer, Sequence, Stamp, check_trusted, stamp,
};
use crate::ids::LeaderEpoch;

const NOW: i64 = 10_000;
const RETENTION: u64 = 500;

/// Key, value and time of a record.
type Row = (Option<&'static str>, Option<&'static str>, i64);

fn producer(id: i64, sequence: i32) -> Producer {
    Producer {
        id: ProducerId(id),
        epoch: ProducerEpoch(3),
        base_sequence: Sequence::from_wire(sequence),
    }
}

fn stamped(builder: BatchBuilder, base: u64) -> Vec<u8> {
    let mut bytes = builder.build().unwrap();
    let base_offset = Offset::new(base);
    stamp(&mut bytes, Stamp { base_offset, leader_epoch: LeaderEpoch(7) });
    bytes
}

fn filled(mut builder: BatchBuilder, rows: &[Row]) -> BatchBuilder {
    for &(key, value, at) in rows {
        let headers: &[(&str, Option<&[u8]>)] = &[("h", Some(b"1")), ("n", None)];
        let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
        builder.push(&NewRecord { timestamp: Timestamp(at), key, value, headers }).unwrap();
    }
    builder
}

fn batch(base: u64, rows: &[Row]) -> Vec<u8> {
    stamped(filled(BatchBuilder::new(1 << 20), rows), base)
}

/// A map that was told of all of these.
fn map_of(batches: &[&[u8]], bytes: usize) -> KeyMap {
    let mut map = KeyMap::new(bytes, [5, 6], Offset::ZERO);
    let mut scratch = Scratch::default();
    for bytes in batches {
        let batch = Batch::first(bytes).unwrap();
        if learn(&mut map, &batch, Offset::ZERO, &mut scratch).unwrap().is_err() {
            break;
        }
    }
    map
}

fn filter(map: &KeyMap, now: i64) -> Filter<'_> {
    Filter::new(map, Timestamp(now), RETENTION, BTreeMap::new())
}

/// What a filter leaves of a batch, which is whole; nothing where it goes.
fn left(filter: &mut Filter<'_>, bytes: &[u8], is_last: bool) -> Option<Vec<u8>> {
    let mut scratch = Scratch::default();
    let batch = Batch::first(bytes).unwrap();
    let bytes = match filter.judge(&batch, Place { is_last }, &mut scratch).unwrap() {
        Fate::Whole => bytes.to_vec(),
        Fate::Gone => return None,
        Fate::Anew(bytes) => bytes.to_vec(),
        Fate::Empty(bytes) => bytes.to_vec(),
    };
    let new = check_trusted(&bytes).expect("shape and checksum are right");
    assert_eq!(new.bytes().len(), bytes.len());
    assert_eq!(new.base_offset(), batch.base_offset());
    assert_eq!(new.last_offset(), batch.last_offset());
    assert_eq!(new.leader_epoch(), batch.leader_epoch());
    assert_eq!(new.producer(), batch.producer());
    Some(bytes)
}

/// Offsets and values of a batch's records.
fn rows(bytes: &[u8]) -> Vec<(u64, Option<String>, i64)> {
    let mut scratch = Vec::new();
    let batch = Batch::first(bytes).unwrap();
    let records = batch.records(&mut scratch, 1 << 20).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    records
        .map(|record| {
            let record = record.unwrap();
            assert_eq!(record.headers.count(), 2, "headers are kept");
            (record.offset.value(), record.value.map(text), record.timestamp.0)
        })
        .collect()
}

#[test]
fn the_newest_of_each_key_stays_with_its_offset_and_time_in_every_codec() {
    for codec in Codec::ALL {
        let old =
            [(Some("a"), Some("1"), 50), (Some("b"), Some("2"), 90), (Some("c"), Some("3"), 70)];
        let builder = BatchBuilder::new(1 << 20).codec(codec).producer(producer(4, 20));
        let old = stamped(filled(builder, &old), 100);
        let new = batch(200, &[(Some("b"), Some("4"), 95)]);
        let map = map_of(&[&old, &new], 4096);
        let mut filter = filter(&map, NOW);
        let kept = left(&mut filter, &old, false).unwrap();
        let value = |text: &str| Some(text.to_owned());
        assert_eq!(rows(&kept), [(100, value("1"), 50), (102, value("3"), 70)], "{codec:?}");
        let header = Batch::first(&kept).unwrap();
        assert_eq!(header.attributes().codec(), Some(codec));
        assert_eq!(header.max_timestamp(), Timestamp(70), "that of what stays");
        assert_eq!(header.base_timestamp(), Timestamp(50));
        assert_eq!(left(&mut filter, &new, false).unwrap(), new);
        // Again: nothing changes any more.
        assert_eq!(left(&mut filter, &kept, false).unwrap(), kept);
    }
}

#[test]
fn a_batch_of_which_nothing_stays_goes_or_leaves_its_place() {
    let old = stamped(
        filled(
            BatchBuilder::new(999).codec(Codec::Zstd).producer(producer(4, 20)),
            &[(Some("a"), Some("1"), 50), (Some("a"), Some("2"), 60)],
        ),
        100,
    );
    let new = batch(200, &[(Some("a"), Some("4"), 95)]);
    let map = map_of(&[&old, &new], 4096);
    assert_eq!(left(&mut filter(&map, NOW), &old, false), None);
    let empty = left(&mut filter(&map, NOW), &old, true).unwrap();
    assert_eq!(empty.len(), HEADER_BYTES);
    let header = Batch::first(&empty).unwrap();
    assert_eq!((header.record_count(), header.max_timestamp()), (0, Timestamp(60)));
    assert_eq!(header.attributes().codec(), Some(Codec::None));
    assert_eq!(left(&mut filter(&map, NOW), &empty, true).unwrap(), empty);
    assert_eq!(left(&mut filter(&map, NOW), &empty, false), None);

    use LastWritten::{Ends, Markers, Unknown};
    let ends = |offset| Ends(Offset::new(offset));
    let (epoch, unknown) = (Markers(ProducerEpoch(3)), Unknown);
    for (last, stays) in
        [(ends(101), true), (ends(100), false), (ends(500), false), (epoch, false), (unknown, true)]
    {
        let producers = BTreeMap::from([(ProducerId(4), last)]);
        let mut filter = Filter::new(&map, Timestamp(NOW), RETENTION, producers);
        let expected = stays.then(|| empty.clone());
        assert_eq!(left(&mut filter, &old, false), expected, "{last:?}");
        assert_eq!(left(&mut filter, &empty, false), expected, "{last:?}");
    }
}

#[test]
fn a_mark_gets_a_horizon_and_goes_when_that_has_passed() {
    for codec in Codec::ALL {
        let builder = BatchBuilder::new(999).codec(codec);
        let mark = [(Some("a"), None, 50), (Some("b"), Some("1"), 40)];
        let mark = stamped(filled(builder, &mark), 100);
        let map = map_of(&[&mark], 4096);
        let marked = left(&mut filter(&map, NOW), &mark, false).unwrap();
        let horizon = NOW + RETENTION as i64;
        let header = Batch::first(&marked).unwrap();
        assert_eq!(header.delete_horizon(), Some(Timestamp(horizon)));
        assert_eq!(header.base_timestamp(), Timestamp(horizon), "KIP-534 has it there");
        assert_eq!(header.max_timestamp(), Timestamp(50));
        let value = Some("1".to_owned());
        assert_eq!(rows(&marked), [(100, None, 50), (101, value.clone(), 40)], "{codec:?}");
        let again = left(&mut filter(&map, horizon - 1), &marked, false).unwrap();
        assert_eq!(again, marked, "the horizon is not moved");
        let later = left(&mut filter(&map, horizon), &marked, false).unwrap();
        assert_eq!(rows(&later), [(101, value, 40)]);
        assert_eq!(Batch::first(&later).unwrap().delete_horizon(), Some(Timestamp(horizon)));
    }
}

#[test]
fn a_horizon_that_no_time_delta_can_bridge_is_not_written() {
    let mark = batch(100, &[(Some("a"), None, 50)]);
    let map = map_of(&[&mark], 4096);
    let mut filter = Filter::new(&map, Timestamp(NOW), u64::MAX, BTreeMap::new());
    let marked = left(&mut filter, &mark, false).unwrap();
    assert_eq!(Batch::first(&marked).unwrap().delete_horizon(), Some(Timestamp(i64::MAX)));
    assert_eq!(rows(&marked), [(100, None, 50)]);
}

#[test]
fn what_the_map_does_not_know_stays() {
    let all = batch(
        100,
        &[
            (Some("a"), Some("1"), 1),
            (Some("b"), Some("2"), 2),
            (Some("c"), Some("3"), 3),
            (Some("a"), Some("4"), 4),
            (None, Some("5"), 5),
        ],
    );
    // Room for two keys: it is full at "c".
    let map = map_of(&[&all], 3 * super::super::map::SLOT_BYTES);
    assert_eq!((map.len(), map.known_to()), (2, Offset::new(102)));
    let kept = left(&mut filter(&map, NOW), &all, false).unwrap();
    assert_eq!(kept, all, "the older record of a stays, too");
    let map = map_of(&[&all], 4096);
    assert_eq!(map.known_to(), Offset::new(105));
    let kept = left(&mut filter(&map, NOW), &all, false).unwrap();
    let offsets: Vec<u64> = rows(&kept).iter().map(|row| row.0).collect();
    assert_eq!(offsets, [101, 102, 103], "without a key it goes");
}

#[test]
fn records_of_the_append_time_keep_it() {
    let rows_in = [(Some("a"), Some("1"), 1), (Some("b"), None, 2)];
    let builder = filled(BatchBuilder::new(999).append_time(Timestamp(77)), &rows_in);
    let old = stamped(builder, 100);
    let new = batch(200, &[(Some("a"), Some("2"), 3)]);
    let map = map_of(&[&old, &new], 4096);
    let kept = left(&mut filter(&map, NOW), &old, false).unwrap();
    assert_eq!(rows(&kept), [(101, None, 77)]);
    assert_eq!(Batch::first(&kept).unwrap().max_timestamp(), Timestamp(77));
}

#[test]
fn a_transaction_pushes_nothing_out_and_its_marker_stays_for_as_long_as_its_data() {
    let plain = batch(100, &[(Some("a"), Some("1"), 1)]);
    let builder = BatchBuilder::new(999).producer(producer(4, 0)).transactional();
    let data =
        stamped(filled(builder, &[(Some("a"), Some("2"), 2), (Some("b"), Some("3"), 3)]), 101);
    let marker =
        |base, marker| stamped(BatchBuilder::marker(marker, producer(4, 0), 1, Timestamp(4)), base);
    let abort = marker(103, Marker::Abort);
    let map = map_of(&[&plain, &data, &abort], 4096);
    assert_eq!(map.known_to(), Offset::new(104));
    let mut first = filter(&map, NOW);
    assert_eq!(left(&mut first, &plain, false).unwrap(), plain, "perhaps it was aborted");
    assert_eq!(left(&mut first, &data, false).unwrap(), data);
    assert_eq!(left(&mut first, &abort, false).unwrap(), abort);

    // Later records replace those of the transaction.
    let later = batch(104, &[(Some("a"), Some("4"), 5), (Some("b"), Some("5"), 5)]);
    let map = map_of(&[&plain, &data, &abort, &later], 4096);
    let mut second = filter(&map, NOW);
    assert_eq!(left(&mut second, &plain, false), None);
    assert_eq!(left(&mut second, &data, false), None);
    assert_eq!(left(&mut second, &abort, false).unwrap(), abort, "its data was there until now");
    let mut third = filter(&map, NOW);
    let marked = left(&mut third, &abort, false).unwrap();
    let horizon = NOW + RETENTION as i64;
    let header = Batch::first(&marked).unwrap();
    assert_eq!((header.delete_horizon(), header.record_count()), (Some(Timestamp(horizon)), 1));
    assert_eq!(left(&mut filter(&map, horizon - 1), &marked, false).unwrap(), marked);
    assert_eq!(left(&mut filter(&map, horizon), &marked, false), None);
    // Its producer wrote nothing since: the epoch has to be known.
    let last = LastWritten::Markers(ProducerEpoch(3));
    let producers = BTreeMap::from([(ProducerId(4), last)]);
    let mut needed = Filter::new(&map, Timestamp(horizon), RETENTION, producers);
    let empty = left(&mut needed, &marked, false).unwrap();
    assert_eq!(Batch::first(&empty).unwrap().record_count(), 0);
    assert!(Batch::first(&empty).unwrap().attributes().is_control());
}

#[test]
fn what_does_not_decompress_is_an_error_and_no_loss() {
    let builder = BatchBuilder::new(999).codec(Codec::Lz4);
    let mut bytes = stamped(filled(builder, &[(Some("a"), Some("1"), 1)]), 100);
    let last = bytes.len() - 1;
    bytes[HEADER_BYTES] ^= 0xff;
    bytes[last] ^= 0xff;
    let map = map_of(&[], 4096);
    let mut scratch = Scratch::default();
    let damaged = Batch::first(&bytes).unwrap();
    let judged = filter(&map, NOW).judge(&damaged, Place { is_last: false }, &mut scratch);
    assert_eq!(judged, Err(RecordFault::Undecodable));
}

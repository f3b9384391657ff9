//! Tests of the batch view and of its check: one mutation per cause, bombs, and damage.

use super::*;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const CAP: u64 = 1 << 20;

fn rules() -> Rules {
    let timestamps = TimestampRule {
        kind: TimestampType::CreateTime,
        now: NOW,
        before_max_ms: 1000,
        after_max_ms: 500,
    };
    Rules {
        depth: Depth::Records,
        batch_bytes_max: 1 << 20,
        decompressed_bytes_max: CAP,
        timestamps,
        keys_required: false,
    }
}

fn record(value: &[u8]) -> NewRecord<'_> {
    NewRecord { timestamp: NOW, key: Some(b"key"), value: Some(value), headers: &[] }
}

fn three(codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20).codec(codec);
    for value in [b"one", b"two", b"six"] {
        builder.push(&record(value)).unwrap();
    }
    builder.build().unwrap()
}

/// Changes a batch and makes its CRC fit again: a hostile client, not a damaged wire.
fn forge(mut bytes: Vec<u8>, change: impl FnOnce(&mut Header)) -> Vec<u8> {
    change(Header::mut_from_prefix(&mut bytes).unwrap().0);
    with_true_crc(bytes)
}

fn with_true_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    Header::mut_from_prefix(&mut bytes).unwrap().0.crc.set(crc);
    bytes
}

/// A batch that claims `count` records, with `payload` behind the header, compressed.
fn with_payload(codec: Codec, count: i32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = three(codec)[..HEADER_BYTES].to_vec();
    compress::deflate(codec, payload, &mut bytes).unwrap();
    let length = (bytes.len() - LENGTH_OVERHEAD) as i32;
    forge(bytes, |header| {
        header.length.set(length);
        header.record_count.set(count);
        header.last_offset_delta.set(count - 1);
    })
}

fn error(bytes: &[u8]) -> BatchError {
    check(bytes, &rules()).map(|_| ()).unwrap_err()
}

#[test]
fn sequences_wrap_at_their_maximum() {
    assert_eq!(Sequence::MAX.plus(1), Sequence::ZERO);
    assert_eq!(Sequence::ZERO.minus(1), Sequence::MAX);
    assert_eq!(Sequence::MAX.plus(5).minus(5), Sequence::MAX);
    assert_eq!(Sequence::from_wire(-1), None);
}

#[test]
fn a_header_that_lies_is_refused_with_its_cause() {
    let good = three(Codec::None);
    let forged = |change: fn(&mut Header)| error(&forge(good.clone(), change));
    let size = good.len();
    assert_eq!(
        forged(|header| header.length.set(header.length.get() + 1)),
        BatchError::Incomplete { need: size + 1, present: size }
    );
    assert_eq!(forged(|header| header.length.set(48)), BatchError::Length(48));
    assert_eq!(forged(|header| header.length.set(-1)), BatchError::Length(-1));
    assert_eq!(
        forged(|header| header.length.set(i32::MAX)),
        BatchError::Incomplete { need: i32::MAX as usize + LENGTH_OVERHEAD, present: size }
    );
    assert_eq!(
        forged(|header| header.length.set(header.length.get() - 1)),
        BatchError::MoreThanOne(1)
    );
    assert_eq!(forged(|header| header.magic = 1), BatchError::OldMagic(1));
    assert_eq!(forged(|header| header.magic = 0), BatchError::OldMagic(0));
    assert_eq!(forged(|header| header.magic = 3), BatchError::UnknownMagic(3));
    assert_eq!(forged(|header| header.base_offset.set(9)), BatchError::BaseOffset(9));
    assert_eq!(forged(|header| header.base_offset.set(-9)), BatchError::BaseOffset(-9));
    assert_eq!(forged(|header| header.attributes.set(0x20)), BatchError::Control);
    assert_eq!(forged(|header| header.attributes.set(0x10)), BatchError::Transactional);
    assert_eq!(forged(|header| header.attributes.set(0x40)), BatchError::Attributes(0x40));
    assert_eq!(forged(|header| header.attributes.set(0x08)), BatchError::TimestampType);
    assert_eq!(forged(|header| header.attributes.set(5)), BatchError::Codec(5));
    let (id, epoch, sequence) = (7, -1, -1);
    assert_eq!(
        forged(|header| header.producer_id.set(7)),
        BatchError::Producer { id, epoch, sequence }
    );
    let mut bad = good.clone();
    bad[HEADER_BYTES + 3] ^= 1;
    assert!(matches!(error(&bad), BatchError::Crc { .. }));
    assert!(matches!(check_trusted(&bad), Err(BatchError::Crc { .. })));
    assert_eq!(error(&[good.clone(), good.clone()].concat()), BatchError::MoreThanOne(size));
    assert_eq!(error(&[]), BatchError::Incomplete { need: HEADER_BYTES, present: 0 });
    let small = Rules { batch_bytes_max: size as u32 - 1, ..rules() };
    let too_large = BatchError::TooLarge { size, max: size as u32 - 1 };
    assert_eq!(check(&good, &small).unwrap_err(), too_large);
    assert!(check(&good, &Rules { batch_bytes_max: size as u32, ..rules() }).is_ok());
}

#[test]
fn the_count_is_the_offsets_and_the_records() {
    for codec in Codec::ALL {
        let good = three(codec);
        for (count, delta) in [(0, -1), (0, 0), (3, 3), (3, 1), (-1, -2), (3, -1), (-3, 2)] {
            let bad = forge(good.clone(), |header| {
                header.record_count.set(count);
                header.last_offset_delta.set(delta);
            });
            assert_eq!(error(&bad), BatchError::Count { count, last_offset_delta: delta });
        }
        for (count, record, fault) in [(4, 3, RecordFault::End), (2, 1, RecordFault::Rest)] {
            let bad = forge(good.clone(), |header| {
                header.record_count.set(count);
                header.last_offset_delta.set(count - 1);
            });
            assert_eq!(error(&bad), BatchError::Record { record, fault }, "{codec:?}");
        }
    }
}

#[test]
fn a_record_that_lies_is_refused_with_its_index() {
    // Length 8: attributes, timestamp delta 0, offset delta, key null, value "ab", no headers.
    let record = |delta: u8| [16, 0, 0, delta << 1, 1, 4, b'a', b'b', 0];
    let two = |second: [u8; 9]| [record(0), second].concat();
    let forged = |at: usize, byte: u8| {
        let mut second = record(1);
        second[at] = byte;
        two(second)
    };
    let faults = [
        (two(record(0)), RecordFault::OffsetDelta(0)),
        (two(record(2)), RecordFault::OffsetDelta(2)),
        (forged(3, 1), RecordFault::OffsetDelta(-1)),
        (forged(0, 12), RecordFault::Length),
        (forged(0, 18), RecordFault::Length),
        (forged(0, 1), RecordFault::Length),
        (forged(4, 3), RecordFault::Negative),
        (forged(5, 3), RecordFault::Negative),
        (forged(8, 1), RecordFault::Negative),
        (forged(8, 2), RecordFault::End),
        (forged(5, 90), RecordFault::End),
        (two(record(1))[..17].to_vec(), RecordFault::End),
        ([two(record(1)), vec![0]].concat(), RecordFault::Rest),
        ([&record(0)[..], &[0xff; 9], &[2]].concat(), RecordFault::Number),
        ([&record(0)[..], &[0xff, 0xff, 0xff, 0xff, 0x1f]].concat(), RecordFault::Number),
    ];
    for codec in Codec::ALL {
        assert!(check(&with_payload(codec, 2, &two(record(1))), &rules()).is_ok());
        for (payload, fault) in &faults {
            let bad = with_payload(codec, 2, payload);
            assert_eq!(error(&bad), BatchError::Record { record: 1, fault: *fault }, "{codec:?}");
            assert_eq!(error(&bad).record(), Some(1));
        }
    }
}

#[test]
fn timestamps_keep_to_their_window_and_keys_are_there_where_needed() {
    let stamped = |millis| {
        let mut builder = BatchBuilder::new(1 << 20);
        let timestamp = Timestamp(millis);
        builder.push(&record(b"first")).unwrap();
        builder.push(&NewRecord { timestamp, key: None, ..record(b"second") }).unwrap();
        builder.build().unwrap()
    };
    for (off, good) in [(-1000, true), (-1001, false), (500, true), (501, false)] {
        let bytes = stamped(NOW.0 + off);
        let checked = check(&bytes, &rules()).map(|checked| checked.max_timestamp());
        let refused = BatchError::Timestamp { record: 1, timestamp: NOW.0 + off };
        let max = Timestamp(NOW.0 + off.max(0));
        assert_eq!(checked, if good { Ok(max) } else { Err(refused) });
    }
    assert!(check(&stamped(-1), &rules()).is_ok(), "no timestamp is always good");
    let keyed = Rules { keys_required: true, ..rules() };
    assert_eq!(check(&stamped(NOW.0), &keyed).unwrap_err(), BatchError::NoKey { record: 1 });
    // The broker's time replaces whatever the producer wrote.
    let kind = TimestampType::LogAppendTime;
    let append = Rules { timestamps: TimestampRule { kind, ..rules().timestamps }, ..rules() };
    assert_eq!(check(&stamped(5), &append).unwrap().max_timestamp(), NOW);
}

#[test]
fn a_wrong_maximal_timestamp_is_put_right_in_the_copy() {
    let bytes = forge(three(Codec::Lz4), |header| header.max_timestamp.set(i64::MAX));
    let checked = check(&bytes, &rules()).unwrap();
    assert_eq!(checked.max_timestamp(), NOW);
    let mut stored = vec![0; checked.size()];
    let at = Stamp { base_offset: Offset::new(5), leader_epoch: LeaderEpoch(2) };
    checked.copy_stamped(&mut stored, at);
    let stored = Batch::first(&stored).unwrap();
    assert!(stored.verify_crc());
    assert_eq!(stored.max_timestamp(), NOW);
}

#[test]
fn what_decompresses_to_more_than_allowed_is_refused_and_the_limit_itself_is_not() {
    for codec in &Codec::ALL[1..] {
        let mut builder = BatchBuilder::new(64 << 20).codec(*codec);
        let zeros = vec![0; 48 << 20];
        builder.push(&record(&zeros)).unwrap();
        let bytes = builder.build().unwrap();
        let large = Rules { batch_bytes_max: u32::MAX, ..rules() };
        assert_eq!(check(&bytes, &large).unwrap_err(), BatchError::Bomb { max: CAP }, "{codec:?}");
        let exact = builder.size() as u64 - HEADER_BYTES as u64;
        let at = |decompressed_bytes_max| {
            check(&bytes, &Rules { decompressed_bytes_max, ..large }).map(|_| ())
        };
        assert_eq!(at(exact), Ok(()), "{codec:?}");
        assert_eq!(at(exact - 1), Err(BatchError::Bomb { max: exact - 1 }), "{codec:?}");
    }
}

#[test]
fn compressed_bytes_that_lie_about_their_size_are_refused() {
    // A snappy block of 4 bytes that claims 4 GiB, raw and in a chunk.
    let mut bytes = three(Codec::Snappy);
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    bytes.truncate(HEADER_BYTES);
    let raw = [&bytes[..], &claim].concat();
    let chunk = [&bytes[..], b"\x82SNAPPY\0", &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8], &claim];
    let cut = [&bytes[..], b"\x82SNAPPY\0", &[0, 0, 0, 1, 0, 0, 0, 1, 0x7f, 0, 0, 8], &claim];
    for lie in [raw, chunk.concat(), cut.concat()] {
        let length = (lie.len() - LENGTH_OVERHEAD) as i32;
        let lie = forge(lie, |header| header.length.set(length));
        assert_eq!(error(&lie), BatchError::Undecodable(Codec::Snappy));
    }
    // A codec's bytes cut anywhere never pass.
    for codec in &Codec::ALL[1..] {
        let good = three(*codec);
        for end in HEADER_BYTES..good.len() {
            let cut = forge(good[..end].to_vec(), |header| {
                header.length.set((end - LENGTH_OVERHEAD) as i32);
            });
            // gzip's and lz4's trailers hold only checksums and lengths that may go unread.
            if let Ok(checked) = check(&cut, &rules()) {
                let mut scratch = Vec::new();
                let records = checked.records(&mut scratch, CAP).unwrap();
                assert_eq!(records.map(Result::unwrap).count(), 3, "{codec:?} cut at {end}");
            }
        }
    }
}

#[test]
fn xerial_chunks_and_a_raw_block_are_both_snappy() {
    let payload = &three(Codec::None)[HEADER_BYTES..];
    let mut raw = three(Codec::Snappy)[..HEADER_BYTES].to_vec();
    raw.extend(snap::raw::Encoder::new().compress_vec(payload).unwrap());
    let length = (raw.len() - LENGTH_OVERHEAD) as i32;
    let raw = forge(raw, |header| header.length.set(length));
    assert!(check(&raw, &rules()).is_ok());
    assert!(check(&three(Codec::Snappy), &rules()).is_ok());
}

#[test]
fn a_time_finds_its_record_in_every_codec() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(1 << 20).codec(codec);
        for millis in [10, 30, 20, 30] {
            let timestamp = Timestamp(millis);
            builder.push(&NewRecord { timestamp, ..record(b"value") }).unwrap();
        }
        let mut bytes = builder.build().unwrap();
        stamp(&mut bytes, Stamp { base_offset: Offset::new(100), leader_epoch: LeaderEpoch(1) });
        let batch = Batch::first(&bytes).unwrap();
        let find = |millis, from| {
            let at = batch.first_at_or_after(Timestamp(millis), Offset::new(from), CAP).unwrap();
            at.map(|at| (at.offset.value(), at.timestamp.0))
        };
        assert_eq!(find(0, 0), Some((100, 10)));
        assert_eq!(find(11, 0), Some((101, 30)));
        assert_eq!(find(11, 102), Some((102, 20)), "below the log start is not there");
        assert_eq!(find(30, 102), Some((103, 30)));
        assert_eq!(find(31, 0), None);
        assert_eq!(find(0, 104), None);
        let max = batch.first_at_max_timestamp(CAP).unwrap().unwrap();
        assert_eq!((max.offset.value(), max.timestamp.0), (101, 30));
        // With the append's time, every record has it.
        let bytes = builder.append_time(NOW).build().unwrap();
        let batch = Batch::first(&bytes).unwrap();
        let max = batch.first_at_max_timestamp(CAP).unwrap().unwrap();
        assert_eq!((max.offset, max.timestamp), (Offset::ZERO, NOW));
    }
}

#[test]
fn batches_follow_each_other_until_one_is_cut() {
    let one = three(Codec::None);
    let both = [&one[..], &three(Codec::Zstd)].concat();
    assert_eq!(batches(&both).map(Result::unwrap).count(), 2);
    let cut: Vec<_> = batches(&both[..both.len() - 1]).collect();
    assert_eq!(cut.len(), 2);
    assert_eq!(cut[1].unwrap_err(), ShapeError::Short { need: both.len() - one.len() });
    assert_eq!(Header::peek(&[0; 60]).unwrap_err(), ShapeError::Short { need: HEADER_BYTES });
    assert_eq!(Header::peek(&[0; 61]).unwrap_err(), ShapeError::Length(0), "unwritten zeros");
    let at = forge(one, |header| header.base_offset.set(i64::MAX - 2));
    let range = ShapeError::Offsets { base: i64::MAX - 2, delta: 2 };
    assert_eq!(Header::peek(&at).unwrap_err(), range);
}

#[test]
fn a_full_builder_keeps_what_it_has() {
    let mut builder = BatchBuilder::new(100);
    assert_eq!(builder.push(&record(&[1; 20])), Ok(()));
    assert_eq!(builder.push(&record(&[2; 20])), Err(BatchFull));
    assert_eq!(builder.record_count(), 1);
    assert!(check(&builder.build().unwrap(), &rules()).is_ok());
}

#[test]
fn a_marker_is_a_control_batch_as_kafka_writes_it() {
    let producer =
        Producer { id: ProducerId(9), epoch: ProducerEpoch(2), base_sequence: Some(Sequence(3)) };
    let bytes = BatchBuilder::marker(Marker::Commit, producer, 77, NOW).build().unwrap();
    let batch = check_trusted(&bytes).unwrap();
    assert!(batch.attributes().is_control() && batch.attributes().is_transactional());
    assert_eq!(batch.producer(), Some(Producer { base_sequence: None, ..producer }));
    let mut scratch = Vec::new();
    let record = batch.records(&mut scratch, CAP).unwrap().next().unwrap().unwrap();
    assert_eq!(record.key, Some(&[0, 0, 0, 1][..]));
    assert_eq!(record.value, Some(&[0, 0, 0, 0, 0, 77][..]));
    assert_eq!(error(&bytes), BatchError::Control);
}

/// A hostile client makes its CRC fit. Nothing panics, and what is accepted can be read.
#[test]
fn forged_batches_never_panic_and_what_passes_is_readable() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut passed = 0;
    for round in 0..40_000 {
        let mut bytes = three(Codec::ALL[round % 5]);
        for _ in 0..1 + random() % 3 {
            let at = random() as usize % bytes.len();
            bytes[at] = random() as u8;
        }
        if random() % 4 == 0 {
            bytes.truncate(random() as usize % bytes.len());
        }
        if bytes.len() < HEADER_BYTES {
            assert!(check(&bytes, &rules()).is_err());
            continue;
        }
        let bytes = with_true_crc(bytes);
        let Ok(checked) = check(&bytes, &rules()) else {
            // Even unchecked bytes may be looked into.
            if let Ok(batch) = Batch::first(&bytes) {
                let _ = batch.first_at_or_after(Timestamp(1), Offset::ZERO, CAP);
                let mut scratch = Vec::new();
                let _ = batch.records(&mut scratch, CAP).map(|records| records.count());
            }
            continue;
        };
        passed += 1;
        let mut scratch = Vec::new();
        let records = checked.records(&mut scratch, CAP).unwrap();
        for (index, record) in records.enumerate() {
            let record = record.unwrap();
            assert_eq!(record.offset, Offset::new(index as u64));
            assert!(record.timestamp <= checked.max_timestamp());
            let headers = record.headers.count();
            assert!(headers <= bytes.len());
        }
    }
    assert!(passed > 1000, "forging must leave some batches good: {passed}");
}

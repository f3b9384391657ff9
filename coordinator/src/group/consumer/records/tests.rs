//! Bytes worked out by hand from Kafka's schemas, and round trips.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The record stands for these bytes and they for it; cut short they are an error.
fn golden(change: Change, key: &str, value: Option<&str>) {
    let record = Record { group: "g".into(), change };
    let (key, value) = (hex(key), value.map(hex));
    assert_eq!(record.store(), (key.clone(), value.clone()));
    assert_eq!(Record::load(&key, value.as_deref()), Ok(record.clone()));
    for cut in 0..key.len() {
        assert!(Record::load(&key[..cut], value.as_deref()).is_err(), "key of {cut} bytes");
    }
    if let Some(value) = value {
        for cut in 0..value.len() {
            assert!(Record::load(&key, Some(&value[..cut])).is_err(), "value of {cut} bytes");
        }
        let mut newer = value.clone();
        newer[1] = 1;
        assert_eq!(Record::load(&key, Some(&newer)), Err(BytesError::Version(1)));
    }
}

fn topic() -> TopicId {
    TopicId::from_bytes([0xab; 16])
}

const TOPIC: &str = "abababababababababababababababab";

#[test]
fn groups_and_epochs() {
    let plain = GroupValue { epoch: 7, topics_hash: 0, created: None };
    golden(Change::Group(Some(plain)), "0003000167", Some("00000000000700"));
    let tagged = GroupValue { epoch: 7, topics_hash: -2, created: Some(Timestamp(5)) };
    let value = concat!("0000", "00000007", "02", "0008fffffffffffffffe", "01080000000000000005");
    golden(Change::Group(Some(tagged)), "0003000167", Some(value));
    golden(Change::Group(None), "0003000167", None);
    golden(Change::TargetEpoch(Some(9)), "0006000167", Some("00000000000900"));
    golden(Change::TargetEpoch(None), "0006000167", None);
}

#[test]
fn members_of_both_protocols() {
    let mut member = MemberValue {
        instance: Some("i".into()),
        rack: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        topics: ["a".to_owned(), "bc".to_owned()].into(),
        pattern: Some("x*".into()),
        rebalance_ms: 300_000,
        assignor: Some("range".into()),
        classic: None,
    };
    let value = concat!(
        "0000",
        "0269",
        "00",
        "0263",
        "032f68",
        "03",
        "0261",
        "036263",
        "03782a",
        "000493e0",
        "0672616e6765",
        "00"
    );
    golden(
        Change::Member("m".into(), Some(Rc::new(member.clone()))),
        "000500016700016d",
        Some(value),
    );

    member.instance = None;
    member.rack = Some("r".into());
    member.pattern = None;
    member.assignor = None;
    member.classic = Some(ClassicMember {
        session_ms: 10,
        protocols: vec![("p".into(), Rc::from(&b"xyz"[..]))],
    });
    let value = concat!(
        "0000", "00", "0272", "0263", "032f68", "03", "0261", "036263", "00", "000493e0", "00",
        // One tagged field, 0, of 14 bytes: a struct that is there, 10 ms, one protocol.
        "01", "000e", "01", "0000000a", "02", "0270", "0478797a", "00", "00"
    );
    golden(Change::Member("m".into(), Some(Rc::new(member))), "000500016700016d", Some(value));
    golden(Change::Member("m".into(), None), "000500016700016d", None);
}

#[test]
fn targets_and_what_members_have() {
    let partitions = Partitions::from([(topic(), [PartitionIndex(1), PartitionIndex(4)].into())]);
    let value = format!("0000{}{TOPIC}{}", "02", "0300000001000000040000");
    golden(Change::Target("m".into(), Some(Rc::new(partitions))), "000700016700016d", Some(&value));
    golden(Change::Target("m".into(), None), "000700016700016d", None);

    let current = Current {
        epoch: 6,
        previous_epoch: 5,
        state: MemberState::UnrevokedPartitions,
        assigned: [(topic(), [(PartitionIndex(1), 6), (PartitionIndex(4), 3)].into())].into(),
        revoking: [(topic(), [(PartitionIndex(2), 4)].into())].into(),
    };
    // Partitions, then one tagged field, 0: their epochs.
    let value = format!(
        "0000{}{}{}02{TOPIC}{}{}02{TOPIC}{}{}00",
        "00000006",
        "00000005",
        "01",
        "030000000100000004",
        "010009030000000600000003",
        "0200000002",
        "0100050200000004"
    );
    golden(Change::Current("m".into(), Some(Rc::new(current))), "000800016700016d", Some(&value));
    golden(Change::Current("m".into(), None), "000800016700016d", None);
}

#[test]
fn what_releases_before_wrote_without_epochs_is_read() {
    let key = hex("000800016700016d");
    let value =
        format!("0000{}{}{}02{TOPIC}{}01{}", "00000006", "00000005", "7f", "020000000100", "00");
    let record = Record::load(&key, Some(&hex(&value))).expect("readable");
    let current = Current {
        epoch: 6,
        previous_epoch: 5,
        state: MemberState::Unknown,
        assigned: [(topic(), [(PartitionIndex(1), 6)].into())].into(),
        revoking: Assigned::new(),
    };
    assert_eq!(record.change, Change::Current("m".into(), Some(Rc::new(current))));
}

#[test]
fn patterns_and_the_topics_of_old() {
    let pattern = PatternValue {
        topics: ["a".to_owned(), "b".to_owned()].into(),
        version: 8,
        resolved: Timestamp(9),
    };
    let value = concat!("0000", "03", "0261", "0262", "0000000000000008", "0000000000000009", "00");
    golden(Change::Pattern("x*".into(), Some(Rc::new(pattern))), "00100001670002782a", Some(value));
    golden(Change::Pattern("x*".into(), None), "00100001670002782a", None);

    let topics = vec![TopicValue {
        id: topic(),
        name: "t".into(),
        partitions: 2,
        racks: vec![(PartitionIndex(1), vec!["r".into()])],
    }];
    let value =
        format!("0000{}{TOPIC}{}", "02", "02740000000202000000010202720000".to_owned() + "00");
    golden(Change::PartitionMetadata(Some(topics)), "0004000167", Some(&value));
    golden(Change::PartitionMetadata(None), "0004000167", None);
}

#[test]
fn tagged_fields_of_the_future_are_passed_over() {
    let record = Record::load(&hex("0006000167"), Some(&hex("0000000000090105026161")));
    assert_eq!(record.expect("readable").change, Change::TargetEpoch(Some(9)));
    assert_eq!(Record::load(&hex("0009000167"), None), Err(BytesError::Version(9)));
    // A count that lies costs nothing.
    let huge = Record::load(&hex("000700016700016d"), Some(&hex("0000ffffffff0f")));
    assert_eq!(huge, Err(BytesError::Short));
}

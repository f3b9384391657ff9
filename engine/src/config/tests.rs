//! Tests of the settings table.

use super::*;

fn set(name: &str, text: &str) -> LogOverrides {
    let mut overrides = LogOverrides::default();
    overrides.apply(parse(name, text).unwrap());
    overrides
}

fn under(topic: &LogOverrides, broker: &LogOverrides) -> LogConfig {
    effective(topic, broker, &EngineLimits::default())
}

fn log(topic: &LogOverrides) -> LogConfig {
    effective(topic, &LogOverrides::default(), &EngineLimits::default())
}

#[test]
fn every_line_of_the_table_is_sound() {
    for setting in SETTINGS {
        let change = parse(setting.name, setting.default).expect(setting.name);
        let mut overrides = LogOverrides::default();
        overrides.apply(change);
        assert_eq!(overrides.text(setting.name).as_deref(), Some(setting.default));
        assert_eq!(overrides.iter().count(), 1, "{}: each has its own place", setting.name);
        overrides.clear(setting.name).unwrap();
        assert_eq!(overrides, LogOverrides::default());
        assert!(setting.documentation().ends_with('.'), "{}", setting.name);
        let default_of = |one: &Synonym| setting_of_broker(one.name).map(|found| found.name);
        for synonym in setting.synonyms {
            assert_eq!(default_of(synonym), Some(setting.name));
        }
    }
    assert!(SETTINGS.windows(2).all(|pair| pair[0].name < pair[1].name), "ordered by name");
    assert_eq!(SETTINGS.len(), 33, "as many as Kafka 4.3 shows");
}

#[test]
fn the_defaults_are_kafkas_but_for_syncing() {
    let expected = LogConfig {
        segment_bytes: 1 << 30,
        segment_ms: 604_800_000,
        retention_ms: Some(604_800_000),
        retention_bytes: None,
        flush_messages: 1,
        flush_ms: None,
        index_interval_bytes: 4096,
        message_bytes_max: 1_048_588,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX as u64,
        timestamp_after_max_ms: 3_600_000,
        min_insync_replicas: 1,
        compacts: false,
        deletes: true,
        delete_retention_ms: 86_400_000,
        min_compaction_lag_ms: 0,
        max_compaction_lag_ms: None,
        min_dirty_ppm: 500_000,
        producers_max: 10_000,
        producer_expiration_ms: 86_400_000,
    };
    assert_eq!(LogConfig::default(), expected);
}

#[test]
fn the_topic_goes_before_the_broker_and_the_exact_before_the_coarse() {
    let properties = [
        ("log.retention.hours", "2"),
        ("log.retention.minutes", "30"),
        ("log.roll.hours", "1"),
        ("log.message.timestamp.type", "LogAppendTime"),
        ("num.partitions", "6"),
    ];
    let broker = LogOverrides::from_broker(properties).unwrap();
    let config = under(&LogOverrides::default(), &broker);
    assert_eq!(config.retention_ms, Some(1_800_000));
    assert_eq!(config.segment_ms, 3_600_000);
    assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
    let mut reversed = properties;
    reversed.reverse();
    assert_eq!(LogOverrides::from_broker(reversed).unwrap(), broker);
    let config = under(&set("retention.ms", " 5 "), &broker);
    assert_eq!(config.retention_ms, Some(5));
    let broker = LogOverrides::from_broker([("log.retention.hours", "-1")]).unwrap();
    assert_eq!(under(&LogOverrides::default(), &broker).retention_ms, None);
}

#[test]
fn values_at_their_bounds() {
    assert_eq!(log(&set("retention.ms", "-1")).retention_ms, None);
    assert_eq!(log(&set("retention.bytes", "-77")).retention_bytes, None);
    assert_eq!(log(&set("retention.bytes", "0")).retention_bytes, Some(0));
    assert_eq!(log(&set("flush.ms", "0")).flush_ms, Some(0));
    assert_eq!(log(&set("segment.bytes", "1048576")).segment_bytes, 1 << 20);
    assert_eq!(log(&set("segment.bytes", "2147483647")).segment_bytes, i32::MAX as u64);
    assert_eq!(log(&set("max.message.bytes", "0")).message_bytes_max, 0);
    assert_eq!(set("preallocate", "TRUE").text("preallocate").as_deref(), Some("true"));
    for (name, text) in [
        ("retention.ms", "-2"),
        ("segment.bytes", "1048575"),
        ("segment.bytes", "2147483648"),
        ("segment.ms", "0"),
        ("min.insync.replicas", "0"),
        ("flush.messages", "0"),
        ("message.timestamp.type", "createtime"),
    ] {
        let refused = parse(name, text).unwrap_err();
        assert!(matches!(refused, ConfigError::Invalid { .. }), "{name} {text}");
    }
    for text in ["", "x", "1.5", "9223372036854775808", "0x10"] {
        let refused = parse("retention.ms", text).unwrap_err();
        assert!(matches!(refused, ConfigError::NotANumber { .. }), "{text}");
    }
}

#[test]
fn what_compaction_is_told() {
    for (text, compacts, deletes) in [
        ("delete", false, true),
        ("compact", true, false),
        ("compact,delete", true, true),
        (" delete , compact ", true, true),
    ] {
        let config = log(&set("cleanup.policy", text));
        assert_eq!((config.compacts, config.deletes), (compacts, deletes), "{text}");
        let rules = config.rules(&EngineLimits::default(), Timestamp(0));
        assert_eq!(rules.keys_required, compacts, "{text}");
    }
    for (text, shown, ppm) in
        [("0", "0.0", 0), ("0.123", "0.123", 123_000), ("1", "1.0", 1_000_000)]
    {
        let overrides = set("min.cleanable.dirty.ratio", text);
        assert_eq!(overrides.text("min.cleanable.dirty.ratio").as_deref(), Some(shown));
        assert_eq!(log(&overrides).min_dirty_ppm, ppm);
    }
    for text in ["", "half", "NaN", "-0.1", "1.1"] {
        parse("min.cleanable.dirty.ratio", text).unwrap_err();
    }
    let mut lag = set("max.compaction.lag.ms", "1000");
    assert_eq!(log(&lag).segment_ms_max(), 604_800_000, "not compacted");
    lag.apply(parse("cleanup.policy", "compact").unwrap());
    assert_eq!(log(&lag).segment_ms_max(), 1_000);
    parse("max.compaction.lag.ms", "0").unwrap_err();
}

#[test]
fn what_is_refused_says_so_in_a_sentence() {
    let refused = |name, text| parse(name, text).unwrap_err().to_string();
    assert_eq!(refused("retention.days", "1"), "Unknown topic config name: retention.days");
    assert_eq!(
        refused("cleanup.policy", "compact,compact"),
        "Invalid value compact,compact for configuration cleanup.policy: \
         must be one of delete | compact | compact,delete | delete,compact"
    );
    assert_eq!(
        refused("min.cleanable.dirty.ratio", "1.01"),
        "Invalid value 1.01 for configuration min.cleanable.dirty.ratio: must be from 0 to 1"
    );
    assert_eq!(
        refused("compression.type", "zstd"),
        "Invalid value zstd for configuration compression.type: \
         this broker supports only \"producer\""
    );
    assert_eq!(
        refused("segment.ms", "0"),
        "Invalid value 0 for configuration segment.ms: must be at least 1"
    );
    let broker = LogOverrides::from_broker([("log.roll.hours", "9223372036854775807")]);
    assert_eq!(
        broker.unwrap_err().to_string(),
        "Invalid value 9223372036854775807 for configuration log.roll.hours: must be at least 1"
    );
}

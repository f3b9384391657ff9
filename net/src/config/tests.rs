//! Layers, names, complaints and warnings of the configuration.

use super::*;

fn file(text: &str) -> Inputs {
    Inputs {
        file: Some((PathBuf::from("server.properties"), text.to_string())),
        hostname: "box".into(),
        ..Inputs::default()
    }
}

fn with_variables(text: &str, variables: &[(&str, &str)]) -> Inputs {
    let variables = variables.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    Inputs { variables, ..file(text) }
}

/// The complaints about a file, as an operator reads them.
#[track_caller]
fn complaints(inputs: Inputs) -> String {
    resolve(inputs).unwrap_err().to_string()
}

#[test]
fn nothing_said_is_the_default_without_a_word() {
    let resolved = resolve(Inputs::default()).unwrap();
    assert_eq!(resolved.config, BrokerConfig::default());
    assert!(resolved.warnings.is_empty());
    assert!(resolved.shown().all(|shown| shown.source == Source::Default));
}

#[test]
fn a_file_for_kafka_is_taken_as_it_is_with_one_warning() {
    // The settings that the file shipped with Kafka 4 makes.
    let text = "\
process.roles=broker,controller
node.id=4
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=3
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=24
log.segment.bytes=1073741824
log.retention.check.interval.ms=5000
zookeeper.connect=localhost:2181
listener.name.plaintext.ssl.keystore.location=/x
";
    let resolved = resolve(file(text)).unwrap();
    let config = &resolved.config;
    assert_eq!(config.node_id, BrokerId(4));
    assert_eq!((config.listeners.len(), &*config.listeners[0].host), (1, ""));
    assert_eq!(&*config.advertised[0].host, "localhost");
    assert_eq!(config.topics.num_partitions, 3);
    assert_eq!(config.engine.retention_check_ms, 5000);
    assert_eq!(config.log.text("retention.ms").as_deref(), Some("86400000"));
    let about_names: Vec<_> =
        resolved.warnings.iter().filter(|warning| warning.contains("ignored")).collect();
    assert_eq!(about_names.len(), 1, "{:?}", resolved.warnings);
    for name in
        ["num.io.threads", "num.network.threads", "zookeeper.connect", "listener.name.plaintext"]
    {
        assert!(about_names[0].contains(name), "{name}: {about_names:?}");
    }
    assert!(!about_names[0].contains("log.dirs"));
    assert_eq!(resolved.warnings.len(), 2, "that, and the controller's listener");
}

#[test]
fn what_nobody_knows_is_named_with_its_line_and_a_guess() {
    let text = "# a\nnum.partition=3\n\nlog.retention.hour=1\nfrobnicate=1\nnum.io.thread=8";
    assert_eq!(
        complaints(file(text)),
        "server.properties:2: unknown setting num.partition; did you mean num.partitions?\n\
         server.properties:4: unknown setting log.retention.hour; did you mean \
         log.retention.hours?\n\
         server.properties:5: unknown setting frobnicate\n\
         server.properties:6: unknown setting num.io.thread; did you mean num.io.threads?"
    );
}

#[test]
fn bad_values_are_named_with_their_place_all_at_once() {
    let text = "num.partitions=many\nauto.create.topics.enable=yes\nsocket.request.max.bytes=1\n\
                log.dirs=/a,/b\nshards=0\nlisteners=nowhere\nlog.retention.hours=week\n";
    let inputs = Inputs {
        flags: vec![("--node-id", "node.id", "-3".into())],
        ..with_variables(text, &[("RINGBOLT_FETCH_MAX_BYTES", "")])
    };
    let complaints = complaints(inputs);
    for expected in [
        "server.properties:1: num.partitions cannot be `many`: `many` is not a whole number",
        "server.properties:2: auto.create.topics.enable cannot be `yes`: `yes` is neither",
        "server.properties:3: socket.request.max.bytes cannot be `1`: 1 is out of range; 1024 to",
        "server.properties:4: log.dirs cannot be `/a,/b`: 2 directories are named",
        "server.properties:5: shards cannot be `0`",
        "server.properties:6: listeners: `nowhere` has no port",
        "server.properties:7: Invalid value week for configuration log.retention.hours: not a",
        "--node-id: node.id cannot be `-3`",
        "RINGBOLT_FETCH_MAX_BYTES: fetch.max.bytes cannot be ``",
    ] {
        assert!(complaints.contains(expected), "{expected}\nnot in\n{complaints}");
    }
    assert_eq!(complaints.lines().count(), 9, "{complaints}");
}

#[test]
fn a_line_that_cannot_be_read_is_named() {
    assert_eq!(
        complaints(file("a=b\nc=\\u12")),
        "server.properties:2: \\u12 is not \\u and four hexadecimal digits"
    );
}

#[test]
fn within_a_layer_the_finer_unit_wins_and_a_later_layer_wins_over_all() {
    let text = "log.retention.hours=1\nlog.retention.ms=5\nlog.retention.minutes=2";
    let log = |inputs| resolve(inputs).unwrap().config.log.text("retention.ms").unwrap();
    assert_eq!(log(file(text)), "5");
    let later = with_variables(text, &[("RINGBOLT_LOG_RETENTION_HOURS", "3")]);
    assert_eq!(log(later), "10800000");
    let later = [("RINGBOLT_LOG_RETENTION_HOURS", "3"), ("RINGBOLT_LOG_RETENTION_MINUTES", "7")];
    assert_eq!(log(with_variables(text, &later)), "420000");
    assert_eq!(log(file("log.retention.hours=-1")), "-1");
    let huge = complaints(file("log.roll.hours=9223372036854775807"));
    assert!(huge.contains("server.properties:1: Invalid value"), "{huge}");
    let keep = complaints(file("log.cleanup.policy=keep"));
    assert!(keep.contains("must be one of delete | compact"), "{keep}");
}

#[test]
fn two_names_for_one_thing_must_agree() {
    for text in ["broker.id=1\nnode.id=2", "node.id=2\nbroker.id=1"] {
        let complaints = complaints(file(text));
        assert!(complaints.starts_with("server.properties:2: "), "{complaints}");
        assert!(complaints.contains("broker.id says 1"), "{complaints}");
    }
    assert_eq!(resolve(file("broker.id=3\nnode.id= 3")).unwrap().config.node_id, BrokerId(3));
    let later = with_variables("broker.id=3", &[("RINGBOLT_NODE_ID", "4")]);
    assert_eq!(resolve(later).unwrap().config.node_id, BrokerId(4));
}

#[test]
fn a_setting_twice_in_a_file_is_said_and_the_last_counts() {
    let resolved = resolve(file("num.partitions=2\nnum.partitions=3")).unwrap();
    assert_eq!(resolved.config.topics.num_partitions, 3);
    assert_eq!(resolved.warnings, ["server.properties:2: num.partitions was set on line 1, too"]);
}

#[test]
fn variables_that_are_no_settings_are_said_and_do_not_stop_the_broker() {
    let inputs = with_variables(
        "",
        &[
            ("RINGBOLT_NUM_PARTITONS", "3"),
            ("RINGBOLT_NUM_IO_THREADS", "3"),
            ("RINGBOLT_LOG", "debug"),
            ("RINGBOLT_PORT", "tcp://10.0.0.1:9092"),
            ("RINGBOLT_PORT_9092_TCP_ADDR", "10.0.0.1"),
            ("RINGBOLT_SERVICE_HOST", "10.0.0.1"),
            ("PATH", "/bin"),
            ("NUM_PARTITIONS", "9"),
        ],
    );
    let resolved = resolve(inputs).unwrap();
    assert_eq!(resolved.config, BrokerConfig::default());
    assert_eq!(resolved.warnings.len(), 2, "{:?}", resolved.warnings);
    assert!(resolved.warnings[0].contains("RINGBOLT_NUM_PARTITONS is no setting"));
    assert!(resolved.warnings[1].contains("num.io.threads"));
}

#[test]
fn every_name_has_a_variable_of_its_own_and_one_meaning() {
    let mut variables = BTreeMap::new();
    let ours = settings::SETTINGS.iter().flat_map(|row| [Some(row.name), row.alias]).flatten();
    let all = ours
        .chain(log::properties().map(|property| property.synonym.name))
        .chain(names::all_ignored());
    for name in all {
        let earlier = variables.insert(variable_name(name), name);
        assert_eq!(earlier, None, "{name}");
    }
    assert!(variables.len() > 380, "{}", variables.len());
}

#[test]
fn what_is_shown_names_its_source() {
    let inputs = with_variables("num.partitions=5", &[("RINGBOLT_SHARDS", "2")]);
    let resolved = resolve(inputs).unwrap();
    let shown = |name| resolved.shown().find(|shown| shown.name == name).unwrap();
    let line = Source::File { path: PathBuf::from("server.properties"), line: 1 };
    assert_eq!(
        (shown("num.partitions").value, shown("num.partitions").source),
        (Some("5".into()), line)
    );
    assert_eq!(shown("shards").source, Source::Variable("RINGBOLT_SHARDS".into()));
    assert_eq!(shown("broker.rack").value, None);
    let resolved = resolve(file("log.retention.hours=2")).unwrap();
    let shown = |name| resolved.shown().find(|shown| shown.name == name);
    let exact = shown("log.retention.ms").unwrap();
    assert_eq!((exact.value.as_deref(), exact.kind), (Some("7200000"), Kind::Long));
    assert!(matches!(exact.source, Source::File { line: 1, .. }));
    assert_eq!(shown("log.retention.hours").unwrap().value.as_deref(), Some("2"));
    assert_eq!(shown("log.retention.minutes"), None);
    let segment = shown("log.segment.bytes").unwrap();
    assert_eq!((segment.value.as_deref(), segment.source), (Some("1073741824"), Source::Default));
    assert_eq!(shown("fetch.max.bytes").unwrap().value.as_deref(), Some("57671680"));
}

#[test]
fn the_times_of_groups_hold_together() {
    let settings = |text: &str| text.split_whitespace().collect::<Vec<_>>().join("\n");
    for (text, expected) in [
        (
            "group.consumer.session.timeout.ms=44999",
            "server.properties:1: group.consumer.session.timeout.ms: must be greater than or equal \
             to group.consumer.min.session.timeout.ms",
        ),
        (
            "group.consumer.session.timeout.ms=60001",
            "server.properties:1: group.consumer.session.timeout.ms: must be less than or equal to \
             group.consumer.max.session.timeout.ms",
        ),
        (
            "group.consumer.min.session.timeout.ms=5000 group.consumer.session.timeout.ms=5000",
            "default: group.consumer.heartbeat.interval.ms: must be less than \
             group.consumer.session.timeout.ms",
        ),
        (
            "group.consumer.max.heartbeat.interval.ms=4999",
            "server.properties:1: group.consumer.max.heartbeat.interval.ms: must be greater than \
             or equal to group.consumer.min.heartbeat.interval.ms",
        ),
        (
            "group.consumer.min.assignment.interval.ms=1001",
            "default: group.consumer.assignment.interval.ms: must be greater than or equal to \
             group.consumer.min.assignment.interval.ms",
        ),
        (
            "group.max.session.timeout.ms=5999",
            "server.properties:1: group.max.session.timeout.ms: must be greater than or equal to \
             group.min.session.timeout.ms",
        ),
    ] {
        assert_eq!(complaints(file(&settings(text))), expected);
    }
    // At their limits.
    let text = "group.consumer.min.session.timeout.ms=5001 group.consumer.session.timeout.ms=5001 \
                group.consumer.max.heartbeat.interval.ms=5000 group.max.session.timeout.ms=6000 \
                group.consumer.min.assignment.interval.ms=1000 offsets.commit.timeout.ms=1";
    let config = resolve(file(&settings(text))).unwrap().config;
    let times = &config.groups.consumer.times;
    assert_eq!(times.usual.session, Duration::from_millis(5001));
    assert_eq!(*times, config.topics.group_times, "the controller goes by the same");
    assert_eq!(config.offsets_topic.commit_max, Duration::from_millis(1));
}

#[test]
fn protocols_assignors_and_migration_are_lists_of_what_there_is() {
    let config = |text: &str| resolve(file(text)).unwrap().config;
    assert!(
        config("group.coordinator.rebalance.protocols=classic,consumer,streams").consumer_protocol
    );
    assert!(!config("group.coordinator.rebalance.protocols=classic").consumer_protocol);
    let range = config("group.consumer.assignors=range, uniform,range").groups.consumer.assignors;
    assert_eq!(range.iter().map(|one| one.name()).collect::<Vec<_>>(), ["range", "uniform"]);
    for (text, expected) in [
        ("group.coordinator.rebalance.protocols=consumer", "disabling the `classic` protocol"),
        ("group.coordinator.rebalance.protocols=classic,none", "`none` is none of classic"),
        ("group.consumer.assignors=", "`` is neither `uniform` nor `range`"),
        ("group.consumer.assignors=uniform,org.example.Mine", "`org.example.Mine` is neither"),
        ("group.consumer.migration.policy=sideways", "`sideways` is none of `bidirectional`"),
    ] {
        let complaints = complaints(file(text));
        assert!(complaints.contains(expected), "{complaints}");
    }
}

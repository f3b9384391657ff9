"""Kafka's own tools on groups, each a JVM of its own; see scripts/clients/group_tools.

group_tools_suite.py LIB BOOTSTRAP
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import confluent_kafka as ck
import confluent_kafka.admin

LIB, BOOTSTRAP = sys.argv[1:3]
NAME = f"tools-{int(time.time())}-{os.getpid()}"
TOPIC, GROUP, MODERN = f"{NAME}-t", f"{NAME}-g", f"{NAME}-modern"
PARTITIONS, EACH = 3, 100
BEGUN = time.monotonic()


ARCHIVE = f"{tempfile.mkdtemp(prefix='ringbolt-tools.')}/classes.jsa"
atexit.register(shutil.rmtree, os.path.dirname(ARCHIVE), ignore_errors=True)


def tool(name, *arguments):
    """What it prints, on both streams: Kafka's tools put errors on either."""
    java = ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
    # Most of the time of forty JVMs is loading the same classes: the first leaves them for the others.
    java.append(f"-XX:{'SharedArchiveFile' if os.path.exists(ARCHIVE) else 'ArchiveClassesAtExit'}={ARCHIVE}")
    java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{LIB}/*", name, "--bootstrap-server", BOOTSTRAP]
    done = subprocess.run([*java, *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def groups(*arguments, group=GROUP):
    return tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", *(("--group", group) if group else ()), *arguments)


def topics(*arguments):
    return tool("org.apache.kafka.tools.TopicCommand", *arguments)


def configs(*arguments):
    return tool("kafka.admin.ConfigCommand", *arguments)


def console(*arguments):
    return tool("org.apache.kafka.tools.consumer.ConsoleConsumer", *arguments)


def check(what, right, output):
    if not right:
        raise SystemExit(f"FAIL tools: {what}; it said:\n{output[-2500:]}")
    print(f"ok   tools: {what}", flush=True)


def rows(output):
    """A table as dicts, by the words of its heading."""
    lines = [line.split() for line in output.splitlines() if line.strip()]
    heading = next((at for at, words in enumerate(lines) if words[0] == "GROUP"), None)
    if heading is None:
        return []
    return [dict(zip(lines[heading], words)) for words in lines[heading + 1 :] if words[0] in (GROUP, MODERN)]


def offsets(column, output):
    return {int(row["PARTITION"]): row[column] for row in rows(output) if row.get("TOPIC") == TOPIC}


def listed(output):
    return {words[0]: words[1:] for line in output.splitlines() if (words := line.split())}


def member(group, protocol, name):
    """A consumer that has joined and has all partitions."""
    settings = {"bootstrap.servers": BOOTSTRAP, "group.id": group, "client.id": name, "group.protocol": protocol}
    settings |= {"enable.auto.commit": False, "auto.offset.reset": "earliest", "log_level": 2}
    if protocol == "classic":
        settings |= {"partition.assignment.strategy": "range", "session.timeout.ms": 30_000}
    consumer = ck.Consumer(settings)
    consumer.subscribe([TOPIC])
    deadline = time.monotonic() + 30
    while len(consumer.assignment()) < PARTITIONS and time.monotonic() < deadline:
        consumer.poll(0.1)
    return consumer


def coordinator_partition(group):
    """Where __consumer_offsets has a group: Java's hash of the name, made positive by Math.abs (0 for the smallest), modulo
    50."""
    value = 0
    for letter in group:
        value = (value * 31 + ord(letter)) & 0xFFFFFFFF
    signed = value - (value >> 31 << 32)
    return (0 if signed == -(1 << 31) else abs(signed)) % 50


def prepare():
    groups("--list", "--state", group=None)
    output = topics("--create", "--topic", TOPIC, "--partitions", PARTITIONS)
    check("kafka-topics creates", f"Created topic {TOPIC}." in output, output)
    producer = ck.Producer({"bootstrap.servers": BOOTSTRAP, "acks": "all"})
    for n in range(PARTITIONS * EACH):
        producer.produce(TOPIC, str(n), partition=n % PARTITIONS)
    left = producer.flush(30)
    check("300 records are there", left == 0, f"{left} are not")


def console_in_a_group():
    first = console("--topic", TOPIC, "--group", GROUP, "--from-beginning", "--max-messages", 120, "--timeout-ms", 20_000)
    read = [int(line) for line in first.splitlines() if line.isdigit()]
    output = groups("--describe")
    done, lag = offsets("CURRENT-OFFSET", output), offsets("LAG", output)
    # A partition that was not read has nothing committed: "-".
    total = sum(int(value) for value in done.values() if value != "-")
    ends = sum(int(value) for value in offsets("LOG-END-OFFSET", output).values())
    check("console consumer reads 120 in a group, and that is what it commits", len(read) == 120 and total == 120, first + output)
    behind = {p: str(EACH - int(value)) for p, value in done.items() if value != "-"}
    check("kafka-consumer-groups --describe: lag", ends == 300 and behind == {p: lag[p] for p in behind}, output)
    second = console("--topic", TOPIC, "--group", GROUP, "--from-beginning", "--max-messages", 180, "--timeout-ms", 20_000)
    read += [int(line) for line in second.splitlines() if line.isdigit()]
    check("console consumer goes on where its group was", sorted(read) == list(range(300)), second)


def empty_group():
    output = groups("--describe")
    check("--describe without members: lag 0", set(offsets("LAG", output).values()) == {"0"} and "no active members" in output, output)
    output = groups("--list", group=None)
    check("--list", GROUP in listed(output), output)
    output = groups("--list", "--state", group=None)
    check("--list --state", listed(output).get(GROUP) == ["Empty"], output)
    output = groups("--list", "--type", group=None)
    check("--list --type", listed(output).get(GROUP) == ["Classic"], output)
    output = groups("--list", "--state", "stable", "--type", "consumer", group=None)
    check("--list of other states and types leaves it out", GROUP not in listed(output), output)


def live_group():
    consumer = member(GROUP, "classic", "tools-classic")
    output = groups("--describe", "--members", "--verbose")
    row = next(iter(rows(output)), {})
    right = row.get("CLIENT-ID") == "tools-classic" and row.get("#PARTITIONS") == "3" and f"{TOPIC}:0,1,2" in output
    check("--describe --members --verbose", right and row["CONSUMER-ID"].startswith("tools-classic-"), output)
    output = groups("--describe", "--state")
    row = next(iter(rows(output)), {})
    words = next((line.split() for line in output.splitlines() if line.startswith(GROUP)), [])
    check("--describe --state", {"range", "Stable", "1", BOOTSTRAP} <= set(words), output)
    output = groups("--describe")
    check("--describe names who has a partition", {r["CLIENT-ID"] for r in rows(output)} == {"tools-classic"}, output)
    output = groups("--list", "--state", "Stable", "--type", "classic", group=None)
    check("--list --state Stable --type classic", GROUP in listed(output), output)
    output = groups("--delete")
    check("--delete refuses while it has members", "GroupNotEmptyException" in output, output)
    output = groups("--reset-offsets", "--to-earliest", "--topic", TOPIC, "--execute")
    check("--reset-offsets refuses while it has members", "current state is Stable" in output, output)
    output = groups("--delete-offsets", "--topic", TOPIC)
    check("--delete-offsets refuses what is subscribed to", "GroupSubscribedToTopicException" in output or "subscribed to" in output, output)
    consumer.close()


def changed_offsets():
    output = groups("--reset-offsets", "--to-earliest", "--topic", TOPIC, "--dry-run")
    check("--reset-offsets --to-earliest --dry-run", set(offsets("NEW-OFFSET", output).values()) == {"0"}, output)
    output = groups("--describe")
    check("… which changes nothing", set(offsets("CURRENT-OFFSET", output).values()) == {"100"}, output)
    groups("--reset-offsets", "--to-earliest", "--topic", TOPIC, "--execute")
    output = groups("--describe")
    check("--reset-offsets --to-earliest --execute", set(offsets("CURRENT-OFFSET", output).values()) == {"0"}, output)
    groups("--reset-offsets", "--shift-by", 10, "--topic", TOPIC, "--execute")
    output = groups("--describe")
    check("--reset-offsets --shift-by 10", set(offsets("CURRENT-OFFSET", output).values()) == {"10"}, output)
    output = groups("--delete-offsets", "--topic", f"{TOPIC}:1")
    after = groups("--describe")
    left = {p: value for p, value in offsets("CURRENT-OFFSET", after).items() if value != "-"}
    check("--delete-offsets of one partition", left == {0: "10", 2: "10"}, output + after)


def formatted_offsets():
    place = coordinator_partition(GROUP)
    output = console(
        *["--topic", "__consumer_offsets", "--partition", place, "--offset", "earliest", "--timeout-ms", 4000],
        *["--formatter", "org.apache.kafka.tools.consumer.OffsetsMessageFormatter"],
    )
    # The formatter puts one object right behind the other, without a line feed.
    last, at, decoder = {}, output.find("{"), json.JSONDecoder()
    while 0 <= at < len(output) and output[at] == "{":
        told, at = decoder.raw_decode(output, at)
        key = told["key"]["data"]
        if key.get("group") == GROUP:
            last[key["partition"]] = told["value"] and told["value"]["data"]["offset"]
    check("the formatter reads __consumer_offsets: what is committed, and a tombstone", last == {0: 10, 1: None, 2: 10}, f"{last}\n{output}")


def modern_group():
    consumer = member(MODERN, "consumer", "tools-modern")
    # What is read is committed, so that there is a lag to tell.
    consumer.commit(offsets=[ck.TopicPartition(TOPIC, 0, 40)], asynchronous=False)
    output = groups("--list", "--type", group=None)
    check("--list --type: the consumer protocol", listed(output).get(MODERN) == ["Consumer"], output)
    output = groups("--describe", "--members", "--verbose", group=MODERN)
    row = next(iter(rows(output)), {})
    right = row.get("CLIENT-ID") == "tools-modern" and row.get("#PARTITIONS") == "3" and "CURRENT-EPOCH" in output
    check("--describe --members --verbose: epochs", right and f"{TOPIC}:0,1,2" in output, output)
    output = groups("--describe", "--state", "--verbose", group=MODERN)
    words = next((line.split() for line in output.splitlines() if line.startswith(MODERN)), [])
    check("--describe --state --verbose: epochs, assignor", {"uniform", "Stable", BOOTSTRAP} <= set(words) and "GROUP-EPOCH" in output, output)
    output = groups("--describe", group=MODERN)
    check("--describe: lag", offsets("LAG", output).get(0) == "60", output)
    consumer.close()
    output = groups("--delete", group=MODERN)
    check("--delete", "was successful" in output, output)


MEMBER = """
import sys, confluent_kafka as ck
bootstrap, group, topic = sys.argv[1:]
consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": group, "group.protocol": "consumer", "log_level": 2})
consumer.subscribe([topic], on_assign=lambda _, given: print(len(given), flush=True) if given else None)
while True:
    consumer.poll(0.2)
"""


def group_configs():
    entity = ["--entity-type", "groups", "--entity-name", MODERN]
    output = configs("--alter", *entity, "--add-config", "consumer.session.timeout.ms=50000")
    check("kafka-configs --alter --entity-type groups", f"Completed updating config for group {MODERN}." in output, output)
    output = configs("--describe", *entity)
    right = "consumer.session.timeout.ms=50000" in output and "GROUP_CONFIG:consumer.session.timeout.ms=50000" in output
    check("… --describe", right and "consumer.heartbeat.interval.ms" not in output, output)
    output = configs("--describe", *entity, "--all")
    check("… --describe --all", "consumer.heartbeat.interval.ms=" in output and "consumer.session.timeout.ms=50000" in output, output)
    output = configs("--describe", "--entity-type", "groups")
    check("… --describe of all groups", MODERN in output and "consumer.session.timeout.ms=50000" in output, output)
    for setting, why in [
        ("consumer.session.timeout.ms=70000", "must be less than or equal to group.consumer.max.session.timeout.ms"),
        ("consumer.no.such.thing=1", "Unknown group config name: consumer.no.such.thing"),
    ]:
        output = configs("--alter", *entity, "--add-config", setting)
        check(f"… refuses {setting}", why in output, output)

    # A member that is killed is gone after its group's own session, and not after the broker's.
    configs("--alter", *entity, "--add-config", "consumer.session.timeout.ms=12000,consumer.heartbeat.interval.ms=2000")
    process = subprocess.Popen([sys.executable, "-c", MEMBER, BOOTSTRAP, MODERN, TOPIC], stdout=subprocess.PIPE, text=True)
    given = process.stdout.readline()
    process.kill()
    killed, admin = time.monotonic(), ck.admin.AdminClient({"bootstrap.servers": BOOTSTRAP})
    described = lambda: admin.describe_consumer_groups([MODERN])[MODERN].result(10)
    while described().members and time.monotonic() < killed + 30:
        time.sleep(0.2)
    took = time.monotonic() - killed
    check("a killed member is gone after its group's session", given.strip() == "3" and 9.5 < took < 14, f"{given!r}, {took:.1f} s")
    configs("--alter", *entity, "--delete-config", "consumer.session.timeout.ms,consumer.heartbeat.interval.ms")
    output = configs("--describe", *entity)
    check("kafka-configs --alter --entity-type groups --delete-config", "consumer." not in output, output)
    groups("--delete", group=MODERN)


def topics_and_configs():
    output = topics("--describe", "--topic", "__consumer_offsets")
    check("kafka-topics describes __consumer_offsets", "PartitionCount: 50" in output and "cleanup.policy=compact" in output, output)
    output = topics("--list", "--exclude-internal")
    names = output.split()
    check("kafka-topics --list --exclude-internal", TOPIC in names and "__consumer_offsets" not in names, output)
    check("kafka-topics --list", "__consumer_offsets" in topics("--list").split(), output)
    entity = ["--entity-type", "topics", "--entity-name"]
    output = configs("--describe", *entity, "__consumer_offsets")
    check("kafka-configs describes __consumer_offsets", "cleanup.policy=compact" in output and "compression.type=producer" in output, output)
    configs("--alter", *entity, TOPIC, "--add-config", "cleanup.policy=[compact,delete],min.compaction.lag.ms=1000,delete.retention.ms=2000")
    output = configs("--describe", *entity, TOPIC)
    right = all(text in output for text in ("cleanup.policy=compact,delete", "min.compaction.lag.ms=1000", "delete.retention.ms=2000"))
    check("kafka-configs --alter --add-config", right, output)
    configs("--alter", *entity, TOPIC, "--delete-config", "cleanup.policy,min.compaction.lag.ms,delete.retention.ms")
    output = configs("--describe", *entity, TOPIC)
    check("kafka-configs --alter --delete-config", "compact" not in output, output)


def removal():
    output = groups("--delete")
    check("--delete of an empty group", "was successful" in output, output)
    output = groups("--list", group=None)
    check("… which is gone", GROUP not in listed(output), output)
    output = groups("--describe")
    check("--describe of a group that is not there", "not found" in output or "does not exist" in output, output)
    output = topics("--delete", "--topic", TOPIC) + topics("--list")
    check("kafka-topics --delete", TOPIC not in output.split(), output)


steps = [prepare, console_in_a_group, empty_group, live_group, changed_offsets, formatted_offsets, modern_group, group_configs, topics_and_configs, removal]
if "--classic" in sys.argv:
    steps.remove(modern_group)
    steps.remove(group_configs)
for step in steps:
    step()
print(f"     tools: {time.monotonic() - BEGUN:.1f} s")

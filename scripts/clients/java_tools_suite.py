"""Kafka's own command-line tools (kafka-topics, -console-producer, -get-offsets, -console-consumer,
-producer-perf-test), each a JVM of its own, as a person runs them.

    java_tools_suite.py LIB BOOTSTRAP TOPIC BASE OUT

The console consumer reads one partition at a time, because without --partition it joins a group. The consumer perf
test always joins one and the end-to-end latency tool commits to one: both have to wait for groups.
"""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import record as rule

LIB, BOOTSTRAP, TOPIC, OUT = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[5]
RUNS = rule.read_plan(OUT)
TOTAL = rule.total(RUNS)
NULL = "NULL"


def tool(name, *arguments, stdin=None):
    java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{LIB}/*"]
    command = [*java, f"org.apache.kafka.tools.{name}", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=90)
    log = done.stderr.decode()
    # The console producer exits with 0 although records were lost; only its log says so.
    if done.returncode or " ERROR " in log:
        raise SystemExit(f"FAIL java-tools: {name} {' '.join(map(str, arguments))}: {log[-800:]} {done.stdout[-300:]}")
    return done.stdout.decode()


def properties(option, **values):
    return [word for name, value in values.items() for word in (option, f"{name.replace('_', '.')}={value}")]


def produce(run):
    lines = []
    for i in range(run.count):
        key, value, headers = rule.record("java-tools", run.name, i)
        names = ",".join(f"{name}:{v.decode()}" for name, v in headers)
        lines.append("\t".join([names or NULL, *(NULL if part is None else part.decode() for part in (key, value))]))
    tool(
        "ConsoleProducer",
        *["--bootstrap-server", BOOTSTRAP, "--topic", TOPIC, "--compression-codec", run.codec],
        *properties("--command-property", acks=run.acks, enable_idempotence=str(run.idempotent).lower()),
        *properties("--reader-property", parse_key="true", parse_headers="true", null_marker=NULL),
        stdin="\n".join(lines).encode() + b"\n",
    )
    print(f"ok   java-tools: console producer wrote {run.count} with {run.codec}, acks={run.acks}{', idempotent' * run.idempotent}")


def offsets(when):
    lines = tool("GetOffsetShell", "--bootstrap-server", BOOTSTRAP, "--topic", TOPIC, "--time", when).split()
    return {int(p): int(offset) for _, p, offset in (line.rsplit(":", 2) for line in lines)}


def consume(partition, offset, count):
    """The lines of one partition, as record.dump writes them."""
    output = tool(
        "consumer.ConsoleConsumer",
        *["--bootstrap-server", BOOTSTRAP, "--topic", TOPIC, "--partition", partition, "--offset", offset],
        *["--max-messages", count, "--timeout-ms", 20_000],
        *properties(
            "--formatter-property",
            print_timestamp="true",
            print_partition="true",
            print_offset="true",
            print_headers="true",
            print_key="true",
            null_literal=NULL,
        ),
    )
    dumped = []
    for line in output.splitlines():
        stamp, p, at, names, key, value = line.split("\t")
        headers = [] if names == "NO_HEADERS" else [part.split(":") for part in names.split(",")]
        key, value = (None if part == NULL else part.encode() for part in (key, value))
        named = [(name, v.encode()) for name, v in headers]
        dumped.append(rule.dump(int(p.split(":")[1]), int(at.split(":")[1]), int(stamp.split(":")[1]), key, value, named))
    return dumped


def consume_all(name, starts):
    with ThreadPoolExecutor(2) as two, open(f"{OUT}/{name}.tsv", "w") as out:
        reads = [two.submit(consume, p, start, ends[p] - (0 if start == "earliest" else start)) for p, start in starts.items()]
        seen = 0
        for read in reads:
            seen += len(read.result())
            out.writelines(read.result())
    print(f"ok   java-tools: console consumer read {seen} records from {name}")


tool("TopicCommand", "--bootstrap-server", BOOTSTRAP, "--create", "--topic", TOPIC, "--partitions", rule.PARTITIONS)
described = tool("TopicCommand", "--bootstrap-server", BOOTSTRAP, "--describe", "--topic", TOPIC)
if f"PartitionCount: {rule.PARTITIONS}" not in described:
    raise SystemExit(f"FAIL java-tools: kafka-topics --describe: {described}")
print(f"ok   java-tools: kafka-topics created and described {TOPIC}")

for run in RUNS:
    if run.name == "zstd":
        when = int(time.time() * 1000)
    produce(run)

deadline = time.monotonic() + 20
ends = {}
while sum(ends.values()) < TOTAL and time.monotonic() < deadline:
    ends = offsets("latest")
# A JVM for each partition and read adds up: two partitions for each tail are enough.
middle = {p: ends[p] * 3 // 4 for p in (0, 1)}
later = {p: offset for p, offset in offsets(when).items() if p in (2, 3)}
with open(f"{OUT}/starts.tsv", "w") as starts:
    starts.write(f"time\t0\t{when}\n")
    for kind, found in (("end", ends), ("offset", middle), ("timestamp", later)):
        for p, offset in found.items():
            starts.write(f"{kind}\t{p}\t{offset}\n")
consume_all("earliest", {p: "earliest" for p in ends})
consume_all("offset", middle)
consume_all("timestamp", later)

# The perf test writes to a topic of its own: what it writes is nobody's record.
perf = f"{TOPIC}-perf"
tool("TopicCommand", "--bootstrap-server", BOOTSTRAP, "--create", "--topic", perf, "--partitions", 1)
output = tool(
    "ProducerPerformance",
    *["--bootstrap-server", BOOTSTRAP, "--topic", perf, "--num-records", TOTAL, "--record-size", 100, "--throughput", -1],
    *["--command-property", "acks=all", "compression.type=lz4"],
)
if not re.search(rf"^{TOTAL} records sent", output, re.MULTILINE):
    raise SystemExit(f"FAIL java-tools: producer perf test: {output}")
print(f"ok   java-tools: producer perf test: {output.strip().splitlines()[-1]}")

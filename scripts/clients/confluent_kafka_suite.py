"""confluent-kafka (librdkafka): creates, produces and reads back; also reads for clients that can only write here.

    confluent_kafka_suite.py CLIENT BOOTSTRAP TOPIC BASE OUT

With CLIENT other than confluent-kafka it only reads.
"""

import sys
import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

import record as rule

CLIENT, BOOTSTRAP, TOPIC, BASE, OUT = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
RUNS = rule.read_plan(OUT)
TOTAL = rule.total(RUNS)
DEADLINE = 60


def create():
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    admin.create_topics([NewTopic(TOPIC, num_partitions=rule.PARTITIONS, replication_factor=1)])[TOPIC].result(30)
    while len(admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions) != rule.PARTITIONS:
        time.sleep(0.1)
    print(f"ok   {CLIENT}: created {TOPIC}")


def produce(run, reports):
    """Returns once every record has its report; a failed one raises."""
    errors = []

    def delivered(n):
        def on_delivery(error, message):
            if error is not None:
                errors.append(f"n={n}: {error}")
            elif run.acks != "0":
                reports.write(f"{n}\t{message.partition()}\t{message.offset()}\n")

        return on_delivery

    producer = ck.Producer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "acks": run.acks,
            "enable.idempotence": run.idempotent,
            "compression.type": run.codec,
            "linger.ms": 5,
        }
    )
    for i in range(run.count):
        n = run.first + i
        key, value, headers = rule.record(CLIENT, run.name, i)
        while True:
            try:
                producer.produce(TOPIC, value, key, headers=headers, timestamp=BASE + n, on_delivery=delivered(n))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(DEADLINE)
    if left or errors:
        raise SystemExit(f"FAIL {CLIENT}: produce {run.name}: {left} without a report; {len(errors)} errors; {errors[:3]}")
    print(f"ok   {CLIENT}: produced {run.count} with {run.codec}, acks={run.acks}{', idempotent' * run.idempotent}")


def consume(consumer, name, offsets, count, ends=None):
    """Reads from offsets until the ends, or until count records where the ends are not known yet."""
    consumer.assign([ck.TopicPartition(TOPIC, p, o) for p, o in offsets.items()])
    seen, deadline = 0, time.monotonic() + DEADLINE
    found = {p: 0 for p in offsets}
    with open(f"{OUT}/{name}.tsv", "w") as out:
        while seen < count and time.monotonic() < deadline:
            for m in consumer.consume(5000, timeout=0.5):
                if m.error():
                    raise SystemExit(f"FAIL {CLIENT}: read {name}: {m.error()}")
                out.write(rule.dump(m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers()))
                found[m.partition()] = m.offset() + 1
                seen += 1
        # Whatever follows the last expected record is one too many: give it a moment to show.
        for m in consumer.consume(1000, timeout=0.5):
            out.write(rule.dump(m.partition(), m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers()))
    print(f"ok   {CLIENT}: read {seen} records from {name}" if seen == count else f"FAIL {CLIENT}: read {seen} of {count} from {name}")
    return found


if CLIENT == "confluent-kafka":
    create()
    with open(f"{OUT}/reports.tsv", "w") as reports:
        for run in RUNS:
            produce(run, reports)

consumer = ck.Consumer(
    {
        "bootstrap.servers": BOOTSTRAP,
        "group.id": "unused-by-assignment",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
    }
)
ends = consume(consumer, "earliest", {p: ck.OFFSET_BEGINNING for p in range(rule.PARTITIONS)}, TOTAL)
with open(f"{OUT}/starts.tsv", "w") as starts:
    for p in ends:
        starts.write(f"end\t{p}\t{consumer.get_watermark_offsets(ck.TopicPartition(TOPIC, p), timeout=10)[1]}\n")
    middle = {p: end * 3 // 4 for p, end in ends.items()}
    when = BASE + TOTAL * 5 // 6
    found = consumer.offsets_for_times([ck.TopicPartition(TOPIC, p, when) for p in ends], timeout=10)
    later = {t.partition: t.offset for t in found}
    starts.write(f"time\t0\t{when}\n")
    for kind, offsets in (("offset", middle), ("timestamp", later)):
        for p, offset in offsets.items():
            starts.write(f"{kind}\t{p}\t{offset}\n")
for kind, offsets in (("offset", middle), ("timestamp", later)):
    consume(consumer, kind, offsets, sum(ends[p] - offset for p, offset in offsets.items()))
consumer.close()

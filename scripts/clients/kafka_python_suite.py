"""kafka-python: creates, produces and reads back by assignment, all in Python.

    kafka_python_suite.py BOOTSTRAP TOPIC BASE OUT
"""

import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

import record as rule

BOOTSTRAP, TOPIC, BASE, OUT = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
RUNS = rule.read_plan(OUT)
TOTAL = rule.total(RUNS)
DEADLINE = 60


def produce(run, reports):
    producer = KafkaProducer(
        bootstrap_servers=BOOTSTRAP,
        acks={"all": "all", "1": 1, "0": 0}[run.acks],
        enable_idempotence=run.idempotent,
        compression_type=None if run.codec == "none" else run.codec,
        linger_ms=20,
        batch_size=64 * 1024,
    )
    sent = []
    for i in range(run.count):
        key, value, headers = rule.record("kafka-python", run.name, i)
        sent.append(producer.send(TOPIC, value, key, headers, timestamp_ms=BASE + run.first + i))
    producer.flush(DEADLINE)
    for i, future in enumerate(sent):
        metadata = future.get(timeout=DEADLINE)
        if run.acks != "0":
            reports.write(f"{run.first + i}\t{metadata.partition}\t{metadata.offset}\n")
    producer.close()
    print(f"ok   kafka-python: produced {run.count} with {run.codec}, acks={run.acks}{', idempotent' * run.idempotent}")


def consume(consumer, name, count):
    """Reads from where the consumer stands until count records are in."""
    seen, deadline = 0, time.monotonic() + DEADLINE
    ends = {}
    with open(f"{OUT}/{name}.tsv", "w") as out:
        while time.monotonic() < deadline:
            # One more poll after the last: whatever comes then is one too many, and shows.
            batch = consumer.poll(timeout_ms=500)
            if seen >= count and not batch:
                break
            for records in batch.values():
                for m in records:
                    out.write(rule.dump(m.partition, m.offset, m.timestamp, m.key, m.value, m.headers))
                    ends[m.partition] = m.offset + 1
                    seen += 1
    print(f"ok   kafka-python: read {seen} records from {name}" if seen == count else f"FAIL kafka-python: read {seen} of {count} from {name}")
    return ends


admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
admin.create_topics([NewTopic(TOPIC, rule.PARTITIONS, 1)])
while len(admin.describe_topics([TOPIC])[0]["partitions"]) != rule.PARTITIONS:
    time.sleep(0.1)
admin.close()
print(f"ok   kafka-python: created {TOPIC}")

with open(f"{OUT}/reports.tsv", "w") as reports:
    for run in RUNS:
        produce(run, reports)

consumer = KafkaConsumer(
    bootstrap_servers=BOOTSTRAP,
    group_id=None,
    enable_auto_commit=False,
    auto_offset_reset="none",
    max_poll_records=5000,
)
partitions = [TopicPartition(TOPIC, p) for p in range(rule.PARTITIONS)]
consumer.assign(partitions)
consumer.seek_to_beginning(*partitions)
ends = consume(consumer, "earliest", TOTAL)
known = {t.partition: offset for t, offset in consumer.end_offsets(partitions).items()}
middle = {p: end * 3 // 4 for p, end in ends.items()}
when = BASE + TOTAL * 5 // 6
later = {t.partition: found.offset for t, found in consumer.offsets_for_times({t: when for t in partitions}).items()}
with open(f"{OUT}/starts.tsv", "w") as starts:
    starts.write(f"time\t0\t{when}\n")
    for kind, offsets in (("end", known), ("offset", middle), ("timestamp", later)):
        for p, offset in offsets.items():
            starts.write(f"{kind}\t{p}\t{offset}\n")
for kind, offsets in (("offset", middle), ("timestamp", later)):
    for p, offset in offsets.items():
        consumer.seek(TopicPartition(TOPIC, p), offset)
    consume(consumer, kind, sum(ends[p] - offset for p, offset in offsets.items()))
consumer.close()

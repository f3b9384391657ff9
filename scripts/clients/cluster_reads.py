"""Reads a topic from its beginning until all that was acknowledged before an instant has come.

    cluster_reads.py BOOTSTRAP TOPIC HISTORY NANOSECONDS SECONDS

HISTORY is being written by the topic's producer. Only Fetch is needed: where the last one in sync waits for others it does not
say where its log ends (KIP-966, KIP-207), and it still serves what is committed. Exits with 1 when not all came in SECONDS.
"""

import json
import sys
import time

import confluent_kafka as ck

bootstrap, topic, history, before, seconds = sys.argv[1:]
awaited, partitions = set(), set()
with open(history, encoding="utf-8") as lines:
    for line in lines:
        if '"ack"' not in line or not line.endswith("\n"):
            continue
        ack = json.loads(line)
        partitions.add(ack["partition"])
        if ack["time_ns"] < int(before):
            awaited.add(ack["value"])
total = len(awaited)
consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "unused-by-assignment", "enable.auto.commit": False, "log_level": 0})
consumer.assign([ck.TopicPartition(topic, p, 0) for p in partitions])
deadline = time.monotonic() + float(seconds)
while awaited and time.monotonic() < deadline:
    awaited -= {m.value().decode() for m in consumer.consume(1000, timeout=0.2) if not m.error()}
consumer.close()
print(f"{total - len(awaited)} of {total} acknowledged records")
sys.exit(1 if awaited or not total else 0)

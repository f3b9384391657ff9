"""aiokafka: creates, produces and reads back by assignment; speaks no flexible version at all.

    aiokafka_suite.py BOOTSTRAP TOPIC BASE OUT
"""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import record as rule

BOOTSTRAP, TOPIC, BASE, OUT = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
RUNS = rule.read_plan(OUT)
TOTAL = rule.total(RUNS)
DEADLINE = 60


async def create():
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    reply = await admin.create_topics([NewTopic(TOPIC, rule.PARTITIONS, 1)])
    assert all(error[1] == 0 for error in reply.topic_errors), reply
    while len((await admin.describe_topics([TOPIC]))[0]["partitions"]) != rule.PARTITIONS:
        await asyncio.sleep(0.1)
    await admin.close()
    print(f"ok   aiokafka: created {TOPIC}")


async def produce(run, reports):
    producer = AIOKafkaProducer(
        bootstrap_servers=BOOTSTRAP,
        acks={"all": "all", "1": 1, "0": 0}[run.acks],
        enable_idempotence=run.idempotent,
        compression_type=None if run.codec == "none" else run.codec,
        linger_ms=20,
        max_batch_size=64 * 1024,
    )
    await producer.start()
    sent = []
    for i in range(run.count):
        key, value, headers = rule.record("aiokafka", run.name, i)
        sent.append(await producer.send(TOPIC, value, key, headers=headers, timestamp_ms=BASE + run.first + i))
    await asyncio.wait_for(producer.flush(), DEADLINE)
    for i, future in enumerate(sent):
        metadata = await future
        if run.acks != "0":
            reports.write(f"{run.first + i}\t{metadata.partition}\t{metadata.offset}\n")
    await producer.stop()
    print(f"ok   aiokafka: produced {run.count} with {run.codec}, acks={run.acks}{', idempotent' * run.idempotent}")


async def consume(consumer, name, count):
    """Reads from where the consumer stands until count records are in."""
    seen, deadline = 0, time.monotonic() + DEADLINE
    ends = {}
    with open(f"{OUT}/{name}.tsv", "w") as out:
        while time.monotonic() < deadline:
            # One more poll after the last: whatever comes then is one too many, and shows.
            batch = await consumer.getmany(timeout_ms=500)
            if seen >= count and not batch:
                break
            for records in batch.values():
                for m in records:
                    out.write(rule.dump(m.partition, m.offset, m.timestamp, m.key, m.value, m.headers))
                    ends[m.partition] = m.offset + 1
                    seen += 1
    print(f"ok   aiokafka: read {seen} records from {name}" if seen == count else f"FAIL aiokafka: read {seen} of {count} from {name}")
    return ends


async def main():
    await create()
    with open(f"{OUT}/reports.tsv", "w") as reports:
        for run in RUNS:
            await produce(run, reports)

    consumer = AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        check_crcs=True,
    )
    partitions = [TopicPartition(TOPIC, p) for p in range(rule.PARTITIONS)]
    consumer.assign(partitions)
    await consumer.start()
    await consumer.seek_to_beginning(*partitions)
    ends = await consume(consumer, "earliest", TOTAL)
    known = {t.partition: offset for t, offset in (await consumer.end_offsets(partitions)).items()}
    middle = {p: end * 3 // 4 for p, end in ends.items()}
    when = BASE + TOTAL * 5 // 6
    found = await consumer.offsets_for_times({t: when for t in partitions})
    later = {t.partition: at.offset for t, at in found.items()}
    with open(f"{OUT}/starts.tsv", "w") as starts:
        starts.write(f"time\t0\t{when}\n")
        for kind, offsets in (("end", known), ("offset", middle), ("timestamp", later)):
            for p, offset in offsets.items():
                starts.write(f"{kind}\t{p}\t{offset}\n")
    for kind, offsets in (("offset", middle), ("timestamp", later)):
        for p, offset in offsets.items():
            consumer.seek(TopicPartition(TOPIC, p), offset)
        await consume(consumer, kind, sum(ends[p] - offset for p, offset in offsets.items()))
    await consumer.stop()


asyncio.run(main())

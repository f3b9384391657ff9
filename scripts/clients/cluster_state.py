"""Waits until a cluster is whole (every partition is led by the first of its replicas, and all are in sync), and tells who leads
what.

    cluster_state.py BOOTSTRAP SECONDS

Prints a line "LEADER TOPIC/PARTITION" for each partition. Exits with 1 when the cluster is not whole after SECONDS; then the
partitions that are not are told on stderr.
"""

import sys
import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

admin = AdminClient({"bootstrap.servers": sys.argv[1], "log_level": 0, "reconnect.backoff.max.ms": 500})
deadline = time.monotonic() + float(sys.argv[2])
partitions, ailing = [], ["no broker answers"]
while True:
    try:
        topics = admin.list_topics(timeout=2).topics.values()
        partitions = [(p, f"{topic.topic}/{p.id}") for topic in topics for p in topic.partitions.values()]
        ailing = [
            f"{name}: leader {p.leader}, replicas {p.replicas}, in sync {p.isrs}"
            for p, name in partitions
            if p.leader != p.replicas[0] or len(p.isrs) < len(p.replicas)
        ]
    except ck.KafkaException as error:
        ailing = [str(error)]
    if not ailing or time.monotonic() > deadline:
        break
    time.sleep(0.1)
print("\n".join(f"{p.leader} {name}" for p, name in partitions))
if ailing:
    print("\n".join(ailing), file=sys.stderr)
    sys.exit(1)

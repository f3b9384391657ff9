"""A member of a group: kafka-python; see group_member.py."""

import time

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

import group_member as rule

ASSIGNORS = {
    "range": RangePartitionAssignor,
    "roundrobin": RoundRobinPartitionAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}

notes = rule.Notes()
pending = {}


def commit(partitions=None):
    offsets = {p: o for p, o in pending.items() if partitions is None or p in partitions}
    if not offsets:
        return
    try:
        consumer.commit({TopicPartition(notes.topic, p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items()})
    except KafkaError as error:
        notes.complain("commit", error)
        return
    notes.committed(offsets)
    for p in offsets:
        del pending[p]


class Listener(ConsumerRebalanceListener):
    def generation(self):
        return consumer._coordinator._generation.generation_id  # the client tells it to nobody

    def on_partitions_assigned(self, assigned):
        notes.moved("assigned", [t.partition for t in assigned], self.generation())

    def on_partitions_revoked(self, revoked):
        self.leave("revoked", revoked)

    def on_partitions_lost(self, lost):
        self.leave("lost", lost)

    def leave(self, kind, partitions):
        gone = {t.partition for t in partitions}
        if kind == "revoked":
            commit(gone)
        for p in gone:
            pending.pop(p, None)
        notes.moved(kind, gone)


consumer = KafkaConsumer(
    bootstrap_servers=notes.bootstrap,
    group_id=notes.group,
    client_id=notes.name,
    group_instance_id=notes.instance,
    enable_auto_commit=False,
    auto_offset_reset="earliest",
    session_timeout_ms=rule.SESSION_MS,
    heartbeat_interval_ms=rule.HEARTBEAT_MS,
    partition_assignment_strategy=[ASSIGNORS[notes.assignor or "range"]],
)
# kafka-python 3.0.12 forgets a rebalance whose join was answered when a poll ends before its sync is: it stays without
# heartbeats for ever. So it knows the topic before it joins (else it joins twice at once), and polls are long.
consumer.partitions_for_topic(notes.topic)
consumer.subscribe([notes.topic], listener=Listener())
while not notes.stopping.is_set():
    notes.calls += 1
    batch = consumer.poll(timeout_ms=1000, max_records=rule.BATCH)
    for records in batch.values():
        for m in records:
            notes.polled(m.partition, m.offset, m.key, m.value)
            pending[m.partition] = m.offset + 1
    if batch:
        time.sleep(rule.WORK_SECONDS)
    commit()
commit()
notes.closing()
consumer.close()

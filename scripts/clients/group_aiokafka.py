"""A member of a group: aiokafka; see group_member.py."""

import asyncio

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

import group_member as rule

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}

notes = rule.Notes()
pending = {}
mine = set()


async def commit(consumer, partitions=None):
    offsets = {p: o for p, o in pending.items() if partitions is None or p in partitions}
    if not offsets:
        return
    try:
        await consumer.commit({TopicPartition(notes.topic, p): o for p, o in offsets.items()})
    except KafkaError as error:
        notes.complain("commit", error)
        return
    notes.committed(offsets)
    for p in offsets:
        pending.pop(p, None)


class Listener(ConsumerRebalanceListener):
    """working: held from what a poll gave to its commit, because here a rebalance may come in between. (Not while polling:
    that waits for the rebalance, which would wait for it.)"""

    def __init__(self, consumer, working):
        self.consumer, self.working = consumer, working

    async def on_partitions_assigned(self, assigned):
        generation = self.consumer._coordinator.generation  # the client tells it to nobody
        mine.update(t.partition for t in assigned)
        notes.moved("assigned", [t.partition for t in assigned], generation)

    async def on_partitions_revoked(self, revoked):
        async with self.working:
            gone = {t.partition for t in revoked}
            await commit(self.consumer, gone)
            for p in gone:
                pending.pop(p, None)
            mine.difference_update(gone)
            notes.moved("revoked", gone)


async def main():
    consumer = AIOKafkaConsumer(
        bootstrap_servers=notes.bootstrap,
        group_id=notes.group,
        client_id=notes.name,
        group_instance_id=notes.instance,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=rule.SESSION_MS,
        heartbeat_interval_ms=rule.HEARTBEAT_MS,
        partition_assignment_strategy=[ASSIGNORS[notes.assignor or "roundrobin"]],
    )
    working = asyncio.Lock()
    consumer.subscribe([notes.topic], listener=Listener(consumer, working))
    await consumer.start()
    while not notes.stopping.is_set():
        notes.calls += 1
        batch = await consumer.getmany(timeout_ms=100, max_records=rule.BATCH)
        async with working:
            for partition, records in batch.items():
                for m in records if partition.partition in mine else []:
                    notes.polled(m.partition, m.offset, m.key, m.value)
                    pending[m.partition] = m.offset + 1
            if batch:
                await asyncio.sleep(rule.WORK_SECONDS)
            await commit(consumer)
        await asyncio.sleep(0)
    async with working:
        await commit(consumer)
        notes.closing()
    await consumer.stop()


asyncio.run(main())

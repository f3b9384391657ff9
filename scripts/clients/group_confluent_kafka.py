"""A member of a group: confluent-kafka (librdkafka); see group_member.py."""

import time

import confluent_kafka as ck

import group_member as rule

notes = rule.Notes()
pending = {}  # partition → what to commit: processed, and not committed yet


def commit(partitions=None):
    """Commits what is pending of these partitions, or all; what is refused stays pending."""
    offsets = {p: o for p, o in pending.items() if partitions is None or p in partitions}
    if not offsets:
        return
    asked = [ck.TopicPartition(notes.topic, p, o) for p, o in offsets.items()]
    try:
        answers = consumer.commit(offsets=asked, asynchronous=False)
    except ck.KafkaException as error:
        # A rebalance, or a coordinator that is gone: the next commit, or the next owner, makes up for it.
        notes.complain("commit", error.args[0])
        return
    done = {t.partition: t.offset for t in answers if t.error is None}
    notes.committed(done)
    for p, o in done.items():
        if pending.get(p) == o:
            del pending[p]


def on_assign(_, partitions):
    notes.moved("assigned", [t.partition for t in partitions])


def leave(kind, partitions):
    gone = {t.partition for t in partitions}
    if kind == "revoked":
        commit(gone)
    for p in gone:
        pending.pop(p, None)
    notes.moved(kind, gone)


settings = {
    "bootstrap.servers": notes.bootstrap,
    "group.id": notes.group,
    "client.id": notes.name,
    "group.protocol": notes.protocol,
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "reconnect.backoff.max.ms": 500,
    "log_level": 2,
}
if notes.protocol == "classic":
    settings |= {"session.timeout.ms": rule.SESSION_MS, "heartbeat.interval.ms": rule.HEARTBEAT_MS}
    if notes.assignor:
        settings["partition.assignment.strategy"] = notes.assignor
elif notes.assignor:
    settings["group.remote.assignor"] = notes.assignor
if notes.instance:
    settings["group.instance.id"] = notes.instance

consumer = ck.Consumer(settings)
consumer.subscribe(
    [notes.topic],
    on_assign=on_assign,
    on_revoke=lambda _, partitions: leave("revoked", partitions),
    on_lost=lambda _, partitions: leave("lost", partitions),
)
while not notes.stopping.is_set():
    notes.calls += 1
    # One record at a time: a rebalance may come between any two, and each is of the owner at that moment.
    message = consumer.poll(0.1)
    count = 0
    while message is not None:
        if message.error():
            notes.complain("poll", message.error())
        else:
            notes.polled(message.partition(), message.offset(), message.key(), message.value())
            pending[message.partition()] = message.offset() + 1
            count += 1
        message = consumer.poll(0) if count < rule.BATCH else None
    if count:
        time.sleep(rule.WORK_SECONDS)
    commit()
commit()
notes.closing()
consumer.close()

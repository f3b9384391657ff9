"""librdkafka (confluent-kafka) on a cluster that is mistreated; see scripts/clients/cluster."""

import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

from cluster_rule import PATIENCE, Workload

QUIET = {"log_level": 0, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500}
# Never on the wire: refused by the client itself, or thrown out of its queue.
NEVER_SENT = (ck.KafkaError._PURGE_QUEUE, ck.KafkaError._QUEUE_FULL, ck.KafkaError.MSG_SIZE_TOO_LARGE)


class Confluent(Workload):
    def __init__(self):
        super().__init__("confluent-kafka")
        self.made = 0
        self.make_producer()

    def make_producer(self):
        self.made += 1
        self.producer_name = f"{self.name}/producer-{self.made}"
        settings = {"enable.idempotence": True, "acks": "all", "linger.ms": 5, "message.timeout.ms": 120_000, "socket.timeout.ms": 2_000}
        self.producer = ck.Producer({"bootstrap.servers": self.bootstrap, **QUIET, **settings})
        self.fatal = False

    def create(self):
        admin = AdminClient({"bootstrap.servers": self.bootstrap, **QUIET})
        config = {"min.insync.replicas": str(self.in_sync)}
        new = NewTopic(self.topic, self.partitions, self.replicas, config=config)
        try:
            admin.create_topics([new], request_timeout=20)[self.topic].result(30)
        except ck.KafkaException as error:
            if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def delivered(self, name):
        def report(error, message):
            partition, value = message.partition(), message.value().decode()
            op, fields = "ack", {"offset": message.offset()}
            if error is not None:
                op, fields = "fail" if error.code() in NEVER_SENT else "info", {}
                self.fatal |= error.fatal()
            self.counts[op] += 1
            self.history.write(op, name, self.topic, partition=partition, value=value, **fields)

        return report

    def produce(self, partition, value):
        if self.fatal:
            # What the old one still has is thrown away, and so stays unknown.
            self.complain("a new producer", "the old one gave up")
            self.producer.purge(in_queue=False, in_flight=True)
            self.producer.flush(10)
            self.make_producer()
        self.wrote("send", partition, value)
        try:
            self.producer.produce(self.topic, value.encode(), partition=partition, on_delivery=self.delivered(self.producer_name))
        except BufferError:
            self.wrote("fail", partition, value)
            self.producer.poll(0.05)
        except ck.KafkaException as error:
            self.wrote("info", partition, value)
            self.fatal |= error.args[0].fatal()
        self.producer.poll(0)

    def idle(self, seconds):
        self.producer.poll(seconds)

    def flush(self, seconds):
        left = self.producer.flush(seconds)
        if left:
            self.complain("flush", f"{left} without an answer")

    def reader(self):
        settings = {"group.id": "unused-by-assignment", "enable.auto.commit": False, "auto.offset.reset": "error"}
        consumer = ck.Consumer({"bootstrap.servers": self.bootstrap, **QUIET, **settings})
        consumer.assign([ck.TopicPartition(self.topic, p, ck.OFFSET_BEGINNING) for p in range(self.partitions)])
        return consumer

    def take(self, consumer, reader, positions):
        batch = consumer.consume(1000, timeout=0.2)
        for m in batch:
            if m.error():
                self.complain(reader, m.error())
        records = [(m.partition(), m.offset(), m.value()) for m in batch if not m.error()]
        self.polled(reader, records)
        positions.update({partition: offset + 1 for partition, offset, _ in records})

    def tail(self, stopping):
        reader, consumer, asked, positions = f"{self.name}/tail", self.reader(), time.monotonic(), {}
        turn = 0
        while not stopping.is_set():
            self.take(consumer, reader, positions)
            if time.monotonic() > asked + 1:
                asked, turn = time.monotonic(), (turn + 1) % self.partitions
                try:
                    _, end = consumer.get_watermark_offsets(ck.TopicPartition(self.topic, turn), timeout=1)
                    self.told("watermark", reader, turn, end)
                except ck.KafkaException:
                    pass  # it is only a question
        consumer.close()

    def final(self):
        self.tries = getattr(self, "tries", 0) + 1
        reader, consumer, positions = f"{self.name}/final-{self.tries}", self.reader(), {}
        parts = [ck.TopicPartition(self.topic, p) for p in range(self.partitions)]
        ends = {p.partition: consumer.get_watermark_offsets(p, timeout=10)[1] for p in parts}
        deadline = time.monotonic() + PATIENCE
        behind = set(ends)
        while behind and time.monotonic() < deadline:
            self.take(consumer, reader, positions)
            for p in [p for p in behind if positions.get(p, 0) >= ends[p]]:
                self.told("end", reader, p, positions.get(p, 0))
                behind.remove(p)
        consumer.close()
        return not behind


Confluent().run()

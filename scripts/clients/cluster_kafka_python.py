"""kafka-python on a cluster that is mistreated; see scripts/clients/cluster."""

import logging
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import InvalidTopicError, KafkaTimeoutError, MessageSizeTooLargeError, TopicAlreadyExistsError

from cluster_rule import PATIENCE, Workload

logging.getLogger("kafka").setLevel(logging.CRITICAL)
NEVER_SENT = (MessageSizeTooLargeError, InvalidTopicError)


class KafkaPython(Workload):
    def __init__(self):
        super().__init__("kafka-python")
        self.made, self.fatal, self.producer, self.futures = 0, False, None, []

    def make_producer(self):
        self.made += 1
        self.producer_name = f"{self.name}/producer-{self.made}"
        self.fatal = False
        self.producer = KafkaProducer(
            bootstrap_servers=self.bootstrap.split(","),
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            delivery_timeout_ms=120_000,
            request_timeout_ms=2_000,
            max_block_ms=10_000,
            reconnect_backoff_max_ms=500,
        )

    def create(self):
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap.split(","))
        try:
            config = {"min.insync.replicas": str(self.in_sync)}
            admin.create_topics([NewTopic(self.topic, self.partitions, self.replicas, topic_configs=config)])
        except TopicAlreadyExistsError:
            pass
        finally:
            admin.close()

    def produce(self, partition, value):
        if self.producer is None or self.fatal:
            if self.producer is not None:
                self.complain("a new producer", "the old one gave up")
                self.producer.close(timeout=10)
            self.insist("a producer", self.make_producer)
        name = self.producer_name

        def answered(op, **fields):
            self.counts[op] += 1
            self.history.write(op, name, self.topic, partition=partition, value=value, **fields)

        def failed(error):
            answered("fail" if isinstance(error, NEVER_SENT) else "info")
            # A producer whose identity is lost does nothing more.
            self.fatal |= type(error).__name__ in ("ProducerFencedError", "OutOfOrderSequenceNumberError", "InvalidProducerEpochError")

        self.wrote("send", partition, value)
        try:
            future = self.producer.send(self.topic, value.encode(), partition=partition)
        except KafkaTimeoutError as error:
            # Its queue is full, or it knows no partitions: nothing was sent.
            answered("fail")
            return
        except Exception as error:
            answered("info")
            self.complain("send", repr(error))
            self.fatal = True
            return
        future.add_callback(lambda metadata: answered("ack", offset=metadata.offset))
        future.add_errback(failed)

    def idle(self, seconds):
        time.sleep(seconds)

    def flush(self, seconds):
        try:
            self.producer.flush(seconds)
        except Exception as error:
            self.complain("flush", repr(error))
        self.producer.close(timeout=10)

    def reader(self):
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap.split(","),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            reconnect_backoff_max_ms=500,
        )
        parts = [TopicPartition(self.topic, p) for p in range(self.partitions)]
        consumer.assign(parts)
        for part in parts:
            consumer.seek(part, 0)
        return consumer, parts

    def take(self, consumer, reader, positions):
        batches = consumer.poll(timeout_ms=200)
        records = [(m.partition, m.offset, m.value) for batch in batches.values() for m in batch]
        self.polled(reader, records)
        positions.update({partition: offset + 1 for partition, offset, _ in records})

    def tail(self, stopping):
        reader = f"{self.name}/tail"
        consumer, _ = self.insist("a reader", self.reader)
        while not stopping.is_set():
            try:
                self.take(consumer, reader, {})
            except Exception as error:
                self.complain(reader, repr(error))
                time.sleep(0.2)
        consumer.close()

    def final(self):
        self.tries = getattr(self, "tries", 0) + 1
        reader, positions = f"{self.name}/final-{self.tries}", {}
        consumer, parts = self.reader()
        ends = {part.partition: end for part, end in consumer.end_offsets(parts).items()}
        deadline = time.monotonic() + PATIENCE
        behind = set(ends)
        while behind and time.monotonic() < deadline:
            self.take(consumer, reader, positions)
            for p in [p for p in behind if positions.get(p, 0) >= ends[p]]:
                self.told("end", reader, p, positions.get(p, 0))
                behind.remove(p)
        consumer.close()
        return not behind


KafkaPython().run()

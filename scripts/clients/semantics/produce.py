"""Writes numbered records: produce.py BOOTSTRAP TOPIC RECORDS."""

import sys

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap, topic, records = sys.argv[1], sys.argv[2], int(sys.argv[3])

admin = AdminClient({"bootstrap.servers": bootstrap})
admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(30)
producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
for n in range(records):
    producer.produce(topic, str(n), key=str(n % 10))
if producer.flush(30):
    sys.exit("not every record was acknowledged")
print(f"{records} records are written and acknowledged")

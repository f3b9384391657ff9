"""A consumer that processes each record at most once: it commits first, and processes then.

    at_most_once.py BOOTSTRAP TOPIC FILE [HALF_WAY COUNT]

Processing is appending the record to FILE. What dies between the two has committed what it will never process.
With HALF_WAY it comes to rest there, after COUNT records, writes that file, and waits for its end.
"""

import sys
import time

from confluent_kafka import Consumer

bootstrap, topic, path = sys.argv[1:4]
half_way, count = (sys.argv[4], int(sys.argv[5])) if len(sys.argv) > 4 else (None, None)

consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": f"{topic}-readers",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000,  # so that the one that was killed is not waited for for long
    }
)
consumer.subscribe([topic])
processed, quiet_since = 0, None
with open(path, "a", buffering=1) as output:
    while quiet_since is None or time.monotonic() - quiet_since < 3:
        batch = consumer.consume(20, timeout=0.5)
        if not batch:
            if consumer.assignment() and quiet_since is None:
                quiet_since = time.monotonic()
            continue
        quiet_since = None
        consumer.commit(asynchronous=False)  # first …
        if half_way and processed >= count:
            with open(half_way, "w") as told:
                told.write(f"after the commit of {len(batch)} more, before they were processed")
            time.sleep(3600)
        for message in batch:
            output.write(message.value().decode() + "\n")  # … then
            processed += 1
consumer.close()

"""What the two Python workloads of scripts/clients/cluster have in common: arguments, and the order of things.

    cluster_….py BOOTSTRAP TOPIC SECONDS RATE HISTORY REPLICAS PARTITIONS IN_SYNC BYTES
"""

import os
import sys
import threading
import time

from history import History

PATIENCE = 180  # seconds for what is on the way, and for the last reading: a hang, not a measurement


class Workload:
    """A client gives: create(), produce(n, partition, value) that never blocks for long and calls sent/acked/unknown,
    flush(seconds), tail(stopping), and final(), which reads everything and tells whether it got to the end."""

    def __init__(self, name):
        self.name = name
        self.bootstrap, self.topic = sys.argv[1:3]
        self.seconds, self.rate = float(sys.argv[3]), float(sys.argv[4])
        self.history = History(sys.argv[5])
        self.replicas, self.partitions = int(sys.argv[6]), int(sys.argv[7])
        self.in_sync = int(sys.argv[8])
        self.bytes = int(sys.argv[9])
        self.stop = sys.argv[5] + ".stop"
        self.producer_name = f"{name}/producer-1"
        self.counts = {"send": 0, "ack": 0, "fail": 0, "info": 0, "poll": 0}
        self.calls = 0

    def wrote(self, op, partition, value, **fields):
        self.counts[op] += 1
        self.history.write(op, self.producer_name, self.topic, partition=partition, value=value, **fields)

    def polled(self, reader, records):
        """records: (partition, offset, value as bytes), all of one call."""
        self.calls += 1
        for partition, offset, value in records:
            self.counts["poll"] += 1
            self.history.write(
                "poll", reader, self.topic, partition=partition, offset=offset, value=value.decode(), call=self.calls
            )

    def told(self, op, reader, partition, offset):
        """op: watermark or end."""
        self.history.write(op, reader, self.topic, partition=partition, offset=offset)

    def complain(self, what, error):
        print(f"     {self.name}: {what}: {error}", flush=True)

    def insist(self, what, action):
        """Repeats what the cluster refuses for the moment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return action()
            except Exception as error:  # whatever a mistreated cluster makes of it
                self.complain(what, error)
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def run(self):
        self.insist("creating the topic", self.create)
        stopping = threading.Event()
        tail = threading.Thread(target=self.tail, args=(stopping,), daemon=True)
        tail.start()
        begin = time.monotonic()
        n = 0
        while (now := time.monotonic() - begin) < self.seconds and not os.path.exists(self.stop):
            if n < now * self.rate:
                self.produce(n % self.partitions, f"{self.name}-{n}".ljust(self.bytes, "."))
                n += 1
            else:
                self.idle(min(0.005, (n + 1) / self.rate - now))
        self.flush(PATIENCE)
        time.sleep(1)
        stopping.set()
        tail.join(PATIENCE)
        complete = self.insist("reading everything", self.final)
        self.history.close()
        told = ", ".join(f"{count} {op}" for op, count in self.counts.items())
        print(f"{'ok  ' if complete else 'FAIL'} {self.name}: {told}", flush=True)
        sys.exit(0 if complete else 1)

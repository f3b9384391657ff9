"""What the Python members of scripts/clients/group have in common: arguments, the history, and when to stop.

    group_….py BOOTSTRAP TOPIC GROUP NAME HISTORY PROTOCOL ASSIGNOR INSTANCE      ("-" for what is not given)

A member of any language joins the group, polls, writes down what it got, works for a moment (WORK_SECONDS a batch, so
that a kill finds something polled and not committed), commits, and writes down what was committed. When its standard
input ends it commits, closes and leaves. What it writes is for group_judge.py and, being in its form, for `perf
history`: "poll" before any commit that covers it, "commit" after its answer, and "assign" with a kind: assigned, revoked
or lost (one line a partition), or closing (no partition: the member reads no more).
"""

import json
import sys
import threading
import time

SESSION_MS = 6000
HEARTBEAT_MS = 500
BATCH = 50
WORK_SECONDS = 0.01


class Notes:
    def __init__(self):
        self.bootstrap, self.topic, self.group, self.name, path = sys.argv[1:6]
        self.protocol, self.assignor, self.instance = (None if a == "-" else a for a in sys.argv[6:9])
        self.file = open(path, "a", encoding="utf-8", buffering=1)  # a line is out when it is written
        self.calls = 0
        self.stopping = threading.Event()
        threading.Thread(target=self.await_end_of_input, daemon=True).start()

    def await_end_of_input(self):
        sys.stdin.buffer.read()
        self.stopping.set()

    def write(self, op, **fields):
        line = {"op": op, "client": self.name, "topic": self.topic, **fields, "time_ns": time.time_ns()}
        self.file.write(json.dumps(line) + "\n")

    def polled(self, partition, offset, key, value):
        self.write("poll", partition=partition, offset=offset, key=key.decode(), value=value.decode(), call=self.calls)

    def moved(self, kind, partitions, generation=None):
        """kind: assigned, revoked or lost."""
        told = {} if generation is None else {"generation": generation}
        for partition in sorted(partitions):
            self.write("assign", kind=kind, partition=partition, **told)

    def closing(self):
        self.file.write(json.dumps({"op": "assign", "client": self.name, "kind": "closing", "time_ns": time.time_ns()}) + "\n")

    def committed(self, offsets):
        for partition, offset in offsets.items():
            self.write("commit", group=self.group, partition=partition, offset=offset)

    def complain(self, what, error):
        print(f"     {self.name}: {what}: {error}", flush=True)

"""Writes what a client does and sees, for `perf history` to judge. The form is described in net/src/history.rs."""

import json
import threading
import time


class History:
    def __init__(self, path):
        self.path, self.file, self.lock = path, open(path, "w", encoding="utf-8"), threading.Lock()

    def write(self, op, client, topic, **fields):
        """fields: partition, offset, value (text), call. A send is written before it is tried."""
        line = json.dumps({"op": op, "client": client, "topic": topic, **fields, "time_ns": time.time_ns()})
        with self.lock:
            self.file.write(line + "\n")

    def close(self):
        with self.lock:
            self.file.close()

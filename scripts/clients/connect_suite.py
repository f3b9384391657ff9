"""Kafka Connect, distributed, with a worker that is killed; see scripts/clients/connect.

connect_suite.py LIB BOOTSTRAP [--lines N] [--replicas N] [--keep]
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

PATIENCE = 60
BEGUN = time.monotonic()


def say(text):
    print(f"     connect: {time.monotonic() - BEGUN:5.1f} s: {text}", flush=True)


def fail(text):
    raise SystemExit(f"FAIL connect: {text}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Worker:
    def __init__(self, suite, number):
        self.port, self.log = free_port(), f"{suite.out}/worker-{number}.log"
        self.id = f"127.0.0.1:{self.port}"
        config = {
            "bootstrap.servers": suite.bootstrap,
            "group.id": suite.name,
            "client.id": f"connect-{number}",
            "listeners": f"http://127.0.0.1:{self.port}",
            "rest.advertised.host.name": "127.0.0.1",
            "rest.advertised.port": self.port,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "config.storage.topic": f"{suite.name}-configs",
            "offset.storage.topic": f"{suite.name}-offsets",
            "status.storage.topic": f"{suite.name}-status",
            "offset.storage.partitions": 5,
            "offset.flush.interval.ms": 500,
            # Otherwise the tasks of a dead worker are kept for it for five minutes.
            "scheduled.rebalance.max.delay.ms": 0,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1000,
            "plugin.discovery": "only_scan",
            "plugin.path": suite.plugins,
            "consumer.session.timeout.ms": 6000,
            "consumer.heartbeat.interval.ms": 1000,
        }
        for kind in ("config", "offset", "status"):
            config[f"{kind}.storage.replication.factor"] = suite.replicas
        path = f"{suite.out}/worker-{number}.properties"
        with open(path, "w") as out:
            out.writelines(f"{name}={value}\n" for name, value in config.items())
        java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{suite.lib}/*"]
        self.process = subprocess.Popen(
            [*java, "org.apache.kafka.connect.cli.ConnectDistributed", path], stdout=open(self.log, "w"), stderr=subprocess.STDOUT
        )

    def call(self, method, path, content=None):
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://{self.id}{path}", body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
            return json.loads(text) if text else None


class Suite:
    def __init__(self, options):
        self.lib, self.bootstrap = options.lib, options.bootstrap
        self.lines, self.replicas = options.lines, options.replicas
        self.name = f"connect-{int(time.time())}-{os.getpid()}"
        self.out = tempfile.mkdtemp(prefix="ringbolt-connect.")
        # A folder of their own, because a worker looks through everything in a plugin path.
        self.plugins = f"{self.out}/plugins"
        os.makedirs(f"{self.plugins}/file")
        for jar in os.listdir(self.lib):
            if jar.startswith("connect-file-"):
                os.symlink(f"{self.lib}/{jar}", f"{self.plugins}/file/{jar}")
        self.source, self.sink = f"{self.out}/source.txt", f"{self.out}/sink.txt"
        open(self.source, "w").close()
        self.workers = []

    def wait_for(self, what, condition):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                found = condition()
            except (OSError, urllib.error.HTTPError):
                found = None  # not up yet, or in a rebalance
            if found:
                say(what)
                return found
            if time.monotonic() > deadline:
                fail(f"not within {PATIENCE} s: {what}")
            time.sleep(0.2)

    def write(self):
        """The file grows at an even pace, so that the kill comes while there is work."""
        with open(self.source, "a", buffering=1) as out:
            for n in range(self.lines):
                out.write(f"line {n}\n")
                if n % 50 == 49:
                    time.sleep(50 / self.pace)

    def read(self):
        try:
            with open(self.sink) as sink:
                return sink.read().splitlines()
        except FileNotFoundError:
            return []

    def tasks(self, worker, connector):
        status = worker.call("GET", f"/connectors/{connector}/status")
        return [task["worker_id"] for task in status["tasks"] if task["state"] == "RUNNING"]

    def run(self):
        self.workers = [Worker(self, 1), Worker(self, 2)]
        first, second = self.workers
        for at, worker in enumerate(self.workers, 1):
            self.wait_for(f"worker {at} answers", lambda w=worker: w.call("GET", "/connectors") is not None)
        topic = f"{self.name}-lines"
        connectors = {
            "source": {"connector.class": "FileStreamSource", "tasks.max": 1, "file": self.source, "topic": topic},
            "sink": {"connector.class": "FileStreamSink", "tasks.max": 1, "file": self.sink, "topics": topic},
        }
        connectors["sink"]["consumer.override.auto.offset.reset"] = "earliest"
        for name, config in connectors.items():
            self.wait_for(f"the {name} is created", lambda n=name, c=config: first.call("PUT", f"/connectors/{n}/config", c))
        self.pace = self.lines / 10
        writer = threading.Thread(target=self.write, daemon=True)
        writer.start()
        self.wait_for("lines arrive", lambda: len(self.read()) > 100)
        [owner] = self.wait_for("the source runs", lambda: self.tasks(second, "source"))
        [other] = self.wait_for("the sink runs", lambda: self.tasks(second, "sink"))
        victim = next(worker for worker in self.workers if worker.id == owner)
        left = next(worker for worker in self.workers if worker is not victim)
        victim.process.kill()
        victim.process.wait()
        at_kill = len(self.read())
        say(f"the worker of the source is killed ({'the sink was on the other' if other != owner else 'and of the sink'}); {at_kill} lines were out")
        if at_kill >= self.lines:
            fail("the kill came too late to mean anything")
        self.wait_for("the other worker has both", lambda: self.tasks(left, "source") == self.tasks(left, "sink") == [left.id])
        writer.join(PATIENCE)
        wanted = {f"line {n}" for n in range(self.lines)}
        self.wait_for("every line has arrived", lambda: wanted <= set(self.read()))
        for name in connectors:
            left.call("DELETE", f"/connectors/{name}")
        left.process.terminate()
        status = left.process.wait(30)
        say(f"the worker that is left ended with {status}")
        got = self.read()
        strange = [line for line in got if line not in wanted]
        # Ahead of what comes again lines come in order: the topic has one partition.
        firsts = list(dict.fromkeys(got))
        if strange or firsts != sorted(wanted, key=lambda line: int(line.split()[1])):
            fail(f"{len(strange)} strange lines {strange[:3]}; or not in order")
        print(f"ok   connect: every one of {self.lines} lines is in the sink's file, in order; {len(got) - len(wanted)} of them again")
        say("done")

    def end(self, failed):
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
            if failed:
                with open(worker.log) as log:
                    print(f"--- {worker.log}\n{log.read()[-3000:]}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("lib")
    arguments.add_argument("bootstrap")
    arguments.add_argument("--lines", type=int, default=5000)
    arguments.add_argument("--replicas", type=int, default=1)
    arguments.add_argument("--keep", action="store_true")
    options = arguments.parse_args()
    suite, failed = Suite(options), True
    try:
        suite.run()
        failed = False
    finally:
        suite.end(failed)
        if not options.keep:
            shutil.rmtree(suite.out, ignore_errors=True)


main()

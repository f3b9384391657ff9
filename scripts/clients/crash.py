"""Kills the broker with SIGKILL, again and again, under clients that never stop: no acked record is lost or doubled.

    crash.py [--kills N] [--listen HOST:PORT] [--seed N] [--judge PERF] BROKER [ARGUMENT …]

BROKER is started as "BROKER ARGUMENT … --listen HOST:PORT --data DIR", with an empty DIR of its own (scripts/peer-kafka
takes the same flags). Two producers (confluent-kafka) and a reader run through all the kills:

    sure     idempotent, acks=all, retrying for ever: every record is acked in the end and there exactly once
    leader   acks=1, no retries: an acked record is there exactly once, a failed one at most once
    reader   tails both topics: what it was once shown is still at that offset at the end

For both producers order holds per partition, hence per key. One line a check; exits with 1 when one failed. All that
the clients do and see is written down as well, and with --judge it is "PERF history" that looks at it a second time.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

from history import History

PARTITIONS = 6
QUIET = {"log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200}
PATIENCE = 60  # seconds from a start to the first ack; a hang, not a measurement

parser = argparse.ArgumentParser()
parser.add_argument("--kills", type=int, default=20)
parser.add_argument("--listen", default="127.0.0.1:19192")
parser.add_argument("--seed", type=int, default=int(time.time()))
parser.add_argument("--judge", metavar="PERF")
parser.add_argument("broker", nargs=argparse.REMAINDER)
options = parser.parse_args()
dice = random.Random(options.seed)
failures = 0


def check(name, problems, detail=""):
    global failures
    problems = list(problems)
    failures += bool(problems)
    if problems:
        print(f"FAIL crash: {name}: {len(problems)} wrong; " + "; ".join(problems[:3]))
    else:
        print(f"ok   crash: {name}{': ' + detail if detail else ''}")


class Broker:
    """The process, in a group of its own so that a wrapper script dies together with what it started."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="ringbolt-crash-")
        self.log_path = f"{self.folder}/broker.log"
        self.process = None
        self.refusals = 0  # starts that ended by themselves

    def start(self):
        command = [*options.broker, "--listen", options.listen, "--data", f"{self.folder}/data"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def again_if_it_refused(self):
        """As a supervisor would: the kernel tears a killed ring's sockets down a little after the process is gone, and
        until then the port is taken. Counted, and shown."""
        if self.process.poll() is None:
            return
        self.refusals += 1
        if self.refusals > options.kills * 5:
            raise SystemExit(f"FAIL crash: the broker ends by itself with {self.process.returncode}, see its log")
        time.sleep(0.05)
        self.start()

    def kill(self):
        assert self.process.poll() is None, f"the broker ended by itself with {self.process.returncode}"
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self, keep):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        if keep:
            with open(self.log_path, errors="replace") as log:
                print("--- the end of the broker's log", *log.read().splitlines()[-60:], sep="\n")
            print(f"--- its data and whole log are kept in {self.folder}")
        else:
            shutil.rmtree(self.folder)


class Writer(threading.Thread):
    """Produces numbered records until told to stop; remembers what became of each."""

    def __init__(self, topic, settings):
        super().__init__(daemon=True)
        self.topic, self.stopping = topic, threading.Event()
        self.producer = ck.Producer({"bootstrap.servers": options.listen, "linger.ms": 2, **QUIET, **settings})
        self.count, self.acked, self.failed, self.fatal = 0, {}, {}, None
        self.newest = -1  # the highest n that was acked
        self.begun = -1  # the highest n of which the history says that it is sent

    def wrote(self, op, n, **fields):
        history.write(op, f"{self.topic}/producer", self.topic, value=str(n), **fields)

    def delivered(self, error, message):
        n = int(message.value())
        if error is None:
            self.acked[n] = (message.partition(), message.offset())
            self.newest = max(self.newest, n)
            self.wrote("ack", n, partition=message.partition(), offset=message.offset())
        else:
            self.failed[n] = error
            self.wrote("info", n)

    def run(self):
        try:
            while not self.stopping.is_set():
                # About 4,000 a second, so that a kill finds some waiting, some on the wire and some just written.
                for _ in range(40):
                    self.produce()
                self.producer.poll(0.01)
        except ck.KafkaException as error:
            self.fatal = error

    def produce(self):
        if self.begun < self.count:
            self.begun = self.count
            self.wrote("send", self.count)  # before it is tried; where to, its key decides
        try:
            self.producer.produce(self.topic, b"%d" % self.count, b"key-%d" % (self.count % 50), on_delivery=self.delivered)
            self.count += 1
        except BufferError:
            pass  # its queue is full while the broker is away

    def finish(self):
        self.stopping.set()
        self.join()
        return self.producer.flush(PATIENCE)


class Tail(threading.Thread):
    """Reads everything there is until told to stop; seen[(topic, partition, offset)] = value."""

    def __init__(self, name, topics):
        super().__init__(daemon=True)
        self.name, self.calls = name, 0
        self.seen, self.changed, self.stopping = {}, [], threading.Event()
        settings = {"group.id": "unused-by-assignment", "enable.auto.commit": False, "auto.offset.reset": "error"}
        self.consumer = ck.Consumer({"bootstrap.servers": options.listen, **QUIET, **settings})
        self.consumer.assign([ck.TopicPartition(t, p, ck.OFFSET_BEGINNING) for t in topics for p in range(PARTITIONS)])

    def take(self):
        batch = self.consumer.consume(2000, timeout=0.1)
        self.calls += 1
        for m in batch:
            if m.error():
                # Reconnecting is its business; an offset out of range is ours.
                if m.error().code() in (ck.KafkaError.OFFSET_OUT_OF_RANGE, ck.KafkaError._AUTO_OFFSET_RESET):
                    self.changed.append(str(m.error()))
                continue
            at = (m.topic(), m.partition(), m.offset())
            place = {"partition": m.partition(), "offset": m.offset()}
            history.write("poll", self.name, m.topic(), **place, value=m.value().decode(), call=self.calls)
            if self.seen.setdefault(at, int(m.value())) != int(m.value()):
                self.changed.append(f"{at} was {self.seen[at]} and is {int(m.value())}")
        return len(batch)

    def run(self):
        while not self.stopping.is_set():
            self.take()

    def finish(self):
        self.stopping.set()
        self.join()
        self.consumer.close()


def read_all(topics):
    """Everything in the topics as a fresh consumer finds it, up to the ends it is told."""
    tail = Tail("last reader", topics)
    ends = {
        (t, p): tail.consumer.get_watermark_offsets(ck.TopicPartition(t, p), timeout=30)[1]
        for t in topics
        for p in range(PARTITIONS)
    }
    deadline = time.monotonic() + PATIENCE
    while len(tail.seen) < sum(ends.values()) and time.monotonic() < deadline:
        tail.take()
    tail.consumer.close()
    holes = [f"{t}/{p}/{o} cannot be read" for (t, p), end in ends.items() for o in range(end) if (t, p, o) not in tail.seen]
    if not holes:
        for (t, p), end in ends.items():
            history.write("end", tail.name, t, partition=p, offset=end)
    check("every offset up to the end can be read", holes + tail.changed, f"{len(tail.seen)} records")
    return tail.seen


def judge(writer, stored):
    mine = sorted((p, o, n) for (t, p, o), n in stored.items() if t == writer.topic)
    place, doubled, order, last = {}, [], [], {}
    for p, o, n in mine:
        if n in place:
            doubled.append(f"n={n} is at {place[n]} and at {(p, o)}")
        place[n] = (p, o)
        if n <= last.get(p, -1):
            order.append(f"{p}/{o} is n={n} after n={last[p]}")
        last[p] = max(n, last.get(p, -1))
    check(
        f"{writer.topic}: every acked record is where it was acked",
        (f"n={n} was acked at {at} and is at {place.get(n)}" for n, at in writer.acked.items() if place.get(n) != at),
        f"{len(writer.acked)} acked of {writer.count}, {len(writer.failed)} failed",
    )
    check(f"{writer.topic}: none twice", doubled)
    check(f"{writer.topic}: in order per partition and key", order)
    check(f"{writer.topic}: nothing that was never sent", (f"n={n}" for _, _, n in mine if not 0 <= n < writer.count))


def main(broker):
    broker.start()
    admin = AdminClient({"bootstrap.servers": options.listen, **QUIET})
    topics = ["sure", "leader"]
    created = admin.create_topics([NewTopic(t, PARTITIONS, 1) for t in topics], operation_timeout=30, request_timeout=60)
    for future in created.values():
        future.result(PATIENCE)
    forever = {"enable.idempotence": True, "acks": "all", "message.timeout.ms": 0, "retry.backoff.ms": 20}
    # One in flight: librdkafka repeats even with "retries" 0 what the broker said it did not store, and out of order.
    once = {"acks": "1", "retries": 0, "max.in.flight": 1, "message.timeout.ms": 2000, "queue.buffering.max.messages": 20_000}
    writers = [Writer("sure", forever), Writer("leader", once)]
    tail = Tail("reader", topics)
    for thread in (*writers, tail):
        thread.start()

    def progress(begin):
        """Waits until each producer has an ack for a record that it made after this call."""
        marks = [w.count for w in writers]
        while any(w.newest < mark for w, mark in zip(writers, marks)):
            broker.again_if_it_refused()
            for w in writers:
                if w.fatal:
                    raise SystemExit(f"FAIL crash: the producer of {w.topic} gave up: {w.fatal}")
            if time.monotonic() > begin + PATIENCE:
                stuck = [w.topic for w, mark in zip(writers, marks) if w.newest < mark]
                raise SystemExit(f"FAIL crash: no new ack within {PATIENCE} s of a start: {stuck}")
            time.sleep(0.002)
        return time.monotonic() - begin

    waits = []
    progress(time.monotonic())
    for _ in range(options.kills):
        time.sleep(dice.uniform(0.1, 1.0))
        broker.kill()
        broker.start()
        waits.append(progress(time.monotonic()))
    print(
        f"ok   crash: {options.kills} kills with seed {options.seed}; from a start to an ack of something new for both producers:"
        f" {statistics.median(waits) * 1000:.0f} ms in the middle, {max(waits) * 1000:.0f} ms at most;"
        f" {broker.refusals} starts ended by themselves and were repeated"
    )
    left = [w.finish() for w in writers]
    time.sleep(0.5)
    tail.finish()
    sure = writers[0]
    bad = [f"n={n}: {error}" for n, error in sure.failed.items()] + [f"fatal: {w.fatal}" for w in writers if w.fatal]
    if any(left):
        bad.append(f"without an answer: {left}")
    check("sure: every record was acked in the end", bad, f"{len(sure.acked)} of {sure.count}")

    stored = read_all(topics)
    for writer in writers:
        judge(writer, stored)
    gone = (f"{at} was {n} and is {stored.get(at)}" for at, n in tail.seen.items() if stored.get(at) != n)
    check("what the reader was shown is still there", [*tail.changed, *gone], f"{len(tail.seen)} records")
    if not tail.seen:
        check("the reader read at all", ["it was shown nothing"])
    history.close()
    if options.judge:
        verdict = subprocess.run([options.judge, "history", history.path], capture_output=True, text=True)
        print(verdict.stdout, end="")
        check("the history shows nothing that must never be", verdict.stderr.splitlines() if verdict.returncode else [])


broker = Broker()
history = History(f"{broker.folder}/history.jsonl")
keep = True
try:
    main(broker)
    keep = failures > 0
finally:
    broker.close(keep)
sys.exit(1 if failures else 0)

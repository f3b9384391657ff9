"""Takes a group of consumers through joins, leaves and a kill while a producer writes, and judges what they saw.

    group_suite.py --bootstrap HOST:PORT --out DIR --plan PLAN --member CLIENT=LAUNCHER … (see scripts/clients/group)

PLAN is plain, static, migration or failover. A LAUNCHER is a program that takes the arguments of group_member.py and
stays the same process. With several of them members are made of each in turn.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

from group_judge import Judge, Member

PARTITIONS = 6
PACE_SECONDS = 20  # what a plan takes, about: the producer spreads its records over it
PATIENCE = 60  # seconds for one step: a hang, not a measurement
# Clients that let the program know the generation.
TELL_GENERATIONS = {"java", "kafka-python", "aiokafka", "franz-go", "sarama", "platformatic"}
QUIET = {"log_level": 2, "reconnect.backoff.max.ms": 500}


class Refused(Exception):
    """A step did not come to its end."""


class Producer(threading.Thread):
    """Writes numbered records with keys, each once, at an even pace until it is told to get done with it."""

    def __init__(self, suite):
        super().__init__(daemon=True)
        self.suite, self.hurry, self.written, self.errors = suite, threading.Event(), {}, []
        self.history = open(f"{suite.out}/producer.history", "w", encoding="utf-8")
        self.start()

    def note(self, op, **fields):
        line = {"op": op, "client": "producer", "topic": self.suite.topic, **fields, "time_ns": time.time_ns()}
        self.history.write(json.dumps(line) + "\n")

    def run(self):
        settings = {"enable.idempotence": True, "acks": "all", "linger.ms": 5, "partitioner": "murmur2_random"}
        producer = ck.Producer({"bootstrap.servers": self.suite.bootstrap, **QUIET, **settings})
        begin, n = time.monotonic(), 0
        rate = self.suite.records / PACE_SECONDS
        while n < self.suite.records or not self.hurry.is_set():
            if n > (time.monotonic() - begin) * rate and not self.hurry.is_set():
                producer.poll(0.01)
                continue
            key, value = f"key-{n % 97}", str(n)
            self.note("send", value=value)
            producer.produce(self.suite.topic, value, key, on_delivery=self.delivered(key, value))
            n += 1
        if producer.flush(PATIENCE):
            self.errors.append("records without an answer")
        self.history.close()

    def delivered(self, key, value):
        def report(error, message):
            if error is not None:
                self.errors.append(str(error))
                return
            self.written[(message.partition(), message.offset())] = (key, value)
            self.note("ack", value=value, partition=message.partition(), offset=message.offset())

        return report

    def finish(self):
        """Returns the end of each partition."""
        self.hurry.set()
        self.join(PATIENCE * 2)
        if self.errors or self.is_alive():
            raise Refused(f"the producer did not get its records in: {self.errors[:3]}")
        ends = {p: 0 for p in range(PARTITIONS)}
        for p, o in self.written:
            ends[p] = max(ends[p], o + 1)
        return ends


class Watcher(threading.Thread):
    """Asks the broker all the time what is committed: that must never fall, nor be less than what a member was told."""

    def __init__(self, suite):
        super().__init__(daemon=True)
        self.suite, self.answers, self.done = suite, [], threading.Event()
        self.history = open(f"{suite.out}/watcher.history", "w", encoding="utf-8")
        self.start()

    def ask(self):
        asked = time.time_ns()
        told = self.suite.committed()
        self.answers.append((asked, time.time_ns(), told))
        for p, offset in told.items():
            line = {"op": "committed", "group": self.suite.group, "topic": self.suite.topic, "partition": p}
            self.history.write(json.dumps({**line, "client": "watcher", "offset": offset, "time_ns": asked}) + "\n")
        return told

    def run(self):
        while not self.done.wait(0.4):
            try:
                self.ask()
            except ck.KafkaException:
                pass  # not now; it is only a question
        self.history.close()


class Suite:
    def __init__(self, options):
        self.bootstrap, self.out, self.records = options.bootstrap, options.out, options.records
        self.launchers = [text.split("=", 1) for text in options.member]
        self.clients = [client for client, _ in self.launchers]
        self.options = options
        words = ["+".join(self.clients), options.plan if options.plan != "plain" else "", options.protocol, options.assignor]
        self.title = " ".join(word for word in words if word and word != "-")
        self.topic = f"group-{'-'.join(self.clients)}-{int(time.time())}-{os.getpid()}"
        self.group = f"{self.topic}-g"
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, **QUIET})
        self.asking = ck.Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group, **QUIET})  # it never joins
        self.killed_kcats = set()
        self.members, self.processes, self.resting, self.began = [], {}, {}, time.monotonic()

    # --- What happens to members ---------------------------------------------------------------------------------------

    def start(self, name, protocol=None, instance="-"):
        protocol = protocol or self.options.protocol
        client, launcher = self.launchers[len(self.members) % len(self.launchers)]
        path = f"{self.out}/{name}.history"
        assignor = self.options.assignor if protocol == self.options.protocol else "-"
        arguments = [self.bootstrap, self.topic, self.group, name, path, protocol, assignor, instance]
        member = Member(name, path, name if instance == "-" else instance)
        log = open(f"{self.out}/{name}.log", "w")
        self.processes[name] = subprocess.Popen([launcher, *arguments], stdin=subprocess.PIPE, stdout=log, stderr=log)
        member.client = client
        self.members.append(member)
        return member

    def kill(self, member):
        process = self.processes[member.name]
        if member.client == "kcat":
            process.stdin.write(b"kill\n")
            process.stdin.close()
            process.wait(10)
            self.killed_kcats.add(member.name)
            return
        process.kill()
        process.wait()
        member.killed = time.time_ns()

    def close(self, *members):
        for m in members:
            self.processes[m.name].stdin.close()
        for m in members:
            try:
                status = self.processes[m.name].wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise Refused(f"{m.name} does not close") from None
            if status:
                raise Refused(f"{m.name} ended with {status}")

    def refresh(self):
        for m in self.members:
            m.refresh()

    def wait_for(self, what, condition, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while True:
            self.refresh()
            if condition():
                print(f"     {self.title}: {time.monotonic() - self.began:5.1f} s: {what}", flush=True)
                return
            for m in self.members:
                status = self.processes[m.name].poll()
                if status is not None and not m.killed and not m.closed:
                    raise Refused(f"{m.name} ended with {status} while waiting until {what}")
            if time.monotonic() > deadline:
                state = {m.name: sorted(m.owned) for m in self.members if not m.closed and not m.killed}
                raise Refused(f"not within {patience} s: {what}; they have {state}")
            time.sleep(0.05)

    def share(self, what, *members, even=True):
        """Waits until these have all partitions among them, each at least one, and each has polled from what it has."""

        def shared():
            owned = sorted(p for m in members for p in m.owned)
            return owned == list(range(PARTITIONS)) and all(m.owned or not even for m in members)

        self.wait_for(what, shared)
        before = {m.name: m.polls for m in members}
        self.wait_for("they read", lambda: all(m.polls > before[m.name] or not m.owned for m in members))

    # --- What the broker says ------------------------------------------------------------------------------------------

    def create(self):
        replicas = self.options.replicas
        config = {"min.insync.replicas": str(min(2, replicas))}
        self.admin.create_topics([NewTopic(self.topic, PARTITIONS, replicas, config=config)])[self.topic].result(30)
        while len(self.admin.list_topics(self.topic, timeout=10).topics[self.topic].partitions) != PARTITIONS:
            time.sleep(0.1)

    def committed(self):
        # Not by the admin client: confluent-kafka 2.16.1 crashes when it asks that way while there is no coordinator.
        told = self.asking.committed([ck.TopicPartition(self.topic, p) for p in range(PARTITIONS)], timeout=5)
        return {t.partition: t.offset for t in told if t.offset >= 0 and t.error is None}

    def describe(self):
        """Asks again while there is nobody to answer."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.admin.describe_consumer_groups([self.group], request_timeout=5)[self.group].result(10)
            except ck.KafkaException as error:
                if time.monotonic() > deadline:
                    raise Refused(f"the group cannot be described: {error}") from None
                # The old one may remember a coordinator that is gone, and wait for it as long as it may.
                self.admin = AdminClient({"bootstrap.servers": self.bootstrap, **QUIET})
                time.sleep(0.2)

    def ask_for_certain(self):
        self.describe()
        return self.watcher.ask()

    # --- The plans -----------------------------------------------------------------------------------------------------

    def rest(self, *members):
        """All stop, and the rest is written while nobody is there."""
        self.close(*members)
        time.sleep(0.5)
        self.ends = self.producer.finish()
        self.resting = self.ask_for_certain()
        if not self.resting:
            raise Refused("nothing is committed")

    def resume(self, name, **how):
        m = self.start(name, **how)
        self.wait_for("a new member has read to the end", lambda: all(m.position.get(p, self.resting.get(p, 0)) >= e for p, e in self.ends.items()))
        self.close(m)
        self.refresh()
        self.resumed = m

    def plain(self):
        m1, m2 = self.start("m1"), self.start("m2")
        self.share("two have all", m1, m2)
        m3, m4 = self.start("m3"), self.start("m4")
        self.share("four have all", m1, m2, m3, m4)
        self.kill(m2)
        self.share("three have all, after one was killed", m1, m3, m4)
        self.close(m3, m4)
        self.share("one has all", m1)
        self.rest(m1)
        self.resume("m5")

    def static(self):
        named = {name: self.start(name, instance=f"i-{name}") for name in ("m1", "m2")}
        self.share("two have all", *named.values())
        for name in ("m3", "m4"):
            named[name] = self.start(name, instance=f"i-{name}")
        self.share("four have all", *named.values())
        m1, m2, m3, m4 = named.values()
        had, others = set(m2.owned), {m.name: dict(m.owned) for m in (m1, m3, m4)}
        if self.options.protocol == "consumer":
            # There a coordinator gives an instance to another process only when the first has left, or its session has ended.
            self.close(m2)
        else:
            self.kill(m2)
        back = self.start("m2-again", instance="i-m2")
        self.wait_for("one is back", lambda: back.polls > 0 and set(back.owned) == had)
        self.unmoved = [f"{m.name} had {others[m.name]}, now {m.owned}" for m in (m1, m3, m4) if m.owned != others[m.name]]
        self.close(m3)
        self.kill(m4)
        self.share("two have all, after the session of the others", m1, back)
        self.rest(m1, back)
        self.resume("m5", instance="i-m1")

    def migration(self):
        c1, c2 = self.start("c1", "classic"), self.start("c2", "classic")
        self.share("two have all, in the classic protocol", c1, c2)
        u1 = self.start("u1", "consumer")
        self.share("one of the new protocol has come", c1, c2, u1)
        self.types = [str(self.describe().type)]
        u2 = self.start("u2", "consumer")
        self.share("two of each protocol", c1, c2, u1, u2)
        self.kill(u1)
        self.share("one of the new is killed", c1, c2, u2)
        self.close(c1)
        self.close(c2)
        self.share("the classic ones have left", u2)
        c3 = self.start("c3", "classic")
        self.share("a classic one has come back", u2, c3)
        self.close(u2)
        self.share("the new ones have left", c3)
        self.types.append(str(self.describe().type))
        self.rest(c3)
        self.resume("c4", protocol="consumer")

    def failover(self):
        """The coordinator's broker is killed and comes back, twice; --kill and --return are commands that take its id."""
        ms = [self.start(f"m{i}") for i in (1, 2, 3, 4)]
        self.share("four have all", *ms)
        for turn in ("first", "second"):
            node = self.describe().coordinator.id
            subprocess.run([*self.options.kill.split(), str(node)], check=True)
            self.share(f"{turn}: broker {node}, the coordinator, is killed; four have all", *ms)
            self.wait_for(f"{turn}: the group has another coordinator", lambda n=node: self.describe().coordinator.id != n)
            # Not every client says when it has committed, but the broker does.
            before = self.ask_for_certain()
            self.wait_for(
                f"{turn}: each commits with another coordinator",
                lambda b=before: all(now > b.get(p, 0) for p, now in self.watcher.answers[-1][2].items()),
            )
            subprocess.run([*getattr(self.options, "return").split(), str(node)], check=True)
            time.sleep(3)
            self.share(f"{turn}: broker {node} is back", *ms)
        self.close(*ms[1:])
        self.share("one has all", ms[0])
        self.rest(ms[0])
        self.resume("m5")

    # --- The whole -----------------------------------------------------------------------------------------------------

    def run(self):
        self.create()
        self.producer, self.watcher = Producer(self), Watcher(self)
        try:
            getattr(self, self.options.plan)()
            last = self.ask_for_certain()
            self.watcher.done.set()
            self.watcher.join(10)
        except Refused as problem:
            print(f"FAIL {self.title}: {problem}", flush=True)
            self.logs()
            return 1
        finally:
            for process in self.processes.values():
                if process.poll() is None:
                    process.kill()
        self.read_all()
        return self.judge(last)

    def judge(self, last):
        self.refresh()
        judge = Judge(self.title, self.members, self.producer.written, self.ends)
        judge.answers = self.watcher.answers
        if self.clients == ["kcat"]:
            judge.slack_ns = 500_000_000  # its lines are stamped by the reader of a pipe
            # A record that it gets after SIGTERM is not printed, but stored as done and committed: kcat's own doing.
            for m in self.members:
                if m.name not in self.killed_kcats:
                    judge.dropped |= {place: m.name for place in m.position.items()}
        told = self.members if set(self.clients) <= TELL_GENERATIONS else []
        if self.options.plan == "migration":
            # An empty group that is joined by the other protocol begins anew, from its first epoch.
            told = [m for m in told if m is not self.resumed]
        judge.all(told)
        judge.check("all is committed at the end", (f"partition {p}: {last.get(p)} of {e}" for p, e in self.ends.items() if last.get(p, 0) != e))
        judge.check("what the broker says is committed never falls, and is what members were told", self.answers_fallen(judge))
        judge.check("a new member begins where the group had stopped", self.resumed_wrongly(), f"{self.resting}")
        if self.options.plan == "static":
            judge.check("a static member that returns moves nobody", self.unmoved)
        if self.options.plan == "migration":
            right = ["ConsumerGroupType.CONSUMER", "ConsumerGroupType.CLASSIC"]
            judge.check("the group's type follows its members", [] if self.types == right else [f"{self.types}"])
        if self.options.judge:
            files = [f"{self.out}/{name}" for name in os.listdir(self.out) if name.endswith(".history")]
            done = subprocess.run([self.options.judge, "history", *files], capture_output=True, text=True)
            judge.check("perf history", done.returncode and [done.stdout + done.stderr] or [])
        print(f"     {self.title}: {time.monotonic() - self.began:.1f} s", flush=True)
        if judge.failures:
            self.logs()
        return 1 if judge.failures else 0

    def answers_fallen(self, judge):
        highest, events = {}, []
        for asked, _, told in self.watcher.answers:
            events += [(asked, 1, p, offset) for p, offset in told.items()]
        for p, commits in judge.commits.items():
            events += [(at, 0, p, offset) for at, offset, _ in commits]
        for _, asked, p, offset in sorted(events):
            if asked and offset < highest.get(p, 0):
                yield f"partition {p}: {offset} after {highest[p]}"
            highest[p] = max(highest.get(p, 0), offset)

    def resumed_wrongly(self):
        first = {}
        for e in self.resumed.events:
            if e["op"] == "poll":
                first.setdefault(e["partition"], e["offset"])
        for p, end in self.ends.items():
            resting = self.resting.get(p, 0)
            if resting < end and first.get(p) != resting:
                yield f"partition {p}: {resting} was committed, {first.get(p)} read first"

    def read_all(self):
        """Everything once more, without a group, for `perf history`: what was lost, was not there for anybody."""
        consumer = ck.Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused-by-assignment", "enable.auto.commit": False, "auto.offset.reset": "error", **QUIET})
        consumer.assign([ck.TopicPartition(self.topic, p, ck.OFFSET_BEGINNING) for p in self.ends])
        behind, deadline = {p: e for p, e in self.ends.items() if e}, time.monotonic() + PATIENCE
        with open(f"{self.out}/reader.history", "w") as out:
            while behind and time.monotonic() < deadline:
                for m in consumer.consume(1000, timeout=0.2):
                    if m.error():
                        continue
                    common = {"client": "reader", "topic": self.topic, "partition": m.partition()}
                    out.write(json.dumps({"op": "poll", **common, "offset": m.offset(), "value": m.value().decode()}) + "\n")
                    if m.offset() + 1 >= behind.get(m.partition(), 1 << 62):
                        del behind[m.partition()]
                        out.write(json.dumps({"op": "end", **common, "offset": m.offset() + 1}) + "\n")
        consumer.close()

    def logs(self):
        for m in self.members:
            with open(f"{self.out}/{m.name}.log") as log:
                tail = log.read()[-1500:].strip()
            if tail:
                print(f"--- {m.name}\n{tail}", flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--plan", default="plain", choices=["plain", "static", "migration", "failover"])
    arguments.add_argument("--member", action="append", required=True)
    arguments.add_argument("--records", type=int, default=4000)
    arguments.add_argument("--protocol", default="classic")
    arguments.add_argument("--assignor", default="-")
    arguments.add_argument("--replicas", type=int, default=1)
    arguments.add_argument("--judge")
    arguments.add_argument("--kill")
    arguments.add_argument("--return")
    status = Suite(arguments.parse_args()).run()
    sys.stdout.flush()
    os._exit(status)  # threads that are in the client's library may still run, which an orderly end does not survive


main()

"""Judges what the members of one group wrote down (see group_member.py for the form).

A Judge takes the members' histories, what was written to the topic and what the broker answered when it was asked for
committed offsets; check() prints one line a promise, and `failures` counts those that were broken.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from typing import NamedTuple

FOREVER = 1 << 62


class Poll(NamedTuple):
    time: int
    partition: int
    offset: int
    key: str
    value: str


class Holding(NamedTuple):
    """A member has a partition, from a time until another."""

    begin: int
    end: int
    member: str
    generation: int | None
    lost: bool  # it was told by the end of its session, which is too late for others to wait for


class Member:
    """The history of one process, read as it grows. identity: who it is to the group, its group.instance.id if it has one;
    killed: when."""

    def __init__(self, name, path, identity):
        self.name, self.path, self.identity, self.killed = name, path, identity, None
        self.events, self.owned, self.polls, self.position, self.rest = [], {}, 0, {}, ""
        self.closed = False
        open(path, "a").close()
        self.file = open(path, encoding="utf-8")

    def refresh(self):
        text = self.rest + self.file.read()
        *lines, self.rest = text.split("\n")  # what was torn off by a kill stays behind
        for event in map(json.loads, lines):
            self.events.append(event)
            self.follow(event)

    def follow(self, event):
        kind = event.get("kind")
        if event["op"] == "poll":
            self.polls += 1
            self.position[event["partition"]] = event["offset"] + 1
        elif kind == "assigned":
            self.owned[event["partition"]] = event["time_ns"]
        elif kind in ("revoked", "lost"):
            self.owned.pop(event["partition"], None)
        elif kind == "closing":
            self.owned, self.closed = {}, True

    def holdings(self):
        """(partition, Holding) in the order of their ends."""
        begun = {}
        end_of_all = self.killed or FOREVER
        for event in self.events:
            if event["op"] != "assign":
                continue
            kind, time = event["kind"], event["time_ns"]
            ending = list(begun) if kind == "closing" else [event["partition"]]
            for p in ending:
                if p in begun:
                    begin, generation = begun.pop(p)
                    yield p, Holding(begin, time, self.name, generation, kind == "lost")
            if kind == "assigned":
                begun[event["partition"]] = (time, event.get("generation"))
        for p, (begin, generation) in begun.items():
            yield p, Holding(begin, end_of_all, self.name, generation, False)


class Judge:
    def __init__(self, title, members, written, ends):
        """written: (partition, offset) → (key, value); ends: partition → end."""
        self.title, self.members, self.written, self.ends = title, members, written, ends
        self.failures = 0
        self.slack_ns = 0  # how much later than it was true a line may be written
        self.dropped = {}  # (partition, offset) → member: what a client may throw away at its end, one each
        self.answers = []  # of the broker: (asked, answered, partition → offset)
        self.polls = defaultdict(list)  # partition → polls
        self.commits = defaultdict(list)  # partition → (time, offset, member)
        self.holdings = defaultdict(list)
        for m in members:
            for e in m.events:
                if e["op"] == "poll":
                    self.polls[e["partition"]].append(Poll(e["time_ns"], e["partition"], e["offset"], e["key"], e["value"]))
                elif e["op"] == "commit":
                    self.commits[e["partition"]].append((e["time_ns"], e["offset"], m.name))
            for p, holding in m.holdings():
                self.holdings[p].append(holding)
        for of_partition in (*self.polls.values(), *self.commits.values(), *self.holdings.values()):
            of_partition.sort()

    def check(self, name, problems, detail=""):
        problems = list(problems)
        if problems:
            self.failures += 1
            print(f"FAIL {self.title}: {name}: {len(problems)} wrong; " + "; ".join(problems[:3]), flush=True)
        else:
            print(f"ok   {self.title}: {name}{': ' + detail if detail else ''}", flush=True)

    def all(self, generations_of):
        """generations_of: the members among whom a generation is one and the same; none, if clients do not tell."""
        total = sum(map(len, self.polls.values()))
        again = total - len({(p.partition, p.offset) for polls in self.polls.values() for p in polls})
        self.check("nothing skipped, and all as it was written", self.skipped(), f"{len(self.written)} records, {again} of them polled again")
        self.check("at least once: polled before committed", self.committed_unread(), f"{sum(map(len, self.commits.values()))} commits told, {len(self.answers)} times asked")
        self.check("committed offsets never fall", self.fallen())
        self.check("order per partition and assignment, none without one", self.disorder())
        self.check("who takes over begins where the last one committed", self.wrong_starts())
        self.check("one owner at a time", self.overlaps(), f"{sum(map(len, self.holdings.values()))} assignments")
        if generations_of:
            self.check("one owner per generation", self.shared_generations({m.name: m.identity for m in generations_of}))
        self.check("every member had a part", (f"{m.name} polled nothing" for m in self.members if not m.polls))

    def skipped(self):
        seen = {(p.partition, p.offset) for polls in self.polls.values() for p in polls}
        forgiven = {member: place for place, member in self.dropped.items() if place not in seen}
        seen |= set(forgiven.values())
        for p, end in self.ends.items():
            missing = [o for o in range(end) if (p, o) not in seen]
            if missing:
                yield f"partition {p}: {len(missing)} of {end} records, the first at {missing[0]}"
        for polls in self.polls.values():
            for poll in polls:
                expected = self.written.get((poll.partition, poll.offset))
                if expected != (poll.key, poll.value):
                    yield f"{poll.partition}/{poll.offset} is {(poll.key, poll.value)} instead of {expected}"

    def committed_unread(self):
        for p in self.ends:
            commits = self.commits[p]
            first = {}
            for poll in self.polls[p]:
                first.setdefault(poll.offset, poll.time)
            for place, offset in self.dropped:
                if place == p:
                    first.setdefault(offset, first.get(offset - 1, 0))
            ready, reached = [], 0  # ready[o]: when all below o + 1 had been polled
            for o in range(max(first, default=-1) + 1):
                reached = max(reached, first.get(o, FOREVER))
                ready.append(reached)
            told = [(answered, offsets[p], "the group has") for _, answered, offsets in self.answers if p in offsets]
            for time, offset, member in commits + told:
                if offset > len(ready) or offset and ready[offset - 1] > time:
                    yield f"{member} committed {offset} of partition {p} before all below it was polled"

    def fallen(self):
        for p, commits in self.commits.items():
            for (_, before, a), (_, after, b) in zip(commits, commits[1:]):
                if after < before:
                    yield f"partition {p}: {a} committed {before}, then {b} {after}"

    def by_holding(self):
        """(member, partition, what it polled in one holding, or outside of all), in time."""
        for m in self.members:
            begins = defaultdict(list)
            for p, holding in m.holdings():
                begins[p].append(holding)
            for of_partition in begins.values():
                of_partition.sort()
            grouped = defaultdict(list)
            for e in m.events:
                if e["op"] == "poll":
                    p, time = e["partition"], e["time_ns"]
                    at = bisect_right([h.begin for h in begins[p]], time) - 1
                    inside = at >= 0 and time <= begins[p][at].end
                    grouped[(p, at if inside else -1)].append(e)
            for (p, at), polls in grouped.items():
                yield m, p, begins[p][at] if at >= 0 else None, polls

    def disorder(self):
        for m, p, holding, polls in self.by_holding():
            if holding is None:
                yield f"{m.name} polled {p}/{polls[0]['offset']} and {len(polls) - 1} more without having the partition"
            for a, b in zip(polls, polls[1:]):
                if b["offset"] != a["offset"] + 1:
                    yield f"{m.name} polled {p}/{b['offset']} after {a['offset']}"

    def wrong_starts(self):
        for m, p, holding, polls in self.by_holding():
            if holding is None:
                continue
            start, begin = polls[0]["offset"], holding.begin
            committed = max((o for time, o, _ in self.commits[p] if time < begin), default=0)
            told = max((offsets.get(p, 0) for _, answered, offsets in self.answers if answered < begin), default=0)
            known = max((q.offset + 1 for q in self.polls[p] if q.time < polls[0]["time_ns"]), default=0)
            if not max(committed, told) <= start <= known + ((p, known) in self.dropped):
                yield f"{m.name} began at {p}/{start}; {max(committed, told)} was committed, {known} read"

    def overlaps(self):
        for p, holdings in self.holdings.items():
            for a, b in zip(holdings, holdings[1:]):
                if b.begin + self.slack_ns < a.end and not a.lost:
                    late = (a.end - b.begin) / 1e6
                    yield f"partition {p}: {b.member} has it {late:.1f} ms before {a.member} gives it up"

    def shared_generations(self, identities):
        for p, holdings in self.holdings.items():
            owners = {}
            for h in holdings:
                who = identities.get(h.member)
                if who and h.generation is not None and owners.setdefault(h.generation, who) != who:
                    yield f"partition {p}: {owners[h.generation]} and {h.member} have it in generation {h.generation}"

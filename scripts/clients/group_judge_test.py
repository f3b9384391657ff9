"""The judge of groups judged: a history without fault is clean, and each fault, put in by hand, is seen by its own check.

group_judge_test.py
"""

import contextlib
import io
import json
import sys
import tempfile

from group_judge import Judge, Member

RECORDS = 10
A, B = "a", "b"


def clean():
    """Partition 0: a reads 0–4 and commits 5, gives it up, and b reads and commits the rest."""
    time = 0

    def line(op, **fields):
        nonlocal time
        time += 10
        return {"op": op, "time_ns": time, **fields}

    lines = {A: [line("assign", kind="assigned", partition=0, generation=1)]}
    lines[A] += [line("poll", partition=0, offset=o, key="k", value=str(o)) for o in range(5)]
    lines[A] += [line("commit", partition=0, offset=5), line("assign", kind="revoked", partition=0, generation=1)]
    lines[B] = [line("assign", kind="assigned", partition=0, generation=2)]
    lines[B] += [line("poll", partition=0, offset=o, key="k", value=str(o)) for o in range(5, RECORDS)]
    lines[B] += [line("commit", partition=0, offset=RECORDS), line("assign", kind="closing")]
    return lines, [(52, 58, {0: 2}), (75, 78, {0: 5})]


def judged(lines, answers):
    """The names of the checks that are red."""
    with tempfile.TemporaryDirectory() as folder:
        members = []
        for name, events in lines.items():
            with open(f"{folder}/{name}", "w") as out:
                out.writelines(json.dumps(e) + "\n" for e in events)
            members.append(Member(name, f"{folder}/{name}", name))
            members[-1].refresh()
        judge = Judge("t", members, {(0, o): ("k", str(o)) for o in range(RECORDS)}, {0: RECORDS})
        judge.answers = answers
        with contextlib.redirect_stdout(io.StringIO()) as said:
            judge.all(members)
    return {line.split(": ")[1] for line in said.getvalue().splitlines() if line.startswith("FAIL")}


SKIPPED = "nothing skipped, and all as it was written"
AT_LEAST = "at least once"
FALLEN = "committed offsets never fall"
ORDER = "order per partition and assignment, none without one"
START = "who takes over begins where the last one committed"
OWNER = "one owner at a time"
GENERATION = "one owner per generation"
PART = "every member had a part"


def at(events, op, offset):
    return next(i for i, e in enumerate(events) if e["op"] == op and e.get("offset") == offset)


def put(name, position, **fields):
    def fault(lines, _):
        lines[name][position].update(fields)

    return fault


def drop(name, op, offset):
    return lambda lines, _: lines[name].pop(at(lines[name], op, offset))


def insert(name, position, **event):
    return lambda lines, _: lines[name].insert(position, event)


FAULTS = {
    "the last record is not read": (drop(B, "poll", RECORDS - 1), {SKIPPED, AT_LEAST}),
    "a record in the middle is not read": (drop(A, "poll", 2), {SKIPPED, AT_LEAST, ORDER}),
    "another value": (put(A, 3, value="9"), {SKIPPED}),
    "another key": (put(A, 3, key="x"), {SKIPPED}),
    "committed before it was read": (put(A, 6, time_ns=35), {AT_LEAST}),
    "committed beyond what was read": (put(A, 6, offset=6), {AT_LEAST, START}),
    "told to be committed before it was read": (lambda _, answers: answers.append((10, 25, {0: 3})), {AT_LEAST}),
    "a commit goes back": (insert(B, 6, op="commit", partition=0, offset=4, time_ns=137), {FALLEN}),
    "read twice in one holding": (insert(A, 4, op="poll", partition=0, offset=1, key="k", value="1", time_ns=35), {ORDER}),
    "read after it was given up": (insert(A, 8, op="poll", partition=0, offset=5, key="k", value="5", time_ns=89), {ORDER}),
    "the next owner begins too early": (insert(B, 1, op="poll", partition=0, offset=4, key="k", value="4", time_ns=95), {START}),
    "two have it": (put(A, 7, time_ns=95), {OWNER}),
    "two have it in a generation": (put(B, 0, generation=1), {GENERATION}),
    "one never reads": (lambda lines, _: lines.update(c=[]), {PART}),
}

wrong = 0
for what, (fault, expected) in {"no fault": (lambda *_: None, set()), **FAULTS}.items():
    lines, answers = clean()
    fault(lines, answers)
    seen = judged(lines, answers)
    if seen != expected:
        wrong += 1
        print(f"FAIL judge: {what}: {seen or 'nothing'} instead of {expected or 'nothing'}")
print(f"{'FAIL' if wrong else 'ok  '} judge: {len(FAULTS)} faults are seen, each by its own checks, and none without a fault")
sys.exit(1 if wrong else 0)

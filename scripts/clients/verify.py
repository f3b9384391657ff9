"""Judges what a suite wrote down: the records it read, the offsets it was told, and the batches as they are stored.

    verify.py CLIENT BOOTSTRAP TOPIC BASE OUT

OUT holds plan.tsv and, from the suite, earliest.tsv, offset.tsv and timestamp.tsv (records, see record.dump),
starts.tsv ("offset|timestamp|end PARTITION OFFSET": where the client began to read, and the end as it knows it;
"time 0 T": the timestamp it asked for) and reports.tsv (the offsets that the client was told of). One line a check;
exits with 1 when one of them failed.
"""

import sys
from collections import defaultdict

import record as rule
import wire

CLIENT, BOOTSTRAP, TOPIC, BASE, OUT = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
TRAITS = rule.TRAITS[CLIENT]
RUNS = {run.name: run for run in rule.read_plan(OUT)}
TOTAL = rule.total(RUNS.values())
LATE = 60 * 60 * 1000  # broker-side timestamps lie at most this long after BASE
failures = 0


def check(name, problems, detail=""):
    """Prints one line; problems are sentences, and the first three are shown."""
    global failures
    problems = list(problems)
    if problems:
        failures += 1
        print(f"FAIL {CLIENT}: {name}: {len(problems)} wrong; " + "; ".join(problems[:3]))
    else:
        print(f"ok   {CLIENT}: {name}{': ' + detail if detail else ''}")


def rows(name):
    with open(f"{OUT}/{name}.tsv") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t")


def load(name):
    """partition → [(offset, timestamp, key, value, headers)] in the order read, still as text."""
    read = defaultdict(list)
    for partition, offset, timestamp, *content in rows(name):
        read[int(partition)].append((int(offset), int(timestamp), *content))
    return read


def number(key, value, headers):
    """(run, i) of a record, from whatever of it is not null."""
    if value != "~":
        _, run, i, _ = bytes.fromhex(value).decode().split("/", 3)
    elif key != "~":
        _, run, i = bytes.fromhex(key).decode().split("-")
    else:
        named = dict(part.split("=") for part in headers.split(","))
        run, i = (bytes.fromhex(named[name]).decode() for name in ("run", "i"))
    return RUNS[run], int(i)


read = load("earliest")
count = sum(map(len, read.values()))
ends = {p: records[-1][0] + 1 for p, records in read.items()}

# Content, and from it who is who: place[n] = (partition, offset).
wrong, order, place, home = [], [], {}, {}
split_keys = set()
for partition, records in read.items():
    last = -1
    for offset, timestamp, *content in records:
        at = f"{partition}/{offset}"
        try:
            run, i = number(*content)
            n = run.first + i
        except Exception as error:
            wrong.append(f"{at} is no record of this suite ({error!r})")
            continue
        key, value, headers = rule.record(CLIENT, run.name, i)
        names = ",".join(f"{name}={rule.dump_bytes(v)}" for name, v in headers)
        for field, got, expected in zip(
            ("key", "value", "headers"), content, (rule.dump_bytes(key), rule.dump_bytes(value), names)
        ):
            if got != expected:
                wrong.append(f"{at} ({run.name} {i}): {field} {got[:80]!r} instead of {expected[:80]!r}")
        if TRAITS["stamps"] and timestamp != BASE + n:
            wrong.append(f"{at} ({run.name} {i}): timestamp {timestamp} instead of {BASE + n}")
        if not TRAITS["stamps"] and not BASE <= timestamp <= BASE + LATE:
            wrong.append(f"{at} ({run.name} {i}): timestamp {timestamp} is not of this hour")
        if n <= last:
            order.append(f"{at} is n={n} after n={last}")
        last = max(last, n)
        if n in place:
            order.append(f"n={n} is at {at} and at {place[n][0]}/{place[n][1]}")
        place[n] = (partition, offset)
        if key is not None and home.setdefault(key, partition) != partition:
            split_keys.add(f"{key!r} is in partitions {home[key]} and {partition}")

missing = [f"n={n} was never read" for n in range(TOTAL) if n not in place]
check("complete", missing + ([f"{count} records read instead of {TOTAL}"] if count != TOTAL else []), f"{count} records")
check("content (keys, values, headers, nulls, timestamps)", wrong)
check("order and once each, per partition and key", order + sorted(split_keys))
check(
    "offsets contiguous from 0",
    (
        f"{p}: position {position} has offset {row[0]}"
        for p, records in read.items()
        for position, row in enumerate(records)
        if row[0] != position
    ),
    f"{len(read)} partitions",
)
check("all partitions used", (f"partition {p} is empty" for p in range(rule.PARTITIONS) if p not in read))

# "each": a line a record, "n PARTITION OFFSET". "batch": a line a partition of a send, "from-to PARTITION OFFSET", the
# offset that of the first record of [from, to) in that partition.
if TRAITS["reports"] != "none":
    told, problems, covered = 0, [], set()
    at = {where: n for n, where in place.items()}
    for name, partition, offset in rows("reports"):
        told += 1
        where = (int(partition), int(offset))
        if TRAITS["reports"] == "each":
            covered.add(int(name))
            right = place.get(int(name)) == where
        else:
            low, high = map(int, name.split("-"))
            covered.update(range(low, high))
            right = low <= at.get(where, -1) < high and at.get((where[0], where[1] - 1), -1) < low
        if not right:
            problems.append(f"n={name} was reported at {where}, where n={at.get(where)} was read")
    for run in RUNS.values():
        got = sum(n in covered for n in range(run.first, run.first + run.count))
        if run.acks != "0" and got != run.count:
            problems.append(f"{run.name}: reports for {got} of {run.count} records")
    check("reported offsets are those read", problems, f"{told} reports")

# The other two reads are tails of the first; where they begin is computed from it alone.
starts = defaultdict(dict)
for kind, partition, offset in rows("starts"):
    starts[kind][int(partition)] = int(offset)
known = starts["end"]
check(
    "end offsets",
    (f"{p}: the client says {known.get(p)}, {end} was read to" for p, end in ends.items() if known.get(p) != end),
)
time = starts["time"].get(0)
for kind, title in (("offset", "read from an offset"), ("timestamp", f"read from timestamp {time}")):
    problems, tail = [], load(kind)
    if len(starts[kind]) != TRAITS["tails"] or not set(tail) <= set(starts[kind]):
        problems.append(f"began in partitions {sorted(starts[kind])}, read from {sorted(tail)}")
    for p, start in starts[kind].items():
        records = read[p]
        if kind == "timestamp":
            expected = next((row[0] for row in records if row[1] >= time), None)
            if start != expected:
                problems.append(f"{p}: the broker answered offset {start} instead of {expected}")
                continue
        if not 0 < start < ends.get(p, 0):
            problems.append(f"{p}: began at {start}, which proves nothing")
        elif tail[p] != records[start:]:
            got = next((a[0] for a, b in zip(tail[p], records[start:]) if a != b), f"{len(tail[p])} records")
            problems.append(f"{p}: from {start}: differs at {got}, {len(records) - start} records expected")
    check(title, problems, f"{sum(map(len, tail.values()))} records")

# The batches as stored.
broker = wire.Broker(BOOTSTRAP)
problems = []
named = defaultdict(int)
run_of = {at: run for run in RUNS.values() for n in range(run.first, run.first + run.count) if (at := place.get(n))}
batches = 0
for p, end in ends.items():
    if broker.list_offset(TOPIC, p, -1) != end or broker.list_offset(TOPIC, p, -2) != 0:
        problems.append(f"{p}: ListOffsets does not answer 0 and {end}")
    next_offset = 0
    for batch in broker.batches(TOPIC, p, 0, end):
        batches += 1
        run = run_of.get((p, batch.base))
        if run is None:
            problems.append(f"{p}/{batch.base}: begins with a record that was not read")
            continue
        if batch.base != next_offset or batch.last - batch.base + 1 != batch.count:
            problems.append(f"{p}: batch {batch} where {next_offset} comes next")
        next_offset = batch.last + 1
        if (batch.producer_id >= 0) != run.idempotent:
            problems.append(f"{p}/{batch.base} ({run.name}): producer id {batch.producer_id}")
        if batch.codec == run.codec:
            named[run.name] += batch.count
        elif batch.codec != "none":
            problems.append(f"{p}/{batch.base} ({run.name}): codec {batch.codec}")
# A client leaves a batch as it is when compressing gains nothing, which here only a few small ones do.
problems += [
    f"{run.name}: only {named[run.name]} of {run.count} records are stored as {run.codec}"
    for run in RUNS.values()
    if named[run.name] < run.count * 0.9
]
check("stored batches (codec, producer id, offsets)", problems, f"{batches} batches")

sys.exit(1 if failures else 0)

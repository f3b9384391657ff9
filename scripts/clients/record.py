"""The rule of the client suites: every record is a function of (client, run, index), so that any language
can write it and one verifier can know what must come back.

A suite produces the runs of the plan one after the other into one topic. A record's place in the whole is
its number n, and n is what order, completeness and "exactly once" are checked by.

    value     "CLIENT/RUN/i/" and up to 180 letters; every 2000th is 30,000 letters long
    key       "key-" + i % 97; none where i % 50 == 7
    tombstone where i % 41 == 11: no value, and a key of its own, "gone-RUN-i"
    nothing   where i % 1000 == 999: neither key nor value, only headers
    headers   where i % 3 == 0 (and on "nothing"): i, run; full clients add, where i % 15 == 0, a name twice,
              one without a value and one with an empty value
    timestamp BASE + n ms, where the client can set it
"""

import sys
from typing import NamedTuple

PARTITIONS = 6
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LARGE = LETTERS * 1154

# What a client can say. headers: full, simple (each name once, no nulls) or fixed (two, the same on every record).
# nothing: it lets key and value both be null. stamps: it sets timestamps. reports: it tells the offset of each
# record, of the first in each partition of a send, or none. tails: of how many partitions it reads a tail.
TRAITS = {
    "kcat": dict(headers="fixed", nothing=False, stamps=False, reports="none", tails=6),
    "confluent-kafka": dict(headers="full", nothing=True, stamps=True, reports="each", tails=6),
    "kafka-python": dict(headers="simple", nothing=False, stamps=True, reports="each", tails=6),
    "aiokafka": dict(headers="full", nothing=False, stamps=True, reports="each", tails=6),
    "kafkajs": dict(headers="simple", nothing=True, stamps=True, reports="batch", tails=6),
    "platformatic": dict(headers="simple", nothing=True, stamps=True, reports="batch", tails=6),
    "java": dict(headers="full", nothing=True, stamps=True, reports="each", tails=6),
    "java-tools": dict(headers="simple", nothing=True, stamps=False, reports="none", tails=2),
    "franz-go": dict(headers="full", nothing=True, stamps=True, reports="each", tails=6),
    "sarama": dict(headers="full", nothing=True, stamps=True, reports="each", tails=6),
    "rdkafka": dict(headers="full", nothing=True, stamps=True, reports="each", tails=6),
}


class Run(NamedTuple):
    name: str
    codec: str
    acks: str  # all, 1 or 0
    idempotent: bool
    count: int
    first: int  # n of its first record


def plan(records=20_000):
    """Every codec at full length with acks=all and idempotence; then, shorter, acks=1 and last acks=0 (whose
    tail may still be on its way when its producer closes)."""
    few = max(records // 10, min(records, 500))
    runs, first = [], 0
    for name, codec, acks, idempotent, count in [
        ("none", "none", "all", True, records),
        ("gzip", "gzip", "all", True, records),
        ("snappy", "snappy", "all", True, records),
        ("lz4", "lz4", "all", True, records),
        ("zstd", "zstd", "all", True, records),
        ("acks1", "gzip", "1", False, few),
        ("acks0", "none", "0", False, few),
    ]:
        runs.append(Run(name, codec, acks, idempotent, count, first))
        first += count
    return runs


def read_plan(out):
    with open(f"{out}/plan.tsv") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    return [Run(r[0], r[1], r[2], r[3] == "1", int(r[4]), int(r[5])) for r in rows]


def total(runs):
    return sum(run.count for run in runs)


def record(client, run, i):
    """(key, value, headers): bytes or None, and a list of (name, bytes or None)."""
    headers = []
    style = TRAITS[client]["headers"]
    nothing = i % 1000 == 999 and TRAITS[client]["nothing"]
    if style == "fixed":
        headers = [("client", client.encode()), ("run", run.encode())]
    elif i % 3 == 0 or nothing:
        headers = [("i", b"%d" % i), ("run", run.encode())]
        if style == "full" and i % 15 == 0:
            headers += [("dup", b"a"), ("dup", b"b"), ("void", None), ("empty", b"")]
    if nothing:
        return None, None, headers
    if i % 41 == 11:
        return f"gone-{run}-{i}".encode(), None, headers
    key = None if i % 50 == 7 else b"key-%d" % (i % 97)
    length = 30_000 if i % 2000 == 1999 else i * 7 % 180
    return key, f"{client}/{run}/{i}/{LARGE[:length]}".encode(), headers


# What a suite read is a text: one line a record, fields between tabs, bytes in hex, "~" for null.


def dump_bytes(data):
    return "~" if data is None else data.hex()


def dump(partition, offset, timestamp, key, value, headers):
    names = ",".join(f"{name}={dump_bytes(v)}" for name, v in headers or [])
    return f"{partition}\t{offset}\t{timestamp}\t{dump_bytes(key)}\t{dump_bytes(value)}\t{names}\n"


if __name__ == "__main__":
    # record.py OUT [RECORDS]: writes the plan that the suite, in whatever language, reads.
    with open(f"{sys.argv[1]}/plan.tsv", "w") as out:
        for r in plan(int(sys.argv[2]) if len(sys.argv) > 2 else 20_000):
            out.write(f"{r.name}\t{r.codec}\t{r.acks}\t{int(r.idempotent)}\t{r.count}\t{r.first}\n")

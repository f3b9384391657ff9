"""kcat, as Debian ships it (librdkafka 2.0.2: one of the old ones that enable features by exact API versions).

    kcat_suite.py BOOTSTRAP TOPIC BASE OUT

kcat creates no topics, so the verifier's own CreateTopics does; keys and values go in as lines, "-Z" makes the
empty ones null, and one set of headers serves a whole run.
"""

import json
import subprocess
import sys
import time

import record as rule
import wire

BOOTSTRAP, TOPIC, BASE, OUT = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
RUNS = rule.read_plan(OUT)
TOTAL = rule.total(RUNS)


def kcat(*arguments, stdin=None):
    done = subprocess.run(["kcat", "-b", BOOTSTRAP, *map(str, arguments)], input=stdin, capture_output=True, timeout=90)
    if done.returncode:
        raise SystemExit(f"FAIL kcat: {' '.join(map(str, arguments))}: {done.stderr.decode()[-500:]}")
    return done.stdout


def rows(output):
    for line in output.splitlines():
        m = json.loads(line)
        key, value = (None if m[name] is None else m[name].encode() for name in ("key", "payload"))
        headers = [(name, v.encode()) for name, v in zip(*[iter(m.get("headers", []))] * 2)]
        yield m["partition"], m["offset"], m["ts"], key, value, headers


def query(timestamps):
    """ListOffsets for each partition; kcat prints "topic [p] offset n"."""
    asked = [word for p, t in timestamps.items() for word in ("-t", f"{TOPIC}:{p}:{t}")]
    answers = [line.split() for line in kcat("-Q", *asked).decode().splitlines()]
    return {int(words[1].strip("[]")): int(words[3]) for words in answers}


wire.Broker(BOOTSTRAP).create_topic(TOPIC, rule.PARTITIONS)
partitions = []
while len(partitions) < rule.PARTITIONS:
    partitions = json.loads(kcat("-L", "-J", "-t", TOPIC))["topics"][0]["partitions"]
print(f"ok   kcat: -L lists {TOPIC} with {len(partitions)} partitions")

for run in RUNS:
    if run.name == "zstd":
        time.sleep(0.01)
        when = int(time.time() * 1000)
        time.sleep(0.01)
    lines, headers = bytearray(), []
    for i in range(run.count):
        key, value, headers = rule.record("kcat", run.name, i)
        lines += (key or b"") + b"\t" + (value or b"") + b"\n"
    sets = [word for name, v in headers for word in ("-H", f"{name}={v.decode()}")]
    settings = [f"acks={run.acks}", f"enable.idempotence={str(run.idempotent).lower()}", f"compression.codec={run.codec}"]
    sets += [word for setting in settings for word in ("-X", setting)]
    kcat("-P", "-t", TOPIC, "-K", "\t", "-Z", *sets, stdin=bytes(lines))
    print(f"ok   kcat: produced {run.count} with {run.codec}, acks={run.acks}{', idempotent' * run.idempotent}")


def consume(name, *invocations):
    seen = 0
    with open(f"{OUT}/{name}.tsv", "w") as out:
        for arguments in invocations:
            for row in rows(kcat("-C", "-t", TOPIC, "-q", "-J", "-X", "check.crcs=true", *arguments)):
                out.write(rule.dump(*row))
                seen += 1
    print(f"ok   kcat: read {seen} records from {name}")


# acks=0 promises nothing about when: the end is where every record is in.
deadline = time.monotonic() + 20
ends = {}
while sum(ends.values()) < TOTAL and time.monotonic() < deadline:
    ends = query({p: -1 for p in range(rule.PARTITIONS)})
later = query({p: when for p in ends})
middle = {p: end * 3 // 4 for p, end in ends.items()}
with open(f"{OUT}/starts.tsv", "w") as starts:
    starts.write(f"time\t0\t{when}\n")
    for kind, offsets in (("end", ends), ("offset", middle), ("timestamp", later)):
        for p, offset in offsets.items():
            starts.write(f"{kind}\t{p}\t{offset}\n")
consume("earliest", ["-o", "beginning", "-e"])
consume("offset", *(["-p", p, "-o", offset, "-e"] for p, offset in middle.items()))
consume("timestamp", ["-o", f"s@{when}", "-e"])

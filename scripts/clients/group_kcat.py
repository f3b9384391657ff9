"""A member of a group: kcat -G (librdkafka 2.0.2), whose output is put into the form of group_member.py.

kcat commits by itself, what it has handed out, and does not tell: there are no "commit" lines. A line "kill" on standard
input ends kcat with SIGKILL; everything it printed until then is still written down.
"""

import json
import re
import subprocess
import sys

import group_member as rule


class KcatNotes(rule.Notes):
    def await_end_of_input(self):
        line = sys.stdin.readline()
        if line.strip() == "kill":
            kcat.kill()
        else:
            self.stopping.set()
            kcat.terminate()  # it closes its consumer, which commits


settings = {
    "session.timeout.ms": rule.SESSION_MS,
    "heartbeat.interval.ms": rule.HEARTBEAT_MS,
    "auto.offset.reset": "earliest",
    "auto.commit.interval.ms": 200,
    "client.id": sys.argv[4],
}
if sys.argv[7] != "-":
    settings["partition.assignment.strategy"] = sys.argv[7]
if sys.argv[8] != "-":
    settings["group.instance.id"] = sys.argv[8]
words = [word for name, value in settings.items() for word in ("-X", f"{name}={value}")]
# One pipe for records and for what it says of rebalances: only so is their order kept.
kcat = subprocess.Popen(
    ["kcat", "-b", sys.argv[1], *words, "-u", "-J", "-G", sys.argv[3], sys.argv[2]],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    stdin=subprocess.DEVNULL,
)
notes = KcatNotes()
for line in kcat.stdout:
    if not line.endswith(b"\n"):
        break  # killed within a record
    if line.startswith(b"{"):
        m = json.loads(line)
        notes.calls += 1
        notes.polled(m["partition"], m["offset"], m["key"].encode(), m["payload"].encode())
        continue
    # "% Group g rebalanced (memberid …): assigned: topic [0], topic [1]"
    text = line.decode(errors="replace")
    told = re.search(r"rebalanced \(.*\): (assigned|revoked): (.*)", text)
    if told:
        notes.moved(told[1], map(int, re.findall(r"\[(\d+)\]", told[2])))
    elif "Reached end of topic" not in text and "Waiting for group" not in text:
        notes.complain("kcat", text.strip())
kcat.wait()
notes.closing()

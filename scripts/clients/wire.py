"""Four Kafka requests by hand (CreateTopics 2, ListOffsets 1, Fetch 4, ApiVersions 0), so that the verifier can look
at the batches themselves: no client tells with which codec, or under which producer id, a record was stored."""

import socket
import struct
from typing import NamedTuple

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


class Batch(NamedTuple):
    base: int
    last: int
    codec: str
    producer_id: int
    count: int


def text(s):
    return struct.pack(">h", len(s)) + s.encode()


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def get(self, form):
        value = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(">" + form)
        return value[0] if len(value) == 1 else value

    def bytes(self, length):
        self.at += max(length, 0)
        return self.data[self.at - max(length, 0) : self.at]

    def text(self):
        return self.bytes(self.get("h")).decode()


class Broker:
    def __init__(self, bootstrap):
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.correlation = 0

    def ask(self, key, version, body):
        self.correlation += 1
        frame = struct.pack(">hhi", key, version, self.correlation) + text("ringbolt-verify") + body
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        (length,) = struct.unpack(">i", self.exactly(4))
        reply = Reader(self.exactly(length))
        assert reply.get("i") == self.correlation, "correlation id of another request"
        return reply

    def exactly(self, length):
        data = bytearray()
        while len(data) < length:
            part = self.socket.recv(min(length - len(data), 1 << 20))
            if not part:
                raise ConnectionError("the broker closed the connection")
            data += part
        return bytes(data)

    def api_versions(self):
        reply = self.ask(18, 0, b"")
        error, count = reply.get("hi")
        assert error == 0, f"ApiVersions: error {error}"
        return {key: (low, high) for key, low, high in (reply.get("hhh") for _ in range(count))}

    def create_topic(self, topic, partitions, configs=()):
        body = struct.pack(">i", 1) + text(topic) + struct.pack(">ihi", partitions, 1, 0) + struct.pack(">i", len(configs))
        for name, value in configs:
            body += text(name) + text(value)
        reply = self.ask(19, 2, body + struct.pack(">i?", 30_000, False))
        reply.get("ii")
        reply.text()
        error = reply.get("h")
        assert error == 0, f"CreateTopics {topic}: error {error}"

    def list_offset(self, topic, partition, timestamp):
        """timestamp -1 is the end, -2 the beginning."""
        body = struct.pack(">ii", -1, 1) + text(topic) + struct.pack(">iiq", 1, partition, timestamp)
        reply = self.ask(2, 1, body)
        reply.get("i")
        reply.text()
        _, _, error, _, offset = reply.get("iihqq")
        assert error == 0, f"ListOffsets {topic}/{partition}: error {error}"
        return offset

    def batches(self, topic, partition, offset, end):
        """The batches of one partition from offset to end."""
        while offset < end:
            body = struct.pack(">iiiibi", -1, 1000, 1, 1 << 24, 0, 1) + text(topic)
            body += struct.pack(">iiqi", 1, partition, offset, 1 << 22)
            reply = self.ask(1, 4, body)
            reply.get("ii")
            reply.text()
            _, _, error, _, _, aborted = reply.get("iihqqi")
            assert error == 0, f"Fetch {topic}/{partition} at {offset}: error {error}"
            for _ in range(max(aborted, 0)):
                reply.get("qq")
            records = Reader(reply.bytes(reply.get("i")))
            before = offset
            while records.at + 61 <= len(records.data):
                start = records.at
                base, length = records.get("qi")
                if start + 12 + length > len(records.data):
                    break
                _, magic, _, attributes, delta, _, _, producer_id, _, _, count = records.get("ibIhiqqqhii")
                assert magic == 2, f"magic {magic} at {topic}/{partition}/{base}"
                records.at = start + 12 + length
                if base + delta >= offset:
                    yield Batch(base, base + delta, CODECS[attributes & 7], producer_id, count)
                    offset = base + delta + 1
            assert offset > before, f"Fetch {topic}/{partition} at {offset}: nothing, though the end is {end}"

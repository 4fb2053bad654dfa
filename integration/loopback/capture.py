"""What crossed the lab's wires: SIP messages out of a capture, octet by octet, and what tshark finds wrong in it.

Start at `Capture` and `faults`. Reads the classic pcap format of loopback (Ethernet, IPv4) and nothing else; TCP is put
together in the order of its sequence numbers, which on loopback is the order it came in.
"""

import collections
import re
import socket
import struct
import subprocess


MARK_PORT = 9  # datagrams to it mark how far a capture has come


class Sip:
    """One SIP message as it crossed."""

    def __init__(self, time, source, target, protocol, octets):
        self.time, self.source, self.target, self.protocol, self.octets = time, source, target, protocol, octets
        head, _, self.body = octets.partition(b"\r\n\r\n")
        lines = head.decode("utf-8", "replace").split("\r\n")
        self.start = lines[0]
        self.headers = []
        for line in lines[1:]:
            if line[:1] in (" ", "\t") and self.headers:
                name, value = self.headers[-1]
                self.headers[-1] = (name, value + " " + line.strip())
            else:
                name, _, value = line.partition(":")
                self.headers.append((name.strip(), value.strip()))

    def all(self, name):
        """The values of every line of that name."""
        return [value for one, value in self.headers if one.lower() == name.lower()]

    def get(self, name):
        return (self.all(name) or [""])[0]

    def entries(self, name):
        """The elements of a header that is a list of addresses, over all its lines."""
        return [one.strip() for value in self.all(name) for one in re.split(r",\s*(?=<)", value)]

    @property
    def method(self):
        """Of a request; None in a response."""
        return None if self.start.startswith("SIP/2.0 ") else self.start.split(" ")[0]

    @property
    def uri(self):
        return self.start.split(" ")[1]

    @property
    def status(self):
        return int(self.start.split(" ")[1]) if self.method is None else None

    @property
    def call_id(self):
        return self.get("Call-ID")

    def __repr__(self):
        return f"{self.time:.6f} {self.source} > {self.target} {self.start}"


class Capture:
    """The SIP messages of a capture that may still be growing, of datagrams and connections with one of these ports."""

    def __init__(self, path, ports):
        self.path, self.ports = path, set(ports)
        self.offset, self.order, self.fraction = 0, None, 0.0
        self.streams, self.messages = {}, []
        self.marks = set()

    def read(self):
        """Takes over what came since the last time; gives all messages, in order of completion."""
        with open(self.path, "rb") as file:
            if self.order is None:
                head = file.read(24)
                if len(head) < 24:
                    return self.messages
                self.order = "<" if head[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
                nano = head[:4] in (b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d")
                self.fraction, self.offset = (1e-9 if nano else 1e-6), 24
            file.seek(self.offset)
            while len(record := file.read(16)) == 16:
                seconds, parts, kept, _ = struct.unpack(self.order + "IIII", record)
                frame = file.read(kept)
                if len(frame) < kept:
                    break
                self.offset += 16 + kept
                self.packet(seconds + parts * self.fraction, frame)
        return self.messages

    def packet(self, time, frame):
        if frame[12:14] != b"\x08\x00":  # IPv4
            return
        ip = frame[14:]
        ip = ip[: struct.unpack("!H", ip[2:4])[0] or len(ip)]
        inner = ip[(ip[0] & 15) * 4:]
        if ip[9] not in (6, 17):  # TCP, UDP
            return
        ports = struct.unpack("!HH", inner[:4])
        if ports[1] == MARK_PORT:
            self.marks.add(inner[8:])
        if not set(ports) & self.ports:
            return
        ends = (socket.inet_ntoa(ip[12:16]), ports[0]), (socket.inet_ntoa(ip[16:20]), ports[1])
        if ip[9] == 17:
            if inner[8:].strip(b"\r\n\0"):
                self.messages.append(Sip(time, *ends, "udp", inner[8:]))
        elif payload := inner[(inner[12] >> 4) * 4:]:
            self.segment(time, ends, struct.unpack("!I", inner[4:8])[0], payload)

    def segment(self, time, ends, sequence, payload):
        stream = self.streams.setdefault(ends, {"next": sequence, "octets": b"", "early": {}})
        stream["early"][sequence] = payload
        while stream["next"] in stream["early"]:
            more = stream["early"].pop(stream["next"])
            stream["next"] = (stream["next"] + len(more)) % (1 << 32)
            stream["octets"] += more
        while True:
            text = stream["octets"].lstrip(b"\r\n")
            end = text.find(b"\r\n\r\n")
            if end < 0:
                return
            length = re.search(rb"\r\n(?:Content-Length|l)[ \t]*:[ \t]*(\d+)", text[: end + 2], re.I)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(text) < whole:
                return
            stream["octets"] = text[whole:]
            self.messages.append(Sip(time, *ends, "tcp", text[:whole]))


# --- malformed packets --------------------------------------------------------------------------------------------------

ERROR = 0x00800000  # tshark's severities
FIELDS = ("frame.number", "ip.src", "ip.dst", "_ws.expert.message", "_ws.expert.severity", "_ws.malformed",
          "sip.Method", "sip.P-Associated-URI", "_ws.col.Info")

# What tshark calls an error and is none of pagecast's: (why, predicate on the fields of a packet and one complaint).
KNOWN = [
    (
        "Kamailio writes a malformed P-Associated-URI into third-party registrations: <sip:a@b, tel:+1>",
        lambda packet, complaint: "REGISTER" in packet["sip.Method"]
        and re.search(r"<[^>]*,[^>]*>", packet["sip.P-Associated-URI"]),
    ),
]


def faults(path, decode_as):
    """Lines about malformed SIP, SDP and MSRP packets, and how many others were known (by reason)."""
    command = ["tshark", "-n", "-r", str(path), "-o", "tcp.desegment_tcp_streams:TRUE",
               "-Y", f"(sip or sdp or msrp) and (_ws.malformed or _ws.expert.severity >= {ERROR})",
               "-T", "fields", "-E", "separator=/t", "-E", "aggregator=\x1f"]
    for rule in decode_as:
        command += ["-d", rule]
    for field in FIELDS:
        command += ["-e", field]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
    if ran.returncode != 0:
        raise RuntimeError(f"tshark: {ran.stderr.strip()}")
    wrong, known = [], collections.Counter()
    for line in ran.stdout.splitlines():
        packet = dict(zip(FIELDS, line.split("\t") + [""] * len(FIELDS)))
        said = list(zip(packet["_ws.expert.message"].split("\x1f"), packet["_ws.expert.severity"].split("\x1f")))
        errors = [message for message, severity in said if severity.isdigit() and int(severity) >= ERROR]
        for error in errors or ["malformed"]:
            why = next((why for why, applies in KNOWN if applies(packet, error)), None)
            if why:
                known[why] += 1
            else:
                wrong.append(f"packet {packet['frame.number']}, {packet['ip.src']} > {packet['ip.dst']}, "
                             f"{packet['_ws.col.Info']}: {error}")
    return wrong, known

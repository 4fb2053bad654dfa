"""What crossed the lab's wires: SIP messages out of a capture, octet by octet, and what is wrong with them.

Start at `Capture`, `faults` and `dissector_faults`. Reads the classic pcap format of loopback (Ethernet, IPv4) and nothing else; TCP is put
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
        self.head = head.decode("utf-8", "replace")
        lines = self.head.split("\r\n")
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


# --- malformed messages -------------------------------------------------------------------------------------------------

# tshark's dissectors of SIP and SDP forgive nearly everything, so what has to hold for each message is held here
# (RFC 3261 §7, §8.1.1, §20, §25.1; RFC 8866 §5), and tshark is asked besides.

TOKEN = r"[\w.!%*+`'~-]+"
QUOTED = r'"(?:[^"\\]|\\.)*"'
PARAMETERS = rf"(?:\s*;\s*{TOKEN}(?:\s*=\s*(?:{QUOTED}|[^\s;,\"]+))?)*"
ADDRESS = re.compile(rf"(?:(?:{QUOTED}|(?:{TOKEN}\s*)*)\s*<[a-z]+:[^<>\s,]+>|[a-z]+:[^<>\s,;]+){PARAMETERS}")
VIA = re.compile(rf"SIP/2\.0/(UDP|TCP|TLS)\s+[^\s;,]+{PARAMETERS}")
ADDRESSES = ("From", "To", "Contact", "Route", "Record-Route", "Path", "Service-Route", "P-Asserted-Identity",
             "P-Served-User", "P-Associated-URI", "P-Called-Party-ID", "Referred-By")
ONCE = ("From", "To", "Call-ID", "CSeq", "Content-Length", "Max-Forwards", "Content-Type", "Expires", "P-Charging-Vector")
SDP = re.compile(
    r"v=0\r\no=\S+ \d+ \d+ IN IP[46] \S+\r\ns=[^\r\n]+\r\n(?:c=IN IP[46] \S+\r\n)?(?:b=\S+\r\n)*t=\d+ \d+\r\n"
    r"(?:a=[^\r\n]+\r\n)*(?:m=\w+ \d+ \S+(?: \S+)+\r\n(?:c=IN IP[46] \S+\r\n)?(?:b=\S+\r\n)*(?:a=[^\r\n]+\r\n)*)+")

# What neighbours are known to get wrong: why, and which message it is.
KNOWN = [
    (
        "Kamailio's third-party REGISTER has all identities between one pair of brackets in P-Associated-URI",
        lambda message, fault: message.method == "REGISTER" and "User-Agent: Kamailio" in message.head
        and fault.startswith("P-Associated-URI"),
    ),
]


def elements(value):
    """The elements of a comma-separated value; commas in quotes and brackets are no separators."""
    return [one for one in re.findall(rf"(?:{QUOTED}|<[^>]*>|[^,\"<])+", value) if one.strip()]


def faults_of(message):
    """What is wrong with one SIP message, the SDP in it included."""
    if not re.fullmatch(r"SIP/2\.0 [1-6]\d\d [^\r\n]*|[A-Z]+ [a-z]+:\S+ SIP/2\.0", message.start):
        yield f"start line {message.start!r}"
    for name in ("Via", "From", "To", "Call-ID", "CSeq", "Content-Length") + (("Max-Forwards",) if message.method else ()):
        if not message.all(name):
            yield f"no {name}"
    for name in ONCE:
        if len(message.all(name)) > 1:
            yield f"{name} more than once"
    cseq = re.fullmatch(r"(\d+)\s+([A-Z]+)", message.get("CSeq"))
    if not cseq or message.method not in (None, cseq[2]):
        yield f"CSeq {message.get('CSeq')!r}"
    if message.get("Content-Length") != str(len(message.body)):
        yield f"Content-Length {message.get('Content-Length')} with {len(message.body)} octets"
    for name in ADDRESSES:
        for value in message.all(name):
            for one in elements(value):
                if not ADDRESS.fullmatch(one.strip()) and not (name == "Contact" and one.strip() == "*"):
                    yield f"{name} {one.strip()!r}"
    for value in message.all("Via"):
        for one in elements(value):
            if not VIA.fullmatch(one.strip()):
                yield f"Via {one.strip()!r}"
    for name, _ in message.headers:
        if not re.fullmatch(TOKEN, name):
            yield f"header name {name!r}"
    if message.body and not message.get("Content-Type"):
        yield "a body without Content-Type"
    for text in described(message.get("Content-Type"), message.body):
        if not SDP.fullmatch(text):
            yield f"SDP {text!r}"


def described(content_type, body):
    """Every session description in a body, each ended by a line end."""
    boundary = re.match(r'multipart/.*;\s*boundary="?([^";]+)', content_type, re.I)
    if boundary:
        for part in body.split(b"--" + boundary[1].encode())[1:-1]:
            head, _, inner = part.partition(b"\r\n\r\n")
            named = re.search(rb"^Content-Type:\s*(.+?)\r?$", head, re.I | re.M)
            yield from described(named[1].decode() if named else "", inner)
    elif content_type.lower().startswith("application/sdp"):
        yield body.decode("utf-8", "replace").rstrip("\r\n") + "\r\n"


def faults(messages):
    """A line about everything that is wrong in these messages, and how often the known things came up, by reason."""
    wrong, known = [], collections.Counter()
    for message in messages:
        for fault in faults_of(message):
            why = next((why for why, applies in KNOWN if applies(message, fault)), None)
            if why:
                known[why] += 1
            else:
                wrong.append(f"{message!r}: {fault}")
    return wrong, known


ERROR = 0x00800000  # as tshark numbers its severities
FIELDS = ("frame.number", "ip.src", "ip.dst", "_ws.expert.message", "_ws.col.Info")


def dissector_faults(path, decode_as):
    """A line about each packet of SIP, SDP or MSRP that is malformed or has an error in tshark's eyes."""
    # ICMP quotes the beginning of what reached nobody while the server was dead.
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=/t", "-E", "aggregator=;",
               "-Y", f"not icmp and (sip or sdp or msrp) and (_ws.malformed or _ws.expert.severity >= {ERROR})"]
    for rule in decode_as:
        command += ["-d", rule]
    for field in FIELDS:
        command += ["-e", field]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
    if ran.returncode != 0:
        raise RuntimeError(f"tshark: {ran.stderr.strip()}")
    wrong = []
    for line in ran.stdout.splitlines():
        number, source, target, said, info = (line.split("\t") + [""] * len(FIELDS))[: len(FIELDS)]
        wrong.append(f"packet {number}, {source} > {target}, {info}: {said}")
    return wrong

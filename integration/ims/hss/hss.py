#!/usr/bin/env python3
"""An HSS double: Cx towards the CSCFs, Sh towards application servers, and a door for tests.

    hss.py SUBSCRIBERS.json       (written by ../generate)

Diameter peers, connections and routing are python-diameter's. Bodies are built from AVPs by code: that library's typed
Cx and Sh messages carry codes of other applications. Keeps everything in memory, and trusts everybody who connects.

Cx (TS 29.228, 29.229): UAR MAR SAR LIR; RTR on demand. Sh (TS 29.328, 29.329): UDR PUR SNR; PNR when data change.

The door, HTTP:
    GET  /state                                users, services, who is connected
    PUT  /criteria/NAME                        body: an InitialFilterCriteria that replaces the one of that name.
                                               The S-CSCF has it after the next registration of those it concerns.
    POST /rtr?private=ID                       network-initiated de-registration
    PUT  /repository?public=ID&service=NAME    body: transparent data, as another application server would store it
"""

import argparse
import hashlib
import http.server
import json
import logging
import re
import secrets
import threading
import urllib.parse
from xml.sax.saxutils import escape

from diameter.message import Avp, Message
from diameter.message.avp.grouped import VendorSpecificApplicationId
from diameter.message.commands import CapabilitiesExchangeRequest
from diameter.node import Node
from diameter.node.application import SimpleThreadingApplication
from milenage import Milenage, xor

log = logging.getLogger("hss")

TGPP = 10415
CX, SH = 16777216, 16777217

# Base protocol (RFC 6733)
USER_NAME, RESULT_CODE, SESSION_ID, ORIGIN_HOST, ORIGIN_REALM = 1, 268, 263, 264, 296
DESTINATION_HOST, DESTINATION_REALM, AUTH_SESSION_STATE, PROXY_INFO = 293, 283, 277, 284
VENDOR_ID, AUTH_APPLICATION_ID, VENDOR_SPECIFIC_APPLICATION_ID = 266, 258, 260
EXPERIMENTAL_RESULT, EXPERIMENTAL_RESULT_CODE = 297, 298
# Cx (TS 29.229 6.3), vendor 3GPP
PUBLIC_IDENTITY, SERVER_NAME, SERVER_CAPABILITIES, MANDATORY_CAPABILITY, CX_USER_DATA = 601, 602, 603, 604, 606
NUMBER_AUTH_ITEMS, AUTH_SCHEME, AUTHENTICATE, AUTHORIZATION, AUTH_DATA_ITEM, ITEM_NUMBER = 607, 608, 609, 610, 612, 613
SERVER_ASSIGNMENT_TYPE, DEREGISTRATION_REASON, REASON_CODE, REASON_INFO = 614, 615, 616, 617
USER_AUTHORIZATION_TYPE, CK, IK, DIGEST_AUTHENTICATE = 623, 625, 626, 635
DIGEST_REALM, DIGEST_QOP, DIGEST_ALGORITHM, DIGEST_HA1 = 104, 110, 111, 121  # RFC 4740, no vendor
# Sh (TS 29.329 6.3), vendor 3GPP
USER_IDENTITY, MSISDN, SH_USER_DATA, DATA_REFERENCE, SERVICE_INDICATION = 700, 701, 702, 703, 704
SUBS_REQ_TYPE, IDENTITY_SET, EXPIRY_TIME, SEND_DATA = 705, 708, 709, 710
SUPPORTED_FEATURES, FEATURE_LIST_ID, FEATURE_LIST = 628, 629, 630

SUCCESS, COMMAND_UNSUPPORTED = 2001, 3001
# Experimental results
FIRST_REGISTRATION, SUBSEQUENT_REGISTRATION, UNREGISTERED_SERVICE = 2001, 2002, 2003
USER_UNKNOWN, IDENTITIES_DONT_MATCH, NOT_REGISTERED = 5001, 5002, 5003
SH_NOT_RECOGNIZED, SH_CANNOT_BE_READ, SH_CANNOT_BE_MODIFIED, SH_CANNOT_BE_NOTIFIED = 5100, 5102, 5103, 5104
SH_OUT_OF_SYNC, SH_SUBS_DATA_ABSENT = 5105, 5106

AMF = bytes.fromhex("8000")


def avp(code, value):
    return Avp.new(code, 0, value=value)


def tgpp(code, value):
    return Avp.new(code, TGPP, value=value)


def find(avps, code):
    """The first AVP of that code, or None."""
    return next((one for one in avps if one.code == code), None)


def text(avps, code):
    found = find(avps, code)
    return None if found is None else found.payload.decode("utf-8", "replace")


def number(avps, code):
    found = find(avps, code)
    return None if found is None else int.from_bytes(found.payload, "big")


def numbers(avps, code):
    return [int.from_bytes(one.payload, "big") for one in avps if one.code == code]


def inside(avps, code):
    """The AVPs in a grouped one; none where it is not there."""
    found = find(avps, code)
    return found.value if found is not None and isinstance(found.value, list) else []


class Refused(Exception):
    """An answer with an experimental result instead of success."""


class Hss:
    def __init__(self, data):
        self.lock = threading.RLock()
        self.realm, self.host = data["realm"], data["host"]
        self.scscf, self.server = data["scscf"], data["as"]
        self.criteria = data["criteria"]
        self.users = {user["private"]: user for user in data["users"]}
        self.services = {service["public"]: service for service in data["services"]}
        for one in [*self.users.values(), *self.services.values()]:
            one["serving"] = None  # the S-CSCF
        for user in self.users.values():
            user["registered"] = False
            user["sqn"] = 32
        self.repository = {}  # (public identity, service indication): (sequence number, XML)
        self.subscriptions = set()  # (public identity, data reference, service indication, host)
        self.scscf_host = None  # the Diameter identity that assigned itself last
        self.node = None

    # --- profiles -------------------------------------------------------------------------------------------------------

    def user_of(self, public):
        return next((user for user in self.users.values() if public in user["public"]), None)

    def profile(self, private, publics, criteria, identity_type=None):
        """IMSSubscription (TS 29.228 Annex E)."""
        extension = "" if identity_type is None else (
            f"<Extension><IdentityType>{identity_type}</IdentityType></Extension>")
        identities = "".join(
            "<PublicIdentity><BarringIndication>0</BarringIndication>"
            f"<Identity>{escape(public)}</Identity>{extension}</PublicIdentity>"
            for public in publics)
        filters = "".join(self.criteria[name] for name in criteria)
        return ('<?xml version="1.0" encoding="UTF-8"?>'
                f"<IMSSubscription><PrivateID>{escape(private)}</PrivateID>"
                f"<ServiceProfile>{identities}{filters}</ServiceProfile></IMSSubscription>").encode()

    # --- Cx -------------------------------------------------------------------------------------------------------------

    def uar(self, asked, _host):
        user = self.subscriber(asked)
        if user["serving"]:
            raise Refused(SUBSEQUENT_REGISTRATION, [tgpp(SERVER_NAME, user["serving"])])
        if number(asked, USER_AUTHORIZATION_TYPE) == 1:  # de-registration
            raise Refused(NOT_REGISTERED)
        raise Refused(FIRST_REGISTRATION, self.capabilities())

    def lir(self, asked, _host):
        public = text(asked, PUBLIC_IDENTITY)
        one = self.user_of(public) or self.services.get(public)
        if one is None:
            raise Refused(USER_UNKNOWN)
        if one.get("way") == "direct":
            return [tgpp(SERVER_NAME, self.server)]
        if one["serving"]:
            return [tgpp(SERVER_NAME, one["serving"])]
        raise Refused(UNREGISTERED_SERVICE, self.capabilities())

    def mar(self, asked, _host):
        user = self.subscriber(asked)
        if "password" in user:
            secret = f"{user['private']}:{self.realm}:{user['password']}"
            item = [
                tgpp(AUTH_SCHEME, "SIP Digest"),
                tgpp(DIGEST_AUTHENTICATE, [
                    avp(DIGEST_REALM, self.realm),
                    avp(DIGEST_ALGORITHM, "MD5"),
                    avp(DIGEST_QOP, "auth"),
                    avp(DIGEST_HA1, hashlib.md5(secret.encode()).hexdigest()),
                ]),
            ]
        else:
            item = self.vector(user, find(inside(asked, AUTH_DATA_ITEM), AUTHORIZATION))
        user["serving"] = user["serving"] or text(asked, SERVER_NAME)
        return [
            avp(USER_NAME, user["private"]),
            tgpp(PUBLIC_IDENTITY, text(asked, PUBLIC_IDENTITY)),
            tgpp(NUMBER_AUTH_ITEMS, 1),
            tgpp(AUTH_DATA_ITEM, [tgpp(ITEM_NUMBER, 1), *item]),
        ]

    def vector(self, user, resync):
        """A fresh authentication vector; `resync` is RAND and AUTS of a phone whose counter is elsewhere."""
        k, opc = bytes.fromhex(user["k"]), bytes.fromhex(user["opc"])
        if resync is not None and len(resync.payload) >= 30:
            rand, auts = resync.payload[:16], resync.payload[16:30]
            theirs = Milenage(k, opc, rand)
            sqn = xor(auts[:6], theirs.ak_resync())
            if theirs.mac_resync(sqn) == auts[6:]:
                user["sqn"] = int.from_bytes(sqn, "big")
        user["sqn"] = (user["sqn"] + 32) % (1 << 48)
        sqn, rand = user["sqn"].to_bytes(6, "big"), secrets.token_bytes(16)
        one = Milenage(k, opc, rand)
        autn = xor(sqn, one.ak()) + AMF + one.mac(sqn, AMF)
        return [
            tgpp(AUTH_SCHEME, "Digest-AKAv1-MD5"),
            tgpp(AUTHENTICATE, rand + autn),
            tgpp(AUTHORIZATION, one.res()),
            tgpp(CK, one.ck()),
            tgpp(IK, one.ik()),
        ]

    def sar(self, asked, host):
        self.scscf_host = host
        public, kind, name = text(asked, PUBLIC_IDENTITY), number(asked, SERVER_ASSIGNMENT_TYPE), text(asked, SERVER_NAME)
        user = self.user_of(public) if public else self.users.get(text(asked, USER_NAME))
        if user is None:
            service = self.services.get(public)
            if service is None or service["way"] == "direct":
                raise Refused(USER_UNKNOWN)
            service["serving"] = name if kind in (1, 2, 3) else None
            private = public.split(":", 1)[1]
            return [
                avp(USER_NAME, private),
                # 1: a distinct PSI
                tgpp(CX_USER_DATA, self.profile(private, [public], service["criteria"], identity_type=1)),
            ]
        before = user["registered"]
        answer = [avp(USER_NAME, user["private"])]
        if kind in (0, 1, 2, 3):  # NO_ASSIGNMENT, REGISTRATION, RE_REGISTRATION, UNREGISTERED_USER
            if kind:
                user["serving"] = name
                user["registered"] = kind != 3
            answer.append(tgpp(CX_USER_DATA, self.profile(user["private"], user["public"], user["criteria"])))
        else:
            user["registered"] = False
            if kind not in (6, 7):  # TIMEOUT_ and USER_DEREGISTRATION_STORE_SERVER_NAME
                user["serving"] = None
        if before != user["registered"]:
            for identity in user["public"]:
                self.notify_soon(identity, 11, None)
        return answer

    def subscriber(self, asked):
        user = self.users.get(text(asked, USER_NAME))
        if user is None:
            raise Refused(USER_UNKNOWN)
        if text(asked, PUBLIC_IDENTITY) not in user["public"]:
            raise Refused(IDENTITIES_DONT_MATCH)
        return user

    def capabilities(self):
        return [tgpp(SERVER_CAPABILITIES, [tgpp(MANDATORY_CAPABILITY, 0), tgpp(SERVER_NAME, self.scscf)])]

    # --- Sh -------------------------------------------------------------------------------------------------------------

    def udr(self, asked, _host):
        public, references, services = self.sh_request(asked)
        if set(references) - {0, 10, 11, 12, 13, 17}:
            raise Refused(SH_CANNOT_BE_READ)
        return [tgpp(SH_USER_DATA, self.sh_data(public, references, services, numbers(asked, IDENTITY_SET)))]

    def pur(self, asked, host):
        public, references, _ = self.sh_request(asked)
        if references != [0]:
            raise Refused(SH_CANNOT_BE_MODIFIED)
        data = text(asked, SH_USER_DATA) or ""
        service = re.search(r"<ServiceIndication>(.*?)</ServiceIndication>", data, re.S)
        sequence = re.search(r"<SequenceNumber>(\d+)</SequenceNumber>", data)
        content = re.search(r"<ServiceData>(.*)</ServiceData>", data, re.S)
        if not service or not sequence:
            raise Refused(SH_NOT_RECOGNIZED)
        key, sequence = (public, service[1]), int(sequence[1])
        known = self.repository.get(key)
        # TS 29.328 6.1.2: 0 makes it, one more than the last (which wraps to 1) changes it.
        if sequence != (0 if known is None else known[0] % 65535 + 1):
            raise Refused(SH_OUT_OF_SYNC)
        if content:
            self.repository[key] = (sequence, content[1])
        else:
            self.repository.pop(key, None)
        self.notify_soon(public, 0, service[1], but=host)
        return []

    def snr(self, asked, host):
        public, references, services = self.sh_request(asked)
        if set(references) - {0, 11, 12, 13}:
            raise Refused(SH_CANNOT_BE_NOTIFIED)
        subscribe = number(asked, SUBS_REQ_TYPE) == 0
        if subscribe and 0 in references and any((public, one) not in self.repository for one in services):
            raise Refused(SH_SUBS_DATA_ABSENT)
        for reference in references:
            for service in services if reference == 0 else [None]:
                change = self.subscriptions.add if subscribe else self.subscriptions.discard
                change((public, reference, service, host))
        expiry = find(asked, EXPIRY_TIME)
        body = [expiry] if subscribe and expiry is not None else []
        if subscribe and number(asked, SEND_DATA) == 1:
            body.append(tgpp(SH_USER_DATA, self.sh_data(public, references, services)))
        return body

    def sh_request(self, asked):
        """Whom an Sh request is about, which data, which services."""
        identity = inside(asked, USER_IDENTITY)
        public = text(identity, PUBLIC_IDENTITY)
        msisdn = find(identity, MSISDN)
        if public is None and msisdn is not None:  # TBCD: low digit first
            public = "tel:+" + "".join(f"{octet & 15:x}{octet >> 4:x}" for octet in msisdn.payload).rstrip("f")
        if self.user_of(public) is None and public not in self.services:
            raise Refused(USER_UNKNOWN)
        services = [one.payload.decode() for one in asked if one.code == SERVICE_INDICATION]
        return public, numbers(asked, DATA_REFERENCE), services

    def sh_data(self, public, references, services, sets=()):
        """Sh-Data (TS 29.328 Annex D)."""
        user = self.user_of(public)
        out, identifiers, ims = [], [], []
        if 10 in references and not sets:
            identifiers += [f"<IMSPublicIdentity>{escape(one)}</IMSPublicIdentity>" for one in (user or {}).get("public", [public])]
        if 17 in references and user:
            identifiers += [f"<MSISDN>{one[5:]}</MSISDN>" for one in user["public"] if one.startswith("tel:+")]
        if identifiers:
            out.append(f"<PublicIdentifiers>{''.join(identifiers)}</PublicIdentifiers>")
        for service in services if 0 in references else []:
            if (public, service) in self.repository:
                sequence, data = self.repository[public, service]
                out.append(f"<RepositoryData><ServiceIndication>{escape(service)}</ServiceIndication>"
                           f"<SequenceNumber>{sequence}</SequenceNumber><ServiceData>{data}</ServiceData></RepositoryData>")
        if 12 in references and user and user["serving"]:
            ims.append(f"<SCSCFName>{escape(user['serving'])}</SCSCFName>")
        if 13 in references and user:
            ims.append(f"<IFCs>{''.join(self.criteria[name] for name in user['criteria'])}</IFCs>")
        if 11 in references and user:
            ims.append(f"<IMSUserState>{int(user['registered'])}</IMSUserState>")
        names = {1: "RegisteredIdentites", 2: "ImplicitIdentities", 3: "AliasIdentities"}
        if 10 in references and sets:
            each = "".join(f"<IMSPublicIdentity>{escape(one)}</IMSPublicIdentity>" for one in (user or {}).get("public", [public]))
            extension = "".join(f"<{names[one]}>{each}</{names[one]}>" for one in sorted(set(sets)) if one in names)
        if ims:
            out.append(f"<Sh-IMS-Data>{''.join(ims)}</Sh-IMS-Data>")
        if 10 in references and sets:
            out.append(f"<Extension>{extension}</Extension>")
        return f'<?xml version="1.0" encoding="UTF-8"?><Sh-Data>{"".join(out)}</Sh-Data>'.encode()

    # --- requests of our own --------------------------------------------------------------------------------------------

    def deregister(self, private):
        """RTR (TS 29.228 6.1.3): the S-CSCF lets go of all public identities of the user."""
        with self.lock:
            user = self.users[private]
            self.send(CX, 304, self.scscf_host, [
                avp(USER_NAME, private),
                *[tgpp(PUBLIC_IDENTITY, public) for public in user["public"]],
                tgpp(DEREGISTRATION_REASON, [tgpp(REASON_CODE, 0), tgpp(REASON_INFO, "removed by an operator")]),
            ])
            user["serving"], user["registered"] = None, False

    def notify_soon(self, public, reference, service, but=None):
        """PNR to all who subscribed but the one who changed the data, after the answer to the latter."""
        threading.Timer(0.05, self.notify, (public, reference, service, but)).start()

    def notify(self, public, reference, service, but):
        with self.lock:
            hosts = [host for one, ref, si, host in self.subscriptions
                     if (one, ref, si) == (public, reference, service) and host != but]
            data = self.sh_data(public, [reference], [service] if service else [])
            for host in hosts:
                log.info("PNR %s %s to %s", public, reference, host)
                self.send(SH, 309, host, [tgpp(USER_IDENTITY, [tgpp(PUBLIC_IDENTITY, public)]), tgpp(SH_USER_DATA, data)])

    def send(self, application, command, host, body):
        connections = [one for one in self.node.connections.values() if one.host_identity]
        # Whoever is not connected is behind an agent that is.
        connection = next((one for one in connections if one.host_identity == host), (connections or [None])[0])
        if connection is None:
            log.warning("%s is not connected", host)
            return
        message = Message()
        message.header.command_code, message.header.application_id = command, application
        message.header.is_request = message.header.is_proxyable = True
        message.header.hop_by_hop_identifier = connection.hop_by_hop_seq.next_sequence()
        message.header.end_to_end_identifier = self.node.end_to_end_seq.next_sequence()
        message.avps = [
            avp(SESSION_ID, self.node.session_generator.next_id()),
            application_avp(application),
            avp(AUTH_SESSION_STATE, 1),
            avp(ORIGIN_HOST, self.host.encode()),
            avp(ORIGIN_REALM, self.realm.encode()),
            avp(DESTINATION_HOST, host.encode()),
            avp(DESTINATION_REALM, self.realm.encode()),
            *body,
        ]
        self.node.send_message(connection, message)

    # --- answering ------------------------------------------------------------------------------------------------------

    def answer(self, application, commands, request):
        """Answers one request with what the function of its command says."""
        name, function = commands.get(request.header.command_code, ("?", None))
        body, result = [], avp(RESULT_CODE, SUCCESS)
        if function is None:
            result = avp(RESULT_CODE, COMMAND_UNSUPPORTED)
        else:
            try:
                with self.lock:
                    body = function(request.avps, request.origin_host.decode())
            except Refused as refused:
                code, *rest = refused.args
                body = rest[0] if rest else []
                result = avp(EXPERIMENTAL_RESULT, [avp(VENDOR_ID, TGPP), avp(EXPERIMENTAL_RESULT_CODE, code)])
                name = f"{name} ({code})"
        log.info("%s %s %s", name, text(request.avps, USER_NAME) or "",
                 text(request.avps, PUBLIC_IDENTITY) or text(inside(request.avps, USER_IDENTITY), PUBLIC_IDENTITY) or "")
        # TS 29.229 7.2: we have Notif-Eff, told to those who tell of their features.
        features = [tgpp(SUPPORTED_FEATURES, [avp(VENDOR_ID, TGPP), tgpp(FEATURE_LIST_ID, 1), tgpp(FEATURE_LIST, 1)])]
        told = application == SH and find(request.avps, SUPPORTED_FEATURES) is not None
        answer = Message(request.to_answer().header)
        answer.header.is_error = False
        answer.avps = [
            avp(SESSION_ID, text(request.avps, SESSION_ID)),
            application_avp(application),
            result,
            avp(AUTH_SESSION_STATE, 1),
            avp(ORIGIN_HOST, self.host.encode()),
            avp(ORIGIN_REALM, self.realm.encode()),
            *(features if told else []),
            *body,
            *[one for one in request.avps if one.code == PROXY_INFO],
        ]
        return answer

    def cx(self, _application, request):
        return self.answer(CX, {300: ("UAR", self.uar), 301: ("SAR", self.sar), 302: ("LIR", self.lir), 303: ("MAR", self.mar)}, request)

    def sh(self, _application, request):
        return self.answer(SH, {306: ("UDR", self.udr), 307: ("PUR", self.pur), 308: ("SNR", self.snr)}, request)

    def state(self):
        with self.lock:
            return {
                "users": {name: {key: user[key] for key in ("public", "serving", "registered")} for name, user in self.users.items()},
                "services": {name: service["serving"] for name, service in self.services.items()},
                "criteria": sorted(self.criteria),
                "peers": sorted(one.host_identity for one in self.node.connections.values() if one.host_identity),
            }


def application_avp(application):
    return avp(VENDOR_SPECIFIC_APPLICATION_ID, [avp(VENDOR_ID, TGPP), avp(AUTH_APPLICATION_ID, application)])


class HssNode(Node):
    """Takes whoever connects for a peer, and offers its applications under their vendor, where CSCFs look for them."""

    applications_here = ()

    def receive_cer(self, conn, message):
        host = message.origin_host.decode().lower()
        if host not in self.peers:
            peer = self.add_peer(f"aaa://{host}:3868", self.realm_name)
            for application in self.applications_here:
                self._peer_routes[self.realm_name].setdefault(application, []).append(peer)
        super().receive_cer(conn, message)

    def _generate_answer(self, conn, msg):
        answer = super()._generate_answer(conn, msg)
        if isinstance(msg, CapabilitiesExchangeRequest):
            answer.vendor_specific_application_id = [
                VendorSpecificApplicationId(vendor_id=TGPP, auth_application_id=one) for one in (CX, SH)]
        return answer


def serve_door(hss, address):
    class Door(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def reply(self, status, value):
            body = json.dumps(value, indent=1).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.reply(200, hss.state()) if self.path == "/state" else self.reply(404, {})

        def change(self):
            url = urllib.parse.urlparse(self.path)
            query = {key: values[0] for key, values in urllib.parse.parse_qs(url.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            if self.command == "PUT" and url.path.startswith("/criteria/"):
                with hss.lock:
                    hss.criteria[url.path.removeprefix("/criteria/")] = body
            elif self.command == "POST" and url.path == "/rtr" and query.get("private") in hss.users:
                hss.deregister(query["private"])
            elif self.command == "PUT" and url.path == "/repository" and {"public", "service"} <= set(query):
                key = (query["public"], query["service"])
                with hss.lock:
                    sequence = hss.repository[key][0] % 65535 + 1 if key in hss.repository else 0
                    hss.repository[key] = (sequence, body)
                hss.notify_soon(query["public"], 0, query["service"])
            else:
                return self.reply(404, {})
            self.reply(200, {})

        do_PUT = do_POST = change

    host, port = address.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description="An HSS double: Cx, Sh, and a door for tests.")
    parser.add_argument("subscribers", help="written by ../generate")
    parser.add_argument("--verbose", action="store_true", help="every Diameter message")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("diameter").setLevel(logging.DEBUG if arguments.verbose else logging.WARNING)
    with open(arguments.subscribers, encoding="utf-8") as file:
        data = json.load(file)
    hss = Hss(data)
    node = HssNode(hss.host, hss.realm, ip_addresses=[data["address"]], tcp_port=data["port"], vendor_ids=[TGPP])
    node.vendor_id, node.product_name = TGPP, "hss"
    node.validate_received_request_avps = False
    node.wakeup_interval = 1
    hss.node = node
    cx = SimpleThreadingApplication(CX, is_auth_application=True, request_handler=hss.cx)
    sh = SimpleThreadingApplication(SH, is_auth_application=True, request_handler=hss.sh)
    # An application needs a peer when it is added; others are added as they come.
    first = [node.add_peer(f"aaa://{name}.{hss.realm}:3868", hss.realm) for name in ("scscf", "icscf")]
    node.add_application(cx, first)
    node.add_application(sh, first)
    node.applications_here = (cx, sh)
    node.start()
    serve_door(hss, data["admin"])
    log.info("listening on %s:%s, door http://%s", data["address"], data["port"], data["admin"])
    threading.Event().wait()


if __name__ == "__main__":
    main()

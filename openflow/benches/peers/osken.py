"""What os-ken's codec costs. Reads a JSON request a line, answers a line each; see `main.rs`.

The first request names the cases: {"case": [hex of each message]}. The answer: {"version": of os-ken and of Python,
"encoded": {"case": [hex]}} for those that os-ken can encode: what it makes of what it decoded. Each other request is
{"case": name, "direction": "decode" or "encode", "seconds": how long to try}; the answer {"ns": for all messages of the case}.
"""

import json
import platform
import sys
import time
from importlib.metadata import version

from os_ken.ofproto import ofproto_parser
from os_ken.ofproto.ofproto_protocol import ProtocolDesc

BRIDGE = ProtocolDesc(4)
ENCODABLE = {"OFPFlowMod", "OFPEchoRequest"}  # messages of bridges have no encoder


def decode(octets):
    message = ofproto_parser.msg(BRIDGE, *ofproto_parser.header(octets), octets)
    assert message is not None
    return message


def encode(message):
    message.serialize()
    return message.buf


def nanoseconds(work, inputs, seconds):
    rounds, spent = 1, 0
    while True:
        begin = time.perf_counter_ns()
        for _ in range(rounds):
            for one in inputs:
                work(one)
        spent = time.perf_counter_ns() - begin
        if spent >= seconds * 1e9:
            return spent / rounds
        rounds *= 2


def main():
    frames = {case: [bytes.fromhex(one) for one in hexes] for case, hexes in json.loads(input()).items()}
    messages = {case: [decode(one) for one in octets] for case, octets in frames.items()}
    encodable = {case: all(type(one).__name__ in ENCODABLE for one in told) for case, told in messages.items()}
    encoded = {case: [encode(one).hex() for one in told] for case, told in messages.items() if encodable[case]}
    said = {"version": f"os-ken {version('os-ken')} on Python {platform.python_version()}", "encoded": encoded}
    print(json.dumps(said), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        work, inputs = (decode, frames) if request["direction"] == "decode" else (encode, messages)
        taken = nanoseconds(work, inputs[request["case"]], request["seconds"])
        print(json.dumps({"ns": taken}), flush=True)


main()

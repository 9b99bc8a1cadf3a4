"""What os-ken makes of messages: a line of hex in, a line out.

The line is what it decoded, in its own JSON; `null` if it has no decoder, which is so of what only controllers send; or
`! TEXT` if it has one that fails.
"""

import json
import logging
import sys

from os_ken.ofproto import ofproto_parser, ofproto_v1_3_parser
from os_ken.ofproto.ofproto_protocol import ProtocolDesc

BRIDGE = ProtocolDesc(4)
DECODERS = ofproto_v1_3_parser._MSG_PARSERS
logging.disable()


def exact(value):
    """The same with numbers in hex that JSON readers would round."""
    if isinstance(value, dict):
        return {key: exact(one) for key, one in value.items()}
    if isinstance(value, list):
        return [exact(one) for one in value]
    return hex(value) if isinstance(value, int) and value >= 1 << 64 else value


for line in sys.stdin:
    octets = bytes.fromhex(line)
    try:
        known = DECODERS.get(octets[1]) is not None
        message = ofproto_parser.msg(BRIDGE, *ofproto_parser.header(octets), octets) if known else None
        # It decodes reg_load2, but has no JSON for it.
        print(json.dumps(message and exact(message.to_jsondict()), default=lambda _: None), flush=True)
    except Exception as error:
        print("!", " ".join(repr(error).split())[:200], flush=True)

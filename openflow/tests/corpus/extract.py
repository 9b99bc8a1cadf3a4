#!/usr/bin/env python3
"""Takes the OpenFlow 1.3 vectors out of other projects' tests: os-ken/ and ovs-tests/ beside this file.

    extract.py os-ken FOLDER    FOLDER: os-ken's tests (packet_data/of13 and unit/ofproto/json/of13 in it)
    extract.py ovs FOLDER       FOLDER: Open vSwitch's tests (ofp-print.at, ofp-errors.at and ofp-actions.at in it)
"""

import collections
import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent


def write(path, vectors):
    seen = collections.Counter()
    with open(HERE / path, "w", encoding="utf-8") as out:
        for name, octets, meaning in vectors:
            seen[name] += 1
            name += f" ({seen[name]})" if seen[name] > 1 else ""
            out.write(f"# {name}\n{octets}\n" + "".join(f"> {line}\n" for line in meaning) + "\n")


def os_ken(folder):
    packets = sorted((folder / "packet_data/of13").glob("*.packet"))
    vectors = []
    for packet in packets:
        twin = folder / "unit/ofproto/json/of13" / f"{packet.name}.json"
        meaning = json.dumps(json.loads(twin.read_text()), separators=(",", ":"))
        vectors.append((packet.stem, packet.read_bytes().hex(), [meaning]))
    write("os-ken/packets.txt", vectors)


def unquoted(text):
    """Autotest's M4: quadrigraphs, doubled brackets, a comment to the end of the line."""
    for quadrigraph, meant in {"@<:@": "[", "@:>@": "]", "@{:@": "(", "@:}@": ")"}.items():
        text = text.replace(quadrigraph, meant)
    text = re.sub(r"^dnl\n", "", text)
    return text.replace("[[", "[").replace("]]", "]")


def printed(text):
    """The calls of ofp-print and what they have to print: (name of the test, octets in hex, lines)."""
    for name, body in re.findall(r"AT_SETUP\(\[(.*?)\]\)\n(.*?)AT_CLEANUP", text, re.DOTALL):
        calls = re.findall(
            r"""AT_CHECK\(\[ovs-ofctl [^\n]*?ofp-print ("[^"]*"|'[^']*'|\S+?)[^\n\]]*\],\s*\[0\],\s*\[(.*?)\n?\](?:,|\))""", body, re.DOTALL)
        for octets, expected in calls:
            octets = re.sub(r"[^0-9a-fA-F]", "", octets.replace("\\\n", "")).lower()
            yield name, octets, unquoted(expected).splitlines()


def actions(text):
    """The lists of 1.3 actions, and of Nicira's actions from those of 1.0 and 1.1: (meaning, octets in hex)."""
    seen = set()
    for version in ("1.3", "1.1", "1.0"):
        section = text.split(f"AT_SETUP([OpenFlow {version} action translation])")[1]
        for block in section.split("AT_DATA([test-data], [dnl\n")[1].split("\n])")[0].split("\n\n"):
            lines = block.splitlines()
            told = [line[2:] for line in lines if re.match("# (actions=|bad )", line)]
            octets = "".join(line.split("dnl")[0] for line in lines if re.match(r"[0-9a-fA-F ]+(dnl.*)?$", line))
            octets = octets.replace(" ", "").lower()
            is_wanted = version == "1.3" or re.match("ffff....00002320", octets)
            # The action within clone is one of 1.0.
            if len(told) == 1 and is_wanted and octets not in seen and "clone" not in told[0]:
                seen.add(octets)
                yield unquoted(told[0]), octets


def ovs(folder):
    good, bad = [], []
    for source in ("ofp-print.at", "ofp-errors.at"):
        for name, octets, meaning in printed((folder / source).read_text()):
            if octets.startswith("04") and int(octets[4:8], 16) == len(octets) // 2:
                refused = any("decode error" in line for line in meaning)
                # ofp-print shows what an error is about, too, which is another message.
                (bad if refused and not octets.startswith("0401") else good).append((name, octets, meaning))
    for meaning, octets in actions((folder / "ofp-actions.at").read_text()):
        # A flow entry that matches all, around the actions.
        body = f"{'00' * 22}8000{'ff' * 12}{'00' * 4}0001000400000000"
        body += f"0004{8 + len(octets) // 2:04x}00000000{octets}"
        message = f"040e{8 + len(body) // 2:04x}00000001{body}"
        (bad if meaning.startswith("bad ") else good).append((f"flow_mod with {meaning}", message, [meaning]))
    write("ovs-tests/printed.txt", good)
    write("ovs-tests/refused.txt", bad)


def main():
    match sys.argv[1:]:
        case ["os-ken", folder]:
            os_ken(pathlib.Path(folder))
        case ["ovs", folder]:
            ovs(pathlib.Path(folder))
        case _:
            sys.exit(__doc__)


main()

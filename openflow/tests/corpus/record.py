#!/usr/bin/env python3
"""Records what ovs-ofctl sends to a real ovs-vswitchd and what that answers: ovs-ofctl/ and ovs-vswitchd/ beside this file.

Runs as root: makes a network namespace of its own with one bridge in it (userspace datapath) and removes both at the end.
ovs-ofctl is pointed at a relay that writes down every message in both directions. What ovs-ofctl has no command for is sent
by this script. Each distinct message is kept once, transaction ids aside, with what `ovs-ofctl ofp-print` makes of it.
"""

import collections
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
NAMESPACE = f"corpus-{os.getpid()}"
VERSION = 4
# A reply about all 254 tables comes in parts of 64 KiB, which nobody reads in a diff: the first table of a part is kept.
TABLE_FEATURES = 12

FRAME = "02000000000102000000000208004500001c00000000401100000a0000010a0000020001000200080000"

# Requests that ovs-ofctl has commands for.
COMMANDS = [
    "show", "dump-desc", "dump-tables", "dump-table-features", "get-frags", "set-frags normal", "set-frags drop",
    "set-frags normal", "dump-ports", "dump-ports 1", "dump-ports-desc", "queue-stats", "queue-stats 1 2",
    "queue-get-config", "queue-get-config 1",
    "add-flow table=6,priority=3,cookie=0x1234,idle_timeout=300,hard_timeout=600,importance=0,send_flow_rem,check_overlap,"
    "reset_counts,no_packet_counts,no_byte_counts,ip,actions=output:1",
    "mod-flows table=6,ip,actions=output:2",
    "--strict mod-flows table=6,priority=3,cookie=0x1234/0xffff,ip,actions=output:3",
    "dump-flows table=6", "dump-flows table=6,cookie=0x12/0xff,out_port=3,ip", "dump-flows table=6,out_group=5",
    "dump-aggregate", "dump-aggregate table=6,ip,nw_src=10.0.0.1",
    "add-group group_id=1,type=all,bucket=output:1,bucket=set_field:5->pkt_mark,output:2",
    "add-group group_id=2,type=select,bucket=weight:5,output:1,bucket=weight:7,output:2",
    "add-group group_id=3,type=indirect,bucket=output:1",
    "add-group group_id=4,type=ff,bucket=watch_port:1,output:1,bucket=watch_group:1,group:1,bucket=watch_port:2,output:2",
    "add-group group_id=6,type=select,selection_method=hash,fields(ip_src,ip_dst=255.255.0.0),bucket=weight:1,output:1",
    "add-group group_id=7,type=select,selection_method=dp_hash,selection_method_param=9,bucket=weight:1,output:1",
    "mod-group group_id=3,type=indirect,bucket=output:2",
    "--may-create mod-group group_id=8,type=all,bucket=output:2",
    "dump-groups", "dump-group-stats", "dump-group-stats group_id=4", "dump-group-features",
    "del-groups group_id=8", "add-group group_id=9,type=all,bucket=group:999",
    "add-meter meter=3,kbps,burst,stats,band=type=drop,rate=1000,burst_size=100",
    "add-meter meter=4,pktps,band=type=drop,rate=10", "add-meter meter=5,kbps,band=type=dscp_remark,prec_level=2,rate=7",
    "mod-meter meter=4,pktps,burst,band=type=drop,rate=20,burst_size=30", "add-meter meter=controller,pktps,band=type=drop,rate=9",
    "dump-meters", "dump-meter meter=3", "meter-stats", "meter-stats meter=3", "meter-features",
    "add-flow table=7,ip,actions=meter:3,output:1", "dump-flows table=7", "del-meter meter=4",
    "mod-port 1 no-flood", "mod-port 1 no-packet-in", "mod-port 1 no-forward", "mod-port 1 no-receive", "mod-port 1 forward",
    "mod-port 1 receive", "mod-port 1 packet-in", "mod-port 1 down", "mod-port 1 up",
    f"packet-out in_port=CONTROLLER,packet={FRAME},actions=output:1",
    f"packet-out in_port=1,packet={FRAME},actions=set_field:100->tun_id,controller",
    "add-tlv-map {class=0xffff,type=1,len=8}->tun_metadata1", "dump-tlv-map", "del-tlv-map {class=0xffff,type=1,len=8}->tun_metadata1",
    "dump-ipfix-bridge", "dump-ipfix-flow", "ct-flush-zone 5", "ct-flush zone=5 ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=6",
    "probe",
]

# Flow entries that are then read back: how a real bridge tells what it holds.
HELD = [
    "table=9,priority=5,cookie=0xe5,in_port=1,tun_id=100,actions=set_field:0x64->metadata,goto_table:10",
    "table=9,ip,nw_src=10.0.0.0/8,actions=ct(commit,zone=5,nat(src=10.0.0.3),exec(set_field:1->ct_mark),table=10)",
    "table=9,tcp,tcp_flags=+syn,actions=learn(table=11,eth_type=0x800,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])",
    "table=9,vlan_vid=0x1064/0x1fff,actions=pop_vlan,clone(output:1),write_actions(group:1),write_metadata:1/1",
    "table=9,reg0=1,xxreg3=5,actions=multipath(symmetric_l3l4+udp,50,hrw,12,0,NXM_NX_REG5[0..15]),resubmit(,12)",
    "table=9,idle_timeout=100,hard_timeout=200,send_flow_rem,arp,actions=controller(max_len=64,id=3,meter_id=3)",
]


def message(kind, body=b"", xid=0x11):
    return struct.pack("!BBHI", VERSION, kind, 8 + len(body), xid) + body


def multipart(kind, body=b""):
    return message(18, struct.pack("!HHI", kind, 0, 0) + body)


def bundle(kind, number, flags=1):
    return message(4, struct.pack("!IIIHH", 0x4F4E4600, 2300, number, kind, flags))


FLOW_MOD = struct.pack("!QQBBHHHIIIHHHH", 0x77, 0, 8, 0, 0, 0, 9, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 1, 0, 1, 4) + bytes(4)

# What ovs-ofctl has no command for. Several of one name are sent in turn.
OWN = {
    "hello": [message(0)],
    "echo": [message(2, b"still there?")],
    "role requests": [message(24, struct.pack("!IIQ", role, 0, 7)) for role in (0, 1, 2, 3)]
    + [message(24, struct.pack("!IIQ", 2, 0, 6)), message(24, struct.pack("!IIQ", 9, 0, 7))],
    "a slave's write": [message(24, struct.pack("!IIQ", 3, 0, 8)), message(14, FLOW_MOD), message(24, struct.pack("!IIQ", 1, 0, 8))],
    "set and get async": [message(28, struct.pack("!6I", 1, 2, 3, 4, 5, 6)), message(26)],
    "get config": [message(9, struct.pack("!HH", 0, 128)), message(7)],
    "table mod": [message(17, struct.pack("!BxxxI", 3, 0))],
    "group description of one": [multipart(7)],
    "all meters": [multipart(9, struct.pack("!II", 0xFFFFFFFF, 0)), multipart(10, struct.pack("!II", 0xFFFFFFFF, 0))],
    "absent group": [message(14, FLOW_MOD[:40] + struct.pack("!HHI", 1, 4, 0) + struct.pack("!HHIHHI", 4, 16, 0, 22, 8, 404))],
    "absent meter": [message(14, FLOW_MOD[:40] + struct.pack("!HHI", 1, 4, 0) + struct.pack("!HHI", 6, 8, 404))],
    "missing prerequisite": [message(14, FLOW_MOD[:40] + struct.pack("!HHIHxx", 1, 10, 0x80001A02, 80) + bytes(0))],
    "bad table": [message(14, FLOW_MOD[:16] + b"\xfe" + FLOW_MOD[17:])],
    "goto a lower table": [message(14, FLOW_MOD[:40] + struct.pack("!HHI", 1, 4, 0) + struct.pack("!HHBxxx", 1, 8, 2))],
    "unknown type": [message(99)],
    "unknown multipart": [multipart(77)],
    "unknown experimenter": [message(4, struct.pack("!II", 0x101, 1)), multipart(0xFFFF, struct.pack("!II", 0x101, 1))],
    "too short": [message(15, b"\0\0\0\0")],
    "bad queue and port": [multipart(5, struct.pack("!II", 1, 99)), multipart(4, struct.pack("!II", 99, 0)), message(22, struct.pack("!II", 99, 0))],
    "bundle": [bundle(0, 5), message(4, struct.pack("!IIIHH", 0x4F4E4600, 2301, 5, 0, 1) + message(14, FLOW_MOD)),
               bundle(2, 5), bundle(6, 5), bundle(0, 6), bundle(2, 6), bundle(4, 6), bundle(4, 66)],
    "meter mod in a bundle": [bundle(0, 7), message(4, struct.pack("!IIIHH", 0x4F4E4600, 2301, 7, 0, 1) + message(29, struct.pack("!HHI", 0, 1, 9)))],
}


def run(*command, check=True):
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


class Record:
    """Distinct messages of one direction, in the order in which they came."""

    def __init__(self):
        self.seen, self.kept, self.lock = set(), [], threading.Lock()

    def add(self, name, frame):
        if frame[1] == 19 and frame[8:10] == struct.pack("!H", TABLE_FEATURES):
            length = 16 + struct.unpack("!H", frame[16:18])[0]
            frame = frame[:2] + struct.pack("!H", length) + frame[4:length]
            name += " (its first table)"
            if any(kept[1] == 19 and kept[8:10] == frame[8:10] for _, kept in self.kept):
                return
        with self.lock:
            same = frame[:4] + frame[8:]
            if same not in self.seen:
                self.seen.add(same)
                self.kept.append((name, frame))

    def write(self, path):
        seen = collections.Counter()
        with open(path, "w", encoding="utf-8") as out:
            for name, frame in self.kept:
                printed = run("ovs-ofctl", "-m", "ofp-print", frame.hex(), check=False)
                # An error tells the octets that it is about, which may be bad ones.
                if "decode error" in printed and frame[1] != 1:
                    print(f"left out, because ovs-ofctl can't read it: {name}: {frame.hex()}", file=sys.stderr)
                    continue
                seen[name] += 1
                name += f" ({seen[name]})" if seen[name] > 1 else ""
                out.write(f"# {name}\n{frame.hex()}\n")
                out.writelines(f"> {line}\n" for line in printed.rstrip().splitlines())
                out.write("\n")


def pump(source, sink, name, record):
    """Passes on what comes and writes it down message by message."""
    pending = b""
    try:
        while octets := source.recv(65536):
            if sink:
                sink.sendall(octets)
            pending += octets
            while len(pending) >= 8 and len(pending) >= (length := struct.unpack("!H", pending[2:4])[0]):
                record.add(name, pending[:length])
                pending = pending[length:]
    except OSError:
        pass
    if sink:
        sink.close()


class Switch:
    """A bridge in a namespace of its own, and the relay in front of it."""

    def __init__(self, folder):
        self.folder, self.sent, self.answered, self.doing = folder, Record(), Record(), ""
        os.environ |= {f"OVS_{what}DIR": folder for what in ("RUN", "LOG", "DB", "SYSCONF")}
        run("ip", "netns", "add", NAMESPACE)
        run("ip", "-n", NAMESPACE, "link", "set", "lo", "up")
        for scope in ("all", "default"):
            run("ip", "netns", "exec", NAMESPACE, "sysctl", "-q", f"net.ipv6.conf.{scope}.disable_ipv6=1")
        run("ovsdb-tool", "create", f"{folder}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
        inside = ["ip", "netns", "exec", NAMESPACE]
        detached = ["--detach", "--no-chdir", "-vconsole:off", "-vfile:off", "-vsyslog:off"]
        run(*inside, "ovsdb-server", f"{folder}/conf.db", f"--remote=punix:{folder}/db.sock", *detached,
            f"--pidfile={folder}/ovsdb.pid", f"--unixctl={folder}/ovsdb.ctl")
        self.vsctl("--no-wait", "init")
        run(*inside, "ovs-vswitchd", f"unix:{folder}/db.sock", "--disable-system", *detached,
            f"--pidfile={folder}/vswitchd.pid", f"--unixctl={folder}/vswitchd.ctl")
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure",
                   "protocols=OpenFlow13", "other_config:dp-desc=host1", "other_config:datapath-id=00000000000000e5")
        for port in ("p1", "p2"):
            self.vsctl("add-port", "br0", port, "--", "set", "interface", port, "type=internal", f"ofport_request={port[1]}")
            run("ip", "-n", NAMESPACE, "link", "set", port, "up")
        self.vsctl("set", "port", "p1", "qos=@q", "--", "--id=@q", "create", "qos", "type=linux-htb", "queues:2=@a", "--",
                   "--id=@a", "create", "queue", "other-config:min-rate=1000000", "other-config:max-rate=2000000")
        self.relay = socket.socket(socket.AF_UNIX)
        self.relay.bind(f"{folder}/relay")
        self.relay.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def vsctl(self, *words):
        run("ovs-vsctl", f"--db=unix:{self.folder}/db.sock", *words)

    def connect(self):
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(f"{self.folder}/br0.mgmt")
        return channel

    def accept(self):
        while True:
            client, _ = self.relay.accept()
            switch = self.connect()
            for way in ((client, switch, self.doing, self.sent), (switch, client, self.doing, self.answered)):
                threading.Thread(target=pump, args=way, daemon=True).start()

    def ofctl(self, command):
        """Runs `ovs-ofctl [OPTION…] COMMAND [ARGUMENT…]` against the relay."""
        words = command.split()
        at = next(place for place, word in enumerate(words) if not word.startswith("-")) + 1
        self.doing = command.replace(f"{self.folder}/", "")
        run("ovs-ofctl", "-O", "OpenFlow13", "-t", "3", *words[:at], f"unix:{self.folder}/relay", *words[at:], check=False)

    def send(self, name, messages):
        """Sends messages over a channel of their own and waits for what comes back."""
        channel = self.connect()
        thread = threading.Thread(target=pump, args=(channel, None, name, self.answered), daemon=True)
        thread.start()
        for each in [message(0), *messages]:
            self.sent.add(f"{name} (sent by record.py)", each)
            channel.sendall(each)
        time.sleep(0.15)
        channel.shutdown(socket.SHUT_RDWR)
        thread.join()

    def watch(self, name, arguments, events):
        """Runs `ovs-ofctl monitor` while events happen."""
        self.doing = name
        watcher = subprocess.Popen(["ovs-ofctl", "-O", "OpenFlow13", *arguments[:-1], "monitor", f"unix:{self.folder}/relay",
                                    *arguments[-1].split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        events()
        time.sleep(0.3)
        watcher.terminate()
        watcher.wait()

    def close(self):
        for daemon in ("vswitchd", "ovsdb"):
            path = pathlib.Path(f"{self.folder}/{daemon}.pid")
            if path.exists():
                os.kill(int(path.read_text()), signal.SIGTERM)
        time.sleep(0.5)
        run("ip", "netns", "del", NAMESPACE, check=False)


def happenings(switch):
    """Things that a bridge tells by itself."""
    def events():
        inject = f"in_port=2,packet={FRAME},actions="
        for command in [
            "del-flows", "add-flow table=0,priority=0,actions=controller", f"packet-out {inject}table",
            "add-flow table=0,priority=9,cookie=0x42,ip,actions=set_field:7->metadata,set_field:8->reg0,controller(max_len=40,id=0)",
            f"packet-out {inject}table", f"packet-out {inject}set_field:100->tun_id,controller",
            "add-flow table=0,priority=10,ip,actions=controller(userdata=01.02.03,pause),output:1", f"packet-out {inject}table",
            "add-flow table=0,priority=11,ip,actions=dec_ttl,dec_ttl,output:1",
            f"packet-out in_port=2,packet={FRAME.replace('4011', '0111')},actions=table",
            "add-flow table=3,cookie=0x9,idle_timeout=1,send_flow_rem,tcp,actions=output:1",
            "add-flow table=3,cookie=0xa,hard_timeout=1,send_flow_rem,udp,actions=output:1",
            "add-flow table=3,cookie=0xb,send_flow_rem,udp,udp_dst=7,actions=output:1",
            "mod-flows table=3,udp,actions=output:2",
            "del-flows table=3,udp,udp_dst=7", "mod-port 2 down", "mod-port 2 up",
        ]:
            words = command.split()
            run("ovs-ofctl", "-O", "OpenFlow13", words[0], f"unix:{switch.folder}/br0.mgmt", *words[1:], check=False)
        time.sleep(2.2)
        switch.vsctl("add-port", "br0", "p3", "--", "set", "interface", "p3", "type=internal", "ofport_request=3")
        switch.vsctl("del-port", "br0", "p3")
    return events


def main():
    folder = tempfile.mkdtemp(prefix="corpus-")
    try:
        switch = Switch(folder)
        try:
            switch.ofctl("add-tlv-map {class=0xffff,type=0,len=4}->tun_metadata0")
            for line in (HERE / "ovs-ofctl/matches.txt").read_text().split():
                switch.ofctl(f"add-flow table=4,{line},actions=drop")
            for line in (HERE / "ovs-ofctl/actions.txt").read_text().splitlines():
                needs, _, actions = line.rpartition(" | ")
                needs = needs.replace("conj_id", "ip")
                switch.ofctl(f"add-flow table=5,{needs + ',' if needs else ''}actions={actions}")
            for command in COMMANDS:
                switch.ofctl(command)
            for held in HELD:
                switch.ofctl(f"add-flow {held}")
            switch.ofctl("dump-flows table=9")
            flows = pathlib.Path(f"{folder}/flows")
            flows.write_text("flow add table=8,ip,actions=output:1\ngroup add group_id=50,type=all,bucket=output:1\n"
                             "packet-out in_port=1,packet=" + FRAME + ",actions=output:2\n")
            switch.ofctl(f"bundle {flows}")
            flows.write_text("table=8,tcp,actions=output:1\n")
            switch.ofctl(f"--bundle add-flows {flows}")
            for name, messages in OWN.items():
                switch.send(name, messages)
            for form in ("standard", "nxt_packet_in", "nxt_packet_in2"):
                resume = " resume" if form == "nxt_packet_in2" else ""
                switch.watch(f"monitor -P {form}", ["-P", form, "65535" + resume], happenings(switch))
            switch.watch("monitor watch:", ["watch:"], happenings(switch))
            switch.watch("monitor watch:!initial,out_port=1,table=3", ["watch:!initial,out_port=1,table=3"], happenings(switch))
            switch.sent.write(HERE / "ovs-ofctl/sent.txt")
            switch.answered.write(HERE / "ovs-vswitchd/answered.txt")
        finally:
            switch.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()

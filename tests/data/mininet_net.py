"""A Mininet network for a controller elsewhere: NAME ARGUMENTS CONTROLLER-ADDRESS CONTROLLER-PORT SOCKET.

NAME and ARGUMENTS are `tree DEPTH FANOUT` or `ring SWITCHES`. Once the network stands, tells its hosts over the socket, as a
line of JSON; then each line that comes is a Python expression about `net`, answered by a line with its value or error.
"""

import json
import socket
import sys
from functools import partial

from mininet.net import Mininet
from mininet.node import OVSSwitch, RemoteController
from mininet.topo import Topo
from mininet.topolib import TreeTopo


class RingTopo(Topo):
    """Switches in a ring, with a host at the first port of each."""

    def build(self, switches):
        names = [self.addSwitch(f"s{number}") for number in range(1, switches + 1)]
        for number, name in enumerate(names, 1):
            self.addLink(self.addHost(f"h{number}"), name)
        for near, far in zip(names, names[1:] + names[:1]):
            self.addLink(near, far)


def described(host):
    """What the lab wants to know of a host: its process, its addresses, its interface, and the port that this is in."""
    own = host.defaultIntf()
    port = own.link.intf2 if own.link.intf1 is own else own.link.intf1
    names = {"interface": own.name, "bridge": port.node.name, "port": port.name}
    return {"name": host.name, "pid": host.pid, "ip": own.IP(), "mac": own.MAC()} | names


def main(kind, *arguments):
    *shape, address, port, path = arguments
    shape = [int(number) for number in shape]
    topology = TreeTopo(*shape) if kind == "tree" else RingTopo(*shape)
    # Else Mininet changes limits of the whole machine.
    Mininet.inited = True
    switch = partial(OVSSwitch, datapath="user", protocols="OpenFlow13")
    controller = partial(RemoteController, ip=address, port=int(port))
    net = Mininet(topo=topology, switch=switch, controller=controller, autoSetMacs=True, waitConnected=False)
    net.start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    with listener.accept()[0].makefile("rw") as client:
        print(json.dumps([described(host) for host in net.hosts]), file=client, flush=True)
        for line in client:
            try:
                answer = {"value": repr(eval(line, {"net": net}))}
            except Exception as error:
                answer = {"error": repr(error)}
            print(json.dumps(answer), file=client, flush=True)


main(*sys.argv[1:])

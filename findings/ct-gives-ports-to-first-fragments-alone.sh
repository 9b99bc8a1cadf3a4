#!/usr/bin/env bash
# Question: the userspace datapath's `ct` holds the fragments of a datagram until all are there, and sends them on one by one. Which of them can
#           a table behind it match by `ct_tp_dst`, the destination port of the connection that they belong to?
# Guess:    all of them: they are looked up together, and have the same connection.
# Seen:     the first one alone. The others have `ct_state` (+trk, no +inv) and `ct_nw_proto`, and port 0.
# Meaning:  a rule or a chain for a port can't be asked of fragments behind `ct`, either. What is for all pieces has to ask for the protocol,
#           or for a mark that is set with `ct(commit, exec(…))` by an entry that all pieces hit.
# Exit: 0 as seen, 1 changed, 2 can't run here.
set -uo pipefail
export PATH=$PATH:/usr/sbin:/sbin

cannot() { echo "can't run: $*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || cannot "needs root"
if ! command -v ovs-vswitchd >/dev/null || ! command -v python3 >/dev/null; then
    command -v apt-get >/dev/null || cannot "no Open vSwitch or Python, and no apt-get"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        openvswitch-switch=3.1.0-2+deb12u1 iproute2 python3 >/dev/null || cannot "Open vSwitch can't be installed"
fi
echo "$(ovs-vswitchd --version | head -1)"

dir=$(mktemp -d /tmp/fragments-XXXXXX) netns=fragments-$$ pids=()
clean() {
    [ ${#pids[@]} -eq 0 ] || kill -9 "${pids[@]}" 2>/dev/null
    wait 2>/dev/null
    for one in "$netns" "$netns-a" "$netns-b"; do ip netns del "$one" 2>/dev/null; done
    rm -rf "$dir"
}
trap clean EXIT
export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir OVS_SYSCONFDIR=$dir
for one in "$netns" "$netns-a" "$netns-b"; do ip netns add "$one" || cannot "no network namespaces"; done
# Not for what runs in the background: that would be the child of a shell that is killed in its place.
inside() { ip netns exec "$netns" "$@"; }
ovsdb-tool create "$dir/conf.db" /usr/share/openvswitch/vswitch.ovsschema || cannot "no database"
ip netns exec "$netns" ovsdb-server "$dir/conf.db" --remote="punix:$dir/db.sock" --no-chdir -vconsole:off & pids+=($!)
for _ in $(seq 100); do [ -S "$dir/db.sock" ] && break; sleep 0.05; done
ip netns exec "$netns" ovs-vswitchd "unix:$dir/db.sock" --disable-system --no-chdir -vconsole:off & pids+=($!)
ovs-vsctl --timeout=20 add-br br -- set bridge br datapath_type=netdev fail_mode=secure || cannot "no bridge"
number=0
for end in a b; do
    number=$((number + 1))
    inside ip link add "port-$end" type veth peer name eth0 netns "$netns-$end"
    inside ip link set "port-$end" up
    ip netns exec "$netns-$end" ip link set eth0 address "02:00:00:00:00:0$number" up
    ip netns exec "$netns-$end" ip addr add "192.0.2.$number/24" dev eth0
    ovs-vsctl --timeout=20 add-port br "port-$end" -- set interface "port-$end" ofport_request="$number" || cannot "no port"
done
ip netns exec "$netns-a" ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev eth0 nud permanent
ofctl() { ovs-ofctl -O OpenFlow13 "$@"; }
bridge=unix:$dir/br.mgmt
ofctl add-flow "$bridge" "table=0,priority=1,ip,in_port=1,actions=ct(table=1)" || cannot "no ct"
ofctl add-flow "$bridge" "table=1,priority=3,ip,ct_state=+trk-inv,ct_nw_proto=17,ct_tp_dst=5000,actions=output:2" || cannot "no ct_tp_dst"
ofctl add-flow "$bridge" "table=1,priority=2,ip,ct_state=+trk-inv,ct_nw_proto=17,actions=output:2"
ofctl add-flow "$bridge" "table=1,priority=1,actions=drop"
# 4,000 octets with a UDP header in front are three fragments at an MTU of 1,500.
ip netns exec "$netns-a" python3 -c '
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.sendto(bytes(4000), ("192.0.2.2", 5000))' || cannot "nothing could be sent"
hits() { ofctl dump-flows "$bridge" "table=1" | sed -n "s/.*n_packets=\([0-9]*\).*priority=$1[ ,].*/\1/p"; }
for _ in $(seq 50); do
    with=$(hits 3) without=$(hits 2) neither=$(hits 1)
    [ $((${with:-0} + ${without:-0} + ${neither:-0})) -ge 3 ] && break
    sleep 0.1
done
echo "of 3 fragments $with matched by ct_tp_dst, $without by ct_nw_proto alone, $neither by neither"
if [ "$with $without $neither" = "1 2 0" ]; then
    echo "as seen before: only the first fragment has the port"
    exit 0
fi
echo "changed"
exit 1

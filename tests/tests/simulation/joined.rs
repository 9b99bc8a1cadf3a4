//! Goal: something that joins two ports of a tenant is found, and ended, whatever else happens, and nobody but its port notices.
//! Method: small fabrics, built by hand, in which floods that come back are played by their sources.

use std::collections::BTreeMap;
use std::time::Duration;

use apps::view::Endpoint;
use openflow::types::{DatapathId, MacAddr, PortNo};

use crate::scenarios::{converge, frame, mac, tenants_ports, world};
use crate::world::World;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const JOINED: [Endpoint; 2] =
    [Endpoint { bridge: DatapathId(1), port: PortNo(20) }, Endpoint { bridge: DatapathId(1), port: PortNo(21) }];

/// Three bridges with a host each; at the first one two more ports, which something joins.
fn joined() -> World {
    let mut world = world(&["green-1"; 3], &[(1, 2), (2, 3), (1, 3)]);
    let bridge = world.bridges.get_mut(&DatapathId(1)).unwrap();
    JOINED.iter().zip(["green-8", "green-9"]).for_each(|(place, name)| bridge.add_port(place.port, name));
    converge(&mut world);
    for place in hosts(&world) {
        world.host_sends(place, mac(place));
    }
    world.run(SECONDS(2));
    let [one, other] = JOINED;
    world.cables.extend([(one, other), (other, one)]);
    world
}

fn hosts(world: &World) -> Vec<Endpoint> {
    tenants_ports(world).into_iter().filter(|place| !JOINED.contains(place)).collect()
}

/// A host floods; what it sends comes back by a port.
fn comes_back(world: &mut World, from: Endpoint, by: Endpoint) {
    world.host_sends(from, mac(from));
    world.host_sends(by, mac(from));
}

fn shut(world: &World) -> Vec<u32> {
    let bridges = world.snapshot().bridges;
    bridges.iter().flat_map(|bridge| &bridge.ports).filter(|port| port.shut).map(|port| port.number).collect()
}

/// Each host's broadcast comes once to every other port that isn't shut, and hosts are where they were.
fn as_it_should(world: &World) {
    let shut = shut(world);
    for from in hosts(world) {
        let copies = world.follow(from, &frame(mac(from), MacAddr::BROADCAST)).copies;
        let others = tenants_ports(world).into_iter().filter(|it| *it != from && !shut.contains(&it.port.0));
        assert_eq!(copies, others.map(|place| (place, 1)).collect::<BTreeMap<_, _>>(), "{}", world.tail());
        let places = &world.core.situation().hosts["green"];
        assert!(places.get(&mac(from)).is_none_or(|host| host.place == from), "{places:?}\n{}", world.tail());
    }
}

#[test]
fn what_joins_two_ports_is_ended_within_a_second_and_the_port_is_opened_when_it_is_gone() {
    let mut world = joined();
    for from in hosts(&world) {
        comes_back(&mut world, from, JOINED[1]);
    }
    world.run(SECONDS(1));
    assert_eq!(shut(&world), [21], "{}", world.tail());
    let problems = world.snapshot().status.problems;
    assert!(
        matches!(&*problems, [one] if one.starts_with("a loop in tenant green: what is behind b1/green-8 and b1/green-9")),
        "{problems:?}"
    );
    assert!(
        world.follow(JOINED[1], &frame(mac(JOINED[1]), MacAddr::BROADCAST)).copies.is_empty(),
        "what it floods goes nowhere"
    );
    // Nobody is learnt there, however long that goes on.
    for from in hosts(&world) {
        comes_back(&mut world, from, JOINED[1]);
    }
    world.run(SECONDS(20));
    assert_eq!(shut(&world), [21]);
    as_it_should(&world);
    // A bridge that says nothing shows nothing, however long.
    world.muted.insert(DatapathId(1));
    world.run(SECONDS(30));
    world.muted.clear();
    converge(&mut world);
    assert_eq!(shut(&world), [21], "{}", world.tail());
    // A controller that starts anew leaves it so, and one that finds it gone opens the port.
    world.restart_core();
    converge(&mut world);
    assert_eq!(shut(&world), [21]);
    world.cables.clear();
    world.run(SECONDS(13));
    assert_eq!((shut(&world), world.snapshot().status.problems), (vec![], vec![]), "{}", world.tail());
    as_it_should(&world);
}

#[test]
fn a_port_that_sends_back_what_it_gets_is_shut_itself() {
    let mut world = joined();
    world.cables = BTreeMap::from([(JOINED[0], JOINED[0])]);
    let from = hosts(&world)[1];
    comes_back(&mut world, from, JOINED[0]);
    world.run(SECONDS(1));
    assert_eq!(shut(&world), [20], "{}", world.tail());
    as_it_should(&world);
    // The port goes, and another one gets its number.
    world.cables.clear();
    let bridge = world.bridges.get_mut(&DatapathId(1)).unwrap();
    bridge.set_port(JOINED[0].port, "other", true);
    world.flush(DatapathId(1));
    world.run(SECONDS(1));
    assert_eq!(shut(&world), Vec::<u32>::new());
}

/// Hosts that move, and what one tenant's station could send on of another's, shut nothing.
#[test]
fn hosts_that_move_shut_nothing() {
    let mut world = joined();
    world.cables.clear();
    for from in hosts(&world) {
        comes_back(&mut world, from, JOINED[1]);
        comes_back(&mut world, from, JOINED[0]);
    }
    for _ in 0..50 {
        world.run(Duration::from_millis(100));
        assert_eq!(shut(&world), Vec::<u32>::new());
    }
}

//! Goal: what operators read is so, and nothing alarms them that is only under way. Method: small fabrics, built by hand.

use std::time::Duration;

use apps::view::Endpoint;
use controller::snapshot::{Host, Link, Status};
use openflow::types::{DatapathId, PortNo};

use crate::scenarios::{converge, mac, tenants_ports, world};
use crate::world::World;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

fn end(bridge: u64, port: u32) -> Endpoint {
    Endpoint { bridge: DatapathId(bridge), port: PortNo(port) }
}

fn status(world: &World) -> Status {
    world.snapshot().status
}

fn triangle() -> World {
    let mut world = world(&["green-1"; 3], &[(1, 2), (2, 3), (1, 3)]);
    converge(&mut world);
    tenants_ports(&world).into_iter().for_each(|place| world.host_sends(place, mac(place)));
    world.run(SECONDS(2));
    assert_eq!(status(&world).problems, Vec::<String>::new());
    world
}

fn link(world: &World, a: &str, b: &str) -> Link {
    let links = world.snapshot().links;
    links.into_iter().find(|it| it.a.bridge == a && it.b.bridge == b).expect("it is known")
}

#[test]
fn a_link_that_went_is_told_with_the_sign_and_since_when() {
    let mut world = triangle();
    let one = link(&world, "b1", "b2");
    assert_eq!((one.up, one.lost_by, one.unicast), (true, None, vec!["green".to_owned()]));
    world.set_port_up(end(1, 2), false);
    world.run(SECONDS(3));
    let one = link(&world, "b1", "b2");
    assert_eq!((one.up, one.lost_by.as_deref(), one.unicast.len()), (false, Some("carrier"), 0));
    assert!(one.since_seconds.is_some_and(|since| (2..=3).contains(&since)), "{one:?}");
    let problems = status(&world).problems;
    assert!(
        matches!(problems.as_slice(), [one] if one.starts_with("link b1/link2 – b2/link2 has been down for ") && one.contains(" s: a port"))
    );
    world.set_port_up(end(1, 2), true);
    world.run(SECONDS(3));
    world.cut.insert(end(2, 3));
    world.run(SECONDS(3));
    let two = link(&world, "b2", "b3");
    assert_eq!((two.up, two.lost_by.as_deref()), (false, Some("probes")));
    let problems = status(&world).problems;
    assert!(
        matches!(problems.as_slice(), [one] if one.contains("b2/link3 – b3/link2 has been down") && one.contains("probes no longer pass"))
    );
    world.cut.clear();
    world.run(SECONDS(3));
    assert_eq!(status(&world).problems, Vec::<String>::new());
}

/// While bridges are awaited and links found, one line says so, and nothing else is a problem.
#[test]
fn a_start_makes_no_false_alarm() {
    let mut world = triangle();
    let links = world.snapshot().links;
    world.restart_core();
    let mut told = 0;
    for dpid in [0, 2, 1, 3] {
        if dpid > 0 {
            world.connect(DatapathId(dpid));
        }
        for _ in 0..20 {
            world.run(Duration::from_millis(20));
            let Status { settling, converged, problems, .. } = status(&world);
            let only = |problems: &[String]| matches!(problems, [one] if one.starts_with("still finding the fabric"));
            assert!(if settling { only(&problems) && !converged } else { problems.is_empty() }, "{problems:?}");
            told += usize::from(settling);
        }
    }
    assert!(told > 50, "{told}");
    world.run(SECONDS(2));
    let after = status(&world);
    assert!(after.converged && !after.settling && after.problems.is_empty(), "{after:?}");
    assert_eq!(world.snapshot().links.len(), links.len());

    // Who doesn't come is a problem when it is no longer waited for.
    world.restart_core();
    [1, 2].into_iter().for_each(|dpid| world.connect(DatapathId(dpid)));
    world.run(SECONDS(2));
    let waits = status(&world);
    assert!(waits.settling && waits.problems[0].contains("(0000000000000003)"), "{waits:?}");
    world.run(SECONDS(10));
    let after = status(&world);
    let missing = |it: &String| it.contains("bridge 0000000000000003 isn't connected: it was here before");
    assert!(!after.settling && after.problems.iter().any(missing), "{after:?}");
}

#[test]
fn a_port_name_that_nobody_has_is_told_with_the_nearest_one() {
    let mut world = world(&["green-1", "green-1"], &[(1, 2)]);
    let policy = |port: &str| {
        crate::policy(&format!(
            "version = 1\n[[tenant]]\nname = \"green\"\nports = [{{ bridge = \"*\", port = \"{port}\" }}]\n"
        ))
    };
    converge(&mut world);
    for (port, told) in [
        ("gren-1", Some("did you mean `green-1`?")),
        ("gren-*", Some("did you mean `green-1`?")),
        ("web-server", Some("no port of that name is there")),
        ("web-*", None),
        ("green-*", None),
    ] {
        world.set_policy(policy(port));
        world.run(SECONDS(2));
        let problems = status(&world).problems;
        let mut found = problems.iter().filter(|it| it.contains("selects nothing"));
        assert_eq!(found.next().map(|it| it.contains(told.unwrap_or("?"))), told.map(|_| true), "{port}: {problems:?}");
    }
}

/// However hosts come to be known, they are counted once, and everywhere alike.
#[test]
fn hosts_are_counted_once() {
    let mut world = world(&["green-1"; 3], &[(1, 2), (2, 3)]);
    converge(&mut world);
    let ports = tenants_ports(&world);
    ports.iter().for_each(|place| world.host_sends(*place, mac(*place)));
    world.run(SECONDS(1));
    let pinned = format!(
        "version = 1\n[[tenant]]\nname = \"green\"\nkey = 100\nports = [{{ bridge = \"*\", port = \"green-*\" }},\n\
         {{ bridge = \"b1\", port = \"green-1\", mac = \"{}\" }}]\n",
        mac(ports[0])
    );
    world.set_policy(crate::policy(&pinned));
    world.run(SECONDS(1));
    let snapshot = world.snapshot();
    let of_tenants: usize = snapshot.tenants.iter().map(|tenant| tenant.hosts).sum();
    assert_eq!((snapshot.hosts.len(), snapshot.status.hosts, of_tenants), (3, 3, 3));
}

/// IP addresses outlast a restart, and when a host was last heard of is never made up.
#[test]
fn what_is_known_of_hosts_outlasts_a_restart() {
    let mut world = world(&["green-1"; 3], &[(1, 2), (2, 3), (1, 3)]);
    converge(&mut world);
    let ports = tenants_ports(&world);
    ports.iter().for_each(|place| world.host_tells(*place, mac(*place), [10, 0, 0, place.bridge.0 as u8]));
    world.run(SECONDS(7));
    let before = world.snapshot().hosts;
    assert!(before.iter().all(|host| host.ips.len() == 1 && host.seen_seconds.is_some()), "{before:?}");
    world.restart_core();
    (1..=3).for_each(|dpid| world.connect(DatapathId(dpid)));
    world.run(SECONDS(5));
    let after = world.snapshot().hosts;
    assert!(after.iter().all(|host| host.seen_seconds.is_none()), "{after:?}");
    let known =
        |hosts: &[Host]| hosts.iter().map(|it| (it.mac.clone(), it.port.clone(), it.ips.clone())).collect::<Vec<_>>();
    assert_eq!(known(&after), known(&before));
}

//! Goal: a controller that ends at any moment costs nobody anything. Method: a small fabric, built by hand, and frames all the
//! time.

use std::collections::BTreeMap;
use std::time::Duration;

use apps::view::{Carrier, Endpoint};
use openflow::types::{DatapathId, MacAddr, PortNo};

use crate::scenarios::{converge, frame, mac, tenants_ports, world};
use crate::world::World;

/// A controller is killed at any moment after a link came back, and another one takes over: each frame arrives once, all the time.
#[test]
fn a_restart_at_any_moment_of_a_links_return_loses_nothing() {
    let mut halfway = 0;
    for (moment, carrier) in (0..96).step_by(2).zip([Carrier::Tunnel, Carrier::Dedicated(100)].into_iter().cycle()) {
        let mut world = world(&["green-1"; 3], &[]);
        [(1, 2), (2, 3), (1, 3)].into_iter().for_each(|(a, b)| world.add_wire(a, b, carrier));
        let ports = tenants_ports(&world);
        converge(&mut world);
        ports.iter().for_each(|place| world.host_sends(*place, mac(*place)));
        world.run(Duration::from_secs(1));
        let back = Endpoint { bridge: DatapathId(1 + moment / 4 % 2), port: PortNo(2) };
        world.set_port_up(back, false);
        world.run(Duration::from_secs(1));
        world.set_port_up(back, true);
        let start = world.now;
        let check = |world: &World, when: &str| {
            for (from, to) in ports.iter().flat_map(|from| ports.iter().map(move |to| (*from, *to))) {
                let what = || format!("killed at {moment}, {when}: {from} to {to}\n{}", world.tail());
                if from != to {
                    let told = world.follow(from, &frame(mac(from), mac(to)));
                    assert_eq!(told.copies, BTreeMap::from([(to, 1)]), "{}", what());
                    let flood = world.follow(from, &frame(mac(from), MacAddr::BROADCAST));
                    assert_eq!(flood.copies.get(&to), Some(&1), "{}", what());
                }
            }
        };
        for _ in 0..moment {
            world.step();
            check(&world, "before");
        }
        let version = world.version();
        world.restart_core();
        (1..=3).for_each(|dpid| world.connect(DatapathId(dpid)));
        while world.now < start + Duration::from_secs(3) {
            world.step();
            check(&world, "after");
        }
        let status = world.snapshot().status;
        assert!(status.converged && status.links.up == 3, "{moment}: {status:#?}");
        halfway += usize::from(world.version() > version);
    }
    assert!(halfway > 15, "only {halfway} were killed halfway");
}

//! Goal: whatever order things happen in, and whatever breaks, no frame reaches another tenant, loops, or gets around a
//! service function; a controller that starts anew changes nothing; and when all is well again, the network converges and
//! everybody gets what they should. Method: the real core and codec against simulated bridges; a seed draws the network, what
//! goes wrong in it, and the order in which things happen. docs/simulation.md tells more.

mod bridge;
mod bundle;
#[path = "../../../apps/tests/network/world/mod.rs"]
#[expect(dead_code, reason = "the tests of the compiler use more of it")]
mod fabric;
mod faults;
mod hands;
mod joined;
mod judge;
mod monitor;
mod pipe;
mod restarts;
mod scenarios;
mod tables;
mod told;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use apps::policy::{Policy, Source, load};

use faults::Network;
use judge::Extent;

/// Which seeds: `ESPALIER_SEEDS` says how many, or which one by `17..18`.
fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("ESPALIER_SEEDS") else { return 0..100 };
    let (first, end) = text.split_once("..").unwrap_or(("0", &text));
    let number = |text: &str| text.parse().expect("ESPALIER_SEEDS is a number of seeds, or two like 17..18");
    number(first)..number(end)
}

fn policy(text: &str) -> Policy {
    load(&[Source { name: "drawn.toml".into(), text: text.to_owned() }]).expect("a sound policy").policy
}

/// Tries a test with each seed, on all processors. Each that fails is told with what repeats it.
fn each(test: &str, run: impl Fn(u64) + Sync) {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get() as u64);
    let worker = |first: u64| {
        let fails = |seed: &u64| catch_unwind(AssertUnwindSafe(|| run(*seed))).is_err();
        (seeds.start + first..seeds.end).step_by(threads as usize).filter(fails).collect::<Vec<u64>>()
    };
    let failed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(move || worker(first))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect::<Vec<u64>>()
    });
    let repeat = |seed: &u64| {
        format!(
            "ESPALIER_SEEDS={seed}..{} cargo test --release --locked -p espalier-tests --test simulation -- {test}",
            seed + 1
        )
    };
    assert!(
        failed.is_empty(),
        "{} seeds failed; to repeat:\n{}",
        failed.len(),
        failed.iter().map(repeat).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn nothing_leaks_loops_or_goes_around_whatever_breaks_and_all_heals() {
    each("nothing_leaks_loops_or_goes_around_whatever_breaks_and_all_heals", |seed| {
        let mut network = Network::draw(seed);
        network.dpids().into_iter().for_each(|dpid| network.world.connect(dpid));
        for fault in 0..12 {
            network.about = format!("seed {seed}, after {fault} faults");
            // Some things go wrong where all is well, some where much else is wrong.
            if network.draw.below(4) == 0 {
                network.heal();
                network.all_send();
                network.heal();
            }
            for _ in 0..network.draw.below(160) {
                network.step();
            }
            let what = network.disturb();
            network.world.log.push(format!("FAULT {what}"));
        }
        network.about = format!("seed {seed}, healed");
        network.heal();
        network.run(Duration::from_secs(2));
        network.all_send();
        network.heal();
        network.check(Extent::All);
        network.judge.check_delivery(&network.world, &mut network.draw, &network.about);
        // What the checker holds back would be a fault of the compiler, or one of its own; so is what it finds in what
        // bridges have, unless somebody else put it there.
        let log = &network.world.log;
        let meddled = log.iter().any(|line| line.starts_with("FAULT somebody meddles"));
        let told = ["fault of this program", "never gave it", "by what bridges had"];
        let told = if meddled { &told[..1] } else { &told };
        let fault = log.iter().find(|line| told.iter().any(|told| line.contains(told)));
        assert!(fault.is_none(), "{}: {fault:?}\n{}", network.about, network.world.tail());
    });
}

#[test]
fn a_restarted_controller_changes_nothing_when_nothing_changed() {
    each("a_restarted_controller_changes_nothing_when_nothing_changed", |seed| {
        let what = format!("seed {seed}");
        let mut network = Network::draw(seed);
        network.heal();
        network.all_send();
        network.heal();
        let before: Vec<_> = network.world.bridges.values().map(|it| (it.tables.section.clone(), it.changes)).collect();
        network.world.restart_core();
        for dpid in network.dpids() {
            // They come back one after the other.
            let pause = Duration::from_millis(network.draw.below(1500) as u64);
            network.world.run(pause);
            network.world.connect(dpid);
        }
        network.heal();
        network.world.run(Duration::from_secs(12));
        for (bridge, (section, changes)) in network.world.bridges.values().zip(before) {
            assert_eq!(bridge.changes, changes, "{what}: {}\n{}", bridge.dpid, network.world.tail());
            assert_eq!(bridge.tables.section, section, "{what}: {}", bridge.dpid);
        }
        let hosts: usize = network.fabric.tenants().iter().map(|tenant| network.fabric.hosts(tenant).len()).sum();
        assert!(network.world.snapshot().status.hosts > 0 || hosts == 0, "{what}");
    });
}

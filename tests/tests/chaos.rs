//! Goal: when several things go wrong at once, nothing leaks, nothing loops, and what isn't concerned doesn't notice. On real
//! Open vSwitch.

mod network;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Capture, Container, ContinuousPing, Frame, Layout, Mac, Spec};

use network::{MS, Network, green_and_orange, nothing_lost, rules, spec};

/// How long things go wrong.
const STORM: Duration = Duration::from_secs(12);

/// Green has so many rules, and lets pass what they can't judge.
fn policy(count: usize) -> String {
    green_and_orange("", &format!("inner_vlans = \"pass\"\n{}", rules(count, "udp", 7000)))
}

#[test]
fn three_links_flap_while_the_policy_changes() -> Result<()> {
    let network = Network::with_policy(&Spec { hosts: 5, ..spec(Layout::Shared) }, &policy(1))?;
    network.meet("green")?;
    network.meet("orange")?;
    let green = |host| network.lab.container(host, "green-1");
    // Their ways are direct, and none of these links flaps.
    let mut pings = Vec::new();
    for (from, to) in [(1, 5), (5, 4), (3, 5), (2, 5)] {
        pings.push((format!("from {from} to {to}"), ContinuousPing::start(&green(from)?, green(to)?.ipv4)?));
    }
    let containers = network.lab.containers();
    let captures = containers.iter().map(Capture::start).collect::<Result<Vec<_>>>()?;
    let over = AtomicBool::new(false);
    let mut sent = Vec::new();
    scope(|threads| -> Result<()> {
        let (lab, over) = (&network.lab, &over);
        let flap = |(a, b), down, up| {
            move || -> Result<usize> {
                let mut times = 0;
                while !over.load(Ordering::Relaxed) {
                    lab.cut(a, b)?;
                    sleep(MS(down));
                    lab.restore(a, b)?;
                    sleep(MS(up));
                    times += 1;
                }
                Ok(times)
            }
        };
        let flapping = [((1, 2), 400, 600), ((2, 3), 700, 500), ((3, 4), 300, 900)];
        let flapping = flapping.map(|(link, down, up)| threads.spawn(flap(link, down, up)));
        let start = Instant::now();
        let mut outcome = Ok(());
        for round in 0.. {
            if start.elapsed() >= STORM || outcome.is_err() {
                break;
            }
            if round % 10 == 0 {
                outcome = network.controller.write_policy(&policy(1 + round / 10));
            }
            let from = green(1 + round % 5)?;
            let frame = Frame::broadcast(from.mac);
            outcome = outcome.and_then(|()| from.send(&frame));
            sent.push((from, frame));
            sleep(MS(70));
        }
        over.store(true, Ordering::Relaxed);
        for thread in flapping {
            let times = thread.join().expect("no panic")?;
            ensure!(times >= 5, "it flapped only {times} times");
        }
        outcome
    })?;
    for (what, ping) in pings {
        nothing_lost(&ping.stop()?, &what)?;
    }
    sleep(MS(400));
    let captured = captures.into_iter().map(Capture::stop).collect::<Result<Vec<_>>>()?;
    let mut arrived = 0;
    for (from, frame) in &sent {
        for (container, captured) in containers.iter().zip(&captured) {
            let most = u64::from(container.tenant == from.tenant && container.netns != from.netns);
            let copies = captured.copies(frame);
            ensure!(copies <= most, "{copies} copies of a broadcast at h{}/{}", container.host, container.port);
            arrived += copies;
        }
    }
    ensure!(arrived as usize > sent.len() * 2, "only {arrived} copies of {} broadcasts arrived", sent.len());
    network.settle()?;
    network.check_delivery().context("afterwards")
}

#[test]
fn half_a_minute_without_a_channel_and_then_without_the_controller() -> Result<()> {
    let mut network = Network::start(&spec(Layout::Shared))?;
    network.meet("green")?;
    network.meet("orange")?;
    let [one, two, three] = [1, 2, 3].map(|host| network.lab.container(host, "green-1"));
    let (one, two, three) = (one?, two?, three?);
    let pings = [ContinuousPing::start(&one, two.ipv4)?, ContinuousPing::start(&two, three.ipv4)?];
    let lab = &network.lab;
    let controller = &mut network.controller;
    let throughput = scope(|threads| -> Result<_> {
        // Slow enough that no queue drops for being full.
        let load = threads.spawn(|| lab.udp(&three, &two, 10, 38));
        lab.cut_control(2)?;
        sleep(MS(30_000));
        lab.restore_control(2)?;
        sleep(MS(2_000));
        controller.kill9();
        sleep(MS(2_000));
        controller.start()?;
        load.join().expect("no panic")
    })?;
    ensure!(throughput.mbit > 9.0 && throughput.lost_percent < 1.0, "{throughput:?}");
    network.settle()?;
    for ping in pings {
        nothing_lost(&ping.stop()?, "while the controller was away")?;
    }
    network.check_delivery()
}

/// A bridge can't be told that an address is at one of its ports by now, and sends frames for it the old way. Others must
/// not send it any as if it knew; what they flood arrives.
#[test]
fn an_address_that_is_pinned_to_a_bridge_without_a_channel_is_reached() -> Result<()> {
    let network = Network::with_policy(&spec(Layout::Shared), &green_and_orange("", ""))?;
    network.meet("green")?;
    let [one, two, three] = [1, 2, 3].map(|host| network.lab.container(host, "green-1"));
    let (one, two, three) = (one?, two?, three?);
    let moving = Mac([2, 0, 0, 0, 0xaa, 0xaa]);
    let knows = || Ok(network.controller.get("/v1/hosts")?.to_string().contains(&moving.to_string()));
    one.send(&Frame::broadcast(moving))?;
    lab::wait_until("the address to be known", MS(2000), knows)?;
    network.settle()?;
    // Frames for it from two containers arrive at these.
    let arrive = |froms: [&Container; 2], wanted: &dyn Fn(&Container) -> Vec<Container>, when: &str| {
        let sent = froms.map(|from| Frame::new(from.mac, moving));
        let seen = network.watch(|| sent.iter().zip(froms).try_for_each(|(frame, from)| from.send(frame)))?;
        sent.iter().zip(froms).try_for_each(|(frame, from)| {
            let wanted = wanted(from);
            seen.expect(frame, &wanted.iter().collect::<Vec<_>>(), when)
        })
    };
    arrive([&two, &three], &|_| vec![one.clone()], "while it is at the first host")?;

    network.lab.cut_control(2)?;
    let bridges = network.lab.bridges();
    let left = bridges.iter().filter(|bridge| bridge.host != 2).count() as u64;
    let lost = || Ok(network.controller.get("/v1/status")?["bridges"]["connected"] == left);
    lab::wait_until("the channel to count as lost", MS(15_000), lost)?;
    let bridge = &bridges.iter().find(|bridge| bridge.host == 2).context("a bridge")?.description;
    let pinned = format!("  {{ bridge = \"{bridge}\", port = \"green-1\", mac = \"{moving}\" }},\n");
    network.controller.apply_policy(&green_and_orange(&pinned, ""))?;
    let holds = || Ok(network.controller.get("/v1/status")?["converged"] == true);
    lab::wait_until("the others to have what they should", MS(5000), holds)?;
    let others = |from: &Container| {
        let green = network.lab.tenant("green").into_iter();
        green.filter(|to| to.netns != from.netns).collect()
    };
    arrive([&one, &three], &others, "while nobody can tell the bridge")?;

    network.lab.restore_control(2)?;
    network.settle()?;
    arrive([&one, &three], &|_| vec![two.clone()], "when the bridge has been told")
}

//! Goal: two controllers at the same bridges never divide the fabric. One leads all bridges, the other none, and that one takes
//! over when the first is killed, without a change and without a packet lost. On real Open vSwitch.

mod network;

use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{ContinuousPing, Controller, ControllerSpec, Lab, Layout};

use network::{MS, Network, POLICY, changes_sent, nothing_lost, spec};

/// How often both are started at once, each time at bridges that never had a master.
const STARTS: usize = 4;

/// The roles that a controller has at its bridges.
fn roles(controller: &Controller) -> Result<Vec<String>> {
    let bridges = controller.get("/v1/bridges")?;
    let roles = bridges.as_array().context("a list")?.iter();
    Ok(roles.filter_map(|bridge| bridge["role"].as_str().map(str::to_owned)).collect())
}

fn leads(controller: &Controller, bridges: usize) -> Result<bool> {
    Ok(roles(controller)? == vec!["master"; bridges])
}

fn follows(controller: &Controller, bridges: usize) -> Result<bool> {
    let problems = controller.get("/v1/status")?["problems"].clone();
    let told =
        problems.as_array().into_iter().flatten().filter(|it| it.to_string().contains("another controller leads"));
    Ok(roles(controller)? == vec!["slave"; bridges] && told.count() == 1)
}

/// Starts both at once, and gives the one that leads, and the other one.
fn start(lab: &Lab) -> Result<(Controller, Controller)> {
    lab.connect_to_all(2)?;
    let policy = ControllerSpec::policy(POLICY);
    let [one, two] = thread::scope(|scope| {
        let start = |number| {
            let policy = &policy;
            scope.spawn(move || lab.start_further_controller(policy, number))
        };
        [start(0), start(1)].map(|it| it.join().expect("no panic"))
    });
    let (one, two) = (one?, two?);
    let bridges = lab.bridges().len();
    let decided =
        || Ok(leads(&one, bridges)? && follows(&two, bridges)? || leads(&two, bridges)? && follows(&one, bridges)?);
    lab::wait_until("one to lead all bridges and the other none", MS(20_000), decided)
        .with_context(|| format!("roles: {:?} and {:?}", roles(&one), roles(&two)))?;
    Ok(if leads(&one, bridges)? { (one, two) } else { (two, one) })
}

#[test]
fn one_of_two_leads_and_the_other_takes_over() -> Result<()> {
    for number in 1..=STARTS {
        let began = Instant::now();
        let lab = Lab::start(&spec(Layout::Shared))?;
        let (leader, mut other) = start(&lab)?;
        println!("start {number}: one leads after {:?}", began.elapsed());
        let mut network = Network { controller: leader, lab };
        network.settle()?;
        network.meet("green")?;
        network.meet("orange")?;
        if number < STARTS {
            continue;
        }
        network.lab.pin_neighbours()?;
        sleep(Duration::from_secs(3));
        let (from, to) = (network.lab.container(1, "green-1")?, network.lab.container(3, "green-1")?);
        let ping = ContinuousPing::start(&from, to.ipv4)?;
        sleep(MS(300));
        // At the beginning it may have led for a moment.
        let before = changes_sent(&other)?;
        network.controller.kill9();
        let bridges = network.lab.bridges().len();
        let took = lab::wait_until("the other one to lead", MS(15_000), || leads(&other, bridges))?;
        println!("the other one leads {took:?} after the first one was killed");
        std::mem::swap(&mut network.controller, &mut other);
        network.settle()?;
        nothing_lost(&ping.stop()?, "the controller that led is killed")?;
        let changes = network.changes_sent()? - before;
        ensure!(changes == 0, "{changes} changes were sent");
        ensure!(!network.problems()?.iter().any(|it| it.contains("another controller")), "{:?}", network.problems()?);
        network.check_delivery()?;
        // The first one is back, and finds the other.
        other.start()?;
        lab::wait_until("the first one to follow", MS(10_000), || follows(&other, bridges))?;
        ensure!(leads(&network.controller, bridges)?, "the other one goes on leading");
        // One that is alone knows its own again.
        other.stop()?;
        let ping = ContinuousPing::start(&from, to.ipv4)?;
        network.controller.kill9();
        network.controller.start()?;
        let took = lab::wait_until("the only one to lead again", MS(9_000), || leads(&network.controller, bridges))?;
        network.settle()?;
        println!("after a restart it leads again {took:?} later");
        nothing_lost(&ping.stop()?, "the only controller is restarted")?;
        ensure!(network.changes_sent()? == 0, "{} changes were sent", network.changes_sent()?);
        other.kill9();
    }
    Ok(())
}

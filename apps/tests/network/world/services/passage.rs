//! Where packets go that may pass functions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use apps::desired::BridgeState;
use apps::interpreter::{Frame, Network, Output, walk};
use apps::policy::FunctionKind;
use apps::view::Endpoint;
use openflow::types::DatapathId;

use super::{Fabric, Passage};

impl Fabric {
    /// Follows a packet through bridges and functions until it is delivered or ends.
    pub(crate) fn pass(&self, states: &BTreeMap<DatapathId, BridgeState>, from: Endpoint, sent: &Frame) -> Passage {
        let owner = self.owner(from).unwrap();
        let (mut passage, down) = (Passage::default(), self.down());
        let mut seen = BTreeSet::new();
        let mut queue = VecDeque::from([(from, sent.clone(), Vec::new())]);
        let mut steps = 0;
        while let Some((at, frame, passed)) = queue.pop_front() {
            steps += 1;
            assert!(steps < 2000, "a packet from {from} goes on for ever: {sent:?}, {passed:?}");
            let Some(state) = states.get(&at.bridge).filter(|_| !down.contains(&at)) else { continue };
            for output in walk(state, at, &down, frame) {
                let Output::Port(port, frame) = output else { continue };
                let here = Endpoint { bridge: at.bridge, port };
                if down.contains(&here) {
                    continue;
                }
                if let Some((there, carrier)) = self.wires.get(&here) {
                    if !seen.insert((here, frame.clone(), passed.clone())) {
                        passage.looped.push(here);
                        continue;
                    }
                    queue.push_back((*there, frame.carried(*carrier), passed.clone()));
                } else if let Some((tenant, function, instance)) = self.functions.get(&here) {
                    let bare = Frame { tunnel: None, ..frame };
                    assert_eq!(bare.network, sent.network, "changed on its way to {}", function.name);
                    // A station doesn't look at what is flooded to others.
                    if instance.mac.is_some_and(|mac| mac != bare.destination) {
                        continue;
                    }
                    let mut passed = passed.clone();
                    let step = (function.name.clone(), instance.name.clone());
                    if function.kind != FunctionKind::Tap && passed.contains(&step) {
                        passage.looped.push(here);
                        continue;
                    }
                    passed.push(step);
                    match function.kind {
                        _ if *tenant != owner => passage.strayed.push(here),
                        FunctionKind::Tap => passage.tapped.push(function.name.clone()),
                        FunctionKind::Routed => {
                            let mac = instance.mac.unwrap();
                            let Network::Ipv4 { destination, .. } = bare.network else { panic!("{bare:?}") };
                            let [_, _, bridge, host] = destination.octets();
                            let routed = Frame { source: mac, destination: super::mac(bridge, host), ..bare };
                            queue.push_back((here, routed, passed));
                        }
                        FunctionKind::Wire | FunctionKind::Hairpin => {
                            let other =
                                if self.name(here) == instance.ingress { &instance.egress } else { &instance.ingress };
                            queue.push_back((self.find(&instance.bridge, other), bare, passed));
                        }
                    }
                } else {
                    passage.delivered.push((here, passed.clone()));
                }
            }
        }
        passage.tapped.sort();
        passage
    }
}

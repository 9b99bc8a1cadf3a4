//! How instances of a service function share its traffic. A bridge hashes each connection to one of [`SLOTS`] slots; here
//! it is said which instance has which slot.

use crate::trees::spread;

/// How many slots. So many that shares come within 3 % of the weights of ten instances.
pub(crate) const SLOTS: u16 = 256;

/// For each slot the index of its instance. `all` are names and weights, `working` the indexes of those that frames can be
/// sent to; if there are none, so are the slots.
///
/// Slots are first shared among all; those of instances that don't work are then shared among the others. So an instance
/// that fails moves nobody's connections but its own, and gets them back when it works again.
pub(crate) fn share(all: &[(&str, u16)], working: &[usize]) -> Vec<usize> {
    if working.is_empty() {
        return Vec::new();
    }
    let everybody: Vec<usize> = (0..all.len()).collect();
    let mut slots = vec![usize::MAX; SLOTS.into()];
    deal(all, &everybody, &mut slots);
    for slot in slots.iter_mut().filter(|slot| !working.contains(slot)) {
        *slot = usize::MAX;
    }
    deal(all, working, &mut slots);
    slots
}

/// The same for new connections, which only go to the instances in `takes_new` while one of these works. They are shared
/// as if the others weren't there, so when the others have gone, nothing changes for them.
pub(crate) fn share_new(all: &[(&str, u16)], working: &[usize], takes_new: &[usize]) -> Vec<usize> {
    let left: Vec<(&str, u16)> = takes_new.iter().filter_map(|index| all.get(*index).copied()).collect();
    let working_left: Vec<usize> =
        (0..).zip(takes_new).filter(|(_, it)| working.contains(it)).map(|(at, _)| at).collect();
    if working_left.is_empty() {
        return share(all, working);
    }
    share(&left, &working_left).into_iter().filter_map(|at| takes_new.get(at).copied()).collect()
}

/// Instances take turns, as often as their weights say, each choosing the free slot that it likes best. What each likes
/// depends on its name alone, so others that come or go change little (after Eisenbud et al., Maglev, NSDI 2016, §3.4).
fn deal(all: &[(&str, u16)], among: &[usize], slots: &mut [usize]) {
    let liking = |name: &str| {
        let name: Vec<u64> = name.bytes().map(u64::from).collect();
        let mut order: Vec<usize> = (0..slots.len()).filter(|slot| slots[*slot] == usize::MAX).collect();
        order.sort_by_cached_key(|slot| spread(*slot as u32, &name));
        order.into_iter()
    };
    let mut hands: Vec<_> =
        among.iter().map(|&index| (index, u64::from(all[index].1), 0u64, liking(all[index].0))).collect();
    let free = slots.iter().filter(|slot| **slot == usize::MAX).count();
    for _ in 0..free {
        // Whoever would have the least for its weight is next.
        let next = hands.iter_mut().min_by(|(a, weight, has, _), (b, other, theirs, _)| {
            ((has + 1) * other).cmp(&((theirs + 1) * weight)).then(a.cmp(b))
        });
        let Some((index, _, has, order)) = next else { return };
        *has += 1;
        if let Some(slot) = order.find(|slot| slots[*slot] == usize::MAX) {
            slots[slot] = *index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(slots: &[usize], instances: usize) -> Vec<usize> {
        (0..instances).map(|index| slots.iter().filter(|slot| **slot == index).count()).collect()
    }

    #[test]
    fn shares_are_as_the_weights() {
        let instances = [("a", 2), ("b", 1), ("c", 1)];
        let slots = share(&instances, &[0, 1, 2]);
        assert_eq!(counts(&slots, 3), [128, 64, 64]);
        let names: Vec<String> = (0..10).map(|n| format!("ids-{n}")).collect();
        let ten: Vec<(&str, u16)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let all: Vec<usize> = (0..10).collect();
        assert!(counts(&share(&ten, &all), 10).iter().all(|count| (25..=26).contains(count)));
    }

    #[test]
    fn an_instance_that_fails_moves_nothing_but_its_own_slots_and_gets_them_back() {
        let instances = [("a", 2), ("b", 1), ("c", 1)];
        let before = share(&instances, &[0, 1, 2]);
        let after = share(&instances, &[1, 2]);
        for (before, after) in before.iter().zip(&after) {
            assert!(*before == 0 || before == after);
        }
        assert_eq!(counts(&after, 3), [0, 128, 128]);
        assert_eq!(share(&instances, &[0, 1, 2]), before);
        assert_eq!(share(&instances, &[]), [] as [usize; 0]);
    }

    #[test]
    fn new_connections_go_as_if_those_that_drain_were_not_there() {
        let all = [("a", 2), ("b", 1), ("c", 1)];
        let new = share_new(&all, &[0, 1, 2], &[1, 2]);
        let without: Vec<usize> = share(&all[1..], &[0, 1]).into_iter().map(|index| index + 1).collect();
        assert_eq!(new, without);
        assert_eq!(counts(&new, 3), [0, 128, 128]);
        assert_eq!(share_new(&all, &[0, 1, 2], &[0, 1, 2]), share(&all, &[0, 1, 2]));
        assert_eq!(counts(&share_new(&all, &[0, 1], &[1, 2]), 3), [0, 256, 0], "one of the others fails");
        assert_eq!(share_new(&all, &[0], &[1, 2]), vec![0; SLOTS.into()], "better than nobody");
        assert_eq!(share_new(&all, &[], &[1, 2]), [] as [usize; 0]);
    }

    /// Beside its own slots few others' change: those have to wait for their connections to end, too.
    #[test]
    fn an_instance_that_drains_moves_little_beside_its_own() {
        let all = [("a", 1), ("b", 1), ("c", 1)];
        let (kept, new) = (share(&all, &[0, 1, 2]), share_new(&all, &[0, 1, 2], &[1, 2]));
        let moved = kept.iter().zip(&new).filter(|(kept, new)| kept != new && **kept != 0).count();
        assert!(moved < 64, "{moved}");
    }

    #[test]
    fn an_instance_more_moves_little_beside_what_it_gets() {
        let before = share(&[("a", 1), ("b", 1), ("c", 1)], &[0, 1, 2]);
        let after = share(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)], &[0, 1, 2, 3]);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after && **after != 3).count();
        assert!(moved < 64, "{moved}");
    }
}

//! Which of several targets, by their weights.

use twox_hash::XxHash64;

/// Chooses by `random`, evenly distributed over all of `u64`: each index as often as its weight says.
pub(crate) fn by_chance(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let sum: u64 = weights.clone().map(u64::from).sum();
    // The upper bits of the product are `random` scaled to 0..sum.
    let point = (u128::from(random) * u128::from(sum)) >> 64;
    let mut before = 0u128;
    weights.enumerate().find_map(|(index, weight)| {
        before += u128::from(weight);
        (point < before).then_some(index)
    })
}

/// Chooses by `value`: equal values, equal choice.
///
/// Weighted rendezvous hashing: every target draws a number from its name and the value and divides it by its weight; the
/// smallest wins. So when one weight grows, or a target is added, values move to it and nowhere else.
pub(crate) fn by_value<'t>(targets: impl Iterator<Item = (&'t [u8], u32)>, value: &[u8]) -> Option<usize> {
    let drawn = targets
        .enumerate()
        .filter(|(_, (_, weight))| *weight > 0)
        .map(|(index, (name, weight))| {
            // The value first: hashing it is what the draws of all targets share.
            let hash = XxHash64::oneshot(XxHash64::oneshot(0, value), name);
            // In (0, 1], of 53 bits; its negative logarithm is exponentially distributed.
            #[allow(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
            let unit = ((hash >> 11) + 1) as f64 / (1u64 << 53) as f64;
            (index, -unit.ln() / f64::from(weight))
        });
    drawn.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: [&[u8]; 3] = [b"a:80", b"b:80", b"c:80"];

    fn sticky(weights: &[u32], users: u32) -> Vec<Option<usize>> {
        let targets = TARGETS.iter().copied().zip(weights.iter().copied());
        (0..users)
            .map(|user| by_value(targets.clone(), format!("user-{user}").as_bytes()))
            .collect()
    }

    /// Steele, Lea and Flood's SplitMix64, as the filter uses it.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn chance_gives_each_its_share() {
        let mut state = 7;
        let mut counts = [0f64; 3];
        for _ in 0..100_000 {
            counts[by_chance([90, 9, 1].into_iter(), random(&mut state)).unwrap()] += 1.0;
        }
        for (count, share) in counts.into_iter().zip([0.9, 0.09, 0.01]) {
            assert!(
                (count / 100_000.0 - share).abs() < 0.01 * share.max(0.1),
                "{count} of {share}"
            );
        }
    }

    #[test]
    fn chance_covers_the_whole_range_and_no_more() {
        assert_eq!(by_chance([1, 0, 1].into_iter(), 0), Some(0));
        assert_eq!(by_chance([1, 0, 1].into_iter(), u64::MAX / 2), Some(0));
        assert_eq!(by_chance([1, 0, 1].into_iter(), u64::MAX / 2 + 1), Some(2));
        assert_eq!(by_chance([u32::MAX, u32::MAX].into_iter(), u64::MAX), Some(1));
        assert_eq!(by_chance([0, 0].into_iter(), 0), None);
        assert_eq!(by_chance([].into_iter(), 0), None);
    }

    #[test]
    fn a_value_stays_where_it_is_and_shares_are_kept() {
        let first = sticky(&[90, 10, 0], 10_000);
        assert_eq!(first, sticky(&[90, 10, 0], 10_000));
        let share = first.iter().filter(|choice| **choice == Some(1)).count();
        assert!((900..1100).contains(&share), "{share}");
        assert!(first.iter().all(|choice| *choice != Some(2)));
    }

    #[test]
    fn when_a_weight_grows_values_move_to_it_only() {
        for (from, to, grown) in [
            ([90, 10, 5], [90, 20, 5], 1),
            ([1, 1, 0], [1, 1, 1], 2),
            ([10, 10, 10], [11, 10, 10], 0),
        ] {
            let moved = sticky(&from, 10_000)
                .into_iter()
                .zip(sticky(&to, 10_000))
                .filter(|(old, new)| old != new);
            let elsewhere = moved.filter(|(_, new)| *new != Some(grown)).count();
            assert_eq!(elsewhere, 0, "{from:?} {to:?}");
        }
    }
}

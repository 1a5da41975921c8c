//! Header values that are comma-separated lists (RFC 9110 §5.6.1), which is also what several lines of one header may
//! have been joined to on the way. Empty elements don't count.

use super::{MAX_BYTES, trimmed};

/// The first element of a list.
pub(crate) fn first_element(value: &[u8]) -> Option<&[u8]> {
    elements(value).next()
}

/// The elements of a list, without the white space around them.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trimmed)
        .filter(|element| !element.is_empty())
}

/// How much of a list was read that is `MEMBERS` elements and [`MAX_BYTES`] long at most and comes in any number of
/// lines. It counts what the lines were if a comma joined them, so that it makes no difference whether one did.
#[derive(Debug, Default)]
pub(super) struct Bounded<const MEMBERS: usize> {
    members: usize,
    bytes: usize,
}

impl<const MEMBERS: usize> Bounded<MEMBERS> {
    /// The elements of the next line that lie whole within the limits.
    pub(super) fn elements<'v>(&mut self, line: &'v [u8]) -> impl Iterator<Item = &'v [u8]> {
        let readable = match MAX_BYTES.checked_sub(self.bytes) {
            // One byte more shows whether the last element goes on beyond the limit.
            Some(left) if self.members < MEMBERS => line.get(..=left).unwrap_or(line),
            _ => &[],
        };
        readable.split(|byte| *byte == b',').filter_map(|element| {
            let end = self.bytes + element.len();
            self.bytes = end + 1;
            let element = trimmed(element);
            if element.is_empty() || end > MAX_BYTES || self.members >= MEMBERS {
                return None;
            }
            self.members += 1;
            Some(element)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::hostile;
    use super::*;

    const PARTS: &[&str] = &["a", "K", " ", "\t", ",", ",", ";", "=", "y=1"];

    /// The elements that lie within the limits, without any care for time and memory.
    pub(in super::super) fn oracle(lines: &[Vec<u8>], members: usize) -> Vec<Vec<u8>> {
        let joined = lines.join(&b',');
        let mut found = Vec::new();
        let mut start = 0;
        for element in joined.split(|byte| *byte == b',') {
            let end = start + element.len();
            let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
            let first = element.iter().position(|byte| !is_space(byte));
            let last = element.iter().rposition(|byte| !is_space(byte));
            if let (Some(first), Some(last), true) = (first, last, end <= 8192) {
                found.push(element[first..=last].to_vec());
            }
            start = end + 1;
        }
        found.truncate(members);
        found
    }

    fn bounded<const MEMBERS: usize>(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut list = Bounded::<MEMBERS>::default();
        let mut found = Vec::new();
        for line in lines {
            found.extend(list.elements(line).map(<[u8]>::to_vec));
        }
        found
    }

    #[track_caller]
    fn check(value: &[u8], expected: Option<&str>) {
        let actual = first_element(value);
        assert_eq!(actual, expected.map(str::as_bytes), "{}", value.escape_ascii());
    }

    #[test]
    fn the_first_element_counts() {
        check(b"K", Some("K"));
        check(b"K1,K2", Some("K1"));
        check(b" K1\t, K2", Some("K1"));
        check(b"K 1", Some("K 1"));
        check(b"K=1;x", Some("K=1;x"));
    }

    #[test]
    fn empty_elements_do_not_count() {
        check(b"", None);
        check(b" ,\t,,, ", None);
        check(b",, ,K", Some("K"));
    }

    #[test]
    fn an_element_across_the_limit_is_not_cut_but_left_out() {
        let lines = |length: usize| [[&b"y".repeat(length)[..], b",K"].concat()];
        assert_eq!(bounded::<9>(&lines(8189))[1..], [b"K".to_vec()]);
        assert_eq!(bounded::<9>(&lines(8190))[1..], [b"K".to_vec()]);
        assert_eq!(bounded::<9>(&lines(8191)).len(), 1);
        assert_eq!(bounded::<9>(&lines(8192)).len(), 1);
        assert_eq!(bounded::<9>(&lines(8193)).len(), 0);
        assert_eq!(bounded::<9>(&[[&b"y".repeat(8190)[..], b",K12"].concat()]).len(), 1);
    }

    #[test]
    fn what_follows_the_limit_in_later_lines_is_left_out() {
        assert_eq!(bounded::<9>(&[b"y".repeat(8190), b"K".to_vec()]).len(), 2);
        assert_eq!(bounded::<9>(&[b"y".repeat(8191), b"K".to_vec()]).len(), 1);
        assert_eq!(bounded::<9>(&[b"y".repeat(9000), b"K".to_vec()]).len(), 0);
        assert_eq!(bounded::<2>(&vec![b"K".to_vec(); 10_000]).len(), 2);
        assert_eq!(
            bounded::<2>(&[b",,, ,".to_vec(), b"K,".to_vec(), b"K".to_vec()]).len(),
            2
        );
        let lines = [vec![Vec::new(); 8192], vec![b"K".to_vec()]].concat();
        assert_eq!(bounded::<2>(&lines).len(), 0);
    }

    #[test]
    fn hostile_values_are_read_as_the_oracle_reads_them() {
        for value in hostile::values() {
            assert_eq!(first_element(&value), elements(&value).next());
            let lines = [value.clone(), b"K".to_vec(), value];
            assert_eq!(bounded::<64>(&lines), oracle(&lines, 64));
        }
    }

    proptest! {
        #[test]
        fn the_limits_hold_over_all_lines(lines in prop::collection::vec(hostile::value(PARTS), 0..6)) {
            prop_assert_eq!(bounded::<32>(&lines), oracle(&lines, 32));
        }

        #[test]
        fn joined_lines_read_the_same(lines in prop::collection::vec(hostile::value(PARTS), 0..6)) {
            prop_assert_eq!(bounded::<32>(&[lines.join(&b',')]), bounded::<32>(&lines));
        }

        #[test]
        fn the_first_element_is_the_first_that_is_not_empty(value in hostile::value(PARTS)) {
            let within = value.len() <= MAX_BYTES;
            let expected = oracle(std::slice::from_ref(&value), usize::MAX);
            prop_assert!(!within || first_element(&value) == expected.first().map(Vec::as_slice));
        }
    }
}

//! Lists that are kept once however often they are used, each under a number.

use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

/// Numbers say nothing about content or order: a number that is free again is given away anew.
#[derive(Clone, Debug)]
pub(super) struct Interner<T> {
    lists: Vec<Kept<T>>,
    /// By hash. Only ever asked, never walked through.
    numbers: HashTable<(u64, u32)>,
    free: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Kept<T> {
    list: Box<[T]>,
    uses: u32,
}

impl<T: Clone + Eq + Hash> Interner<T> {
    pub(super) fn new() -> Self {
        Self {
            lists: Vec::new(),
            numbers: HashTable::new(),
            free: Vec::new(),
        }
    }

    /// More than the greatest number there is.
    pub(super) fn end(&self) -> usize {
        self.lists.len()
    }

    /// The list of this number.
    pub(super) fn get(&self, number: u32) -> &[T] {
        self.lists.get(number as usize).map_or(&[], |kept| &kept.list)
    }

    /// Counts one more use of `list`. Its number, and whether it is the first use.
    pub(super) fn enter(&mut self, list: &[T]) -> (u32, bool) {
        let hash = FixedState::default().hash_one(list);
        let lists = &self.lists;
        let is_equal = |(_, number): &(u64, u32)| lists.get(*number as usize).is_some_and(|kept| *kept.list == *list);
        if let Some((_, number)) = self.numbers.find(hash, is_equal) {
            let number = *number;
            if let Some(kept) = self.lists.get_mut(number as usize) {
                kept.uses += 1;
            }
            return (number, false);
        }
        let new = Kept {
            list: list.into(),
            uses: 1,
        };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(kept) = self.lists.get_mut(number as usize) {
                    *kept = new;
                }
                number
            }
            None => {
                self.lists.push(new);
                u32::try_from(self.lists.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.numbers.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        (number, true)
    }

    /// Counts one use less. The list, if that was the last one.
    pub(super) fn leave(&mut self, number: u32) -> Option<Box<[T]>> {
        let kept = self.lists.get_mut(number as usize)?;
        kept.uses = kept.uses.checked_sub(1)?;
        if kept.uses > 0 {
            return None;
        }
        let list = std::mem::take(&mut kept.list);
        let hash = FixedState::default().hash_one(&*list);
        if let Ok(entry) = self.numbers.find_entry(hash, |(_, other)| *other == number) {
            entry.remove();
        }
        self.free.push(number);
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<T> Interner<T> {
        /// How many lists are kept.
        pub(in crate::compile) fn len(&self) -> usize {
            self.lists.len() - self.free.len()
        }
    }

    #[test]
    fn a_list_is_kept_while_it_is_used() {
        let mut interner = Interner::new();
        let (a, is_first) = interner.enter(b"a");
        assert!(is_first);
        assert_eq!(interner.enter(b"a"), (a, false));
        let (b, _) = interner.enter(b"b");
        assert_ne!(a, b);
        assert_eq!(interner.leave(a), None);
        assert_eq!(interner.leave(a).as_deref(), Some(&b"a"[..]));
        assert_eq!(interner.leave(a), None);
        assert_eq!(interner.enter(b"c"), (a, true));
        assert_eq!(
            (interner.get(a), interner.get(b), interner.end()),
            (&b"c"[..], &b"b"[..], 2)
        );
        assert_eq!(interner.enter(b"b"), (b, false));
    }
}

//! Entity tags, by which a client says what it has seen.

use std::fmt;

use twox_hash::XxHash64;

/// The version of a representation: a hash of its content. Its display is as in `ETag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u64);

impl Tag {
    /// The one of this content.
    pub(crate) fn of(content: &[u8]) -> Self {
        Self(XxHash64::oneshot(0, content))
    }

    /// The one of several parts in any order, of which each is there once; a part is taken out by its tag again.
    pub(crate) fn with(self, part: Self) -> Self {
        Self(self.0.wrapping_add(part.0))
    }

    /// Without a part that [`Tag::with`] has added.
    pub(crate) fn without(self, part: Self) -> Self {
        Self(self.0.wrapping_sub(part.0))
    }

    /// The one of `self` and then `next`.
    pub(crate) fn then(self, next: Self) -> Self {
        let bytes: Vec<u8> = [self.0, next.0].into_iter().flat_map(u64::to_le_bytes).collect();
        Self::of(&bytes)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:016x}\"", self.0)
    }
}

/// What `If-Match` or `If-None-Match` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: whatever there is.
    Any,
    /// One of these, each in its quotes.
    Listed(Vec<String>),
}

/// When a change may be made (RFC 9110, section 13.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `If-Match`: only if it is one of these.
    pub only_if: Option<Tags>,
    /// `If-None-Match`: only if it is none of these.
    pub unless: Option<Tags>,
}

impl Tags {
    /// Reads the value of a header.
    ///
    /// # Errors
    ///
    /// It is no list of entity tags.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be * or a list of entity tags in quotes, as ETag has them";
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let mut listed = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let weak = rest.strip_prefix("W/");
            let (tag, after) = weak
                .unwrap_or(rest)
                .strip_prefix('"')
                .and_then(|inner| inner.split_once('"'))
                .ok_or(FORM)?;
            if !tag.bytes().all(|byte| byte == b'!' || (0x23..=0x7e).contains(&byte)) {
                return Err(FORM);
            }
            let prefix = if weak.is_some() { "W/" } else { "" };
            listed.push(format!("{prefix}\"{tag}\""));
            rest = after.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(FORM);
            }
        }
        if listed.is_empty() {
            Err(FORM)
        } else {
            Ok(Self::Listed(listed))
        }
    }

    /// Whether it names what is there, whose tag is `current`; `None`: nothing is there.
    pub fn name(&self, current: Option<Tag>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Listed(listed), Some(tag)) => listed.contains(&tag.to_string()),
        }
    }

    /// Whether it names `current`, where a weak tag will do as well.
    pub fn name_weakly(&self, current: Tag) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => {
                let current = current.to_string();
                listed
                    .iter()
                    .any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == current)
            }
        }
    }
}

impl Condition {
    /// Whether it holds for what is there.
    pub fn holds(&self, current: Option<Tag>) -> bool {
        self.only_if.as_ref().is_none_or(|tags| tags.name(current))
            && !self.unless.as_ref().is_some_and(|tags| tags.name(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_in_any_order() {
        let (a, b, c) = (Tag::of(b"a"), Tag::of(b"b"), Tag::of(b"c"));
        assert_eq!(a.with(b).with(c), c.with(a).with(b));
        assert_eq!(a.with(b).without(a), b);
        assert_ne!(a.then(b), b.then(a));
    }

    #[test]
    fn a_condition_is_about_what_is_there() {
        let tag = Tag::of(b"a");
        let (same, other) = (tag.to_string(), Tag::of(b"b").to_string());
        for (text, there, nothing) in [
            ("*", true, false),
            (&*same, true, false),
            (&*other, false, false),
            (&*format!("{other}, {same}"), true, false),
            (&*format!("W/{same}"), false, false),
        ] {
            let tags = Tags::parse(text).unwrap();
            assert_eq!(tags.name(Some(tag)), there, "{text}");
            assert_eq!(tags.name(None), nothing, "{text}");
        }
        let only_new = Condition {
            unless: Some(Tags::Any),
            ..Condition::default()
        };
        assert!(only_new.holds(None) && !only_new.holds(Some(tag)));
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for text in ["", ",", "abc", "\"a", "\"a\" \"b\"", "*, \"a\"", "\"a b\"", "w/\"a\""] {
            assert!(Tags::parse(text).is_err(), "{text}");
        }
    }
}

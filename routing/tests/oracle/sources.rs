//! Reading route keys, slowly and obviously: what W3C Baggage, W3C Trace Context, RFC 6265 and the design say, with
//! nothing but splits and copies. The fuzz targets compare with it, too.

/// What there is of a key, as the design distinguishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No value, or only empty ones.
    Nothing,
    /// A value that is no key.
    Invalid,
    /// A key.
    Key(Vec<u8>),
}

/// The most that is read of a list or of a line of cookies, in bytes.
const LIMIT: usize = 8192;

impl Found {
    /// Whether the value that a source gave is a key: 1 to 256 visible ASCII characters without a comma.
    pub fn judge(value: Option<Vec<u8>>) -> Self {
        let Some(value) = value else { return Self::Nothing };
        let is_visible = value.iter().all(|byte| (0x21..=0x7e).contains(byte));
        if value.len() > 256 || !is_visible || value.contains(&b',') {
            Self::Invalid
        } else {
            Self::Key(value)
        }
    }
}

/// The first element of a header that is a list.
pub fn header(lines: &[Vec<u8>]) -> Option<Vec<u8>> {
    let all = lines.join(&b',');
    all.split(|byte| *byte == b',')
        .map(trim)
        .find(|element| !element.is_empty())
}

/// The member `name` of the `baggage` header that has these lines: of its first 64 members and 8,192 bytes.
pub fn baggage(lines: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
    let members = members(lines, 64);
    let values = members.iter().filter_map(|member| {
        let without_properties = member.split(|byte| *byte == b';').next()?;
        let (key, value) = halves(without_properties)?;
        let value = trim(value);
        let is_well_formed = value
            .iter()
            .all(|byte| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e));
        (trim(key) == name.as_bytes() && !value.is_empty() && is_well_formed).then_some(value)
    });
    values.map(|value| percent_decoded(&value, false)).next()
}

/// The member `name` of the `tracestate` header that has these lines: of its first 32 members and 8,192 bytes.
pub fn tracestate(lines: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
    members(lines, 32).iter().find_map(|member| {
        let (key, value) = halves(member)?;
        let is_well_formed = value.iter().all(|byte| (0x20..=0x7e).contains(byte) && *byte != b'=');
        (key == name.as_bytes() && !value.is_empty() && is_well_formed).then(|| value.to_vec())
    })
}

/// The cookie `name` in these lines: of the first 8,192 bytes of each.
pub fn cookie(lines: &[Vec<u8>], name: &str) -> Option<Vec<u8>> {
    lines.iter().find_map(|line| {
        let mut end = 0;
        for pair in line.split(|byte| *byte == b';') {
            end += pair.len();
            let is_within = end <= LIMIT;
            end += 1;
            let Some((key, value)) = halves(pair) else { continue };
            let mut value = trim(value);
            if value.len() >= 2 && value.first() == Some(&b'"') && value.last() == Some(&b'"') {
                value = value[1..value.len() - 1].to_vec();
            }
            if is_within && trim(key) == name.as_bytes() && !value.is_empty() {
                return Some(value);
            }
        }
        None
    })
}

/// The first value of the query parameter `name` that isn't empty.
pub fn query(path: &[u8], name: &str) -> Option<Vec<u8>> {
    let values = parameters(path, name).into_iter();
    values
        .filter(|value| !value.is_empty())
        .map(|value| percent_decoded(&value, true))
        .next()
}

/// All values of the query parameter `name`, as they were sent.
pub fn parameters(path: &[u8], name: &str) -> Vec<Vec<u8>> {
    let until_fragment = path.split(|byte| *byte == b'#').next().unwrap_or_default();
    let Some(question_mark) = until_fragment.iter().position(|byte| *byte == b'?') else {
        return Vec::new();
    };
    let parameters = until_fragment[question_mark + 1..].split(|byte| *byte == b'&');
    let pairs = parameters.map(|parameter| halves(parameter).unwrap_or((parameter, b"")));
    pairs
        .filter(|(key, _)| *key == name.as_bytes())
        .map(|(_, value)| value.to_vec())
        .collect()
}

/// The one label before `suffix`, which begins with a dot, in `authority`.
pub fn host(authority: &[u8], suffix: &str) -> Option<Vec<u8>> {
    let name = host_of(authority);
    let dot = name.iter().position(|byte| *byte == b'.')?;
    let (label, rest) = (&name[..dot], &name[dot..]);
    (!label.is_empty() && rest.to_ascii_lowercase() == suffix.to_ascii_lowercase().into_bytes()).then(|| label.to_vec())
}

/// The host of `authority`: without the port, and without the dot that may end it.
pub fn host_of(authority: &[u8]) -> Vec<u8> {
    let mut host = authority.to_vec();
    let mut digits = 0;
    while digits < host.len() && host[host.len() - 1 - digits].is_ascii_digit() {
        digits += 1;
    }
    let rest = &authority[..authority.len() - digits];
    if let Some(name) = rest.strip_suffix(b":") {
        let is_bracketed = name.len() >= 2 && name.starts_with(b"[") && name.ends_with(b"]");
        if is_bracketed || !name.contains(&b':') {
            host = name.to_vec();
        }
    }
    if host.ends_with(b".") {
        host.pop();
    }
    host
}

/// What percent-encoded `text` stands for. In a query a plus is a space.
pub fn percent_decoded(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let digits = text
            .get(at + 1..at + 3)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let number = digits.map(|digits| u8::from_str_radix(&String::from_utf8_lossy(digits), 16));
        match (text[at], number) {
            (b'%', Some(Ok(byte))) => {
                decoded.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) if plus_is_space => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    decoded
}

/// The members of a list: all lines joined, empty ones left out and not counted, at most `count` of them, and none that
/// ends beyond the limit.
fn members(lines: &[Vec<u8>], count: usize) -> Vec<Vec<u8>> {
    let mut end = 0;
    let mut members = Vec::new();
    for member in lines.join(&b',').split(|byte| *byte == b',') {
        end += member.len();
        if end <= LIMIT {
            members.push(trim(member));
        }
        end += 1;
    }
    members.retain(|member| !member.is_empty());
    members.truncate(count);
    members
}

/// What stands before the first equals sign, and what after it.
fn halves(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((&text[..equals], &text[equals + 1..]))
}

/// `text` without spaces and tabs around it.
fn trim(text: &[u8]) -> Vec<u8> {
    let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let mut text = text.to_vec();
    while text.last().is_some_and(is_space) {
        text.pop();
    }
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(0);
    text.split_off(start)
}

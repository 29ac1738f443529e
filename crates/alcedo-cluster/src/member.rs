//! Layer 1: one worker of the ring, and the checked set of all of them.
//!
//! Knows the text form `id=host:port[,weight[,zone]]` and which sets of members make a ring. It must not know where the
//! text came from (a setting, a watched file, a worker's answer) nor how members are hashed: every source hands its
//! members over here, so that there is one set of rules for all of them.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// Most bytes in a member's id or zone: room for any host name label path, small enough to print and to hash often.
pub const MAX_NAME_BYTES: usize = 128;
/// Weight of a member that does not say one.
pub const DEFAULT_WEIGHT: u32 = 1;
/// Largest weight of one member; weights are ratios, and a thousand to one is more than machines differ.
pub const MAX_WEIGHT: u32 = 1_000;
/// Most members in one ring; a member's index then fits in 16 bits, which keeps the ring's table small.
pub const MAX_MEMBERS: usize = 65_536;
/// Largest sum of all weights; it bounds the ring's table, which a list of members from the network would otherwise
/// choose. Even so the largest ring has 65,536 x 512 virtual nodes of 24 bytes, which are 0.8 GB and three times that
/// while it is built; 50 members of weight 1 take 0.6 MB.
pub const MAX_TOTAL_WEIGHT: u32 = 65_536;
/// Most bytes of a DNS name in text form (RFC 1035, section 2.3.4).
const MAX_HOST_BYTES: usize = 253;
/// Most bytes of one label of a DNS name (RFC 1035, section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;
/// How much of a bad text a message repeats, in characters: enough to find it, too little to flood a log.
const SHOWN_CHARS: usize = 80;

/// One worker of the ring. The id, not the address, decides what it owns, so a worker may move.
///
/// Its text form is `id=host:port[,weight[,zone]]`; printing and parsing are inverse to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    id: String,
    address: String,
    weight: u32,
    zone: String,
}

/// Why a member was refused. The messages quote the text and say what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// The text does not have the parts of a member.
    #[error("{text} is not a member; write it as id=host:port[,weight[,zone]], for example w-1=10.0.0.5:7610")]
    Form {
        /// The text as given, shortened.
        text: String,
    },
    /// The id has no, too many or other characters.
    #[error("the worker id {text} is not usable; write 1 to 128 of the characters A-Z a-z 0-9 . _ -")]
    Id {
        /// The id as given, shortened.
        text: String,
    },
    /// The address is not `host:port`.
    #[error("the address {text} is not usable: {reason}; write host:port, 10.0.0.5:7610 or [fd00::5]:7610")]
    Address {
        /// The address as given, shortened.
        text: String,
        /// Which part is wrong.
        reason: &'static str,
    },
    /// The weight is not a whole number from 1 to [`MAX_WEIGHT`].
    #[error("the weight {text} is not usable; write a whole number from 1 to 1000, or leave it out for 1")]
    Weight {
        /// The weight as given, shortened.
        text: String,
    },
    /// The zone has too many or other characters.
    #[error("the zone {text} is not usable; write 1 to 128 of the characters A-Z a-z 0-9 . _ -, or leave it out")]
    Zone {
        /// The zone as given, shortened.
        text: String,
    },
}

impl Member {
    /// A checked member. `zone` may be empty, which means that the worker's zone is not known.
    ///
    /// Host names are kept in lower case and IPv6 addresses in their shortest form, so that equal addresses are equal
    /// texts.
    ///
    /// # Errors
    /// [`MemberError`] names the first part that is not usable.
    pub fn new(id: &str, address: &str, weight: u32, zone: &str) -> Result<Self, MemberError> {
        if !is_name(id) {
            return Err(MemberError::Id { text: shown(id) });
        }
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return Err(MemberError::Weight { text: weight.to_string() });
        }
        if !zone.is_empty() && !is_name(zone) {
            return Err(MemberError::Zone { text: shown(zone) });
        }
        let address =
            canonical_address(address).map_err(|reason| MemberError::Address { text: shown(address), reason })?;
        Ok(Self { id: id.to_owned(), address, weight, zone: zone.to_owned() })
    }

    /// The worker's name for life; it decides what the worker owns.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `host:port` of the worker's gRPC listener; an IPv6 host is in brackets.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Share of the files relative to the other members, 1 to [`MAX_WEIGHT`].
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Where the worker stands (rack, availability zone); empty if not known.
    pub fn zone(&self) -> &str {
        &self.zone
    }
}

impl FromStr for Member {
    type Err = MemberError;

    fn from_str(text: &str) -> Result<Self, MemberError> {
        let form = || MemberError::Form { text: shown(text) };
        let (id, rest) = text.split_once('=').ok_or_else(form)?;
        let mut parts = rest.split(',');
        let address = parts.next().ok_or_else(form)?;
        let weight = match parts.next() {
            None => DEFAULT_WEIGHT,
            Some(digits) => decimal(digits).ok_or_else(|| MemberError::Weight { text: shown(digits) })?,
        };
        let zone = match parts.next() {
            None => "",
            // A comma with nothing after it is a slip of the pen, not a way to say "no zone".
            Some("") => return Err(MemberError::Zone { text: shown("") }),
            Some(zone) => zone,
        };
        if parts.next().is_some() {
            return Err(form());
        }
        Self::new(id, address, weight, zone)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}", self.id, self.address)?;
        if self.weight != DEFAULT_WEIGHT || !self.zone.is_empty() {
            write!(out, ",{}", self.weight)?;
        }
        if !self.zone.is_empty() {
            write!(out, ",{}", self.zone)?;
        }
        Ok(())
    }
}

/// Where in its source a member stands, for messages; counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line of a text.
    Line(usize),
    /// An item of a list.
    Item(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(out, "line {number}"),
            Self::Item(number) => write!(out, "member {number} of the list"),
        }
    }
}

/// Why a set of members was refused. The messages name the line or item and say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// One member is not usable by itself.
    #[error("{place}: {reason}")]
    Member {
        /// Where it stands.
        place: Place,
        /// What is wrong with it.
        reason: MemberError,
    },
    /// Two members have one id, so that nobody could say which of them owns a file.
    #[error("{place}: the worker id {id:?} is already used by {first}; give every worker an id of its own")]
    DuplicateId {
        /// Where the second one stands.
        place: Place,
        /// Where the first one stands.
        first: Place,
        /// The id of both.
        id: String,
    },
    /// Two members have one address, so that one worker would answer under two ids.
    #[error("{place}: the address {address} is already used by {first}; list every worker once")]
    DuplicateAddress {
        /// Where the second one stands.
        place: Place,
        /// Where the first one stands.
        first: Place,
        /// The address of both.
        address: String,
    },
    /// More than [`MAX_MEMBERS`].
    #[error("{place}: a ring has at most 65536 members; split the cluster")]
    TooMany {
        /// Where the first member too many stands.
        place: Place,
    },
    /// The weights sum to more than [`MAX_TOTAL_WEIGHT`].
    #[error("{place}: the weights sum to more than 65536; divide all of them by the same number")]
    TooHeavy {
        /// Where the sum passes the limit.
        place: Place,
    },
}

/// A checked set of members: ids and addresses are unique, and size and total weight are bounded. It may be empty.
///
/// Members are kept sorted by the bytes of their ids, so two sets with the same members are equal whatever order they
/// came in. A clone is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    sorted: Arc<[Member]>,
}

impl Default for Members {
    fn default() -> Self {
        Self { sorted: Arc::from([]) }
    }
}

impl Members {
    /// The set of members that are already checked one by one, for example from a worker's answer.
    ///
    /// # Errors
    /// [`MembersError`] names the item, counted from 1, which does not fit with the others.
    pub fn new<I: IntoIterator<Item = Member>>(members: I) -> Result<Self, MembersError> {
        Self::collect(members.into_iter().zip(1..).map(|(member, number)| (Place::Item(number), Ok(member))))
    }

    /// The set of members in text form, one per item, for example from a setting.
    ///
    /// # Errors
    /// [`MembersError`] names the item, counted from 1, and what is wrong with it.
    pub fn from_items<I>(items: I) -> Result<Self, MembersError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::collect(items.into_iter().zip(1..).map(|(text, number)| (Place::Item(number), text.as_ref().parse())))
    }

    /// The set of members in a text, one per line. Blank lines and lines that start with `#` are skipped, and blanks
    /// around a line do not count.
    ///
    /// # Errors
    /// [`MembersError`] names the line, counted from 1, and what is wrong with it.
    pub fn from_lines(text: &str) -> Result<Self, MembersError> {
        let lines = text.lines().map(str::trim).zip(1..);
        let written = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        Self::collect(written.map(|(line, number)| (Place::Line(number), line.parse())))
    }

    fn collect(parsed: impl Iterator<Item = (Place, Result<Member, MemberError>)>) -> Result<Self, MembersError> {
        let mut sorted: Vec<Member> = Vec::new();
        let mut ids: HashMap<String, Place> = HashMap::new();
        let mut addresses: HashMap<String, Place> = HashMap::new();
        let mut total_weight = 0;
        for (place, member) in parsed {
            if sorted.len() == MAX_MEMBERS {
                return Err(MembersError::TooMany { place });
            }
            let member = member.map_err(|reason| MembersError::Member { place, reason })?;
            if let Some(first) = ids.insert(member.id.clone(), place) {
                return Err(MembersError::DuplicateId { place, first, id: member.id });
            }
            if let Some(first) = addresses.insert(member.address.clone(), place) {
                return Err(MembersError::DuplicateAddress { place, first, address: member.address });
            }
            total_weight += member.weight;
            if total_weight > MAX_TOTAL_WEIGHT {
                return Err(MembersError::TooHeavy { place });
            }
            sorted.push(member);
        }
        sorted.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Self { sorted: sorted.into() })
    }

    /// All members, sorted by id.
    pub fn as_slice(&self) -> &[Member] {
        &self.sorted
    }

    /// All members, sorted by id.
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.sorted.iter()
    }

    /// The member with this id.
    pub fn get(&self, id: &str) -> Option<&Member> {
        let index = self.sorted.binary_search_by(|member| member.id.as_str().cmp(id)).ok()?;
        self.sorted.get(index)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is no member at all.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Member;
    type IntoIter = std::slice::Iter<'a, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Ids and zones go into hashes, file names and logs as they are, so they have no separators, blanks or other scripts.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A number in plain digits. The standard parser also takes `+5` and `005`, which would not print as they were read.
fn decimal(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if plain { digits.parse().ok() } else { None }
}

fn canonical_address(address: &str) -> Result<String, &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("it has no port")?;
    let port = decimal(port).and_then(|port| u16::try_from(port).ok()).ok_or("the port is not from 1 to 65535")?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("the bracket is not closed")?;
        let v6: Ipv6Addr = inner.parse().map_err(|_| "what is in brackets is not an IPv6 address")?;
        return Ok(format!("[{v6}]:{port}"));
    }
    if host.contains(':') {
        return Err("an IPv6 address must be in brackets");
    }
    check_host(host)?;
    Ok(format!("{}:{port}", host.to_ascii_lowercase()))
}

/// A DNS name or an IPv4 address. Underscores are allowed because container networks name hosts with them.
fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("it has no host");
    }
    if host.len() > MAX_HOST_BYTES {
        return Err("the host name is longer than 253 characters");
    }
    for label in host.split('.') {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let sized = (1..=MAX_LABEL_BYTES).contains(&label.len());
        if !plain || !sized || label.starts_with('-') || label.ends_with('-') {
            return Err("the host is neither a host name nor an IP address");
        }
    }
    // No top-level domain is a number, so a name that ends like an IPv4 address must be one.
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.bytes().all(|byte| byte.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return Err("the host is neither a host name nor an IP address");
    }
    Ok(())
}

/// A text from outside in quotes, escaped and cut, for a message.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_member_is_read_with_its_defaults() {
        let member: Member = "w-1=Host.example:7610".parse().unwrap();
        assert_eq!(
            (member.id(), member.address(), member.weight(), member.zone()),
            ("w-1", "host.example:7610", 1, "")
        );
        let member: Member = "w-1=[FD00:0::5]:7610,7,eu-1a".parse().unwrap();
        assert_eq!((member.address(), member.weight(), member.zone()), ("[fd00::5]:7610", 7, "eu-1a"));
        assert_eq!(member.to_string(), "w-1=[fd00::5]:7610,7,eu-1a");
        assert_eq!("a=h:1,1".parse::<Member>().unwrap().to_string(), "a=h:1");
        assert_eq!("a=h:1,1,z".parse::<Member>().unwrap().to_string(), "a=h:1,1,z");
    }

    #[test]
    fn what_is_not_a_member_is_refused_with_the_part_that_is_wrong() {
        let long = "x".repeat(129);
        let long_host = format!("a={}:1", ["a"; 128].join("."));
        let cases = [
            ("", "is not a member"),
            ("a", "is not a member"),
            ("a=h:1,1,z,q", "is not a member"),
            ("=h:1", "worker id"),
            (" a=h:1", "worker id"),
            ("a b=h:1", "worker id"),
            ("a#=h:1", "worker id"),
            ("é=h:1", "worker id"),
            (&format!("{long}=h:1"), "worker id"),
            ("a=", "no port"),
            ("a=h", "no port"),
            ("a=:1", "no host"),
            ("a=h:", "the port"),
            ("a=h:0", "the port"),
            ("a=h:65536", "the port"),
            ("a=h:+80", "the port"),
            ("a=h:080", "the port"),
            ("a=h:1 ", "the port"),
            ("a=::1:80", "in brackets"),
            ("a=[::1:80", "bracket"),
            ("a=[h]:80", "IPv6"),
            ("a=[fe80::1%eth0]:80", "IPv6"),
            ("a=999.0.0.1:80", "neither"),
            ("a=1.2.3:80", "neither"),
            ("a=-h:80", "neither"),
            ("a=h..i:80", "neither"),
            ("a=http://h:80", "in brackets"),
            ("a=h/x:80", "neither"),
            (&long_host, "longer"),
            ("a=h:1,", "weight"),
            ("a=h:1,0", "weight"),
            ("a=h:1,1001", "weight"),
            ("a=h:1,01", "weight"),
            ("a=h:1,-1", "weight"),
            ("a=h:1,99999999999", "weight"),
            ("a=h:1,1,", "zone"),
            ("a=h:1,1,z z", "zone"),
            (&format!("a=h:1,1,{long}"), "zone"),
        ];
        for (text, part) in cases {
            let message = text.parse::<Member>().expect_err(text).to_string();
            assert!(message.contains(part), "{text:?} gave {message:?}, which does not name {part:?}");
            assert!(message.contains("write"), "{message:?} does not say what to do");
        }
    }

    #[test]
    fn a_message_neither_floods_a_log_nor_repeats_control_characters() {
        let message = "x\u{1b}[2J\n".repeat(10_000).parse::<Member>().expect_err("refused").to_string();
        assert!(message.len() < 1_000 && !message.contains(['\u{1b}', '\n']), "{message:?}");
    }

    #[test]
    fn lines_may_be_blank_or_comments_and_order_does_not_matter() {
        let text = "# the workers\n\n  b=h:2,3 \r\na=h:1\n";
        let members = Members::from_lines(text).unwrap();
        assert_eq!(members.iter().map(Member::id).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(members, Members::from_items(["a=h:1", "b=h:2,3"]).unwrap());
        assert_eq!(members, Members::new(members.iter().rev().cloned()).unwrap());
        assert_eq!(members.get("b").map(Member::weight), Some(3));
        assert_eq!(members.get("c"), None);
        assert!(Members::from_lines("").unwrap().is_empty());
    }

    #[test]
    fn a_bad_set_names_both_places() {
        let message = |text: &str| Members::from_lines(text).expect_err(text).to_string();
        assert_eq!(
            message("a=h:1\n\na=h:2"),
            "line 3: the worker id \"a\" is already used by line 1; give every worker an id of its own"
        );
        assert_eq!(
            message("a=H:1\nb=h:1"),
            "line 2: the address h:1 is already used by line 1; list every worker once"
        );
        assert!(message("a=h:1\nb").starts_with("line 2: \"b\" is not a member; write it as"));
        let message = Members::from_items(["a=h:1", "b=h:x"]).expect_err("port").to_string();
        assert!(message.starts_with("member 2 of the list: the address \"h:x\""), "{message}");
    }

    #[test]
    fn sets_are_bounded_in_number_and_weight() {
        let member = |number: usize, weight: u32| {
            Member::new(&format!("w{number}"), &format!("h{number}:1"), weight, "").unwrap()
        };
        let full = Members::new((0..MAX_MEMBERS).map(|number| member(number, 1))).unwrap();
        assert_eq!(full.len(), MAX_MEMBERS);
        assert_eq!(
            Members::new((0..=MAX_MEMBERS).map(|number| member(number, 1))),
            Err(MembersError::TooMany { place: Place::Item(MAX_MEMBERS + 1) })
        );
        assert_eq!(
            Members::new((0..100).map(|number| member(number, MAX_WEIGHT))),
            Err(MembersError::TooHeavy { place: Place::Item(66) })
        );
    }

    proptest! {
        #[test]
        fn a_printed_member_reads_back_as_itself(
            id in "[A-Za-z0-9._-]{1,128}",
            host in prop_oneof![
                "[A-Za-z][A-Za-z0-9]{0,20}(\\.[A-Za-z][A-Za-z0-9]{0,20}){0,3}",
                "\\[[0-9a-f]{1,4}::[0-9a-f]{1,4}\\]",
                "[0-9]{1,2}(\\.[0-9]{1,2}){3}",
            ],
            port in 1_u16..,
            weight in 1..=MAX_WEIGHT,
            zone in "[A-Za-z0-9._-]{0,128}",
        ) {
            // A leading zero in an IPv4 address is refused, because some resolvers read it as octal.
            if let Ok(member) = Member::new(&id, &format!("{host}:{port}"), weight, &zone) {
                prop_assert_eq!(member.to_string().parse::<Member>(), Ok(member));
            } else {
                prop_assert!(host.split('.').any(|part| part.len() > 1 && part.starts_with('0')), "{} refused", host);
            }
        }

        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_prints_back(text in "[a-z0-9=:,.\\[\\]#é-]{0,40}") {
            if let Ok(member) = text.parse::<Member>() {
                prop_assert_eq!(member.to_string().parse::<Member>(), Ok(member));
            }
        }
    }
}

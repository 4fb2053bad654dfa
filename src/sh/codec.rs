//! Diameter on the wire: octets into messages and AVPs, and back (RFC 6733 §3, §4).
//!
//! Start at [`Framer`] for a stream, [`Message::decode`] for one message. A grouped AVP stays octets until somebody asks
//! for its members with [`Avp::as_group`], one level at a time: so nesting costs nothing here, and whoever walks deeper
//! keeps its own bound. AVPs nobody knows stay opaque and are written back as they came. Knows no peer and no session.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::dictionary::{self as d, Def, Kind, result};

/// Octets before the first AVP.
pub const HEADER: usize = 20;
/// Largest message the 24-bit length can tell.
const MOST: usize = 0x00ff_fffc;
/// How deep [`Message::unknown_mandatory`] looks into groups; no Sh message nests deeper than three.
const DEPTH: usize = 8;

/// Seconds from 1900-01-01, where the Time type begins, to 1970-01-01.
const UNIX_EPOCH: i64 = 2_208_988_800;

/// The fixed part of a message (RFC 6733 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub flags: u8,
    /// 24 bits.
    pub code: u32,
    pub application: u32,
    /// Matches an answer to its request on one connection.
    pub hop_by_hop: u32,
    /// Together with Origin-Host finds duplicates; survives failover.
    pub end_to_end: u32,
}

impl Header {
    /// R: a request.
    pub const REQUEST: u8 = 0x80;
    /// P: may be proxied.
    pub const PROXIABLE: u8 = 0x40;
    /// E: an answer with a protocol error.
    pub const ERROR: u8 = 0x20;
    /// T: sent again after a link failed.
    pub const RETRANSMITTED: u8 = 0x10;

    /// R is set.
    pub fn is_request(&self) -> bool {
        self.flags & Self::REQUEST != 0
    }

    /// E is set.
    pub fn is_error(&self) -> bool {
        self.flags & Self::ERROR != 0
    }

    /// P is set.
    pub fn is_proxiable(&self) -> bool {
        self.flags & Self::PROXIABLE != 0
    }

    /// T is set.
    pub fn is_retransmitted(&self) -> bool {
        self.flags & Self::RETRANSMITTED != 0
    }
}

/// One attribute-value pair (RFC 6733 §4.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Avp {
    pub code: u32,
    /// As on the wire; V follows [`Avp::vendor`].
    pub flags: u8,
    /// `None` is the IETF space. Zero, which no peer should write, means the same and is kept as it came.
    pub vendor: Option<u32>,
    /// Without header and padding.
    pub data: Bytes,
}

/// A body may hold what belongs to a user, so only its length is shown.
impl std::fmt::Debug for Avp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Def::of(self.code, self.vendor) {
            Some(def) => write!(f, "{}[{}]", def.name, self.data.len()),
            None => write!(f, "{}/{:?}[{}]", self.code, self.vendor, self.data.len()),
        }
    }
}

impl Avp {
    /// V: a Vendor-Id follows the length.
    pub const VENDOR: u8 = 0x80;
    /// M: who does not understand this AVP must not take the message.
    pub const MANDATORY: u8 = 0x40;

    /// Any AVP of the table from its data.
    pub fn octets(def: &Def, data: impl Into<Bytes>) -> Self {
        let vendor = if def.vendor.is_some() { Self::VENDOR } else { 0 };
        let mandatory = if def.mandatory { Self::MANDATORY } else { 0 };
        Self { code: def.code, flags: vendor | mandatory, vendor: def.vendor, data: data.into() }
    }

    /// UTF8String, DiameterIdentity, DiameterURI.
    pub fn text(def: &Def, text: &str) -> Self {
        Self::octets(def, Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Unsigned32 and Enumerated.
    pub fn u32(def: &Def, value: u32) -> Self {
        Self::octets(def, Bytes::copy_from_slice(&value.to_be_bytes()))
    }

    /// Unsigned64.
    pub fn u64(def: &Def, value: u64) -> Self {
        Self::octets(def, Bytes::copy_from_slice(&value.to_be_bytes()))
    }

    /// Grouped: the members with their padding (RFC 6733 §4.4).
    pub fn grouped<'a>(def: &Def, members: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut data = BytesMut::new();
        for member in members {
            member.write(&mut data);
        }
        Self::octets(def, data.freeze())
    }

    /// Address: a family and the octets (RFC 6733 §4.3.1).
    pub fn address(def: &Def, address: IpAddr) -> Self {
        let mut data = BytesMut::with_capacity(18);
        match address {
            IpAddr::V4(v4) => {
                data.put_u16(1);
                data.put_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                data.put_u16(2);
                data.put_slice(&v6.octets());
            }
        }
        Self::octets(def, data.freeze())
    }

    /// Time, from seconds since 1970. What 32 bits cannot tell becomes the first or last moment they can.
    ///
    /// SH-024 (RFC 6733 §4.3.1).
    pub fn time(def: &Def, unix: i64) -> Self {
        let first = i64::from(0x8000_0000_u32) - UNIX_EPOCH;
        let last = first + i64::from(u32::MAX);
        let since_1900 = unix.clamp(first, last) + UNIX_EPOCH;
        let low = u32::try_from(since_1900 & 0xffff_ffff).expect("masked to 32 bits");
        Self::u32(def, low)
    }

    /// The same AVP with the M bit set, where the table leaves it to the request (Supported-Features).
    #[must_use]
    pub fn require(mut self) -> Self {
        self.flags |= Self::MANDATORY;
        self
    }

    /// This is the AVP that `def` defines.
    pub fn is(&self, def: &Def) -> bool {
        self.code == def.code && self.vendor.filter(|vendor| *vendor != 0) == def.vendor
    }

    /// M is set.
    pub fn is_mandatory(&self) -> bool {
        self.flags & Self::MANDATORY != 0
    }

    /// Unsigned32 and Enumerated. 5014 if it is not four octets.
    pub fn as_u32(&self) -> Result<u32, Fault> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// Unsigned64. 5014 if it is not eight octets.
    pub fn as_u64(&self) -> Result<u64, Fault> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// UTF8String. 5004 if it is not UTF-8.
    pub fn as_text(&self) -> Result<&str, Fault> {
        std::str::from_utf8(&self.data).map_err(|_| Fault::InvalidValue(self.clone()))
    }

    /// DiameterIdentity in lower case (SH-002). 5004 if it is empty or has anything but visible ASCII.
    pub fn as_identity(&self) -> Result<String, Fault> {
        if self.data.is_empty() || !self.data.iter().all(u8::is_ascii_graphic) {
            return Err(Fault::InvalidValue(self.clone()));
        }
        Ok(self.as_text()?.to_ascii_lowercase())
    }

    /// Address. 5014 if the octets do not fit the family, 5004 if the family is neither IPv4 nor IPv6.
    pub fn as_address(&self) -> Result<IpAddr, Fault> {
        let mut data = &self.data[..];
        if data.len() < 2 {
            return Err(Fault::InvalidLength(self.clone()));
        }
        let length = || Fault::InvalidLength(self.clone());
        match data.get_u16() {
            1 => {
                <[u8; 4]>::try_from(data).map(Ipv4Addr::from).map(IpAddr::V4).map_err(|_| length())
            }
            2 => {
                <[u8; 16]>::try_from(data).map(Ipv6Addr::from).map(IpAddr::V6).map_err(|_| length())
            }
            _ => Err(Fault::InvalidValue(self.clone())),
        }
    }

    /// Time in seconds since 1970. 5014 if it is not four octets.
    ///
    /// SH-024 (RFC 6733 §4.3.1): without the top bit it is after 2036-02-07.
    pub fn as_time(&self) -> Result<i64, Fault> {
        let value = self.as_u32()?;
        let wrapped = if value & 0x8000_0000 == 0 { 1_i64 << 32 } else { 0 };
        Ok(i64::from(value) + wrapped - UNIX_EPOCH)
    }

    /// The members of a group, one level. The fault of a member comes inside its group (RFC 6733 §7.5).
    pub fn as_group(&self) -> Result<Vec<Self>, Fault> {
        let mut members = Vec::new();
        let mut rest = self.data.clone();
        while !rest.is_empty() {
            members.push(Self::read(&mut rest).map_err(|fault| fault.within(self))?);
        }
        Ok(members)
    }

    fn fixed<const N: usize>(&self) -> Result<[u8; N], Fault> {
        <[u8; N]>::try_from(&self.data[..]).map_err(|_| Fault::InvalidLength(self.clone()))
    }

    /// Takes one AVP and its padding. Padding that the end of a group leaves out is not missed.
    fn read(rest: &mut Bytes) -> Result<Self, Fault> {
        // SH-018 (RFC 6733 §7.1.5): a header that is not whole is filled up with zeros to be shown.
        if rest.len() < 8 {
            let mut head = [0_u8; 8];
            head[..rest.len()].copy_from_slice(rest);
            let code = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            return Err(Fault::InvalidLength(Self::cut(code, head[4], None)));
        }
        let mut head = &rest[..];
        let code = head.get_u32();
        let word = head.get_u32();
        let [flags, ..] = word.to_be_bytes();
        let length = octets(word & 0x00ff_ffff);
        let has_vendor = flags & Self::VENDOR != 0;
        let vendor = (has_vendor && head.len() >= 4).then(|| head.get_u32());
        let start = if has_vendor { 12 } else { 8 };
        if length < start || length > rest.len() {
            return Err(Fault::InvalidLength(Self::cut(code, flags, vendor)));
        }
        let data = rest.slice(start..length);
        rest.advance(padded(length).min(rest.len()));
        Ok(Self { code, flags, vendor, data })
    }

    /// What is shown of an AVP whose length is wrong: its header, and zeros of the least its type needs.
    fn cut(code: u32, flags: u8, vendor: Option<u32>) -> Self {
        let least = Def::of(code, vendor).map_or(0, |def| def.kind.least());
        let vendor = vendor.or((flags & Self::VENDOR != 0).then_some(0));
        Self { code, flags, vendor, data: Bytes::from(vec![0; least]) }
    }

    fn write(&self, out: &mut BytesMut) {
        let start = if self.vendor.is_some() { 12 } else { 8 };
        let length = (start + self.data.len()).min(MOST);
        let flags = self.flags & !Self::VENDOR;
        let vendor = if self.vendor.is_some() { Self::VENDOR } else { 0 };
        out.put_u32(self.code);
        out.put_u8(flags | vendor);
        out.put_uint(length as u64, 3);
        if let Some(vendor) = self.vendor {
            out.put_u32(vendor);
        }
        out.put_slice(&self.data[..length - start]);
        out.put_bytes(0, padded(length) - length);
    }

    /// Octets on the wire, with header and padding.
    pub fn size(&self) -> usize {
        padded(self.data.len() + if self.vendor.is_some() { 12 } else { 8 })
    }
}

/// What is wrong with the AVPs of a message, and what the sender is told (RFC 6733 §7.1.5, §7.5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// 5001: M is set and nobody here knows it.
    #[error("{0:?} is not supported")]
    Unsupported(Avp),
    /// 5004.
    #[error("{0:?} has an invalid value")]
    InvalidValue(Avp),
    /// 5005: holds an example of what is missing.
    #[error("{0:?} is missing")]
    Missing(Avp),
    /// 5008.
    #[error("{0:?} is not allowed here")]
    NotAllowed(Avp),
    /// 5009: holds the first one too many.
    #[error("{0:?} occurs too often")]
    TooMany(Avp),
    /// 5014.
    #[error("{0:?} has an invalid length")]
    InvalidLength(Avp),
}

impl Fault {
    /// An AVP that has to be there is not.
    pub fn missing(def: &Def) -> Self {
        Self::Missing(Avp::octets(def, vec![0; def.kind.least()]))
    }

    /// The base Result-Code.
    pub fn result_code(&self) -> u32 {
        match self {
            Self::Unsupported(_) => result::AVP_UNSUPPORTED,
            Self::InvalidValue(_) => result::INVALID_AVP_VALUE,
            Self::Missing(_) => result::MISSING_AVP,
            Self::NotAllowed(_) => result::AVP_NOT_ALLOWED,
            Self::TooMany(_) => result::AVP_OCCURS_TOO_MANY_TIMES,
            Self::InvalidLength(_) => result::INVALID_AVP_LENGTH,
        }
    }

    /// The offending AVP.
    pub fn avp(&self) -> &Avp {
        match self {
            Self::Unsupported(avp)
            | Self::InvalidValue(avp)
            | Self::Missing(avp)
            | Self::NotAllowed(avp)
            | Self::TooMany(avp)
            | Self::InvalidLength(avp) => avp,
        }
    }

    /// Failed-AVP with the offending AVP in it.
    pub fn failed_avp(&self) -> Avp {
        Avp::grouped(&d::FAILED_AVP, [self.avp()])
    }

    /// The same fault, shown inside the group it was found in.
    #[must_use]
    fn within(self, group: &Avp) -> Self {
        let mut data = BytesMut::new();
        self.avp().write(&mut data);
        let outer = Avp { data: data.freeze(), ..group.clone() };
        match self {
            Self::Unsupported(_) => Self::Unsupported(outer),
            Self::InvalidValue(_) => Self::InvalidValue(outer),
            Self::Missing(_) => Self::Missing(outer),
            Self::NotAllowed(_) => Self::NotAllowed(outer),
            Self::TooMany(_) => Self::TooMany(outer),
            Self::InvalidLength(_) => Self::InvalidLength(outer),
        }
    }
}

/// The stream makes no sense any more: there is no way back to the start of a message (SH-007).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("version {0}")]
    Version(u8),
    #[error("a message of {0} octets is shorter than its header")]
    TooShort(usize),
    #[error("a message of {0} octets is no multiple of four")]
    Uneven(usize),
    #[error("a message of {0} octets is over the limit")]
    TooLong(usize),
    #[error("a message of {said} octets came as {came}")]
    Incomplete { said: usize, came: usize },
}

/// Why octets are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Close the connection.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame is sound, an AVP is not: a request can be answered with what was read before it.
    #[error("{fault}")]
    Avp { read: Box<Message>, fault: Box<Fault> },
}

/// How a request ended: the one result an answer carries (RFC 6733 §7.1, §7.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Result-Code.
    Base(u32),
    /// Experimental-Result: the same number means something else here.
    Experimental { vendor: u32, code: u32 },
}

impl Outcome {
    /// 2xxx, whoever defined it.
    pub fn is_success(self) -> bool {
        self.code() / 1000 == 2
    }

    /// The number alone; its thousands tell the class.
    pub fn code(self) -> u32 {
        match self {
            Self::Base(code) | Self::Experimental { code, .. } => code,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base(code) => write!(f, "{code}"),
            Self::Experimental { vendor, code } => write!(f, "{vendor}/{code}"),
        }
    }
}

/// One message: header and AVPs in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub header: Header,
    pub avps: Vec<Avp>,
}

impl Message {
    /// A request; the identifiers are filled in by who sends it.
    pub fn request(code: u32, application: u32, avps: Vec<Avp>) -> Self {
        // SH-017 (RFC 6733 §3): Sh requests may be proxied, the base commands may not.
        let proxiable = if application == d::APPLICATION_BASE { 0 } else { Header::PROXIABLE };
        let flags = Header::REQUEST | proxiable;
        Self { header: Header { flags, code, application, hop_by_hop: 0, end_to_end: 0 }, avps }
    }

    /// The beginning of an answer to this request: code, application, both identifiers and P are the request's.
    ///
    /// SH-017 (RFC 6733 §6.2).
    pub fn answer(&self, avps: Vec<Avp>) -> Self {
        let flags = self.header.flags & Header::PROXIABLE;
        Self { header: Header { flags, ..self.header }, avps }
    }

    /// The first AVP of this kind.
    pub fn find(&self, def: &Def) -> Option<&Avp> {
        self.avps.iter().find(|avp| avp.is(def))
    }

    /// All AVPs of this kind.
    pub fn find_all<'a>(&'a self, def: &'a Def) -> impl Iterator<Item = &'a Avp> {
        self.avps.iter().filter(move |avp| avp.is(def))
    }

    /// The AVP that has to be there; 5005 if it is not.
    pub fn required(&self, def: &Def) -> Result<&Avp, Fault> {
        self.find(def).ok_or_else(|| Fault::missing(def))
    }

    /// The AVP that may be there once; 5009 if it is there twice.
    pub fn single(&self, def: &Def) -> Result<Option<&Avp>, Fault> {
        let mut found = self.avps.iter().filter(|avp| avp.is(def));
        let first = found.next();
        match found.next() {
            Some(second) => Err(Fault::TooMany(second.clone())),
            None => Ok(first),
        }
    }

    /// What the answer says. 5005 if it says nothing.
    ///
    /// SH-052 (3GPP TS 29.229 §6.2): if both are there Experimental-Result counts.
    pub fn outcome(&self) -> Result<Outcome, Fault> {
        let Some(experimental) = self.find(&d::EXPERIMENTAL_RESULT) else {
            return self.required(&d::RESULT_CODE)?.as_u32().map(Outcome::Base);
        };
        let members = experimental.as_group()?;
        let number = |def: &Def| {
            let member = members.iter().find(|member| member.is(def));
            let member = member.ok_or_else(|| Fault::missing(def).within(experimental))?;
            member.as_u32().map_err(|fault| fault.within(experimental))
        };
        let vendor = number(&d::VENDOR_ID)?;
        Ok(Outcome::Experimental { vendor, code: number(&d::EXPERIMENTAL_RESULT_CODE)? })
    }

    /// The first AVP with M set that we do not know, also inside groups we know.
    ///
    /// SH-023 (RFC 6733 §4.1, §4.4). A group nested deeper than anything we know is as good as unknown.
    pub fn unknown_mandatory(&self) -> Option<Fault> {
        // What is still to look at, with the groups around it, outermost first.
        let mut open: Vec<(Avp, Vec<Avp>)> =
            self.avps.iter().rev().map(|avp| (avp.clone(), Vec::new())).collect();
        while let Some((avp, around)) = open.pop() {
            let wrap = |fault: Fault| around.iter().rev().fold(fault, Fault::within);
            let Some(def) = Def::of(avp.code, avp.vendor) else {
                if avp.is_mandatory() {
                    return Some(wrap(Fault::Unsupported(avp)));
                }
                continue;
            };
            // What failed elsewhere and what proxies left for themselves is not for us to understand.
            if def.kind != Kind::Grouped || avp.is(&d::FAILED_AVP) || avp.is(&d::PROXY_INFO) {
                continue;
            }
            if around.len() >= DEPTH {
                return Some(wrap(Fault::InvalidValue(avp)));
            }
            match avp.as_group() {
                Ok(members) => {
                    let mut around = around;
                    around.push(Avp { data: Bytes::new(), ..avp });
                    open.extend(members.into_iter().rev().map(|member| (member, around.clone())));
                }
                Err(fault) => return Some(wrap(fault)),
            }
        }
        None
    }

    /// One whole message.
    ///
    /// SH-017, SH-018 (RFC 6733 §3, §4.1).
    pub fn decode(octets: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let mut rest: Bytes = octets.into();
        let came = rest.len();
        match frame(&rest, MOST)? {
            Some(said) if said == came => {}
            Some(said) => return Err(FrameError::Incomplete { said, came }.into()),
            None => return Err(FrameError::TooShort(came).into()),
        }
        rest.advance(4);
        let word = rest.get_u32();
        let [flags, ..] = word.to_be_bytes();
        let header = Header {
            flags,
            code: word & 0x00ff_ffff,
            application: rest.get_u32(),
            hop_by_hop: rest.get_u32(),
            end_to_end: rest.get_u32(),
        };
        let mut message = Self { header, avps: Vec::new() };
        while !rest.is_empty() {
            match Avp::read(&mut rest) {
                Ok(avp) => message.avps.push(avp),
                Err(fault) => {
                    let (read, fault) = (Box::new(message), Box::new(fault));
                    return Err(DecodeError::Avp { read, fault });
                }
            }
        }
        Ok(message)
    }

    /// The message on the wire.
    pub fn encode(&self) -> Bytes {
        let length = self.size();
        let mut out = BytesMut::with_capacity(length);
        out.put_u8(1);
        out.put_uint(length as u64, 3);
        out.put_u8(self.header.flags);
        out.put_uint(u64::from(self.header.code), 3);
        out.put_u32(self.header.application);
        out.put_u32(self.header.hop_by_hop);
        out.put_u32(self.header.end_to_end);
        for avp in &self.avps {
            avp.write(&mut out);
        }
        out.freeze()
    }

    /// Octets on the wire. More than 16 MiB cannot be told; senders hold a far lower limit.
    pub fn size(&self) -> usize {
        HEADER + self.avps.iter().map(Avp::size).sum::<usize>()
    }
}

/// Cuts a stream into messages, whatever the pieces it comes in.
///
/// Contract: [`Framer::push`] what was read, then [`Framer::next`] until it is `None`. After an error the stream is lost.
/// Holds at most one unfinished message and what was pushed last.
#[derive(Debug)]
pub struct Framer {
    limit: usize,
    buffer: BytesMut,
}

impl Framer {
    /// `limit` octets are the longest message taken (`dia.max_message`).
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.clamp(HEADER, MOST), buffer: BytesMut::new() }
    }

    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole message, not yet decoded.
    ///
    /// SH-007 (RFC 6733 §3).
    #[expect(clippy::should_implement_trait, reason = "an iterator that ends goes on after a push")]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        match frame(&self.buffer, self.limit)? {
            Some(length) if self.buffer.len() >= length => {
                Ok(Some(self.buffer.split_to(length).freeze()))
            }
            _ => Ok(None),
        }
    }
}

/// Length of the message that begins here, `None` while it is not known yet.
fn frame(octets: &[u8], limit: usize) -> Result<Option<usize>, FrameError> {
    if let Some(version) = octets.first().filter(|version| **version != 1) {
        return Err(FrameError::Version(*version));
    }
    let Some(head) = octets.first_chunk::<4>() else { return Ok(None) };
    let length = self::octets(u32::from_be_bytes(*head) & 0x00ff_ffff);
    if length < HEADER {
        return Err(FrameError::TooShort(length));
    }
    if !length.is_multiple_of(4) {
        return Err(FrameError::Uneven(length));
    }
    if length > limit {
        return Err(FrameError::TooLong(length));
    }
    Ok(Some(length))
}

fn octets(value: u32) -> usize {
    usize::try_from(value).expect("usize has at least 32 bits")
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests;

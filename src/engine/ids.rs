//! Names of pages and legs. Their text form is what operators see in logs, the API and call flows.

use std::fmt;
use std::str::FromStr;

/// One page on its way, unique in this process and with high probability in the cluster.
///
/// The upper eight bits name the thread that owns the page, the rest is random. Text form: 16 hex digits.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct PageId(u64);

impl PageId {
    /// Makes an id for a page that `thread` owns out of random bits.
    pub fn new(thread: u8, random: u64) -> Self {
        Self((u64::from(thread) << 56) | (random & 0x00ff_ffff_ffff_ffff))
    }

    /// The thread that owns the page.
    pub fn thread(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The id as a number, for keys.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageId({self})")
    }
}

/// The text is not a page id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a page id is 16 hexadecimal digits")]
pub struct BadPageId;

impl FromStr for PageId {
    type Err = BadPageId;

    fn from_str(text: &str) -> Result<Self, BadPageId> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadPageId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| BadPageId)
    }
}

impl From<PageId> for String {
    fn from(id: PageId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for PageId {
    type Error = BadPageId;

    fn try_from(text: String) -> Result<Self, BadPageId> {
        text.parse()
    }
}

/// One recipient of one page. `n` counts from 1 in the order of inviting.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct LegId {
    pub page: PageId,
    pub n: u16,
}

impl fmt::Display for LegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.page, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_id_survives_its_text_form() {
        let id = PageId::new(3, 0xdead_beef_dead_beef);
        assert_eq!(id.thread(), 3);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string(), "03adbeefdeadbeef");
        assert_eq!(String::from(id), id.to_string());
        assert_eq!(id.as_u64(), 0x03ad_beef_dead_beef);
        assert_eq!(LegId { page: id, n: 7 }.to_string(), "03adbeefdeadbeef/7");
        assert_eq!(format!("{id:?}"), "PageId(03adbeefdeadbeef)");
        assert_eq!("3".parse::<PageId>(), Err(BadPageId));
        assert_eq!("+00000000000000f".parse::<PageId>(), Err(BadPageId));
    }
}

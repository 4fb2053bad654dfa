//! A server's nonces and its patience with guessing. No clock and no randomness of its own, bounded memory.
//!
//! Start at [`Nonces`]: a nonce says itself when it was made, and a key says that we made it, so that nothing is kept of
//! nonces nobody uses. [`Guesses`] counts wrong credentials of one source.
//! Follows RFC 7616 §3.3, §3.4.6, §5.4 and RFC 2104.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::{hex, same};

/// Nonces whose counts are kept; beyond it the oldest ones become stale.
const MOST_USED: usize = 20_000;
/// Counts a request may come behind a later one of the same nonce.
const WINDOW: u32 = 64;
/// Sources whose wrong credentials are counted; beyond it the first one counted is forgotten.
const MOST_SOURCES: usize = 10_000;
/// Characters of a name that are kept with its count.
const MOST_OF_NAME: usize = 64;
/// How long wrong credentials count.
const MEMORY: Duration = Duration::from_secs(60);

/// What a nonce is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    Good,
    /// Too old, used before with this count, or of somebody else's making: right credentials deserve a fresh one.
    Stale,
}

/// Makes nonces and takes each count of each nonce once.
///
/// Contract: [`Nonces::redeem`] only for credentials that are right; it uses the count up.
#[derive(Debug)]
pub struct Nonces {
    key: Key,
    /// Times in nonces count from here.
    began: Option<Instant>,
    serial: u64,
    /// Up to this serial nothing is known about counts any more.
    floor: u64,
    used: BTreeMap<u64, Counts>,
}

/// The key of the nonces; never shown.
struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(left out)")
    }
}

/// Which counts of one nonce were used: the highest, and of the 64 up to it each.
#[derive(Debug, Clone, Copy)]
struct Counts {
    highest: u32,
    seen: u64,
}

impl Counts {
    /// Whether `count` is new; from now on it is not.
    fn take(&mut self, count: u32) -> bool {
        if count > self.highest {
            let ahead = count - self.highest;
            self.seen = if ahead < WINDOW { self.seen << ahead } else { 0 };
            self.seen |= 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest - count;
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

impl Nonces {
    /// `key` is random and nobody else's.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: Key(key), began: None, serial: 0, floor: 0, used: BTreeMap::new() }
    }

    /// A nonce for this realm.
    pub fn make(&mut self, now: Instant, realm: &str) -> String {
        self.serial += 1;
        let began = *self.began.get_or_insert(now);
        let millis = now.saturating_duration_since(began).as_millis() as u64;
        let head = format!("{:016x}{millis:016x}", self.serial);
        let mac = self.mac(&head, realm);
        head + &mac
    }

    /// Uses up one count of a nonce that came with right credentials.
    pub fn redeem(
        &mut self,
        now: Instant,
        realm: &str,
        life: Duration,
        nonce: &str,
        count: u32,
    ) -> Worth {
        let Some((serial, made)) = self.own(nonce, realm) else { return Worth::Stale };
        if now.saturating_duration_since(made) > life || serial <= self.floor || count == 0 {
            return Worth::Stale;
        }
        let fresh = Counts { highest: 0, seen: 0 };
        if !self.used.entry(serial).or_insert(fresh).take(count) {
            return Worth::Stale;
        }
        if self.used.len() > MOST_USED
            && let Some((oldest, _)) = self.used.pop_first()
        {
            self.floor = oldest;
        }
        Worth::Good
    }

    /// Serial and time of a nonce of ours.
    fn own(&self, nonce: &str, realm: &str) -> Option<(u64, Instant)> {
        let (head, mac) = nonce.split_at_checked(32)?;
        if !same(self.mac(head, realm).as_bytes(), mac.as_bytes()) {
            return None;
        }
        let number = |at: std::ops::Range<usize>| u64::from_str_radix(head.get(at)?, 16).ok();
        let made = self.began?.checked_add(Duration::from_millis(number(16..32)?))?;
        Some((number(0..16)?, made))
    }

    /// HMAC-SHA-256 (RFC 2104), half of it.
    fn mac(&self, head: &str, realm: &str) -> String {
        let pad = |with: u8| {
            let mut block = [with; 64];
            for (byte, key) in block.iter_mut().zip(self.key.0) {
                *byte ^= key;
            }
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(head);
        let inner = inner.chain_update(":").chain_update(realm).finalize();
        let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
        hex(&outer[..16])
    }
}

/// Whose wrong credentials are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guesser {
    address: IpAddr,
    user: Option<Box<str>>,
}

impl Guesser {
    /// Everybody at an address. An IPv6 source is its /64.
    pub fn at(address: IpAddr) -> Self {
        Self { address: network(address), user: None }
    }

    /// Who calls himself `user`, behind an address that many share. Of long names the beginning counts.
    pub fn behind(address: IpAddr, user: &str) -> Self {
        let user: String = user.chars().take(MOST_OF_NAME).collect();
        Self { user: Some(user.into()), ..Self::at(address) }
    }
}

/// Wrong credentials, by who sends them.
#[derive(Debug, Default)]
pub struct Guesses {
    counted: HashMap<Guesser, (u32, Instant)>,
    /// In the order of their first guess.
    order: VecDeque<(Guesser, Instant)>,
}

impl Guesses {
    /// Whether `source` has had `most` wrong guesses within a minute.
    pub fn are_too_many(&mut self, now: Instant, source: &Guesser, most: u32) -> bool {
        self.forget(now);
        self.counted.get(source).is_some_and(|(count, _)| *count >= most)
    }

    /// One more wrong guess.
    pub fn wrong(&mut self, now: Instant, source: Guesser) {
        self.forget(now);
        let (count, since) = self.counted.entry(source.clone()).or_insert((0, now));
        *count = count.saturating_add(1);
        if *count == 1 {
            self.order.push_back((source, *since));
        }
        if self.order.len() > MOST_SOURCES
            && let Some((oldest, _)) = self.order.pop_front()
        {
            self.counted.remove(&oldest);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((_, since)) = self.order.front()
            && now.saturating_duration_since(*since) >= MEMORY
            && let Some((source, _)) = self.order.pop_front()
        {
            self.counted.remove(&source);
        }
    }
}

fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let bits = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(300);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn each_count_of_a_nonce_is_taken_once() {
        let (mut nonces, now) = (Nonces::new([7; 32]), start());
        let nonce = nonces.make(now, "r");
        for (count, worth) in [
            (0, Worth::Stale),
            (1, Worth::Good),
            (1, Worth::Stale),
            (3, Worth::Good),
            (2, Worth::Good),
            (2, Worth::Stale),
            (200, Worth::Good),
            (199, Worth::Good),
            (200 - WINDOW, Worth::Stale),
            (201 - WINDOW, Worth::Good),
            (u32::MAX, Worth::Good),
            (u32::MAX, Worth::Stale),
            (4, Worth::Stale),
        ] {
            assert_eq!(nonces.redeem(now, "r", LIFE, &nonce, count), worth, "{count}");
        }
    }

    #[test]
    fn nonces_grow_old_and_cannot_be_made_up() {
        let (mut nonces, now) = (Nonces::new([7; 32]), start());
        let first = nonces.make(now, "r");
        let second = nonces.make(now + Duration::from_millis(1), "r");
        assert_ne!(first, second);
        assert_eq!(nonces.redeem(now + LIFE, "r", LIFE, &first, 1), Worth::Good, "at its end");
        let late = now + LIFE + Duration::from_millis(2);
        assert_eq!(nonces.redeem(late, "r", LIFE, &first, 2), Worth::Stale);
        assert_eq!(nonces.redeem(late, "r", LIFE, &second, 1), Worth::Stale);
        // A younger time in front of an old MAC, another realm, another node, nonsense.
        let forged = format!("{}{:016x}{}", &first[..16], 300_000, &first[32..]);
        for (realm, nonce) in [("r", forged.as_str()), ("q", &second), ("r", ""), ("r", "é")] {
            assert_eq!(nonces.redeem(now, realm, LIFE, nonce, 1), Worth::Stale, "{nonce}");
        }
        assert_eq!(Nonces::new([8; 32]).redeem(now, "r", LIFE, &second, 1), Worth::Stale);
    }

    #[test]
    fn what_is_kept_of_used_nonces_has_a_bound() {
        let (mut nonces, now) = (Nonces::new([7; 32]), start());
        let first = nonces.make(now, "r");
        assert_eq!(nonces.redeem(now, "r", LIFE, &first, 1), Worth::Good);
        for _ in 0..MOST_USED {
            let nonce = nonces.make(now, "r");
            assert_eq!(nonces.redeem(now, "r", LIFE, &nonce, 1), Worth::Good);
        }
        assert_eq!(nonces.used.len(), MOST_USED);
        // Forgotten is not the same as unused.
        for count in [1, 2] {
            assert_eq!(nonces.redeem(now, "r", LIFE, &first, count), Worth::Stale);
        }
        for _ in 0..100 {
            nonces.make(now, "r");
        }
        assert_eq!(nonces.used.len(), MOST_USED, "unused nonces cost nothing");
    }

    #[test]
    fn guessing_ends_for_a_minute() {
        let (mut guesses, now) = (Guesses::default(), start());
        let at = |address: &str| Guesser::at(address.parse().expect("an address"));
        let source = at("192.0.2.1");
        for _ in 0..3 {
            assert!(!guesses.are_too_many(now, &source, 3));
            guesses.wrong(now, source.clone());
        }
        assert!(guesses.are_too_many(now, &at("::ffff:192.0.2.1"), 3));
        assert!(!guesses.are_too_many(now, &at("192.0.2.2"), 3));
        assert!(guesses.are_too_many(now + MEMORY / 2, &source, 3));
        assert!(!guesses.are_too_many(now + MEMORY, &source, 3));
        guesses.wrong(now, at("2001:db8::1"));
        assert!(guesses.are_too_many(now, &at("2001:db8::ffff:2"), 1));
        for n in 0..=MOST_SOURCES as u32 {
            guesses.wrong(now, Guesser::at(IpAddr::from((0x0a00_0000 + n).to_be_bytes())));
        }
        assert_eq!(guesses.counted.len(), MOST_SOURCES);
        assert_eq!(guesses.order.len(), MOST_SOURCES);
    }

    #[test]
    fn behind_one_address_each_name_counts_for_itself() {
        let (mut guesses, now) = (Guesses::default(), start());
        let core = IpAddr::from([192, 0, 2, 40]);
        guesses.wrong(now, Guesser::behind(core, "eve"));
        assert!(guesses.are_too_many(now, &Guesser::behind(core, "eve"), 1));
        for other in [Guesser::behind(core, "alice"), Guesser::at(core)] {
            assert!(!guesses.are_too_many(now, &other, 1), "{other:?}");
        }
    }
}

//! Fingerprints of certificates in SDP, and what a peer has to show to be the one the SDP speaks of (RFC 8122 §5).
//!
//! Start at [`proof`], which reads a media line's; [`Fingerprint::of`] makes ours. Follows MS-112. Knows no certificate but
//! its octets.

use std::fmt;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

/// Fingerprints of one description that are read; nobody has so many certificates.
const MOST: usize = 32;

/// Hash functions that are believed, the weakest first. MD5 and MD2 are not among them (RFC 8122 §5).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Hash {
    /// Only where the configuration takes it.
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    const ALL: [Self; 5] = [Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha224 => "sha-224",
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    fn octets(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn of(self, octets: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => digest(&SHA1_FOR_LEGACY_USE_ONLY, octets).as_ref().to_vec(),
            Self::Sha224 => Sha224::digest(octets).to_vec(),
            Self::Sha256 => Sha256::digest(octets).to_vec(),
            Self::Sha384 => Sha384::digest(octets).to_vec(),
            Self::Sha512 => Sha512::digest(octets).to_vec(),
        }
    }
}

/// The hash of a certificate. Prints as the value of `a=fingerprint`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Fingerprint {
    hash: Hash,
    octets: Vec<u8>,
}

impl Fingerprint {
    /// That of a certificate in DER.
    pub fn of(hash: Hash, certificate: &[u8]) -> Self {
        Self { hash, octets: hash.of(certificate) }
    }

    /// It is this certificate's.
    pub fn is_of(&self, certificate: &[u8]) -> bool {
        self.hash.of(certificate) == self.octets
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.hash.name())?;
        for (n, octet) in self.octets.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02X}")?;
        }
        Ok(())
    }
}

/// What a peer has to show over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Proof {
    /// A certificate with one of these, whatever else it says. Sorted, never empty, of one hash function.
    Fingerprint(Vec<Fingerprint>),
    /// A certificate of this host, signed by somebody we know.
    Name(String),
}

/// What proofs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// Certificates of hosts can be verified: there is somebody who may sign them.
    pub names: bool,
    /// SHA-1 is taken where nothing stronger is listed.
    pub sha1: bool,
}

/// The peer says nothing its certificate could be held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no usable fingerprint")]
pub struct Unproven;

/// What the peer has to show: by the `a=fingerprint` values of its media line, else of its session, else by the host of
/// its next hop. With `anchored` (CEMA) the host proves nothing (MS-028).
///
/// MS-112 (RFC 8122 §5, §5.1; RFC 4975 §14.4): the strongest hash function that is listed decides alone.
///
/// # Errors
/// [`Unproven`], also where fingerprints are listed and none is good.
pub fn proof<'a>(
    of_media: impl Iterator<Item = Option<&'a str>>,
    of_session: impl Iterator<Item = Option<&'a str>>,
    host: &str,
    anchored: bool,
    terms: Terms,
) -> Result<Proof, Unproven> {
    let mut listed: Vec<_> = of_media.take(MOST).collect();
    if listed.is_empty() {
        listed = of_session.take(MOST).collect();
    }
    if listed.is_empty() {
        let named = terms.names && !anchored && !host.is_empty();
        return if named { Ok(Proof::Name(host.to_ascii_lowercase())) } else { Err(Unproven) };
    }
    let mut good = Vec::new();
    for value in listed {
        if let Some(read) = read(value.unwrap_or_default())?
            && (terms.sha1 || read.hash != Hash::Sha1)
        {
            good.push(read);
        }
    }
    let strongest = good.iter().map(|one| one.hash).max().ok_or(Unproven)?;
    good.retain(|one| one.hash == strongest);
    good.sort_unstable();
    good.dedup();
    Ok(Proof::Fingerprint(good))
}

/// One value; `None` for a hash function that is not believed or not known.
fn read(value: &str) -> Result<Option<Fingerprint>, Unproven> {
    let (name, hex) = value.trim().split_once(' ').ok_or(Unproven)?;
    let known = Hash::ALL.into_iter().find(|hash| hash.name().eq_ignore_ascii_case(name));
    let Some(hash) = known else { return Ok(None) };
    let pair = |pair: &str| match pair.as_bytes() {
        [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
            u8::from_str_radix(pair, 16).ok()
        }
        _ => None,
    };
    let octets: Option<Vec<u8>> = hex.trim().split(':').map(pair).collect();
    let octets = octets.filter(|octets| octets.len() == hash.octets()).ok_or(Unproven)?;
    Ok(Some(Fingerprint { hash, octets }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CERTIFICATE: &[u8] = b"abc";

    fn value(hash: Hash) -> String {
        Fingerprint::of(hash, CERTIFICATE).to_string()
    }

    fn judge(media: &[&str], session: &[&str], terms: Terms) -> Result<Proof, Unproven> {
        let some = |value: &&'static str| Some(*value);
        let leak = |all: &[&str]| -> &'static [&'static str] {
            let all: Vec<&'static str> =
                all.iter().map(|one| &*Box::leak((*one).to_owned().into_boxed_str())).collect();
            Box::leak(all.into_boxed_slice())
        };
        let (media, session) = (leak(media), leak(session));
        proof(media.iter().map(some), session.iter().map(some), "Phone.example", false, terms)
    }

    fn named(proof: &Result<Proof, Unproven>) -> Vec<Hash> {
        match proof {
            Ok(Proof::Fingerprint(all)) => all.iter().map(|one| one.hash).collect(),
            _ => Vec::new(),
        }
    }

    /// The digests of "abc" as FIPS 180-4 gives them.
    #[test]
    fn ours_are_written_with_the_hash_in_lower_and_the_digits_in_upper_case() {
        for (hash, text) in [
            (Hash::Sha1, "sha-1 A9:99:3E:36:47:06:81:6A:BA:3E:25:71:78:50:C2:6C:9C:D0:D8:9D"),
            (
                Hash::Sha224,
                "sha-224 23:09:7D:22:34:05:D8:22:86:42:A4:77:BD:A2:55:B3:2A:AD:BC:E4:BD:A0:B3:F7:E3:6C:9D:A7",
            ),
            (
                Hash::Sha256,
                "sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD",
            ),
        ] {
            assert_eq!(value(hash), text);
            assert!(Fingerprint::of(hash, CERTIFICATE).is_of(CERTIFICATE));
            assert!(!Fingerprint::of(hash, CERTIFICATE).is_of(b"abd"));
        }
    }

    /// Proves MS-112.
    #[test]
    fn the_strongest_hash_of_the_closest_level_decides() {
        let [s1, s224, s256, s384, s512] = Hash::ALL.map(value);
        let plain = Terms::default();
        let lenient = Terms { sha1: true, ..plain };
        let other = Fingerprint::of(Hash::Sha256, b"another").to_string();
        let lower = s256.to_ascii_lowercase();
        let md5 = "md5 90:01:50:98:3C:D2:4F:B0:D6:96:3F:7D:28:E1:7F:72";
        let unknown = "sha3-256 AA:BB";
        type Row<'a> = (&'a [&'a str], &'a [&'a str], Terms, &'a [Hash], &'a str);
        let cases: &[Row<'_>] = &[
            (&[&s256], &[], plain, &[Hash::Sha256], "the one"),
            (&[&lower], &[], plain, &[Hash::Sha256], "digits in lower case, seen in the field"),
            (&[&s1, &s256, &s224], &[], lenient, &[Hash::Sha256], "the strongest alone"),
            (&[&s512, &s384, &s256], &[], plain, &[Hash::Sha512], "the strongest alone"),
            (
                &[&s256, &other],
                &[],
                plain,
                &[Hash::Sha256, Hash::Sha256],
                "one certificate of several",
            ),
            (&[&s256], &[&s512], plain, &[Hash::Sha256], "the media line overrides the session"),
            (&[], &[&s384], plain, &[Hash::Sha384], "the session speaks for the line"),
            (&[md5, &s256], &[], plain, &[Hash::Sha256], "md5 does not count"),
            (&[unknown, &s256], &[], plain, &[Hash::Sha256], "what is not known does not count"),
            (&[md5], &[&s256], plain, &[], "md5 alone, and the line overrides"),
            (&["md2 90:01"], &[], plain, &[], "md2 alone"),
            (&[&s1], &[], plain, &[], "sha-1 is not taken"),
            (&[&s1], &[], lenient, &[Hash::Sha1], "sha-1 is taken"),
            (&["sha-256 BA:78"], &[], plain, &[], "too short"),
            (&["sha-256 +A:78"], &[], plain, &[], "no digits"),
            (&["sha-256"], &[], plain, &[], "no value"),
            (&[&s256, "sha-256 zz"], &[], plain, &[], "one that is broken"),
            (&[], &[], plain, &[], "nothing"),
        ];
        for (media, session, terms, expected, what) in cases {
            assert_eq!(named(&judge(media, session, *terms)), *expected, "MS-112: {what}");
        }
    }

    /// Proves MS-112, MS-028.
    #[test]
    fn without_fingerprints_the_host_has_to_prove_itself() {
        let terms = Terms { names: true, sha1: false };
        assert_eq!(judge(&[], &[], terms), Ok(Proof::Name("phone.example".to_owned())));
        let weak = "md5 90:01:50:98:3C:D2:4F:B0:D6:96:3F:7D:28:E1:7F:72";
        assert_eq!(
            judge(&[weak], &[], terms),
            Err(Unproven),
            "a bad fingerprint is no missing one"
        );
        let none = std::iter::empty;
        assert_eq!(proof(none(), none(), "phone.example", true, terms), Err(Unproven));
    }

    #[test]
    fn a_flood_of_fingerprints_is_not_read_to_its_end() {
        let weak = value(Hash::Sha1);
        let strong = value(Hash::Sha256);
        let mut many: Vec<&str> = vec![&weak; MOST];
        many.push(&strong);
        assert_eq!(judge(&many, &[], Terms::default()), Err(Unproven));
    }

    fn hash() -> impl Strategy<Value = Hash> + Clone {
        prop::sample::select(Hash::ALL.to_vec())
    }

    /// Values of a peer: names that are known, broken or foreign, and digits that are nearly right.
    fn values() -> impl Strategy<Value = Vec<Option<String>>> {
        let written = (hash(), prop::collection::vec(any::<u8>(), 0..8))
            .prop_map(|(hash, certificate)| Fingerprint::of(hash, &certificate).to_string());
        let cut = (written.clone(), any::<prop::sample::Index>())
            .prop_map(|(value, at)| value[..at.index(value.len())].to_owned());
        let foreign = "(sha-1|SHA-256|sha-512|md5|[ -~]{0,8})[ :]{0,2}([0-9a-gA-G+]{0,3}:){0,66}";
        let value = prop_oneof![written, cut, foreign, "\\PC{0,100}"];
        prop::collection::vec(prop::option::weighted(0.95, value), 0..4)
    }

    proptest! {
        /// Proves MS-112: what is written is read as the same, and only its own certificate fits.
        #[test]
        fn what_is_written_is_read_again(
            hash in hash(),
            certificate in prop::collection::vec(any::<u8>(), 1..64),
            place in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let written = Fingerprint::of(hash, &certificate);
            prop_assert_eq!(read(&written.to_string()), Ok(Some(written.clone())));
            prop_assert!(written.is_of(&certificate));
            let mut other = certificate.clone();
            other[place.index(certificate.len())] ^= 1 << bit;
            prop_assert!(!written.is_of(&other));
        }

        /// Proves MS-112: whatever is listed, a proof is never empty, of one hash function and of one that is taken.
        #[test]
        fn no_list_yields_a_proof_that_anything_fits(
            media in values(),
            session in values(),
            names in any::<bool>(),
            sha1 in any::<bool>(),
        ) {
            let (of_media, of_session) =
                (media.iter().map(Option::as_deref), session.iter().map(Option::as_deref));
            let terms = Terms { names, sha1 };
            match proof(of_media, of_session, "phone.example", false, terms) {
                Ok(Proof::Fingerprint(all)) => {
                    prop_assert!(!all.is_empty() && all.is_sorted());
                    prop_assert!(all.iter().all(|one| one.hash == all[0].hash));
                    prop_assert!(all.iter().all(|one| one.octets.len() == one.hash.octets()));
                    prop_assert!(sha1 || all[0].hash != Hash::Sha1);
                }
                Ok(Proof::Name(_)) => {
                    prop_assert!(names && media.is_empty() && session.is_empty());
                }
                Err(Unproven) => {}
            }
        }
    }
}

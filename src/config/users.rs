//! The file `auth.users` names: who may come with a password, and as whom.
//!
//! Start at [`read`]. Holds HA1 values and no passwords; what is wrong with a line is told without what stands in it.
//! `H(user:realm:password)` is RFC 7616 §3.4.2.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::isc::settings::Account;
use crate::sip::digest::{Algorithm, Ha1};
use crate::sip::uri::Uri;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    users: BTreeMap<String, User>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    sha256: Option<String>,
    md5: Option<String>,
    identities: Vec<String>,
}

/// The users of a file, by name.
///
/// # Errors
/// What is wrong, without any secret.
pub fn read(path: &Path) -> Result<BTreeMap<String, Account>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    parse(&text).map_err(|wrong| format!("{}: {wrong}", path.display()))
}

fn parse(text: &str) -> Result<BTreeMap<String, Account>, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        // Its message may repeat a value.
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is no part of a list of users")
    })?;
    if file.users.is_empty() {
        return Err("there are no users".to_owned());
    }
    let users = file
        .users
        .into_iter()
        .map(|(name, user)| {
            let account =
                account(&name, user).map_err(|wrong| format!("user {name:?}: {wrong}"))?;
            Ok((name, account))
        })
        .collect::<Result<BTreeMap<_, _>, String>>()?;
    let common = |algorithm| users.values().all(|user: &Account| user.ha1.contains_key(&algorithm));
    if !common(Algorithm::Sha256) && !common(Algorithm::Md5) {
        return Err("neither sha256 nor md5 is there for every user".to_owned());
    }
    Ok(users)
}

fn account(name: &str, user: User) -> Result<Account, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err("a name has no spaces, quotes or backslashes".to_owned());
    }
    let mut ha1 = BTreeMap::new();
    for (algorithm, key, digits) in
        [(Algorithm::Sha256, "sha256", user.sha256), (Algorithm::Md5, "md5", user.md5)]
    {
        let Some(digits) = digits else { continue };
        let read = Ha1::read(algorithm, &digits);
        let wrong = || format!("{key} is not {} hexadecimal digits", algorithm.digits());
        ha1.insert(algorithm, read.ok_or_else(wrong)?);
    }
    if user.identities.is_empty() {
        return Err("identities is empty".to_owned());
    }
    if let Some(uri) = user.identities.iter().find(|uri| Uri::parse(uri).is_err()) {
        return Err(format!("{uri:?} is no SIP or tel URI"));
    }
    Ok(Account { ha1, identities: user.identities })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "939e7578ed9e3c518a452acee763bce9";

    #[test]
    fn users_have_a_secret_and_identities() {
        let sha256 = "0".repeat(64);
        let text = format!(
            "[users.\"alice@ims.test\"]\nmd5 = \"{MD5}\"\nsha256 = \"{sha256}\"\n\
             identities = [\"sip:alice@ims.test\", \"tel:+15551230001\"]\n\
             [users.bob]\nmd5 = \"{MD5}\"\nidentities = [\"sip:bob@ims.test\"]\n"
        );
        let users = parse(&text).expect("users");
        assert_eq!(users.keys().collect::<Vec<_>>(), ["alice@ims.test", "bob"]);
        assert_eq!(users["alice@ims.test"].ha1.len(), 2);
        assert_eq!(users["alice@ims.test"].identities[1], "tel:+15551230001");
        assert!(!format!("{users:?}").contains(MD5));
    }

    /// The shipped example has the values it says how to make.
    #[test]
    fn the_example_is_what_it_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/users.example.toml");
        let users = read(&path).expect("users");
        for (name, password) in [("alice@ims.test", "alice-pw"), ("bob", "bob-pw")] {
            for algorithm in [Algorithm::Sha256, Algorithm::Md5] {
                let made = Ha1::of(algorithm, name, "ims.test", password.as_bytes());
                assert_eq!(users[name].ha1[&algorithm], made, "{name} {algorithm:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        let sha256 = "0".repeat(64);
        for (text, told) in [
            (String::new(), "there are no users"),
            ("[users]\n".into(), "there are no users"),
            (format!("[users.a]\nmd5 = \"{MD5}\"\n"), "line 1 is no part"),
            (format!("[users.a]\nmd5 = [\"{MD5}\"]\nidentities = []"), "line 2 is no part"),
            (format!("[users.a]\n\nha1 = \"{MD5}\"\nidentities = []"), "line 3 is no part"),
            (format!("[users.a]\nmd5 = \"{MD5}\"\nidentities = []"), "identities is empty"),
            (format!("[users.a]\nmd5 = \"{MD5}\"\nidentities = [\"alice\"]"), "no SIP or tel URI"),
            (format!("[users.a]\nmd5 = \"{MD5}0\"\nidentities = [\"sip:a@h\"]"), "md5 is not 32"),
            (format!("[users.a]\nsha256 = \"{MD5}\"\nidentities = [\"sip:a@h\"]"), "not 64"),
            (format!("[users.\"a b\"]\nmd5 = \"{MD5}\"\nidentities = [\"sip:a@h\"]"), "no spaces"),
            ("[users.a]\nidentities = [\"sip:a@h\"]".into(), "neither sha256 nor md5"),
            (
                format!(
                    "[users.a]\nmd5 = \"{MD5}\"\nidentities = [\"sip:a@h\"]\n\
                     [users.b]\nsha256 = \"{sha256}\"\nidentities = [\"sip:b@h\"]"
                ),
                "neither sha256 nor md5",
            ),
        ] {
            let wrong = parse(&text).expect_err(&text);
            assert!(wrong.contains(told), "{wrong}");
            assert!(!wrong.contains(MD5), "{wrong}");
        }
    }
}

//! Which thread a message belongs to, told from a glance at its bytes.

use crate::sip::message::Via;

/// The thread of `threads` that owns this message.
///
/// A response belongs to the thread whose number stands in our own branch, a request in a call of ours to the thread
/// whose number stands in our Call-ID, any other request to a thread chosen by its Call-ID: always the same one, so
/// that everything of one call is handled in order. What cannot be told goes to thread 0, which refuses it.
pub fn owner_of(bytes: &[u8], threads: usize) -> usize {
    if threads <= 1 {
        return 0;
    }
    if bytes.starts_with(b"SIP/2.0 ") {
        let branch = header(bytes, b"via", b'v').and_then(Via::parse).and_then(|via| via.branch);
        return branch
            .and_then(|branch| number(branch.strip_prefix("z9hG4bK")?.as_bytes()))
            .filter(|own| *own < threads)
            .unwrap_or(0);
    }
    let Some(call_id) = header(bytes, b"call-id", b'i') else { return 0 };
    let own = call_id.strip_prefix(b"lm-").and_then(number).filter(|own| *own < threads);
    own.unwrap_or_else(|| (spread(call_id) % threads as u64) as usize)
}

/// Two hex digits.
fn number(text: &[u8]) -> Option<usize> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (high, low) = (digit(text.first()?)?, digit(text.get(1)?)?);
    Some((high * 16 + low) as usize)
}

/// FNV-1a with a final mix: the same on every machine and in every version.
fn spread(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// The value of the first line of that name, up to a fold.
fn header<'a>(bytes: &'a [u8], long: &[u8], compact: u8) -> Option<&'a [u8]> {
    let mut at = memchr::memchr(b'\n', bytes)? + 1;
    loop {
        let line = &bytes[at..];
        let end = memchr::memchr(b'\n', line)?;
        let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        if line.is_empty() {
            return None;
        }
        if line[0] | 0x20 == long[0] || line[0] | 0x20 == compact {
            let colon = memchr::memchr(b':', line)?;
            let name = line[..colon].trim_ascii_end();
            if name.eq_ignore_ascii_case(long) || (name.len() == 1 && name[0] | 0x20 == compact) {
                return Some(line[colon + 1..].trim_ascii());
            }
        }
        at += end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_told_from_branch_or_call_id() {
        let response = |branch: &str| {
            format!(
                "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch={branch};rport\r\nCall-ID: lm-02\r\n\r\n"
            )
        };
        let request = |line: &str| {
            format!("BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK01x\r\n{line}\r\n\r\n")
        };
        let rows = [
            (response("z9hG4bK03abc"), 3),
            (response("z9hG4bKff"), 0),
            (response("other"), 0),
            (request("Call-ID: lm-02abc@h"), 2),
            (request("call-id : lm-01"), 1),
            (request("i:lm-03"), 3),
            (request("X: y"), 0),
        ];
        for (bytes, owner) in rows {
            assert_eq!(owner_of(bytes.as_bytes(), 4), owner, "{bytes}");
            assert_eq!(owner_of(bytes.as_bytes(), 1), 0);
        }
        assert_eq!(owner_of(b"", 4), 0);
        let mut seen = [0; 4];
        for at in 0..4000 {
            let bytes = request(&format!("Call-ID: {at}@192.0.2.1"));
            let owner = owner_of(bytes.as_bytes(), 4);
            assert_eq!(owner, owner_of(bytes.as_bytes(), 4));
            seen[owner] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }
}

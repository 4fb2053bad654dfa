//! What the tests of this crate share: the published codec with its own dictionary.
//!
//! The published codec is code we did not write, so it shows what our own tests cannot: that both of us read RFC 6733 the
//! same. It is not on our wire because of the gaps `tests/known_gaps.rs` keeps an eye on.

use std::io::Cursor;
use std::sync::Arc;

use diameter::DiameterMessage;
use diameter::dictionary::{DEFAULT_DICT_XML, Dictionary};

/// The dictionary that comes with it.
pub fn dictionary() -> Arc<Dictionary> {
    Arc::new(Dictionary::new(&[&DEFAULT_DICT_XML]))
}

/// Reads octets as the published codec does.
///
/// # Errors
/// What it says.
pub fn read(octets: &[u8]) -> Result<DiameterMessage, String> {
    DiameterMessage::decode_from(&mut Cursor::new(octets), dictionary())
        .map_err(|error| error.to_string())
}

/// Writes a message as the published codec does.
pub fn write(message: &DiameterMessage) -> Vec<u8> {
    let mut octets = Vec::new();
    message.encode_to(&mut octets).expect("memory takes everything");
    octets
}

//! A picture of any size to page: a valid PNG with a gradient, padded to the asked number of octets.

/// Smallest picture [`png`] makes.
pub const SMALLEST: usize = 1024;

const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
const WIDTH: u32 = 32;
const HEIGHT: u32 = 24;

/// Makes a PNG of exactly `octets` octets, or of [`SMALLEST`] if that is more.
///
/// The pixels stand in stored (uncompressed) deflate blocks; the rest is an ancillary chunk that viewers skip.
pub fn png(octets: usize) -> Vec<u8> {
    let mut file = SIGNATURE.to_vec();
    let mut header = Vec::with_capacity(13);
    header.extend_from_slice(&WIDTH.to_be_bytes());
    header.extend_from_slice(&HEIGHT.to_be_bytes());
    header.extend_from_slice(&[8, 0, 0, 0, 0]); // eight bits, greyscale
    chunk(&mut file, *b"IHDR", &header);
    chunk(&mut file, *b"IDAT", &stored(&pixels()));
    let mut end = Vec::new();
    chunk(&mut end, *b"IEND", &[]);
    let wanted = octets.max(SMALLEST);
    let padding = wanted - file.len() - end.len() - 12;
    let filler: Vec<u8> =
        (0..padding).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8).collect();
    chunk(&mut file, *b"prVt", &filler);
    file.extend_from_slice(&end);
    file
}

fn pixels() -> Vec<u8> {
    let mut rows = Vec::new();
    for y in 0..HEIGHT {
        rows.push(0); // no filter
        rows.extend((0..WIDTH).map(|x| (x * 4 + y * 5) as u8));
    }
    rows
}

/// A zlib stream of one stored block.
fn stored(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("the picture's pixels fit one block");
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(data);
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend_from_slice(&((b << 16) | a).to_be_bytes());
    out
}

fn chunk(file: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("a page is smaller than 4 GiB");
    file.extend_from_slice(&length.to_be_bytes());
    let start = file.len();
    file.extend_from_slice(&kind);
    file.extend_from_slice(data);
    let mut crc = !0_u32;
    for byte in &file[start..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    file.extend_from_slice(&(!crc).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_size_asked_for() {
        for octets in [SMALLEST, 20_480, 204_800] {
            let file = png(octets);
            assert_eq!(file.len(), octets);
            assert!(file.starts_with(SIGNATURE));
            assert!(file.ends_with(&[b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82]));
        }
        assert_eq!(png(0).len(), SMALLEST);
    }
}

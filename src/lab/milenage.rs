//! The SIM's part of UMTS authentication: Milenage with AES, as far as a phone needs it.
//!
//! Start at [`answer`]. Computes f1 (MAC), f2 (RES) and f5 (AK); the session keys nobody asks for here.
//! Follows TS 35.206 and, for what a nonce holds, RFC 3310 §3.2.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

type Block = [u8; 16];

/// What network and SIM share: K and OPc.
#[derive(Clone)]
pub(super) struct Keys {
    k: Block,
    opc: Block,
}

impl Keys {
    /// From 32 hexadecimal digits each.
    pub(super) fn read(k: &str, opc: &str) -> Option<Self> {
        Some(Self { k: block(k)?, opc: block(opc)? })
    }
}

/// RES for the RAND and AUTN in a nonce, if the network knows K too.
pub(super) fn answer(keys: &Keys, nonce: &str) -> Result<[u8; 8], &'static str> {
    let nonce = base64(nonce).ok_or("the nonce of the core is no base64")?;
    let (Some(rand), Some(autn)) = (nonce.first_chunk::<16>(), nonce.get(16..32)) else {
        return Err("the nonce of the core holds no RAND and AUTN");
    };
    let (concealed, rest) = autn.split_at(6);
    let (amf, mac) = rest.split_at(2);
    let (res, ak) = res_and_ak(keys, rand);
    let mut sqn = [0; 6];
    for (at, byte) in sqn.iter_mut().enumerate() {
        *byte = concealed[at] ^ ak[at];
    }
    if self::mac(keys, rand, &sqn, [amf[0], amf[1]]) != *mac {
        return Err("the core does not know the secret of this SIM");
    }
    Ok(res)
}

/// f1.
fn mac(keys: &Keys, rand: &Block, sqn: &[u8; 6], amf: [u8; 2]) -> [u8; 8] {
    let mut input = [0; 16];
    for half in input.chunks_exact_mut(8) {
        half[..6].copy_from_slice(sqn);
        half[6..].copy_from_slice(&amf);
    }
    let temp = temp(keys, rand);
    // Rotated by 64 bits; the constant is 0.
    let turned = rotated(&xor(&input, &keys.opc), 8);
    let out = xor(&encrypt(&keys.k, &xor(&temp, &turned)), &keys.opc);
    first_half(&out)
}

/// f2 and f5.
fn res_and_ak(keys: &Keys, rand: &Block) -> ([u8; 8], [u8; 6]) {
    let mut input = xor(&temp(keys, rand), &keys.opc);
    input[15] ^= 1;
    let out = xor(&encrypt(&keys.k, &input), &keys.opc);
    let mut ak = [0; 6];
    ak.copy_from_slice(&out[..6]);
    (first_half(&rotated(&out, 8)), ak)
}

fn temp(keys: &Keys, rand: &Block) -> Block {
    encrypt(&keys.k, &xor(rand, &keys.opc))
}

fn encrypt(k: &Block, input: &Block) -> Block {
    let mut out = Array::from(*input);
    Aes128::new(&Array::from(*k)).encrypt_block(&mut out);
    out.into()
}

fn xor(one: &Block, other: &Block) -> Block {
    std::array::from_fn(|at| one[at] ^ other[at])
}

/// To the left by so many octets.
fn rotated(block: &Block, octets: usize) -> Block {
    let mut out = *block;
    out.rotate_left(octets);
    out
}

fn first_half(block: &Block) -> [u8; 8] {
    std::array::from_fn(|at| block[at])
}

fn block(text: &str) -> Option<Block> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut out = [0; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).ok()?;
    }
    Some(out)
}

/// RFC 4648 §4; `None` for what is none of it.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6 | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first set of test data of TS 35.208 4.3.
    const K: &str = "465b5ce8b199b49faa5f0a2ee238a6bc";
    const OPC: &str = "cd63cb71954a9f4e48a5994e37a02baf";
    const RAND: &str = "23553cbe9637a89d218ae64dae47bf35";
    const SQN: [u8; 6] = [0xff, 0x9b, 0xb4, 0xd0, 0xb6, 0x07];
    const AMF: [u8; 2] = [0xb9, 0xb9];

    #[test]
    fn the_published_test_set() {
        let keys = Keys::read(K, OPC).expect("keys");
        let rand = block(RAND).expect("a block");
        assert_eq!(mac(&keys, &rand, &SQN, AMF), 0x4a9f_fac3_54df_afb3_u64.to_be_bytes());
        let (res, ak) = res_and_ak(&keys, &rand);
        assert_eq!(res, 0xa542_11d5_e3ba_50bf_u64.to_be_bytes());
        assert_eq!(ak, [0xaa, 0x68, 0x9c, 0x64, 0x83, 0x70]);
    }

    #[test]
    fn a_network_that_knows_the_secret_is_answered() {
        // RAND, then SQN hidden by AK, AMF and MAC of the same set, then what a server may add.
        let good = "I1U8vpY3qJ0hiuZNrke/NVXzKLQ1d7m5Sp/6w1Tfr7MAAA==";
        let keys = Keys::read(K, OPC).expect("keys");
        assert_eq!(answer(&keys, good), Ok(0xa542_11d5_e3ba_50bf_u64.to_be_bytes()));
        let other = Keys::read(OPC, K).expect("keys");
        for (keys, nonce) in
            [(&other, good), (&keys, "I1U8vpY3qJ0hiuZN"), (&keys, "%"), (&keys, "")]
        {
            assert!(answer(keys, nonce).is_err(), "{nonce}");
        }
    }
}

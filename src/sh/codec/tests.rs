//! The codec against messages written out octet by octet, and against what no peer should send.

use super::*;
use crate::sh::dictionary as d;

/// RFC 6733 §5.3.1 with the application as 3GPP TS 29.229 §5.6 has it.
const CER: &str = "\
    010000b4 80000101 00000000 1c2d3e01 6f000001 00000108 4000001e 696d2d61 \
    73312e69 6d732e65 78616d70 6c652e6e 65740000 00000128 40000017 696d732e \
    6578616d 706c652e 6e657400 00000101 4000000e 0001c633 64140000 0000010a \
    4000000c 00000000 0000010d 00000012 72757374 2d696d2d 61730000 00000116 \
    4000000c 69a7f814 00000109 4000000c 000028af 00000104 40000020 0000010a \
    4000000c 000028af 00000102 4000000c 01000001";

/// RFC 6733 §5.5.1.
const DWR: &str = "\
    01000058 80000118 00000000 1c2d3e02 6f000002 00000108 4000001e 696d2d61 \
    73312e69 6d732e65 78616d70 6c652e6e 65740000 00000128 40000017 696d732e \
    6578616d 706c652e 6e657400 00000116 4000000c 69a7f814";

/// Registration state and S-CSCF of one user.
const UDR: &str = "\
    01000164 c0000132 01000001 1c2d3e03 6f000003 00000107 4000002e 696d2d61 \
    73312e69 6d732e65 78616d70 6c652e6e 65743b31 37373236 31353730 303b313b \
    73680000 00000104 40000020 0000010a 4000000c 000028af 00000102 4000000c \
    01000001 00000115 4000000c 00000001 00000108 4000001e 696d2d61 73312e69 \
    6d732e65 78616d70 6c652e6e 65740000 00000128 40000017 696d732e 6578616d \
    706c652e 6e657400 00000125 4000001c 68737331 2e696d73 2e657861 6d706c65 \
    2e6e6574 0000011b 40000017 696d732e 6578616d 706c652e 6e657400 00000274 \
    c0000038 000028af 0000010a 4000000c 000028af 00000275 80000010 000028af \
    00000001 00000276 80000010 000028af 00000001 000002bc c0000030 000028af \
    00000259 c0000023 000028af 7369703a 626f6240 696d732e 6578616d 706c652e \
    6e657400 000002bf c0000010 000028af 0000000b 000002bf c0000010 000028af \
    0000000c";

/// The answer to it.
const UDA: &str = "\
    0100019c 40000132 01000001 1c2d3e03 6f000003 00000107 4000002e 696d2d61 \
    73312e69 6d732e65 78616d70 6c652e6e 65743b31 37373236 31353730 303b313b \
    73680000 00000104 40000020 0000010a 4000000c 000028af 00000102 4000000c \
    01000001 0000010c 4000000c 000007d1 00000115 4000000c 00000001 00000108 \
    4000001c 68737331 2e696d73 2e657861 6d706c65 2e6e6574 00000128 40000017 \
    696d732e 6578616d 706c652e 6e657400 00000274 80000038 000028af 0000010a \
    4000000c 000028af 00000275 80000010 000028af 00000001 00000276 80000010 \
    000028af 00000001 000002be c00000b4 000028af 3c3f786d 6c207665 7273696f \
    6e3d2231 2e302220 656e636f 64696e67 3d225554 462d3822 3f3e3c53 682d4461 \
    74613e3c 53682d49 4d532d44 6174613e 3c534353 43464e61 6d653e73 69703a73 \
    63736366 312e696d 732e6578 616d706c 652e6e65 743a3530 35343c2f 53435343 \
    464e616d 653e3c49 4d535573 65725374 6174653e 313c2f49 4d535573 65725374 \
    6174653e 3c2f5368 2d494d53 2d446174 613e3c2f 53682d44 6174613e";

/// An answer with Experimental-Result 5001.
const UNKNOWN: &str = "\
    010000c4 40000132 01000001 1c2d3e04 6f000004 00000107 4000002e 696d2d61 \
    73312e69 6d732e65 78616d70 6c652e6e 65743b31 37373236 31353730 303b323b \
    73680000 00000104 40000020 0000010a 4000000c 000028af 00000102 4000000c \
    01000001 00000129 40000020 0000010a 4000000c 000028af 0000012a 4000000c \
    00001389 00000115 4000000c 00000001 00000108 4000001c 68737331 2e696d73 \
    2e657861 6d706c65 2e6e6574 00000128 40000017 696d732e 6578616d 706c652e \
    6e657400";

const SH_DATA: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Sh-Data><Sh-IMS-Data>\
    <SCSCFName>sip:scscf1.ims.example.net:5054</SCSCFName><IMSUserState>1</IMSUserState>\
    </Sh-IMS-Data></Sh-Data>";

fn octets_of(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
        .collect::<Vec<_>>()
        .into()
}

fn hex_of(octets: &[u8]) -> String {
    let words: Vec<String> = octets
        .chunks(4)
        .map(|word| word.iter().map(|octet| format!("{octet:02x}")).collect())
        .collect();
    words.join(" ")
}

fn ids(mut message: Message, hop_by_hop: u32, end_to_end: u32) -> Message {
    message.header.hop_by_hop = hop_by_hop;
    message.header.end_to_end = end_to_end;
    message
}

fn vsai() -> Avp {
    Avp::grouped(
        &d::VENDOR_SPECIFIC_APPLICATION_ID,
        &[
            Avp::u32(&d::VENDOR_ID, d::VENDOR_3GPP),
            Avp::u32(&d::AUTH_APPLICATION_ID, d::APPLICATION_SH),
        ],
    )
}

fn notif_eff() -> Avp {
    Avp::grouped(
        &d::SUPPORTED_FEATURES,
        &[
            Avp::u32(&d::VENDOR_ID, d::VENDOR_3GPP),
            Avp::u32(&d::FEATURE_LIST_ID, 1),
            Avp::u32(&d::FEATURE_LIST, 1),
        ],
    )
}

fn as1() -> [Avp; 2] {
    [
        Avp::text(&d::ORIGIN_HOST, "im-as1.ims.example.net"),
        Avp::text(&d::ORIGIN_REALM, "ims.example.net"),
    ]
}

fn hss1() -> [Avp; 2] {
    [
        Avp::text(&d::ORIGIN_HOST, "hss1.ims.example.net"),
        Avp::text(&d::ORIGIN_REALM, "ims.example.net"),
    ]
}

fn cer() -> Message {
    let [host, realm] = as1();
    let avps = vec![
        host,
        realm,
        Avp::address(&d::HOST_IP_ADDRESS, "198.51.100.20".parse().unwrap()),
        Avp::u32(&d::VENDOR_ID, 0),
        Avp::text(&d::PRODUCT_NAME, "rust-im-as"),
        Avp::u32(&d::ORIGIN_STATE_ID, 1_772_615_700),
        Avp::u32(&d::SUPPORTED_VENDOR_ID, d::VENDOR_3GPP),
        vsai(),
    ];
    ids(Message::request(257, 0, avps), 0x1c2d_3e01, 0x6f00_0001)
}

fn dwr() -> Message {
    let [host, realm] = as1();
    let avps = vec![host, realm, Avp::u32(&d::ORIGIN_STATE_ID, 1_772_615_700)];
    ids(Message::request(280, 0, avps), 0x1c2d_3e02, 0x6f00_0002)
}

fn udr() -> Message {
    let [host, realm] = as1();
    let avps = vec![
        Avp::text(&d::SESSION_ID, "im-as1.ims.example.net;1772615700;1;sh"),
        vsai(),
        Avp::u32(&d::AUTH_SESSION_STATE, 1),
        host,
        realm,
        Avp::text(&d::DESTINATION_HOST, "hss1.ims.example.net"),
        Avp::text(&d::DESTINATION_REALM, "ims.example.net"),
        notif_eff().require(),
        Avp::grouped(
            &d::USER_IDENTITY,
            &[Avp::text(&d::PUBLIC_IDENTITY, "sip:bob@ims.example.net")],
        ),
        Avp::u32(&d::DATA_REFERENCE, 11),
        Avp::u32(&d::DATA_REFERENCE, 12),
    ];
    ids(Message::request(306, d::APPLICATION_SH, avps), 0x1c2d_3e03, 0x6f00_0003)
}

fn uda() -> Message {
    let [host, realm] = hss1();
    udr().answer(vec![
        Avp::text(&d::SESSION_ID, "im-as1.ims.example.net;1772615700;1;sh"),
        vsai(),
        Avp::u32(&d::RESULT_CODE, 2001),
        Avp::u32(&d::AUTH_SESSION_STATE, 1),
        host,
        realm,
        notif_eff(),
        Avp::octets(&d::USER_DATA, SH_DATA),
    ])
}

fn unknown() -> Message {
    let [host, realm] = hss1();
    let avps = vec![
        Avp::text(&d::SESSION_ID, "im-as1.ims.example.net;1772615700;2;sh"),
        vsai(),
        Avp::grouped(
            &d::EXPERIMENTAL_RESULT,
            &[
                Avp::u32(&d::VENDOR_ID, d::VENDOR_3GPP),
                Avp::u32(&d::EXPERIMENTAL_RESULT_CODE, 5001),
            ],
        ),
        Avp::u32(&d::AUTH_SESSION_STATE, 1),
        host,
        realm,
    ];
    ids(udr().answer(avps), 0x1c2d_3e04, 0x6f00_0004)
}

/// Proves SH-017, SH-018.
#[test]
fn messages_are_what_the_standards_write_octet_by_octet() {
    let cases = [
        ("CER", cer(), CER, 180),
        ("DWR", dwr(), DWR, 88),
        ("UDR", udr(), UDR, 356),
        ("UDA", uda(), UDA, 412),
        ("UDA, user unknown", unknown(), UNKNOWN, 196),
    ];
    for (name, message, hex, length) in cases {
        let octets = octets_of(hex);
        assert_eq!(octets.len(), length, "{name}");
        assert_eq!(hex_of(&message.encode()), hex_of(&octets), "{name}");
        assert_eq!(Message::decode(octets).as_ref(), Ok(&message), "{name}");
    }
}

/// Proves SH-017: what an answer has from its request, and what it has not.
#[test]
fn an_answer_copies_p_identifiers_and_code() {
    let mut request = udr();
    request.header.flags |= Header::RETRANSMITTED;
    let answer = request.answer(Vec::new());
    assert_eq!(answer.header.flags, Header::PROXIABLE);
    assert_eq!(answer.header.code, 306);
    assert_eq!(answer.header.application, d::APPLICATION_SH);
    assert_eq!((answer.header.hop_by_hop, answer.header.end_to_end), (0x1c2d_3e03, 0x6f00_0003));
    assert_eq!(dwr().answer(Vec::new()).header.flags, 0);
}

/// Proves SH-024.
#[test]
fn times_reach_beyond_2036() {
    let cases: &[(i64, u32, &str)] = &[
        (1_772_658_900, 0xED53_1F54, "2026-03-04T21:15:00Z"),
        (2_114_380_800, 0x01B1_6280, "2037-01-01T00:00:00Z"),
        (0, 0x83AA_7E80, "1970-01-01T00:00:00Z"),
        (2_085_978_495, 0xFFFF_FFFF, "the last second before the wrap"),
        (2_085_978_496, 0, "2036-02-07T06:28:16Z"),
    ];
    for (unix, value, when) in cases {
        let avp = Avp::time(&d::EXPIRY_TIME, *unix);
        assert_eq!(avp.as_u32(), Ok(*value), "{when}");
        assert_eq!(avp.as_time(), Ok(*unix), "{when}");
    }
    // What 32 bits cannot tell is as near as they can.
    assert_eq!(Avp::time(&d::EXPIRY_TIME, i64::MAX).as_u32(), Ok(0x7fff_ffff));
    assert_eq!(Avp::time(&d::EXPIRY_TIME, i64::MIN).as_u32(), Ok(0x8000_0000));
}

/// A message with these octets as its AVPs.
fn with_avps(avps: &[u8]) -> Bytes {
    let mut octets = dwr().encode()[..HEADER].to_vec();
    octets.extend_from_slice(avps);
    let length = u32::try_from(octets.len()).unwrap().to_be_bytes();
    octets[1..4].copy_from_slice(&length[1..]);
    octets.into()
}

fn fault_of(avps: &[u8]) -> Fault {
    match Message::decode(with_avps(avps)) {
        Err(DecodeError::Avp { fault, .. }) => *fault,
        other => panic!("{other:?}"),
    }
}

/// Proves SH-018: bad lengths, and what Failed-AVP shows of them.
#[test]
fn wrong_lengths_are_5014_with_a_zero_filled_value() {
    // Result-Code, M, length 7.
    let fault = fault_of(&octets_of("0000010c 40000007 000007d1"));
    assert_eq!(fault.result_code(), 5014);
    assert_eq!(hex_of(&fault.failed_avp().data), "0000010c 4000000c 00000000");

    // User-Name of 100 octets in a message that ends before.
    let fault = fault_of(&octets_of("00000001 40000064 61626364"));
    assert_eq!(fault.result_code(), 5014);
    assert_eq!(hex_of(&fault.failed_avp().data), "00000001 40000008");

    // Data-Reference, V and M, length 8: less than its own header.
    let fault = fault_of(&octets_of("000002bf c0000008 000028af 0000000b"));
    assert_eq!(fault.result_code(), 5014);
    assert_eq!(hex_of(&fault.failed_avp().data), "000002bf c0000010 000028af 00000000");

    // Four octets are left where an AVP should begin.
    let fault = fault_of(&octets_of("00000001"));
    assert_eq!(fault.result_code(), 5014);
    assert_eq!(hex_of(&fault.failed_avp().data), "00000001 00000008");

    // V is set, and no Vendor-Id fits any more.
    let fault = fault_of(&octets_of("000002bf c0000010"));
    assert_eq!(fault.result_code(), 5014);
}

/// Proves SH-018: a member that overruns its group.
#[test]
fn a_member_that_overruns_its_group_is_shown_inside_it() {
    // Experimental-Result of 20 octets with a Vendor-Id that says 16.
    let octets = octets_of("00000129 40000014 0000010a 40000010 000028af");
    let message = Message::decode(with_avps(&octets)).unwrap();
    let fault = message.avps[0].as_group().unwrap_err();
    assert_eq!(fault.result_code(), 5014);
    assert_eq!(hex_of(&fault.failed_avp().data), "00000129 40000014 0000010a 4000000c 00000000");
    assert_eq!(message.outcome().unwrap_err(), fault);
}

/// Proves SH-018: padding counts for the message and the group around, never for the AVP.
#[test]
fn padding_is_not_part_of_the_value() {
    let inner = Avp::text(&d::PUBLIC_IDENTITY, "sip:b");
    let group = Avp::grouped(&d::USER_IDENTITY, [&inner, &inner]);
    assert_eq!(group.data.len(), 40);
    assert_eq!(group.as_group().unwrap(), [inner.clone(), inner]);
    // The last member without its padding, as some write it.
    let short = Avp { data: group.data.slice(..37), ..group.clone() };
    assert_eq!(short.as_group().unwrap(), group.as_group().unwrap());
    // Padding that is not zero says nothing.
    let message = Message::decode(with_avps(&octets_of("00000001 40000009 61ffffff"))).unwrap();
    assert_eq!(message.find(&d::USER_NAME).unwrap().as_text(), Ok("a"));
}

#[test]
fn vendor_zero_is_the_ietf_space() {
    let octets = octets_of("00000108 c000000d 00000000 68000000");
    let message = Message::decode(with_avps(&octets)).unwrap();
    assert_eq!(message.find(&d::ORIGIN_HOST).unwrap().as_text(), Ok("h"));
    assert_eq!(message.encode(), with_avps(&octets));
    assert_eq!(message.unknown_mandatory(), None);
}

/// Proves SH-007: what ends a stream.
#[test]
fn a_stream_that_makes_no_sense_is_not_read_on() {
    let cases: &[(&str, FrameError)] = &[
        ("02000014", FrameError::Version(2)),
        ("16", FrameError::Version(0x16)),
        ("01000000", FrameError::TooShort(0)),
        ("01000010", FrameError::TooShort(16)),
        ("01000015", FrameError::Uneven(21)),
        ("01000404", FrameError::TooLong(1028)),
    ];
    for (hex, error) in cases {
        let mut framer = Framer::new(1024);
        framer.push(&octets_of(hex));
        assert_eq!(framer.next(), Err(*error), "{hex}");
    }
    let whole = dwr().encode();
    assert_eq!(
        Message::decode(whole.slice(..40)),
        Err(FrameError::Incomplete { said: 88, came: 40 }.into())
    );
    assert_eq!(Message::decode(&[1, 0, 0][..]), Err(FrameError::TooShort(3).into()));
}

#[test]
fn a_stream_is_cut_the_same_whatever_its_pieces() {
    let messages = [cer(), dwr(), udr(), uda(), unknown()];
    let stream: Vec<u8> = messages.iter().flat_map(|message| message.encode()).collect();
    for size in [1, 2, 3, 7, 19, 20, 21, 64, 355, 356, 357, stream.len()] {
        let mut framer = Framer::new(4096);
        let mut got = Vec::new();
        for piece in stream.chunks(size) {
            framer.push(piece);
            while let Some(octets) = framer.next().unwrap() {
                got.push(Message::decode(octets).unwrap());
            }
        }
        assert_eq!(got, messages, "pieces of {size}");
    }
}

/// Proves SH-052: the number alone does not tell; which AVP holds it does.
#[test]
fn the_same_number_is_two_results() {
    let experimental = |vendor: u32, code: u32| {
        Avp::grouped(
            &d::EXPERIMENTAL_RESULT,
            &[Avp::u32(&d::VENDOR_ID, vendor), Avp::u32(&d::EXPERIMENTAL_RESULT_CODE, code)],
        )
    };
    let base = |code| Avp::u32(&d::RESULT_CODE, code);
    let tgpp = |code| Outcome::Experimental { vendor: 10415, code };
    let cases: Vec<(Vec<Avp>, Result<Outcome, u32>)> = vec![
        (vec![base(2001)], Ok(Outcome::Base(2001))),
        (vec![base(5001)], Ok(Outcome::Base(5001))),
        (vec![experimental(10415, 5001)], Ok(tgpp(5001))),
        (vec![base(5002)], Ok(Outcome::Base(5002))),
        (vec![experimental(10415, 5002)], Ok(tgpp(5002))),
        (vec![base(5008)], Ok(Outcome::Base(5008))),
        (vec![experimental(10415, 5008)], Ok(tgpp(5008))),
        (vec![base(5011)], Ok(Outcome::Base(5011))),
        (vec![experimental(10415, 5011)], Ok(tgpp(5011))),
        (vec![base(5012)], Ok(Outcome::Base(5012))),
        (vec![base(2001), experimental(10415, 4100)], Ok(tgpp(4100))),
        (vec![experimental(13019, 4242)], Ok(Outcome::Experimental { vendor: 13019, code: 4242 })),
        (vec![], Err(5005)),
        (vec![Avp::octets(&d::EXPERIMENTAL_RESULT, Bytes::new())], Err(5005)),
        (vec![Avp::octets(&d::RESULT_CODE, &[0, 0, 7][..])], Err(5014)),
    ];
    for (avps, expected) in cases {
        let message = udr().answer(avps);
        assert_eq!(
            message.outcome().map_err(|fault| fault.result_code()),
            expected,
            "{:?}",
            message.avps
        );
    }
}

/// Proves SH-023: which AVP stops a request, and how it is shown.
#[test]
fn an_unknown_avp_stops_a_message_only_with_m() {
    let strange = |flags| Avp { code: 9999, flags, vendor: None, data: Bytes::from_static(b"x") };
    let with = |avp: Avp| {
        let mut message = udr();
        message.avps.push(avp);
        message.unknown_mandatory()
    };
    assert_eq!(with(strange(0)), None);
    let fault = with(strange(Avp::MANDATORY)).unwrap();
    assert_eq!(fault.result_code(), 5001);
    assert_eq!(hex_of(&fault.failed_avp().data), "0000270f 40000009 78000000");
    // The right code in the wrong space.
    let ours = Avp { vendor: Some(99), ..Avp::u32(&d::DATA_REFERENCE, 0) };
    assert_eq!(with(ours).unwrap().result_code(), 5001);
    // What we know is taken with M and without.
    assert_eq!(with(Avp::u32(&d::SEQUENCE_NUMBER, 1).require()), None);
    assert_eq!(with(Avp { flags: Avp::VENDOR, ..Avp::u32(&d::DATA_REFERENCE, 0) }), None);
    // Inside a group it is shown with its group alone.
    let inside = Avp::grouped(
        &d::USER_IDENTITY,
        &[Avp::text(&d::PUBLIC_IDENTITY, "sip:bob@h"), strange(Avp::MANDATORY)],
    );
    let fault = with(inside).unwrap();
    assert_eq!(fault.result_code(), 5001);
    assert_eq!(
        fault.avp().as_group().unwrap(),
        [strange(Avp::MANDATORY)],
        "the group holds the offending member and nothing else"
    );
    // What a proxy wrote for itself is nobody else's.
    assert_eq!(with(Avp::grouped(&d::PROXY_INFO, [&strange(Avp::MANDATORY)])), None);
}

/// 160 KB of groups in groups: neither the stack nor the clock notices.
#[test]
fn deep_nesting_costs_nothing() {
    let mut data = Vec::new();
    for depth in 0..20_000_u32 {
        let length = (20_000 - depth) * 8;
        data.extend_from_slice(&297_u32.to_be_bytes());
        data.extend_from_slice(&(0x4000_0000 | length).to_be_bytes());
    }
    let message = Message::decode(with_avps(&data)).unwrap();
    assert_eq!(message.avps.len(), 1);
    assert_eq!(message.encode(), with_avps(&data));
    let fault = message.unknown_mandatory().unwrap();
    assert_eq!(fault.result_code(), 5004);
    assert!(message.avps[0].as_group().is_ok());
}

#[test]
fn values_are_checked_against_their_type() {
    let address = |hex: &str| Avp::octets(&d::HOST_IP_ADDRESS, octets_of(hex)).as_address();
    let code = |result: Result<IpAddr, Fault>| result.map_err(|fault| fault.result_code());
    assert_eq!(code(address("0001c6336414")), Ok("198.51.100.20".parse().unwrap()));
    assert_eq!(
        code(address("000220010db8000000000000000000000001")),
        Ok("2001:db8::1".parse().unwrap())
    );
    assert_eq!(code(address("0001c63364")), Err(5014));
    assert_eq!(code(address("00")), Err(5014));
    assert_eq!(code(address("0008aabb")), Err(5004));
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    assert_eq!(Avp::address(&d::HOST_IP_ADDRESS, v6).as_address(), Ok(v6));
    let bad = Avp::octets(&d::USER_NAME, &[0xff][..]);
    assert_eq!(bad.as_text().map_err(|f| f.result_code()), Err(5004));
    let host = |text: &'static str| Avp::text(&d::ORIGIN_HOST, text).as_identity().ok();
    assert_eq!(host("HSS1.IMS.Example.net").as_deref(), Some("hss1.ims.example.net"));
    assert_eq!(host(""), None);
    assert_eq!(host("a b"), None);
    assert_eq!(
        Avp::u32(&d::OC_SEQUENCE_NUMBER, 1).as_u64().map_err(|f| f.result_code()),
        Err(5014)
    );
}

#[test]
fn what_must_be_there_once_is_there_once() {
    let mut message = udr();
    assert_eq!(message.required(&d::RESULT_CODE).unwrap_err().result_code(), 5005);
    let example = message.required(&d::RESULT_CODE).unwrap_err().failed_avp();
    assert_eq!(hex_of(&example.data), "0000010c 4000000c 00000000");
    assert_eq!(message.find_all(&d::DATA_REFERENCE).count(), 2);
    assert_eq!(message.single(&d::DATA_REFERENCE).unwrap_err().result_code(), 5009);
    assert!(message.single(&d::SESSION_ID).unwrap().is_some());
    message.avps.clear();
    assert_eq!(message.single(&d::SESSION_ID), Ok(None));
}

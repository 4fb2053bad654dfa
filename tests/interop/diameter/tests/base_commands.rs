//! The base commands, written by one codec and read by the other.

use std::net::IpAddr;

use diameter::avp::flags::M;
use diameter::avp::{Address, Enumerated, Identity, UTF8String, Unsigned32};
use diameter::{ApplicationId, CommandCode, DiameterMessage, flags};
use interop_diameter::{dictionary, read, write};
use pagecast::sh::codec::{Avp, Header, Message, Outcome};
use pagecast::sh::dictionary as d;

fn ours(code: u32, flags: u8, avps: Vec<Avp>) -> Message {
    let mut message = Message::request(code, 0, avps);
    message.header.flags = flags;
    message.header.hop_by_hop = 0x1c2d_3e01;
    message.header.end_to_end = 0x6f00_0001;
    message
}

fn origin() -> Vec<Avp> {
    vec![Avp::text(&d::ORIGIN_HOST, "as1.ims.example"), Avp::text(&d::ORIGIN_REALM, "ims.example")]
}

/// What we write, they read, and write again octet by octet.
///
/// Proves SH-017, SH-018.
#[test]
fn they_read_what_we_write() {
    let v4: IpAddr = "198.51.100.20".parse().unwrap();
    let v6: IpAddr = "2001:db8::7".parse().unwrap();
    let mut cer = origin();
    cer.extend([
        Avp::address(&d::HOST_IP_ADDRESS, v4),
        Avp::address(&d::HOST_IP_ADDRESS, v6),
        Avp::u32(&d::VENDOR_ID, 0),
        Avp::text(&d::PRODUCT_NAME, "pagecast"),
        Avp::u32(&d::ORIGIN_STATE_ID, 1_772_615_700),
        Avp::u32(&d::SUPPORTED_VENDOR_ID, d::VENDOR_3GPP),
        Avp::grouped(
            &d::VENDOR_SPECIFIC_APPLICATION_ID,
            &[
                Avp::u32(&d::VENDOR_ID, d::VENDOR_3GPP),
                Avp::u32(&d::AUTH_APPLICATION_ID, d::APPLICATION_SH),
            ],
        ),
    ]);
    let mut dwa = vec![Avp::u32(&d::RESULT_CODE, 2001)];
    dwa.extend(origin());
    let mut dpr = origin();
    dpr.push(Avp::u32(&d::DISCONNECT_CAUSE, 0));
    let cases = [
        ("CER", ours(257, Header::REQUEST, cer), CommandCode::CapabilitiesExchange),
        ("DWR", ours(280, Header::REQUEST, origin()), CommandCode::DeviceWatchdog),
        ("DWA", ours(280, 0, dwa), CommandCode::DeviceWatchdog),
        ("DPR", ours(282, Header::REQUEST, dpr), CommandCode::DisconnectPeer),
    ];
    for (name, message, code) in cases {
        let octets = message.encode();
        let theirs = read(&octets).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(theirs.get_command_code(), code, "{name}");
        assert_eq!(theirs.get_flags(), message.header.flags, "{name}");
        assert_eq!(theirs.get_hop_by_hop_id(), 0x1c2d_3e01, "{name}");
        assert_eq!(theirs.get_end_to_end_id(), 0x6f00_0001, "{name}");
        assert_eq!(theirs.get_avps().len(), message.avps.len(), "{name}");
        for (their, our) in theirs.get_avps().iter().zip(&message.avps) {
            assert_eq!(their.get_code(), our.code, "{name}");
            assert_eq!(their.get_flags().mandatory, our.is_mandatory(), "{name}: {our:?}");
            if let Some(number) = their.get_unsigned32() {
                assert_eq!(our.as_u32(), Ok(number), "{name}: {our:?}");
            }
        }
        assert_eq!(write(&theirs), octets, "{name}");
    }
}

/// What they write, we read, and write again octet by octet.
///
/// Proves SH-017, SH-018.
#[test]
fn we_read_what_they_write() {
    let message = |code, flags| {
        let mut message =
            DiameterMessage::new(code, ApplicationId::Common, flags, 7, 8, dictionary());
        message.add_avp(264, None, M, Identity::new("hss1.ims.example").into());
        message.add_avp(296, None, M, Identity::new("ims.example").into());
        message
    };
    let mut cea = message(CommandCode::CapabilitiesExchange, 0);
    cea.add_avp(268, None, M, Unsigned32::new(2001).into());
    let ip = std::net::Ipv4Addr::new(192, 0, 2, 9);
    cea.add_avp(257, None, M, Address::from_ipv4(ip).into());
    cea.add_avp(266, None, M, Unsigned32::new(10415).into());
    cea.add_avp(269, None, 0, UTF8String::new("hss").into());
    let octets = write(&cea);
    let read = Message::decode(octets.clone()).expect("theirs is well formed");
    assert_eq!(read.header.flags, 0);
    assert_eq!((read.header.hop_by_hop, read.header.end_to_end), (7, 8));
    assert_eq!(read.outcome(), Ok(Outcome::Base(2001)));
    assert_eq!(read.find(&d::ORIGIN_HOST).unwrap().as_text(), Ok("hss1.ims.example"));
    assert_eq!(read.find(&d::HOST_IP_ADDRESS).unwrap().as_address(), Ok(IpAddr::V4(ip)));
    assert_eq!(read.find(&d::PRODUCT_NAME).unwrap().as_text(), Ok("hss"));
    assert_eq!(read.encode(), octets);

    let mut dpr = message(CommandCode::DisconnectPeer, flags::REQUEST);
    dpr.add_avp(273, None, M, Enumerated::new(1).into());
    let octets = write(&dpr);
    let read = Message::decode(octets.clone()).expect("theirs is well formed");
    assert!(read.header.is_request());
    assert_eq!(read.find(&d::DISCONNECT_CAUSE).unwrap().as_u32(), Ok(1));
    assert_eq!(read.encode(), octets);
}

use super::*;
use crate::sh::codec::{Header, Outcome};
use crate::sh::userdata::UserState;

/// A notification as the HSS sends it.
fn push(identity: &str, inside: &str) -> Message {
    let document = format!("<Sh-Data>{inside}</Sh-Data>").into_bytes();
    let name = Avp::text(&d::PUBLIC_IDENTITY, identity);
    let application = Avp::grouped(
        &d::VENDOR_SPECIFIC_APPLICATION_ID,
        &[Avp::u32(&d::VENDOR_ID, VENDOR_3GPP), Avp::u32(&d::AUTH_APPLICATION_ID, APPLICATION_SH)],
    );
    let mut message = Message::request(
        command::PUSH,
        APPLICATION_SH,
        vec![
            Avp::text(&d::SESSION_ID, "hss1.ims.test;1;2"),
            application,
            Avp::u32(&d::AUTH_SESSION_STATE, 1),
            Avp::text(&d::ORIGIN_HOST, "hss1.ims.test"),
            Avp::text(&d::ORIGIN_REALM, "ims.test"),
            Avp::text(&d::DESTINATION_HOST, "AS1.ims.test"),
            Avp::text(&d::DESTINATION_REALM, "ims.test"),
            Avp::grouped(&d::USER_IDENTITY, [&name]),
            Avp::octets(&d::USER_DATA, document),
        ],
    );
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    message.header.end_to_end = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    message.header.hop_by_hop = 7;
    message
}

fn without(mut message: Message, def: &d::Def) -> Message {
    message.avps.retain(|avp| !avp.is(def));
    message
}

fn with(mut message: Message, avp: Avp) -> Message {
    message.avps.push(avp);
    message
}

fn replaced(message: Message, avp: Avp) -> Message {
    let def = d::Def::of(avp.code, avp.vendor).expect("known");
    with(without(message, def), avp)
}

fn sh(code: u32) -> Outcome {
    Outcome::Experimental { vendor: VENDOR_3GPP, code }
}

async fn followed() -> World {
    let world = World::new(|asked| match asked.references()[..] {
        [0] => good(asked, &settings_slot(17, "a"), vec![]),
        [11] => good(asked, &state(1), vec![]),
        _ => good(asked, "", vec![]),
    });
    world.client.service_settings(&user("alice")).await;
    world.client.state(&user("alice"), true).await;
    world.asked();
    world
}

/// Proves SH-045, SH-053, SH-023.
#[tokio::test(start_paused = true)]
async fn each_check_has_its_answer() {
    let world = followed().await;
    let alice = "sip:alice@ims.test";
    let fine = || push(alice, &settings_slot(18, "b"));
    let unknown = Avp { code: 99_999, flags: Avp::MANDATORY, vendor: None, data: Bytes::new() };
    let optional = Avp { flags: 0, ..unknown.clone() };
    let deep = format!("<a>{}</a>", "x".repeat(300 * 1024));
    let elsewhere = Avp::text(&d::WILDCARDED_PUBLIC_IDENTITY, "sip:chat!.*!@ims.test");
    let another_slot = slot(1, "<ServiceData><s/></ServiceData>").replace("oma-im-settings", "x");
    let cases = [
        ("unknown AVP with M", with(fine(), unknown), Outcome::Base(5001)),
        ("unknown AVP without M", with(fine(), optional), Outcome::Base(2001)),
        ("no User-Data", without(fine(), &d::USER_DATA), Outcome::Base(5005)),
        ("no User-Identity", without(fine(), &d::USER_IDENTITY), Outcome::Base(5005)),
        ("no Destination-Host", without(fine(), &d::DESTINATION_HOST), Outcome::Base(5005)),
        ("User-Data twice", with(fine(), Avp::octets(&d::USER_DATA, "x")), Outcome::Base(5009)),
        (
            "for somebody else",
            replaced(fine(), Avp::text(&d::DESTINATION_HOST, "as2.ims.test")),
            Outcome::Base(3002),
        ),
        ("the range counts, not the user", with(fine(), elsewhere), sh(5001)),
        ("a user nobody asked about", push("sip:x@ims.test", &state(1)), sh(5001)),
        ("no identity at all", push("nobody", &state(1)), sh(5001)),
        ("another slot", push(alice, &another_slot), sh(5107)),
        (
            "data never subscribed to",
            push(alice, "<Sh-IMS-Data><SCSCFName/></Sh-IMS-Data>"),
            sh(5107),
        ),
        ("no XML", replaced(fine(), Avp::octets(&d::USER_DATA, "<Sh-Data>")), sh(5100)),
        (
            "a document type",
            replaced(fine(), Avp::octets(&d::USER_DATA, "<!DOCTYPE a><Sh-Data/>")),
            sh(5100),
        ),
        ("too big", push(alice, &deep), sh(5008)),
        ("fine", fine(), Outcome::Base(2001)),
    ];
    for (name, request, wanted) in cases {
        let answer = world.client.notified(&request);
        assert_eq!(answer.outcome(), Ok(wanted), "{name}");
        assert_eq!(answer.header.code, command::PUSH);
        assert_eq!(answer.header.flags & Header::REQUEST, 0);
        assert_eq!(answer.header.hop_by_hop, 7, "{name}");
        assert_eq!(answer.header.end_to_end, request.header.end_to_end, "{name}");
        assert_eq!(answer.find(&d::SESSION_ID), request.find(&d::SESSION_ID), "{name}");
        assert_eq!(answer.header.is_error(), wanted.code() / 1000 == 3, "{name}");
        let shows = matches!(wanted, Outcome::Base(5001 | 5005 | 5009));
        assert_eq!(answer.find(&d::FAILED_AVP).is_some(), shows, "{name}");
        let origin = answer.find(&d::ORIGIN_HOST).and_then(|avp| avp.as_identity().ok());
        assert_eq!(origin.as_deref(), Some("as1.ims.test"));
    }
    assert_eq!(world.asked().len(), 0);
}

/// Proves SH-025.
#[tokio::test(start_paused = true)]
async fn what_proxies_left_comes_back_in_order() {
    let world = followed().await;
    let proxy = |name: &str| {
        let members = [Avp::text(&d::PROXY_HOST, name), Avp::octets(&d::PROXY_STATE, "s")];
        Avp::grouped(&d::PROXY_INFO, &members)
    };
    let request = with(push("sip:alice@ims.test", &state(0)), proxy("p1"));
    let answer = world.client.notified(&with(request, proxy("p2")));
    let back: Vec<_> = answer.find_all(&d::PROXY_INFO).cloned().collect();
    assert_eq!(back, [proxy("p1"), proxy("p2")]);
}

/// Proves SH-046.
#[tokio::test(start_paused = true)]
async fn a_change_is_known_at_once_and_an_old_or_repeated_one_changes_nothing() {
    let world = followed().await;
    let alice = user("alice");
    let sequence = async |world: &World| {
        world.client.service_settings(&user("alice")).await.data().map(|slot| slot.sequence)
    };
    let first = push("sip:alice@ims.test", &settings_slot(18, "b"));
    assert_eq!(world.client.notified(&first).outcome(), Ok(Outcome::Base(2001)));
    assert_eq!(sequence(&world).await, Some(18));
    // Older and equal ones are acknowledged.
    for old in [17, 18] {
        let answer = world.client.notified(&push("sip:alice@ims.test", &settings_slot(old, "x")));
        assert_eq!(answer.outcome(), Ok(Outcome::Base(2001)));
        assert_eq!(sequence(&world).await, Some(18));
    }
    let second = push("sip:alice@ims.test", &settings_slot(19, "c"));
    let once = world.client.notified(&second);
    world.client.notified(&push("sip:alice@ims.test", &settings_slot(20, "d")));
    let mut repeated = second.clone();
    repeated.header.hop_by_hop = 8;
    repeated.header.flags |= Header::RETRANSMITTED;
    let twice = world.client.notified(&repeated);
    assert_eq!(twice.avps, once.avps);
    assert_eq!(twice.header.hop_by_hop, 8);
    assert_eq!(sequence(&world).await, Some(20));

    // Being authenticated is what it was before.
    world.client.notified(&push("sip:alice@ims.test", &state(3)));
    assert_eq!(world.client.state(&alice, true).await, Answer::Data(UserState::Registered));
    world.client.notified(&push("sip:alice@ims.test", &state(0)));
    assert_eq!(world.client.state(&alice, true).await, Answer::Data(UserState::NotRegistered));
    assert_eq!(world.asked().len(), 0);

    // The slot is deleted, and the subscription with it.
    let (before, _) = world.client.held();
    world.client.notified(&push("sip:alice@ims.test", &slot(21, "")));
    assert_eq!(world.client.service_settings(&alice).await, Answer::Absent);
    assert_eq!(world.client.held().0, before - 1);
    assert_eq!(world.asked().len(), 0);
    world.later(secs(60)).await;
    assert_eq!(sequence(&world).await, Some(17), "asked for again");
    assert_eq!(world.asked()[0].code(), command::SUBSCRIBE, "and subscribed to again");

    // The user is gone.
    let gone = "<Extension><Extension><DeletedIdentities>\
        <IMSPublicIdentity>sip:alice@ims.test</IMSPublicIdentity></DeletedIdentities>\
        </Extension></Extension>";
    let answer = world.client.notified(&push("sip:alice@ims.test", gone));
    assert_eq!(answer.outcome(), Ok(Outcome::Base(2001)));
    assert_eq!(world.client.held(), (0, 0));
}

/// Proves SH-046.
#[tokio::test(start_paused = true)]
async fn a_change_told_while_the_answer_is_on_its_way_is_newer() {
    let world = followed().await;
    world.client.revalidate();
    world.says(|asked| (millis(500), good(asked, &settings_slot(17, "a"), vec![]).1));
    let client = Arc::clone(&world.client);
    let asking = tokio::spawn(async move { client.service_settings(&user("alice")).await });
    world.later(millis(100)).await;
    world.client.notified(&push("sip:alice@ims.test", &settings_slot(18, "b")));
    let settings = asking.await.expect("no panic").data().expect("settings");
    assert_eq!(settings.sequence, 18);
}

/// Proves SH-055, SH-045.
#[tokio::test(start_paused = true)]
async fn a_range_is_told_of_under_its_own_name() {
    let range = || Avp::text(&d::WILDCARDED_IMPU, "sip:u!.*!@ims.test");
    let world = World::new(move |asked| good(asked, &state(1), vec![range()]));
    assert_eq!(world.client.state(&user("u1"), true).await, Answer::Data(UserState::Registered));
    assert_eq!(world.client.state(&user("u1"), true).await, Answer::Data(UserState::Registered));
    assert_eq!(world.asked().len(), 1);
    let told = with(push("sip:u7@ims.test", &state(0)), range());
    assert_eq!(world.client.notified(&told).outcome(), Ok(Outcome::Base(2001)));
    assert_eq!(world.client.state(&user("u1"), true).await, Answer::Data(UserState::NotRegistered));
    assert_eq!(world.asked().len(), 0);
    let own = push("sip:u1@ims.test", &state(0));
    assert_eq!(world.client.notified(&own).outcome(), Ok(sh(5001)));
}

use super::*;
use crate::sh::userdata::UserState;

fn ends(at_ms: u64) -> Avp {
    Avp::time(&d::EXPIRY_TIME, i64::try_from(at_ms / 1000).expect("small"))
}

/// Proves SH-043, SH-047.
#[tokio::test(start_paused = true)]
async fn settings_come_with_a_subscription_that_is_refreshed_at_four_fifths() {
    let world = World::new(|asked| good(asked, &settings_slot(17, "a"), vec![ends(UNIX + 60_000)]));
    let settings = world.client.service_settings(&user("alice")).await.data().expect("settings");
    assert_eq!(settings.sequence, 17);
    assert_eq!(settings.xml.as_deref(), Some("<s>a</s>"));
    let [asked] = &world.asked()[..] else { panic!("one request") };
    assert_eq!(asked.code(), command::SUBSCRIBE);
    assert_eq!(asked.references(), [0]);
    assert_eq!(asked.numbers(&d::SUBS_REQ_TYPE), [0]);
    assert_eq!(asked.numbers(&d::SEND_DATA_INDICATION), [1]);
    let slot = asked.message.find(&d::SERVICE_INDICATION).expect("a slot");
    assert_eq!(&slot.data[..], b"oma-im-settings");
    let wanted = asked.message.find(&d::EXPIRY_TIME).and_then(|avp| avp.as_time().ok());
    assert_eq!(wanted, i64::try_from(UNIX / 1000 + 86_400).ok());
    assert!(asked.message.find(&d::ONE_TIME_NOTIFICATION).is_none());

    world.says(|asked| good(asked, &settings_slot(18, "b"), vec![ends(UNIX + 1_000_000)]));
    world.later(secs(50)).await;
    let [(at, again)] = &world.asked_at()[..] else { panic!("one request") };
    assert_eq!(again.code(), command::SUBSCRIBE);
    assert!((47..49).contains(&at.as_secs()), "{at:?}");
    let settings = world.client.service_settings(&user("alice")).await.data().expect("settings");
    assert_eq!(settings.sequence, 18);
    assert_eq!(world.asked().len(), 0, "it is valid for as long as changes are told");
}

/// Proves SH-047.
#[tokio::test(start_paused = true)]
async fn what_never_ends_is_asserted_daily_and_what_has_ended_is_none() {
    let world = World::new(|asked| good(asked, &settings_slot(1, "a"), vec![]));
    world.client.service_settings(&user("alice")).await;
    world.asked();
    world.later(secs(86_399)).await;
    assert_eq!(world.asked().len(), 0);
    world.later(secs(2)).await;
    assert_eq!(world.asked().len(), 1);
    assert_eq!(world.client.held().0, 1);

    let world = World::new(|asked| match asked.code() {
        command::SUBSCRIBE => good(asked, &settings_slot(1, "a"), vec![ends(UNIX - 1000)]),
        _ => good(asked, &settings_slot(2, "b"), vec![]),
    });
    let settings = world.client.service_settings(&user("alice")).await.data().expect("settings");
    assert_eq!((settings.sequence, world.client.held().0), (2, 0), "asked for, and not followed");
    let late = i64::from(u32::MAX) + 1;
    let world = World::new(move |asked| {
        good(asked, &settings_slot(1, "a"), vec![Avp::time(&d::EXPIRY_TIME, late)])
    });
    world.client.service_settings(&user("alice")).await;
    assert_eq!(world.client.held().0, 1, "after 2036, too");
}

/// Proves SH-043, SH-054.
#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_subscribed_to_it_is_pulled_now_and_then() {
    for code in [5106, 5104] {
        let world = World::new(move |asked| match asked.code() {
            command::SUBSCRIBE => refused(asked, code),
            _ => good(asked, &state(1), vec![]),
        });
        let alice = user("alice");
        assert_eq!(world.client.state(&alice, true).await, Answer::Data(UserState::Registered));
        assert_eq!(world.client.held().0, 0);
        let commands: Vec<_> = world.asked().iter().map(Asked::code).collect();
        assert_eq!(commands, [command::SUBSCRIBE, command::USER_DATA], "{code}");
        world.later(secs(61)).await;
        world.client.state(&alice, true).await;
        let commands: Vec<_> = world.asked().iter().map(Asked::code).collect();
        let wanted: &[u32] = match code {
            5104 => &[command::USER_DATA],
            _ => &[command::SUBSCRIBE, command::USER_DATA],
        };
        assert_eq!(commands, wanted, "{code}");
    }
}

/// Proves SH-047, SH-051.
#[tokio::test(start_paused = true)]
async fn a_refresh_nobody_answers_is_tried_again_and_data_gets_old_meanwhile() {
    let world = World::new(|asked| good(asked, &state(1), vec![ends(UNIX + 1_000_000)]));
    world.client.state(&user("alice"), true).await;
    world.says(|_| down());
    world.later(secs(801)).await;
    world.asked();
    world.later(secs(61)).await;
    // The data is asked for again and is still of use.
    assert_eq!(world.client.state(&user("alice"), true).await, Answer::Data(UserState::Registered));
    world.says(|asked| good(asked, &state(0), vec![ends(UNIX + 2_000_000)]));
    world.later(secs(31)).await;
    assert!(world.asked().iter().all(|asked| asked.code() == command::SUBSCRIBE));
    assert_eq!(
        world.client.state(&user("alice"), true).await,
        Answer::Data(UserState::NotRegistered)
    );
    assert_eq!(world.client.held().0, 1);
    // Nobody answers until it is over.
    world.says(|_| down());
    world.later(secs(1200)).await;
    assert_eq!(world.client.held().0, 0);
    assert!(world.house.kept.lock().expect("no panic").is_empty());
}

/// Proves SH-049, SH-044.
#[tokio::test(start_paused = true)]
async fn the_least_used_subscription_is_ended_and_no_page_makes_one() {
    let settings = Settings { max_subscriptions: 2, ..settings() };
    let world = World::with(settings, |asked| good(asked, &state(1), vec![]));
    for name in ["a", "b", "c"] {
        world.client.state(&user(name), true).await;
    }
    world.later(secs(1)).await;
    let asked = world.asked();
    let ended: Vec<_> = asked
        .iter()
        .filter(|asked| asked.numbers(&d::SUBS_REQ_TYPE) == [1])
        .map(|asked| (asked.identity(), asked.references()))
        .collect();
    assert_eq!(ended, [("sip:a@ims.test".to_owned(), vec![11])]);
    assert_eq!(world.client.held().0, 2);
    assert_eq!(world.house.kept.lock().expect("no panic").len(), 2);
    for _ in 0..3 {
        world.client.state(&user("d"), false).await;
        world.client.serving_cscf(&user("d")).await;
        world.client.names(&user("d"), false).await;
        world.later(secs(301)).await;
    }
    assert!(world.asked().iter().all(|asked| asked.code() == command::USER_DATA));
}

/// Proves SH-048.
#[tokio::test(start_paused = true)]
async fn after_a_restart_every_subscription_is_asserted_before_anything_is_trusted() {
    let before = World::new(|asked| good(asked, &settings_slot(17, "a"), vec![]));
    before.client.service_settings(&user("alice")).await;
    let kept: Vec<Kept> = before.house.kept.lock().expect("no panic").values().cloned().collect();
    let kept: Vec<Kept> = kept
        .iter()
        .map(|kept| serde_json::to_vec(kept).expect("plain data"))
        .map(|kept| serde_json::from_slice(&kept).expect("plain data"))
        .collect();
    assert_eq!(kept.len(), 1);

    // The HSS is not there yet.
    let world = World::new(|_| down());
    assert_eq!(world.client.restore(kept.clone()), 1);
    assert_eq!(world.client.service_settings(&user("alice")).await, Answer::Unavailable);
    world.says(|asked| good(asked, &settings_slot(18, "b"), vec![]));
    world.later(secs(31)).await;
    let asked = world.asked();
    let last = asked.last().expect("asked");
    assert_eq!(last.code(), command::SUBSCRIBE);
    assert_eq!(last.numbers(&d::SEND_DATA_INDICATION), [1]);
    let settings = world.client.service_settings(&user("alice")).await.data().expect("settings");
    assert_eq!(settings.sequence, 18);
    assert_eq!(world.asked().len(), 0);

    let over = Kept { expires: Some(UNIX - 1), ..kept[0].clone() };
    let world = World::new(|_| down());
    assert_eq!(world.client.restore([over]), 0, "it ended while this server was away");
}

/// Proves SH-016, SH-015.
#[tokio::test(start_paused = true)]
async fn when_an_hss_was_away_everything_is_asked_for_again() {
    let world = World::new(|asked| good(asked, &settings_slot(17, "a"), vec![]));
    world.client.service_settings(&user("alice")).await;
    world.asked();
    world.client.revalidate();
    world.later(secs(61)).await;
    assert_eq!(world.asked().len(), 1);
    assert_eq!(world.client.held().0, 1, "the HSS keeps what was subscribed to");
}

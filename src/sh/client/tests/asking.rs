use super::*;
use crate::sh::userdata::UserState;

const NAMES: &str = "<Extension><ImplicitIdentities><IMSPublicIdentity>sip:alice@ims.test</IMSPublicIdentity>\
    <IMSPublicIdentity>sip:+49170@ims.test;user=phone</IMSPublicIdentity></ImplicitIdentities>\
    <AliasIdentities><IMSPublicIdentity>sip:alice@ims.test</IMSPublicIdentity><MSISDN>49170</MSISDN>\
    </AliasIdentities></Extension>";

/// Proves SH-050.
#[tokio::test(start_paused = true)]
async fn however_many_ask_the_hss_is_asked_once_until_the_data_is_old() {
    let world = World::new(|asked| good(asked, &state(1), vec![]));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let client = Arc::clone(&world.client);
        tasks.spawn(async move { client.state(&user("bob"), false).await });
    }
    while let Some(answer) = tasks.join_next().await {
        assert_eq!(answer.expect("no panic"), Answer::Data(UserState::Registered));
    }
    assert_eq!(world.asked().len(), 1);
    world.later(secs(59)).await;
    world.client.state(&user("bob"), false).await;
    assert_eq!(world.asked().len(), 0);
    world.later(secs(1)).await;
    world.client.state(&user("bob"), false).await;
    assert_eq!(world.asked().len(), 1, "state lives for 60 s");
}

/// Proves SH-033, SH-039.
#[tokio::test(start_paused = true)]
async fn several_data_go_in_one_request_that_says_what_it_depends_on() {
    let world = World::new(|asked| good(asked, NAMES, vec![]));
    let alice = Subject::user("SIP:alice@IMS.test:5060;lr").expect("a URI");
    let names = world.client.names(&alice, false).await.data().expect("names");
    assert_eq!(names, ["sip:alice@ims.test", "sip:+49170@ims.test;user=phone", "tel:+49170"]);
    let [asked] = &world.asked()[..] else { panic!("one request") };
    assert_eq!(asked.code(), command::USER_DATA);
    assert_eq!(asked.identity(), "sip:alice@ims.test");
    assert_eq!(asked.references(), [10]);
    assert_eq!(asked.numbers(&d::IDENTITY_SET), [2, 3]);
    assert_eq!(asked.features(), Some(true), "it depends on Notif-Eff");
    world.client.serving_cscf(&alice).await;
    let asked = world.asked();
    assert_eq!(asked[0].features(), Some(false), "one alone depends on nothing");
}

/// Proves SH-033, SH-034.
#[tokio::test(start_paused = true)]
async fn an_hss_without_features_is_asked_one_by_one_however_it_says_so() {
    type Form = fn(&Asked) -> Reply;
    let forms: [(&str, Form); 3] = [
        ("ER 5011", |asked| answer(asked, vec![refusal(5011), exchange::features(0)])),
        ("RC 5001", |asked| {
            let failed = Avp::grouped(&d::FAILED_AVP, &[exchange::features(1)]);
            answer(asked, vec![Avp::u32(&d::RESULT_CODE, 5001), failed])
        }),
        ("RC 3007", |asked| base(asked, 3007)),
    ];
    for (name, form) in forms {
        let world = World::new(move |asked| {
            if asked.features().is_some() {
                return form(asked);
            }
            let (time, reply) = good(asked, NAMES, vec![]);
            let reply = reply.map(|mut answer| {
                answer.avps.retain(|avp| !avp.is(&d::SUPPORTED_FEATURES));
                answer
            });
            (time, reply)
        });
        let names = world.client.names(&user("alice"), false).await.data();
        assert_eq!(names.map(|names| names.len()), Some(3), "{name}");
        let sets: Vec<_> =
            world.asked().iter().map(|asked| asked.numbers(&d::IDENTITY_SET)).collect();
        assert_eq!(sets, [vec![2, 3], vec![2], vec![3]], "{name}");
        // It is remembered.
        world.client.names(&user("bob"), false).await;
        let sets: Vec<_> =
            world.asked().iter().map(|asked| asked.numbers(&d::IDENTITY_SET)).collect();
        assert_eq!(sets, [vec![2], vec![3]], "{name}");
    }
}

/// Proves SH-051, SH-050.
#[tokio::test(start_paused = true)]
async fn unavailable_is_not_unknown_and_old_data_serves_for_ten_minutes_but_no_ownership() {
    let world = World::new(|asked| refused(asked, 5001));
    let nobody = user("nobody");
    assert_eq!(world.client.serving_cscf(&nobody).await, Answer::Absent);
    assert_eq!(world.client.serving_cscf(&nobody).await, Answer::Absent);
    assert_eq!(world.asked().len(), 1, "that nobody knows the user is known for a minute");
    world.later(secs(60)).await;
    world.says(|asked| good(asked, NAMES, vec![]));
    assert_eq!(world.client.serving_cscf(&nobody).await, Answer::Absent, "no element");
    assert!(world.client.names(&user("alice"), true).await.data().is_some());
    world.says(|_| down());
    assert_eq!(world.client.state(&user("bob"), false).await, Answer::Unavailable);
    world.later(secs(300)).await;
    assert!(world.client.names(&user("alice"), false).await.data().is_some(), "old");
    assert_eq!(world.client.names(&user("alice"), true).await, Answer::Unavailable);
    world.later(secs(600)).await;
    assert_eq!(world.client.names(&user("alice"), false).await, Answer::Unavailable);
}

/// Proves ISC-059, SH-021.
#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_a_second_and_the_late_answer_serves_the_next() {
    let world = World::new(|asked| (secs(3), good(asked, &state(0), vec![]).1));
    let asked_at = tokio::time::Instant::now();
    assert_eq!(world.client.state(&user("bob"), false).await, Answer::Unavailable);
    assert_eq!(asked_at.elapsed(), PATIENCE);
    world.later(secs(3)).await;
    assert_eq!(
        world.client.state(&user("bob"), false).await,
        Answer::Data(UserState::NotRegistered)
    );
    assert_eq!(world.asked().len(), 1);
}

/// Proves SH-026.
#[tokio::test(start_paused = true)]
async fn the_hss_of_an_identity_is_named_once_it_is_known_and_forgotten_when_it_fails() {
    let scscf = "<Sh-IMS-Data><SCSCFName>sip:s</SCSCFName></Sh-IMS-Data>";
    let world = World::new(move |asked| good(asked, scscf, vec![]));
    let alice = user("alice");
    let named = |asked: Vec<Asked>| -> Vec<Option<String>> {
        asked.into_iter().map(|asked| asked.to).collect()
    };
    let hss1 = || Some("hss1.ims.test".to_owned());
    world.client.serving_cscf(&alice).await;
    world.client.charging(&alice).await;
    world.client.serving_cscf(&user("bob")).await;
    assert_eq!(named(world.asked()), [None, hss1(), None]);
    // Each of these forgets it and is tried once without.
    type Form = fn(&Asked) -> Reply;
    let forms: [Form; 4] = [
        |asked| refused(asked, 5001),
        |asked| base(asked, 3002),
        |asked| base(asked, 3003),
        |_| silent(),
    ];
    for form in forms {
        world.later(secs(61)).await;
        world.says(move |asked| match asked.to {
            Some(_) => form(asked),
            None => good(asked, scscf, vec![]),
        });
        world.client.serving_cscf(&alice).await;
        world.later(secs(10)).await;
        assert_eq!(named(world.asked()), [hss1(), None]);
    }
    world.later(secs(3600)).await;
    world.client.serving_cscf(&alice).await;
    assert_eq!(named(world.asked()), [None], "a binding lives for an hour");
}

/// Proves SH-054.
#[tokio::test(start_paused = true)]
async fn what_the_hss_does_not_permit_is_left_alone_for_a_quarter_of_an_hour() {
    let world = World::new(|asked| match asked.references()[..] {
        [12] => refused(asked, 5102),
        _ => good(asked, "", vec![]),
    });
    assert_eq!(world.client.serving_cscf(&user("a")).await, Answer::Unavailable);
    assert_eq!(world.client.serving_cscf(&user("b")).await, Answer::Unavailable);
    assert_eq!(world.client.charging(&user("a")).await, Answer::Absent, "only that reference");
    assert_eq!(world.asked().iter().map(Asked::references).collect::<Vec<_>>(), [[12], [16]]);
    assert!(
        world
            .client
            .last_error()
            .is_some_and(|why| why.contains("5102") && why.contains("S-CSCFName"))
    );
    world.later(secs(900)).await;
    world.client.serving_cscf(&user("b")).await;
    assert_eq!(world.asked().len(), 1);
    let probed = world.client.probe(&user("test")).await;
    let found: Vec<_> = probed.iter().map(|probed| (probed.reference, probed.pull)).collect();
    assert_eq!(
        found,
        [(0, "absent"), (10, "absent"), (11, "absent"), (12, "unavailable"), (16, "absent")]
    );
}

/// Proves SH-052.
#[tokio::test(start_paused = true)]
async fn transient_results_are_repeated_once_after_a_second() {
    type Form = fn(&Asked) -> Reply;
    let forms: [Form; 3] =
        [|asked| refused(asked, 4100), |asked| base(asked, 5012), |asked| base(asked, 4002)];
    for form in forms {
        let world = World::new(form);
        assert_eq!(world.client.charging(&user("a")).await, Answer::Unavailable);
        world.later(secs(5)).await;
        let times: Vec<_> = world.asked_at().into_iter().map(|(at, _)| at).collect();
        let [first, second] = times[..] else { panic!("two requests") };
        assert_eq!(second - first, secs(1) + millis(5));
    }
    type Plain = (Form, usize);
    let once: [Plain; 5] = [
        (|asked| base(asked, 5777), 1),
        (|asked| refused(asked, 5101), 1),
        (|asked| base(asked, 3005), 1),
        (|asked| answer(asked, vec![]), 2),
        (
            |asked| {
                let unknown =
                    Avp { code: 99_999, flags: Avp::MANDATORY, vendor: None, data: Bytes::new() };
                good(asked, "", vec![unknown])
            },
            1,
        ),
    ];
    for (form, times) in once {
        let world = World::new(form);
        assert_eq!(world.client.charging(&user("a")).await, Answer::Unavailable);
        world.later(secs(5)).await;
        assert_eq!(world.asked().len(), times);
    }
}

/// Proves SH-055.
#[tokio::test(start_paused = true)]
async fn a_range_of_services_is_known_as_one() {
    let range = || Avp::text(&d::WILDCARDED_PUBLIC_IDENTITY, "sip:chat!.*!@ims.test");
    let world = World::new(move |asked| {
        good(asked, "<Sh-IMS-Data><SCSCFName>sip:s</SCSCFName></Sh-IMS-Data>", vec![range()])
    });
    let chat = Subject::service("sip:chat1@ims.test").expect("a URI");
    assert_eq!(world.client.serving_cscf(&chat).await, Answer::Data("sip:s".into()));
    assert_eq!(world.client.serving_cscf(&chat).await, Answer::Data("sip:s".into()));
    world.client.charging(&chat).await;
    let asked = world.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].identity(), "sip:chat1@ims.test");
    assert!(asked[0].message.find(&d::WILDCARDED_PUBLIC_IDENTITY).is_none());
    assert_eq!(asked[1].identity(), "sip:chat1@ims.test");
    assert_eq!(asked[1].message.find(&d::WILDCARDED_PUBLIC_IDENTITY), Some(&range()));
    assert!(asked[1].message.find(&d::WILDCARDED_IMPU).is_none());
}

/// Proves SH-039.
#[tokio::test(start_paused = true)]
async fn what_a_subject_cannot_have_is_never_asked_for() {
    let world = World::new(|asked| good(asked, "", vec![]));
    let service = Subject::service("sip:chat@ims.test").expect("a URI");
    assert_eq!(world.client.state(&service, false).await, Answer::Absent);
    assert_eq!(world.client.psi_active(&user("alice")).await, Answer::Absent);
    assert_eq!(world.asked().len(), 0);
    world.says(|asked| {
        let extension = "<Extension><PSIActivation>0</PSIActivation></Extension>";
        good(asked, &format!("<Sh-IMS-Data>{extension}</Sh-IMS-Data>"), vec![])
    });
    assert_eq!(world.client.psi_active(&service).await, Answer::Data(false));
}

#[tokio::test(start_paused = true)]
async fn names_of_an_older_hss_count_and_bad_documents_are_no_answer() {
    let world = World::new(|asked| {
        let names = "<PublicIdentifiers><IMSPublicIdentity>tel:+49170</IMSPublicIdentity></PublicIdentifiers>";
        good(asked, names, vec![])
    });
    assert_eq!(
        world.client.names(&user("alice"), false).await,
        Answer::Data(vec!["tel:+49170".to_owned()])
    );
    world.says(|asked| {
        good(asked, "<Sh-IMS-Data><IMSUserState>9</IMSUserState></Sh-IMS-Data>", vec![])
    });
    assert_eq!(world.client.state(&user("alice"), false).await, Answer::Unavailable);
}

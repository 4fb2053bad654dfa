//! The shipped profiles, and what a wrong one is told.

use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn shipped(name: &str) -> (Profile, Vec<Setting>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("ims-profiles").join(name);
    Profile::load(Some(&file), Layer::default(), false, &nothing)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Keys whose effective value differs between two lists of settings.
fn differences(a: &[Setting], b: &[Setting]) -> Vec<String> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a.value != b.value).map(|(a, _)| a.key.clone()).collect()
}

#[test]
fn every_shipped_profile_loads_and_differs_in_what_it_means_to() {
    let (base, base_settings) = shipped("3gpp.toml");
    assert_eq!(base, Profile::default(), "3gpp.toml tells the built-in values");
    let unset: Vec<&str> = base_settings
        .iter()
        .filter(|setting| setting.origin == Origin::BuiltIn)
        .map(|setting| setting.key.as_str())
        .collect();
    assert_eq!(
        unset,
        ["msrp.connect_allow", "ul.allow_loopback_targets"],
        "3gpp.toml names every key but those whose default depends on the addresses"
    );
    let expected: [(&str, &[&str]); 4] = [
        ("3gpp2.toml", &["core", "isc.send_psu", "isc.ioi_prefix", "isc.asserted_service"]),
        ("sipip.toml", &["core", "im.default_mode"]),
        ("kamailio.toml", &["isc.many_served_users"]),
        ("rcs-cpm.toml", &["im.icsi", "im.pass_through", "deferred.when_none_joined"]),
    ];
    for (name, keys) in expected {
        let (_, settings) = shipped(name);
        assert_eq!(differences(&base_settings, &settings), keys, "{name}");
        let changed = settings.iter().find(|setting| setting.key == keys[keys.len() - 1]);
        let origin = changed.expect("it is a key").origin.to_string();
        assert!(origin.contains(name), "{name}: {origin}");
        let inherited = settings.iter().find(|setting| setting.key == "sip.t1");
        let origin = inherited.expect("it is a key").origin.to_string();
        assert!(origin.contains("3gpp.toml:"), "{name}: {origin}");
    }
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("ims-profiles"))
        .expect("the folder is there")
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".toml"))
        .count();
    assert_eq!(files, expected.len() + 1, "a profile that is shipped is tested");
}

#[test]
fn wrong_profiles_are_refused_at_their_line() {
    let folder = std::env::temp_dir().join(format!("pagecast-{}-profiles", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("the temporary folder can be written");
        path
    };
    write("base.toml", "[im]\nleg_timeout = \"7s\"\nmax_recipients = 9\n");
    let child = write("child.toml", "extends = \"base.toml\"\n[im]\nleg_timeout = \"8s\"\n");
    let (profile, settings) =
        Profile::load(Some(&child), Layer::default(), true, &nothing).expect("right");
    assert_eq!(profile.im.leg_timeout, Duration::from_secs(8), "the nearer one wins");
    assert_eq!(profile.im.max_recipients, 9, "what it does not name is inherited");
    assert!(profile.allow_loopback_targets, "on when listening on loopback");
    let origin = |key: &str| {
        settings.iter().find(|setting| setting.key == key).expect("a key").origin.to_string()
    };
    assert!(origin("im.leg_timeout").ends_with("child.toml:3"));
    assert!(origin("im.max_recipients").ends_with("base.toml:3"));

    write("a.toml", "extends = \"b.toml\"");
    write("b.toml", "\nextends = \"c.toml\"");
    write("c.toml", "extends = \"./a.toml\"");
    let cases: &[(&str, &str, &str)] = &[
        (
            "x.toml",
            "[im]\nleg_timout = \"1s\"",
            "x.toml:2: im.leg_timout: no such key; did you mean im.leg_timeout?",
        ),
        (
            "x.toml",
            "core = \"4gpp\"",
            "x.toml:1: core: \"4gpp\" is none of the choices; write one of: \"3gpp\", \"3gpp2\", \"sipip\"",
        ),
        (
            "x.toml",
            "[im]\nleg_timeout = \"0s\"",
            "x.toml:2: im.leg_timeout: \"0s\" is out of bounds; write \"1s\"",
        ),
        (
            "x.toml",
            "[isc]\nresponse_source = \"urn:3gpp:fe:\"",
            "x.toml:2: isc.response_source: \"urn:3gpp:fe:\" names no functional entity; write",
        ),
        (
            "x.toml",
            "[isc]\nresponse_source = \"urn:3gpp:fe:as>;x=1\"",
            "x.toml:2: isc.response_source: ",
        ),
        ("x.toml", "[isc]\nresponse_source = \"as.im\"", "x.toml:2: isc.response_source: "),
        ("x.toml", "[im]\nprogress_after = \"2s\"", "x.toml:2: im.progress_after: "),
        ("x.toml", "[sip]\nt1 = \"5s\"\nt2 = \"1s\"", "x.toml:3: sip.t2: is smaller than sip.t1"),
        (
            "x.toml",
            "[im]\nmax_rate_per_user = \"10\"",
            "x.toml:2: im.max_rate_per_user: \"10\" is no rate; write",
        ),
        (
            "x.toml",
            "[pager]\nmax_size = 1300",
            "x.toml:2: pager.max_size: is not supported by this version (the bounds of short pages are fixed)",
        ),
        (
            "x.toml",
            "[deferred]\ncauses = [480, 200]",
            "x.toml:2: deferred.causes: 200 is no final answer; write a list",
        ),
        ("x.toml", "extends = \"gone.toml\"", "x.toml:1: extends: "),
        ("x.toml", "extends = 3", "x.toml:1: extends: 3 is no path"),
        (
            "a.toml",
            "extends = \"b.toml\"",
            "c.toml:1: extends: \"./a.toml\" extends this file again, in a circle",
        ),
        ("x.toml", "extends = \"x.toml\"", "x.toml:1: extends: \"x.toml\" extends this file again"),
    ];
    for (name, text, expected) in cases {
        let file = write(name, text);
        let error = Profile::load(Some(&file), Layer::default(), false, &nothing)
            .expect_err(text)
            .to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(expected), "{text}: {error}, expected {expected}");
    }
    let rcs = Path::new(env!("CARGO_MANIFEST_DIR")).join("ims-profiles/rcs-cpm.toml");
    let on_rcs = |text: &str| format!("extends = {:?}\n{text}", rcs.display().to_string());
    write("bad.toml", "[msrp]\nmax_unbound = 0\n");
    for n in 0..20 {
        write(&format!("deep{n}.toml"), &format!("extends = \"deep{}.toml\"", n + 1));
    }
    write("deep20.toml", "");
    // One mistake of each kind: the form of a value, its bounds, its name, where it is, what it is made of.
    let more: &[(String, &str)] = &[
        (on_rcs("[im]\nicsi = 7"), "x.toml:3: im.icsi: 7 is no text; write"),
        (
            on_rcs("[im]\npass_through = \"X-Foo\""),
            "x.toml:3: im.pass_through: \"X-Foo\" is no list",
        ),
        (
            on_rcs("[im]\npass_through = [\"X Foo\"]"),
            "x.toml:3: im.pass_through: \"X Foo\" is no header",
        ),
        (on_rcs("[im]\npass_through = [7]"), "x.toml:3: im.pass_through: 7 is no text"),
        (on_rcs("[im]\nicsy = \"x\""), "x.toml:3: im.icsy: no such key; did you mean im.icsi?"),
        (
            "[im]\nstrict_release = \"yes\"".into(),
            "x.toml:2: im.strict_release: \"yes\" is no switch; write true",
        ),
        (
            "[im]\nmax_members = \"many\"".into(),
            "x.toml:2: im.max_members: \"many\" is no number; write",
        ),
        ("[im]\nmax_members = 1.5".into(), "x.toml:2: im.max_members: 1.5 is no number"),
        (
            "[im]\nmax_members = 0".into(),
            "x.toml:2: im.max_members: 0 is out of bounds; write 1 to 10000",
        ),
        (
            "[im]\nsession_expires = \"89s\"".into(),
            "x.toml:2: im.session_expires: \"89s\" is out of bounds",
        ),
        (
            "[im]\nrelease = \"3.0\"".into(),
            "x.toml:2: im.release: \"3.0\" is no OMA release; write",
        ),
        (
            "[im]\naccept_contact_params = \"x\"".into(),
            "x.toml:2: im.accept_contact_params: \"x\" is none",
        ),
        (
            "[im.large]\nmax_size = \"10MB\"".into(),
            "x.toml:2: im.large.max_size: \"10MB\" is no size; write",
        ),
        (
            "[isc]\nfanout_route = \"scenic\"".into(),
            "x.toml:2: isc.fanout_route: \"scenic\" is none of",
        ),
        (
            "[isc]\nfanout_route = true".into(),
            "x.toml:2: isc.fanout_route: true is none of the choices",
        ),
        (
            "[msrp]\nconnect_allow = []".into(),
            "x.toml:2: msrp.connect_allow: names no network; name one",
        ),
        (
            "[msrp]\nconnect_allow = [\"10/8\"]".into(),
            "x.toml:2: msrp.connect_allow: \"10/8\" is no",
        ),
        ("[sip]\nt1 = \"5ms\"".into(), "x.toml:2: sip.t1: \"5ms\" is out of bounds; write"),
        ("[ul]\nsend_rate = -1".into(), "x.toml:2: ul.send_rate: -1 is out of bounds"),
        (
            "[ul]\nphone_context = \"${NOT_SET}\"".into(),
            "x.toml:2: ul.phone_context: the environment variable",
        ),
        ("ul = 7".into(), "x.toml:1: ul: no such key"),
        ("[[ul]]\nmax_entries = 7".into(), "ul: no such key"),
        (
            "[im]\nlate_offer = \"accept\"".into(),
            "x.toml:2: im.late_offer: is not supported by this version",
        ),
        ("[im\n".into(), "x.toml:1: "),
        ("extends = \"bad.toml\"".into(), "bad.toml:2: msrp.max_unbound: 0 is out of bounds"),
        ("extends = \"\"".into(), "x.toml:1: extends: \"\" is no path"),
        ("extends = \".\"".into(), "x.toml:1: extends: "),
        (
            "extends = \"${NOT_SET}.toml\"".into(),
            "x.toml:1: extends: the environment variable \"NOT_SET\"",
        ),
        ("extends = \"deep0.toml\"".into(), "extends: more than 16 profiles extend each other"),
    ];
    for (text, expected) in more {
        let file = write("x.toml", text);
        let error = Profile::load(Some(&file), Layer::default(), false, &nothing)
            .expect_err(text)
            .to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(expected), "{text}: {error}, expected {expected}");
    }
    // What is right, from the environment.
    let environment = |name: &str| (name == "BASE").then(|| rcs.display().to_string());
    let file = write("x.toml", "extends = \"${BASE}\"\n[im]\nleg_timeout = \"9s\"");
    let (profile, _) =
        Profile::load(Some(&file), Layer::default(), false, &environment).expect("right");
    assert_eq!(
        (profile.im.leg_timeout, profile.im.icsi.is_empty()),
        (Duration::from_secs(9), false)
    );
    let _ = std::fs::remove_dir_all(&folder);
}

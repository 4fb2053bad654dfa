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
        ("rcs-cpm.toml", &["im.icsi", "im.pass_through"]),
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
            "x.toml:2: pager.max_size: is not supported by this version (short messages)",
        ),
        (
            "x.toml",
            "[deferred]\nenabled = true",
            "x.toml:2: deferred.enabled: is not supported by this version",
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
    let _ = std::fs::remove_dir_all(&folder);
}

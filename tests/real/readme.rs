//! What README promises, held against the program.

use super::support::{Folder, run};

/// The keys and the shipped values of its table of limits are those of the configuration that ships.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_are_the_shipped_ones() {
    let root = env!("CARGO_MANIFEST_DIR");
    let readme = std::fs::read_to_string(format!("{root}/README.md")).expect("README.md");
    let folder = Folder::new();
    let shipped = format!("{root}/config/pagecast.toml");
    let told = run(&folder, &["check", "--config", &shipped]).await;
    assert_eq!(told.status, Some(0), "{told:?}");
    let plain = |text: &str| -> String {
        text.chars().filter(|c| !c.is_whitespace() && *c != '"').collect()
    };
    let value = |key: &str| {
        let found = told.out.lines().find_map(|line| {
            let (name, rest) = line.split_once(" = ")?;
            (name.strip_prefix("profile.").unwrap_or(name) == key)
                .then(|| plain(rest.split("  #").next().unwrap_or(rest)))
        });
        found.unwrap_or_else(|| panic!("README names {key}, which is no setting"))
    };
    let seconds = |text: &str| match (text.strip_suffix('m'), text.strip_suffix('s')) {
        (Some(minutes), _) => minutes.parse::<u64>().ok().map(|minutes| minutes * 60),
        (_, Some(seconds)) => seconds.parse().ok(),
        _ => None,
    };

    let section = readme.split("\n## ").find(|part| part.starts_with("Limits")).expect("Limits");
    let mut rows = 0;
    for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, keys, values] = cells[..] else { panic!("{row}") };
        let keys: Vec<&str> = keys.split('`').skip(1).step_by(2).collect();
        let values: Vec<String> = values.split(", ").map(plain).collect();
        assert!(!keys.is_empty(), "{row}");
        for (n, key) in keys.into_iter().enumerate() {
            let shipped = value(key);
            let named = values.get(n).or(values.last()).expect("a value");
            let same = shipped == *named
                || seconds(&shipped).is_some() && seconds(&shipped) == seconds(named);
            assert!(same, "README says {named} of {key}, shipped is {shipped}");
        }
        rows += 1;
    }
    assert!(rows > 3, "a table of limits");
    for key in readme.split('`').skip(1).step_by(2).filter(|word| {
        let known = ["sip.", "msrp.", "service.", "core.", "ops.", "im."];
        known.iter().any(|section| word.starts_with(section))
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'))
    }) {
        value(key);
    }
}

/// What this version does not do is refused at start, and named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_done_is_refused() {
    let folder = Folder::new();
    for set in ["store.url=mysql://u@h/d", "profile.pager.max_size=1300"] {
        for command in ["check", "serve"] {
            let ended = run(&folder, &[command, "--set", set]).await;
            assert_eq!(ended.status, Some(2), "{set}: {ended:?}");
            assert!(ended.err.contains("not supported by this version"), "{set}: {}", ended.err);
            assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
        }
    }
}

//! The shape of the source, held by checks: who may import whom, what the pure parts must not touch, how rules are cited,
//! and what may never stand in a file.
//!
//! Start at [`RULES`], the table of import directions. The checks read the source as text with comments, strings and test
//! modules taken out; a module that does not exist yet has nothing to break.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What a part of `src/` may import of ours, besides itself. The longest matching path decides.
const RULES: &[(&str, &[&str])] = &[
    // Decides; serves any access.
    ("engine", &[]),
    // Leaves.
    ("content", &[]),
    ("flow", &[]),
    ("handshake", &[]),
    ("pem", &[]),
    ("spool", &[]),
    // Adapters: the engine's words, the leaves, and never each other.
    ("sip", &["flow", "handshake", "pem"]),
    ("isc", &["sip", "content", "flow", "engine"]),
    ("msrp", &["content", "spool", "flow", "engine", "handshake", "pem"]),
    ("xdms", &["content", "engine", "flow", "pem", "sip::uri", "sip::digest"]),
    ("sh", &["content", "engine", "flow", "sip::uri"]),
    ("store", &["engine", "handshake", "pem"]),
    ("charging", &["engine", "flow"]),
    ("ops", &["engine", "flow", "content"]),
    // Settings live with the module that obeys them; these two gather them.
    (
        "profile",
        &[
            "config", "engine", "sip", "isc", "msrp", "xdms", "content", "flow", "ops", "sh",
            "store",
        ],
    ),
    (
        "config",
        &[
            "profile", "engine", "sip", "isc", "msrp", "xdms", "content", "flow", "ops", "sh",
            "store", "charging",
        ],
    ),
    // Neighbours for trying things; the server never uses them.
    ("lab", &["sip", "msrp::codec", "content", "flow", "handshake"]),
    (
        "node",
        &[
            "charging", "config", "content", "engine", "flow", "isc", "msrp", "ops", "profile",
            "sh", "sip", "spool", "store", "xdms",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "content",
            "engine",
            "flow",
            "handshake",
            "node",
            "ops",
            "profile",
            "sh",
            "sip",
            "store",
            "xdms",
        ],
    ),
    (
        "cli::demo",
        &[
            "cli", "config", "content", "engine", "flow", "lab", "node", "ops", "profile", "sip",
            "xdms",
        ],
    ),
    // Says what `serve` would refuse, and so asks the parts that would.
    ("cli::check", &["cli", "config", "isc", "msrp", "node", "profile", "sip", "xdms"]),
    ("cli::core", &["cli", "lab", "sip"]),
    ("cli::page", &["cli", "content", "lab", "sip"]),
    ("cli::phone", &["cli", "content", "lab", "sip"]),
    ("cli::load", &["cli", "content", "lab", "sip"]),
    ("main", &["cli"]),
];

/// Parts that get `now` as an argument, start no task and touch neither network nor disk.
const PURE: &[&str] = &[
    "engine",
    "content",
    "sip::message",
    "sip::uri",
    "sip::transaction",
    "sip::dialog",
    "sip::digest",
    "sip::ua",
    "isc::reachable",
    "isc::registry",
    "isc::rules",
    "msrp::codec",
    "msrp::session",
    "sh::codec",
    "sh::dictionary",
    "sh::overload",
    "sh::peer",
    "sh::routing",
    "sh::watchdog",
];

/// What the pure parts must not name.
const SHELL_WORDS: &[&str] = &[
    "tokio",
    "hyper",
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::spawn",
    "std::fs",
    "std::process",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    ".await",
    "async fn",
    "println!",
];

/// External crates the engine may use.
const ENGINE_CRATES: &[&str] = &["bytes", "serde", "thiserror"];

/// Parts a peer's bytes can reach: there an `unwrap` needs a reason, which is what `expect` is for.
const NO_UNWRAP: &[&str] =
    &["engine", "content", "flow", "spool", "sip", "isc", "msrp", "xdms", "sh", "store", "node"];

/// Top level of the repository, dotfiles aside.
const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "config",
    "ims-profiles",
    "integration",
    "src",
    "tests",
];

/// RFCs this project follows or mentions. A number that is not here is most likely a slip of the fingers.
const RFCS: &[u16] = &[
    1035, 1123, 1918, 1951, 2045, 2046, 2047, 2104, 2119, 2181, 2183, 2234, 2327, 2387, 2396, 2543,
    2616, 2617, 2782, 2806, 2818, 2822, 2976, 3023, 3087, 3261, 3262, 3263, 3264, 3265, 3310, 3311,
    3312, 3313, 3323, 3325, 3326, 3327, 3329, 3339, 3388, 3403, 3420, 3428, 3490, 3492, 3515, 3539,
    3581, 3605, 3608, 3629, 3665, 3680, 3711, 3824, 3840, 3841, 3849, 3853, 3856, 3857, 3858, 3860,
    3862, 3863, 3891, 3892, 3911, 3966, 3968, 3986, 3987, 3994, 4028, 4122, 4145, 4168, 4193, 4244,
    4288, 4289, 4291, 4320, 4321, 4354, 4411, 4412, 4458, 4475, 4479, 4480, 4485, 4488, 4538, 4566,
    4572, 4575, 4632, 4647, 4648, 4732, 4733, 4745, 4825, 4826, 4827, 4916, 4964, 4975, 4976, 5002,
    5009, 5025, 5049, 5057, 5079, 5118, 5234, 5246, 5261, 5280, 5318, 5322, 5359, 5360, 5363, 5364,
    5365, 5366, 5368, 5373, 5389, 5390, 5393, 5411, 5424, 5438, 5439, 5502, 5547, 5552, 5621, 5626,
    5627, 5630, 5646, 5658, 5688, 5737, 5761, 5763, 5806, 5853, 5874, 5875, 5876, 5890, 5922, 5923,
    5924, 5939, 5952, 6026, 6050, 6072, 6086, 6125, 6135, 6140, 6146, 6157, 6223, 6228, 6234, 6265,
    6341, 6347, 6442, 6455, 6567, 6665, 6714, 6733, 6750, 6794, 6797, 6809, 6838, 6873, 6878, 6901,
    6902, 6928, 7044, 7090, 7118, 7135, 7200, 7230, 7231, 7247, 7303, 7315, 7329, 7332, 7403, 7405,
    7413, 7434, 7463, 7614, 7616, 7617, 7647, 7683, 7700, 7701, 7944, 7977, 7989, 8122, 8141, 8174,
    8217, 8259, 8262, 8445, 8446, 8489, 8496, 8498, 8499, 8581, 8583, 8599, 8760, 8838, 8855, 8866,
    8873, 9110, 9111, 9112, 9113, 9147, 9525,
];

// --- the checks ----------------------------------------------------------------------------------------------------------

#[test]
fn modules_import_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some((own, allowed)) = rule_of(&file.module) else {
            continue; // lib.rs, which names them all
        };
        for (line, target) in file.imports() {
            let fine = below(&target, own) || allowed.iter().any(|may| below(&target, may));
            if !fine {
                wrong.push(format!("{}:{line}: {own} must not use {target}", file.path.display()));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn every_module_has_a_rule() {
    let known: BTreeSet<_> =
        RULES.iter().map(|(module, _)| module.split("::").next().expect("not empty")).collect();
    let wrong = sources()
        .iter()
        .filter(|file| !file.module.is_empty() && !known.contains(file.module[0].as_str()))
        .map(|file| format!("{}: no line in RULES says what it may import", file.path.display()))
        .collect();
    assert_none(wrong);
}

#[test]
fn pure_parts_start_no_task_and_read_no_clock() {
    let mut wrong = Vec::new();
    for file in
        sources().iter().filter(|file| PURE.iter().any(|pure| below(&file.module.join("::"), pure)))
    {
        for (number, line) in file.code_lines() {
            for word in SHELL_WORDS.iter().filter(|word| names(line, word)) {
                wrong.push(format!("{}:{number}: a pure part names {word}", file.path.display()));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn the_engine_uses_few_crates() {
    let manifest = read(&root().join("Cargo.toml"));
    let dependencies: Vec<String> = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| Some(line.split_once('=')?.0.trim().replace('-', "_")))
        .filter(|name| !ENGINE_CRATES.contains(&name.as_str()))
        .collect();
    assert!(dependencies.len() > 5, "the list of dependencies was not found");
    let mut wrong = Vec::new();
    for file in
        sources().iter().filter(|file| file.module.first().is_some_and(|first| first == "engine"))
    {
        for (number, line) in file.code_lines() {
            for name in dependencies.iter().filter(|name| roots(line, name)) {
                wrong.push(format!("{}:{number}: the engine uses {name}", file.path.display()));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn only_sh_names_its_protocol() {
    let mut wrong = Vec::new();
    for file in
        sources().iter().filter(|file| file.module.first().is_none_or(|first| first != "sh"))
    {
        for (number, line) in file.code_lines() {
            if line.to_ascii_lowercase().contains("diameter") {
                wrong.push(format!("{}:{number}", file.path.display()));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn the_clock_ban_is_in_force() {
    let bans = read(&root().join(".clippy.toml"));
    for method in ["std::time::Instant::now", "std::time::SystemTime::now"] {
        assert!(bans.contains(method), "{method} is not banned by .clippy.toml");
    }
    assert!(
        read(&root().join("src/engine/mod.rs")).contains("#![deny(clippy::disallowed_methods)]"),
        "the engine does not deny disallowed methods"
    );
}

#[test]
fn lints_are_not_silenced() {
    let mut wrong = Vec::new();
    for file in sources() {
        let text = &file.plain;
        for (at, _) in text.match_indices("allow(").filter(|(at, _)| text[..*at].ends_with('[')) {
            wrong.push(format!("{}:{}: allow(..)", file.path.display(), line_of(text, at)));
        }
        for (at, _) in text.match_indices("[expect(") {
            let end = text[at..].find(")]").map_or(text.len(), |end| at + end);
            if !text[at..end].contains("reason") {
                wrong.push(format!(
                    "{}:{}: expect(..) without a reason",
                    file.path.display(),
                    line_of(text, at)
                ));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn nothing_unwraps_what_a_peer_sent() {
    let mut wrong = Vec::new();
    for file in sources()
        .iter()
        .filter(|file| file.module.first().is_some_and(|m| NO_UNWRAP.contains(&m.as_str())))
    {
        for (number, line) in file.code_lines() {
            for word in [".unwrap()", "unreachable_unchecked", "unsafe "] {
                if names(line, word) {
                    wrong.push(format!("{}:{number}: {word}", file.path.display()));
                }
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn modules_open_with_a_map() {
    let wrong = rust_files("src")
        .into_iter()
        .filter(|path| !is_test_file(path) && !read(path).starts_with("//!"))
        .map(|path| format!("{}: does not begin with //!", path.display()))
        .collect();
    assert_none(wrong);
}

/// Ids, RFCs and clauses are written in one form, so that a script can list them.
#[test]
fn rules_are_cited_in_one_form() {
    let known: BTreeSet<String> = read(&root().join("tests/conformance/rules.tsv"))
        .lines()
        .skip(1)
        .filter_map(|line| Some(line.split_once('\t')?.0.to_owned()))
        .collect();
    assert!(known.len() > 400, "the list of rules was not found");
    let mut wrong = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        if path.ends_with("tests/architecture.rs") {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            // Only comments cite; in code the same letters may be part of a test's data.
            let Some(comment) = comment_of(line) else { continue };
            for fault in faults_of_citations(comment, &known) {
                wrong.push(format!("{}:{}: {fault}", path.display(), number + 1));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn the_check_of_citations_finds_what_it_should() {
    let known = BTreeSet::from(["IM-011".to_owned(), "IM-012".to_owned()]);
    for good in [
        "Proves IM-011, IM-012.",
        "IM-011…IM-012 (RFC 3261 §17.1.1).",
        "UTF-8, SHA-256, ISO-8859-1",
        "after RFC 3261 §16.7 step 6",
        "OMA SIMPLE IM 7.7.5.2",
    ] {
        assert_eq!(faults_of_citations(good, &known), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "IM-013",
        "IM-11",
        "IM 011",
        "IM011",
        "RFC3261",
        "rfc 3261",
        "RFC 3621",
        "RFC 3261 section 17",
    ] {
        assert_eq!(faults_of_citations(bad, &known).len(), 1, "{bad}");
    }
}

/// Words that belong on a developer's machine, not in the repository.
#[test]
fn nothing_unfinished_and_nothing_of_a_machine() {
    // In pieces, so that this file does not hold what it looks for.
    let anywhere = [
        ["/ho", "me/"],
        ["/ro", "ot/"],
        ["/wo", "rk/"],
        ["C:", "\\"],
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["dbg", "!("],
    ]
    .map(|pieces| pieces.concat());
    let mut wrong = Vec::new();
    for path in text_files() {
        for (number, line) in read(&path).lines().enumerate() {
            for word in anywhere.iter().filter(|word| names(line, word)) {
                wrong.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn tests_wait_for_things_not_for_time() {
    let mut wrong = Vec::new();
    let word = ["thread::", "sleep"].concat();
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        for (number, line) in read(&path).lines().enumerate() {
            if line.contains(&word) {
                wrong.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn the_top_level_stays_small() {
    let wrong = fs::read_dir(root())
        .expect("the repository is readable")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| {
            !name.starts_with('.')
                && !["target", "var", "mutants.out", "mutants.out.old"].contains(&name.as_str())
        })
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .map(|name| format!("{name} does not belong to the top level"))
        .collect();
    assert_none(wrong);
}

// --- reading the source --------------------------------------------------------------------------------------------------

/// One file of `src/`.
struct Source {
    path: PathBuf,
    /// `["sip", "ua"]` for `src/sip/ua/mod.rs`, empty for `lib.rs`.
    module: Vec<String>,
    /// Without comments and string contents, test modules included.
    plain: String,
    /// The same without test modules.
    code: String,
}

impl Source {
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Modules of ours the code names, as `(line, "sip::uri::Uri")`.
    fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (start, base) in [("crate::", 0), ("pagecast::", 0), ("super::", 1)] {
            for (at, _) in self.code.match_indices(start) {
                let before = self.code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let mut rest = &self.code[at + start.len()..];
                let mut up = base;
                while let Some(more) = rest.strip_prefix("super::") {
                    rest = more;
                    up += 1;
                }
                // One step up from a file is its parent module, whether the file is `x.rs` or `x/mod.rs`.
                let kept = if base == 0 { 0 } else { self.module.len().saturating_sub(up) };
                for path in paths_of(rest) {
                    let mut full = self.module[..kept].to_vec();
                    full.extend(path);
                    if !full.is_empty() {
                        found.push((line_of(&self.code, at), full.join("::")));
                    }
                }
            }
        }
        found
    }
}

/// The paths a `use` tree or an expression goes on with, three steps deep at most: `{a::b, c}` gives two.
fn paths_of(rest: &str) -> Vec<Vec<String>> {
    let rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 1;
        let mut start = 0;
        let mut found = Vec::new();
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if (depth == 1 && c == ',') || depth == 0 {
                found.extend(paths_of(&group[start..at]));
                start = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
        return found;
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() || name == "self" {
        return Vec::new();
    }
    let Some(more) = rest[name.len()..].strip_prefix("::") else {
        return vec![vec![name]];
    };
    let deeper = paths_of(more);
    if deeper.is_empty() {
        return vec![vec![name]];
    }
    deeper
        .into_iter()
        .map(|path| {
            let mut full = vec![name.clone()];
            full.extend(path);
            full
        })
        .collect()
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let source = |module: &[&str], text: &str| Source {
        path: PathBuf::new(),
        module: module.iter().map(|&m| m.to_owned()).collect(),
        plain: blank_comments_and_strings(text),
        code: without_tests(&blank_comments_and_strings(text)),
    };
    let text = r##"
use crate::sip::uri::Uri;
use crate::{content::{sdp, cpim::Cpim}, engine};
use super::super::flow::Flow; // crate::lab
fn f<'a>(c: char) { let _ = c == '"'; crate::msrp::go("crate::lab", r#"crate::lab "x" "#); }
#[cfg(test)]
mod tests { use crate::lab::Phone; fn g() { if true { } } }
fn h() { pagecast::node::run() }
"##;
    let found: Vec<String> =
        source(&["isc", "legs"], text).imports().into_iter().map(|(_, path)| path).collect();
    assert_eq!(
        found,
        [
            "sip::uri::Uri",
            "content::sdp",
            "content::cpim::Cpim",
            "engine",
            "msrp::go",
            "node::run",
            "flow::Flow"
        ]
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sources() -> Vec<Source> {
    rust_files("src")
        .into_iter()
        .filter(|path| !is_test_file(path))
        .map(|path| {
            let inside = path
                .strip_prefix(root().join("src"))
                .expect("it was found there")
                .with_extension("");
            let mut module: Vec<String> =
                inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if module.last().is_some_and(|last| last == "mod" || last == "lib") {
                module.pop();
            }
            let plain = blank_comments_and_strings(&read(&path));
            let code = without_tests(&plain);
            let path = path.strip_prefix(root()).expect("below the root").to_owned();
            Source { path, module, plain, code }
        })
        .collect()
}

/// Test code in a file of its own: `tests.rs`, `x_tests.rs`, `tests/..`, `testing.rs`.
fn is_test_file(path: &Path) -> bool {
    path.strip_prefix(root().join("src")).is_ok_and(|inside| {
        inside.with_extension("").iter().any(|part| {
            let part = part.to_string_lossy();
            part == "tests"
                || part == "testing"
                || part.ends_with("_tests")
                || part.ends_with("_test")
        })
    })
}

fn rust_files(top: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&root().join(top), &mut |path| {
        if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.to_owned());
        }
    });
    found
}

/// Every text file we wrote.
fn text_files() -> Vec<PathBuf> {
    const KINDS: &[&str] = &[
        "rs", "toml", "md", "py", "sh", "xml", "tsv", "html", "js", "css", "cfg", "service", "yml",
        "yaml", "txt", "",
    ];
    let mut found = Vec::new();
    for top in ["src", "tests", "integration", "config", "ims-profiles", ".ci", ".config"] {
        walk(&root().join(top), &mut |path| {
            let kind = path
                .extension()
                .map(|kind| kind.to_string_lossy().into_owned())
                .unwrap_or_default();
            if KINDS.contains(&kind.as_str()) && fs::read_to_string(path).is_ok() {
                found.push(path.to_owned());
            }
        });
    }
    for name in
        ["Cargo.toml", "README.md", "CHANGELOG.md", ".clippy.toml", ".deny.toml", ".gitignore"]
    {
        let path = root().join(name);
        if path.is_file() {
            found.push(path);
        }
    }
    found
}

fn walk(directory: &Path, found: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().expect("listed by name").to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "corpus", "artifacts", "__pycache__"].contains(&name.as_str()) {
                walk(&path, found);
            }
        } else {
            found(&path);
        }
    }
}

/// The longest entry of [`RULES`] a module falls under.
fn rule_of(module: &[String]) -> Option<(&'static str, &'static [&'static str])> {
    let full = module.join("::");
    RULES.iter().filter(|(own, _)| below(&full, own)).max_by_key(|(own, _)| own.len()).copied()
}

/// Whether a path is a module or lies in it.
fn below(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether a line has the word, and not as a part of a longer one.
fn names(line: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let joined_before = word.starts_with(in_word) && line[..at].ends_with(in_word);
        let joined_after = word.ends_with(in_word) && line[at + word.len()..].starts_with(in_word);
        !joined_before && !joined_after
    })
}

/// Whether a line has a path that begins with this crate; `std::time` does not begin with `time`.
fn roots(line: &str, name: &str) -> bool {
    !line.contains("std::{")
        && line.match_indices(&format!("{name}::")).any(|(at, _)| {
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
        })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The comment of a line, if the line is or ends with one.
fn comment_of(line: &str) -> Option<&str> {
    let at = line.find("//")?;
    // `http://` in a string or in code is no comment.
    (!line[..at].ends_with(':')).then(|| &line[at..])
}

fn faults_of_citations(comment: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, _) in comment.char_indices().filter(|(_, c)| c.is_ascii_uppercase()) {
        if comment[..at].ends_with(|c: char| {
            c.is_alphanumeric() || c == '-' || c == '_' || c == '.' || c == '/'
        }) {
            continue;
        }
        let letters: String = comment[at..].chars().take_while(char::is_ascii_uppercase).collect();
        if !["IM", "ISC", "UL", "MS", "XD", "SH"].contains(&letters.as_str()) {
            continue;
        }
        let rest = &comment[at + letters.len()..];
        let separator: String = rest.chars().take_while(|c| *c == '-' || *c == ' ').collect();
        let digits: String =
            rest[separator.len()..].chars().take_while(char::is_ascii_digit).collect();
        if digits.is_empty() {
            continue;
        }
        let id = format!("{letters}{separator}{digits}");
        // "SIMPLE IM 7.7.5.2" is a clause.
        let after = &rest[separator.len() + digits.len()..];
        let meant = separator.contains('-') || (digits.len() == 3 && !after.starts_with('.'));
        if meant && !known.contains(&id) {
            faults.push(format!("{id} is no rule, or not written as one"));
        }
    }
    let lower = comment.to_ascii_lowercase();
    for (at, _) in lower.match_indices("rfc") {
        if lower[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '/')
        {
            continue;
        }
        let rest = &comment[at + 3..];
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        if digits.len() < 4 {
            continue; // prose, or a name like `rfc` in backquotes
        }
        let number: u16 = digits.parse().unwrap_or(0);
        let after = rest.trim_start()[digits.len()..].trim_start();
        if !comment[at..].starts_with("RFC ") || !rest[1..].starts_with(&digits) {
            faults.push(format!("write RFC {digits}"));
        } else if !RFCS.contains(&number) {
            faults.push(format!(
                "RFC {digits}: if that is meant, add it to RFCS in tests/architecture.rs"
            ));
        } else if ["section", "sec.", "clause", "chapter"]
            .iter()
            .any(|word| after.to_lowercase().starts_with(word))
        {
            faults.push(format!("write RFC {digits} §.."));
        }
    }
    faults
}

/// Blanks comments and the contents of strings and character literals; lines stay where they are.
fn blank_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let keep_lines = |out: &mut String, piece: &str| {
        out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }))
    };
    while at < text.len() {
        let rest = &text[at..];
        let word_before = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            let mut depth = 0;
            let mut end = 0;
            while end < rest.len() {
                if rest[end..].starts_with("/*") {
                    depth += 1;
                    end += 2;
                } else if rest[end..].starts_with("*/") {
                    depth -= 1;
                    end += 2;
                    if depth == 0 {
                        break;
                    }
                } else {
                    end += rest[end..].chars().next().map_or(1, char::len_utf8);
                }
            }
            end
        } else if let Some(length) = (!word_before).then(|| raw_string(rest)).flatten() {
            length
        } else if bytes[at] == b'"' {
            let mut end = 1;
            while end < rest.len() && rest.as_bytes()[end] != b'"' {
                end += if rest.as_bytes()[end] == b'\\' { 2 } else { 1 };
            }
            (end + 1).min(rest.len())
        } else if bytes[at] == b'\'' {
            char_literal(rest).unwrap_or(0)
        } else {
            0
        };
        if length == 0 {
            let c = rest.chars().next().expect("not at the end");
            out.push(c);
            at += c.len_utf8();
        } else {
            let length =
                (length..=rest.len()).find(|&end| rest.is_char_boundary(end)).unwrap_or(rest.len());
            if rest.starts_with('/') {
                keep_lines(&mut out, &rest[..length]);
            } else {
                // Quotes stay, so that `#[expect(.., reason = "")]` still reads as one.
                out.push('"');
                keep_lines(&mut out, &rest[1..length - 1]);
                out.push('"');
            }
            at += length;
        }
    }
    out
}

/// The length of `r"…"`, `r#"…"#` or their byte forms at the start of a text.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close)?;
    Some(rest.len() - body.len() + end + close.len())
}

/// The length of a character literal at the start of a text; `None` for a lifetime.
fn char_literal(rest: &str) -> Option<usize> {
    let mut chars = rest[1..].char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        let from = 3;
        return rest.get(from..)?.find('\'').map(|end| from + end + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(1 + at + 1)
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(at) = out.find("#[cfg(test)]") {
        let mut depth = 0;
        let mut end = out.len();
        for (offset, c) in out[at..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        end = at + offset + 1;
                        break;
                    }
                }
                ';' if depth == 0 => {
                    end = at + offset + 1;
                    break;
                }
                _ => {}
            }
        }
        let blank: String =
            out[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(at..end, &blank);
    }
    out
}

#[track_caller]
fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}\n{} in all", wrong.join("\n"), wrong.len());
}

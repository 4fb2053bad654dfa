//! Random changes of random documents against what has to hold for each of them.

use pagecast::xdms::edit::{Edit, Refusal, apply};
use pagecast::xdms::groups::BOUNDS;
use pagecast::xdms::selector::{Bindings, End, Selected, Selector};
use proptest::prelude::*;
use roxmltree::{Document, Node};

const QUERY: &str = "xmlns(p=urn:p)xmlns(d=urn:d)";

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "p:a", "p:b"])
}

fn value() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1", "2", "", "/~~/", "a]b", "&amp;", "&lt;x", "it's", "\u{e9}"])
}

fn attribute() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["u", "v", "p:u"]);
    let shape = prop::sample::select(vec![" N=\"V\"", "\n N = \"V\"", "  N=\"V\""]);
    (name, value(), shape).prop_map(|(n, v, s)| s.replace('N', n).replace('V', v))
}

/// Elements with text, comments, sections, instructions and declarations between and in them.
fn element() -> impl Strategy<Value = String> {
    let leaf = (name(), prop::option::of(attribute()), any::<bool>()).prop_map(|(n, a, closed)| {
        let a = a.unwrap_or_default();
        if closed { format!("<{n}{a}/>") } else { format!("<{n}{a}></{n} >") }
    });
    leaf.prop_recursive(4, 40, 5, |inner| {
        let filler = prop::sample::select(vec![
            "",
            "\n  ",
            "<!-- <a/> -->",
            "<![CDATA[</a>]]>",
            "<?x </a>?>",
            "t&#65;",
            "]]&gt;",
        ]);
        let declared =
            prop::sample::select(vec!["", " xmlns='urn:other'", " xmlns:p='urn:p2'", " xmlns=''"]);
        let child = (filler, inner).prop_map(|(f, i)| format!("{f}{i}"));
        (name(), prop::option::of(attribute()), declared, prop::collection::vec(child, 0..5))
            .prop_map(|(n, a, d, c)| {
                format!("<{n}{d}{}>{}</{n}>", a.unwrap_or_default(), c.concat())
            })
    })
}

fn document() -> impl Strategy<Value = String> {
    element().prop_map(|inner| {
        format!("<?xml version='1.0'?>\n<!-- x --><a xmlns=\"urn:d\" xmlns:p='urn:p'>{inner}<b>{inner}</b> {inner}</a>\n")
    })
}

fn step() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "p:a", "p:b", "*", "d:a"]);
    let position = prop::option::of(0..5usize);
    let test = prop::option::of((prop::sample::select(vec!["u", "v", "p:u"]), value()));
    (name, position, test).prop_map(|(name, position, test)| {
        let position = position.map(|n| format!("[{n}]")).unwrap_or_default();
        let test = test.map(|(n, v)| format!("[@{n}=\"{v}\"]")).unwrap_or_default();
        format!("{name}{position}{test}")
    })
}

fn selector() -> impl Strategy<Value = String> {
    let end = prop::sample::select(vec!["", "", "", "/@u", "/@v", "/@p:u", "/@d:w"]);
    (prop::collection::vec(step(), 0..4), end).prop_map(|(steps, end)| {
        format!("a{}{end}", steps.iter().map(|s| format!("/{s}")).collect::<String>())
    })
}

/// The nodes of a document, without the text of the changed element and those above it.
fn comments(tree: &Document<'_>) -> usize {
    tree.descendants().filter(Node::is_comment).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Proves XD-004, XD-010, XD-044.
    #[test]
    fn a_change_is_what_it_says_or_none(
        document in document(),
        at in selector(),
        body in prop_oneof![element(), value().prop_map(str::to_owned), "[<>a&\"'/ ]{0,6}"],
        remove in any::<bool>(),
    ) {
        let Ok(before) = Document::parse(&document) else { return Ok(()) };
        let selector = Selector::parse(&at, &Bindings::parse(QUERY), Some("urn:d"));
        let selector = selector.expect("made of the grammar");
        let was = selector.select(&document, &before);
        let edit = if remove { Edit::Delete } else { Edit::Put(&body) };
        let order = |_: Node<'_, '_>, new: (Option<&str>, &str), there: (Option<&str>, &str)| new.1 < there.1;
        let edited = match apply(&document, &selector, edit, &order, &BOUNDS) {
            Ok(edited) => edited,
            Err(refusal) => {
                match refusal {
                    Refusal::NotFound => prop_assert!(remove && was.is_none()),
                    Refusal::CannotDelete => prop_assert!(remove && was.is_some()),
                    Refusal::NoParent { .. } | Refusal::CannotInsert => prop_assert!(!remove),
                    _ => {}
                }
                return Ok(());
            }
        };
        let after = Document::parse(&edited.text).expect("well-formed");
        let is = selector.select(&edited.text, &after);
        if remove {
            prop_assert_eq!(is, None);
            prop_assert!(was.is_some());
            return Ok(());
        }
        prop_assert_eq!(edited.created, was.is_none());
        match (is, &selector.end) {
            (Some(Selected::Element(read)), End::Element) => {
                prop_assert_eq!(read.as_str(), body.trim_matches([' ', '\t', '\r', '\n']));
                if edited.created {
                    let sent = edited.text.len() - document.len();
                    // An empty element that gets its first child is opened for it.
                    prop_assert!(sent >= read.len() && sent <= read.len() + 8, "{}", edited.text);
                    let wrapped = format!("<a xmlns:p='urn:p'>{read}</a>");
                    let own = Document::parse(&wrapped).map(|tree| comments(&tree)).unwrap_or_default();
                    prop_assert_eq!(comments(&after), comments(&before) + own);
                }
            }
            (Some(Selected::Attribute(read)), End::Attribute(..)) => {
                prop_assert!(read == body || read == body.replace('"', "&quot;"));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        // The same again is a replacement that changes nothing.
        let again = apply(&edited.text, &selector, edit, &order, &BOUNDS).expect("as before");
        prop_assert!(!again.created);
        prop_assert_eq!(again.text, edited.text);
    }
}

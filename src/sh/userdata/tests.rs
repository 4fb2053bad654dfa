use proptest::prelude::*;

use super::*;

const PULL: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Sh-Data><Sh-IMS-Data><SCSCFName>sip:scscf1.ims.example.net:5054</SCSCFName><IMSUserState>1</IMSUserState></Sh-IMS-Data></Sh-Data>";

const SETTINGS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Sh-Data>
  <RepositoryData>
    <ServiceIndication>oma-im-settings</ServiceIndication>
    <SequenceNumber>17</SequenceNumber>
    <ServiceData>
      <im-settings xmlns="urn:example:im-settings:1">
        <max-page-octets>2097152</max-page-octets>
      </im-settings>
    </ServiceData>
  </RepositoryData>
</Sh-Data>"#;

const NOTIFICATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Sh-Data>
  <RepositoryData>
    <ServiceIndication>oma-im-settings</ServiceIndication>
    <SequenceNumber>19</SequenceNumber>
  </RepositoryData>
  <Sh-IMS-Data>
    <SCSCFName></SCSCFName>
    <IMSUserState>0</IMSUserState>
  </Sh-IMS-Data>
  <Extension>
    <Extension>
      <DeletedIdentities>
        <IMSPublicIdentity>tel:+4917012345678</IMSPublicIdentity>
      </DeletedIdentities>
    </Extension>
  </Extension>
</Sh-Data>"#;

const ALIASES: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Sh-Data>
  <Extension>
    <ImplicitIdentities>
      <IMSPublicIdentity>sip:alice@ims.example.net</IMSPublicIdentity>
      <IMSPublicIdentity>sip:+491701234567@ims.example.net;user=phone</IMSPublicIdentity>
      <IMSPublicIdentity>tel:+491701234567</IMSPublicIdentity>
      <Extension><IdentityType>0</IdentityType></Extension>
    </ImplicitIdentities>
    <AliasIdentities>
      <IMSPublicIdentity>sip:alice@ims.example.net</IMSPublicIdentity>
      <IMSPublicIdentity>tel:+491701234567</IMSPublicIdentity>
      <Extension><IdentityType>0</IdentityType></Extension>
    </AliasIdentities>
  </Extension>
</Sh-Data>"#;

fn parse(text: &str) -> ShData {
    ShData::parse(text.as_bytes()).expect("a good document")
}

/// Proves SH-035, SH-037.
#[test]
fn a_pull_is_read_and_written_octet_for_octet() {
    let data = parse(PULL);
    assert_eq!(data.scscf, Presence::Present("sip:scscf1.ims.example.net:5054".to_owned()));
    assert_eq!(data.state, Some(UserState::Registered));
    assert_eq!(PULL.len(), 168);
    assert_eq!(data.write(), PULL);
}

/// Proves SH-038.
#[test]
fn a_slot_has_its_content_byte_for_byte() {
    let data = parse(SETTINGS);
    let [slot] = &data.repository[..] else { panic!("one slot") };
    assert_eq!((slot.service_indication.as_str(), slot.sequence), ("oma-im-settings", 17));
    let content = slot.data.value().expect("content");
    assert!(content.starts_with("<im-settings xmlns=") && content.ends_with("</im-settings>"));
    assert_eq!(parse(&data.write()), data);
    assert!(!format!("{data:?}").contains("2097152"), "SH-056");
}

/// Proves SH-038, SH-046.
#[test]
fn absent_empty_and_deleted_are_three_things() {
    let data = parse(NOTIFICATION);
    assert_eq!(data.repository[0].data, Presence::Absent);
    assert_eq!(data.scscf, Presence::Empty);
    assert_eq!(data.state, Some(UserState::NotRegistered));
    assert_eq!(data.filter_criteria, Presence::Absent);
    let [gone] = &data.identities[..] else { panic!("one block") };
    assert_eq!(gone.set, Set::Deleted);
    assert_eq!(gone.uris, ["tel:+4917012345678"]);

    let slot = |data: &str| {
        let slot = format!(
            "<Sh-Data><RepositoryData><ServiceIndication>s</ServiceIndication>\
             <SequenceNumber>1</SequenceNumber>{data}</RepositoryData></Sh-Data>"
        );
        parse(&slot).repository.remove(0).data
    };
    let cases: &[(&str, Presence<String>)] = &[
        ("", Presence::Absent),
        ("<ServiceData/>", Presence::Empty),
        ("<ServiceData></ServiceData>", Presence::Empty),
        ("<ServiceData> \n </ServiceData>", Presence::Empty),
        ("<ServiceData> <a/> </ServiceData>", Presence::Present("<a/>".to_owned())),
        ("<ServiceData><ServiceData/></ServiceData>", Presence::Present("<ServiceData/>".into())),
        ("<ServiceData>plain</ServiceData>", Presence::Present("plain".to_owned())),
    ];
    for (written, presence) in cases {
        assert_eq!(slot(written), *presence, "{written}");
    }
    let nothing = parse("<Sh-Data><Sh-IMS-Data><IFCs/></Sh-IMS-Data></Sh-Data>");
    assert_eq!(nothing.filter_criteria, Presence::Empty);
    assert_eq!(nothing.scscf, Presence::Absent);
    let none = parse("<Sh-Data><PublicIdentifiers/></Sh-Data>");
    assert_eq!(none.identities, [Identities::default()]);
}

#[test]
fn content_of_a_slot_keeps_the_prefixes_it_was_written_with() {
    let xml = "<Sh-Data xmlns:x='urn:x' xmlns:y='urn:y&amp;'><RepositoryData>\
        <ServiceIndication>s</ServiceIndication><SequenceNumber>1</SequenceNumber>\
        <ServiceData><x:a b = '>' xmlns:y = \"urn:z\"><y:c/></x:a></ServiceData>\
        </RepositoryData></Sh-Data>";
    let data = parse(xml).repository.remove(0).data;
    let content = data.value().expect("content");
    let alone = roxmltree::Document::parse(content).expect("it stands alone");
    assert!(alone.root_element().has_tag_name(("urn:x", "a")));
    assert!(alone.root_element().first_child().expect("c").has_tag_name(("urn:z", "c")));
}

/// Proves SH-035, SH-036.
#[test]
fn identities_are_found_under_every_name_and_place() {
    let data = parse(ALIASES);
    let sets: Vec<_> = data.identities.iter().map(|block| (block.set, block.uris.len())).collect();
    assert_eq!(sets, [(Set::Implicit, 3), (Set::Alias, 2)]);
    assert!(data.identities.iter().all(|block| block.kind == Some(IdentityType::User)));
    let old = parse(
        "<Sh-Data><Unknown><PublicIdentifiers/></Unknown><PublicIdentifiers>\
         <MSISDN>491701234567</MSISDN><IMSPublicIdentity> sip:a@b </IMSPublicIdentity>\
         <Extention><WildcardedPSI>sip:x!.*!@b</WildcardedPSI><Extension><WildcardedIMPU>sip:y!.*!@b</WildcardedIMPU>\
         </Extension></Extention></PublicIdentifiers></Sh-Data>",
    );
    let [block] = &old.identities[..] else { panic!("one block") };
    assert_eq!(block.set, Set::Unsaid);
    assert_eq!((block.uris[0].as_str(), block.msisdns[0].as_str()), ("sip:a@b", "491701234567"));
    assert_eq!(block.wildcarded_psi.as_deref(), Some("sip:x!.*!@b"));
    assert_eq!(block.wildcarded_impu.as_deref(), Some("sip:y!.*!@b"));
    for spelling in ["RegisteredIdentites", "RegisteredIdentities"] {
        for extension in ["Extension", "Extention"] {
            let xml = format!("<Sh-Data><{extension}><{spelling}/></{extension}></Sh-Data>");
            assert_eq!(parse(&xml).identities[0].set, Set::Registered, "{xml}");
        }
    }
    for spelling in ["SCSCFName", "S-CSCFName"] {
        let xml = format!(
            "<Sh-Data><Sh-IMS-Data><IMSUserState>3</IMSUserState><{spelling}>sip:s</{spelling}>\
             </Sh-IMS-Data></Sh-Data>"
        );
        let data = parse(&xml);
        assert_eq!(data.scscf.value().map(String::as_str), Some("sip:s"), "{spelling}");
        assert_eq!(data.state, Some(UserState::AuthenticationPending));
    }
}

/// Proves SH-037.
#[test]
fn enumerations_are_integers_and_one_is_reversed() {
    let ims = |inside: &str| {
        let xml = format!("<Sh-Data><Sh-IMS-Data>{inside}</Sh-IMS-Data></Sh-Data>");
        ShData::parse(xml.as_bytes())
    };
    for (number, state) in [
        (0, UserState::NotRegistered),
        (1, UserState::Registered),
        (2, UserState::Unregistered),
        (3, UserState::AuthenticationPending),
    ] {
        let data = ims(&format!("<IMSUserState>{number}</IMSUserState>")).expect("good");
        assert_eq!(data.state, Some(state));
    }
    for (number, active) in [(0, true), (1, false)] {
        let xml = format!(
            "<Extension><Extension><DSAI><DSAI-Tag>t</DSAI-Tag><DSAI-Value>{number}</DSAI-Value>\
             </DSAI></Extension></Extension>"
        );
        assert_eq!(ims(&xml).expect("good").dsai, [("t".to_owned(), active)]);
        let xml = format!("<Extension><PSIActivation>{number}</PSIActivation></Extension>");
        assert_eq!(ims(&xml).expect("good").psi_active, Some(!active));
    }
    for bad in [
        "<IMSUserState>4</IMSUserState>",
        "<IMSUserState>REGISTERED</IMSUserState>",
        "<IMSUserState/>",
        "<Extension><PSIActivation>2</PSIActivation></Extension>",
        "<Extension><DSAI><DSAI-Tag>t</DSAI-Tag></DSAI></Extension>",
    ] {
        assert!(ims(bad).is_err(), "{bad}");
    }
}

/// Proves SH-035.
#[test]
fn hostile_documents_are_refused() {
    let deep = format!("{}{}", "<Sh-Data>".repeat(33), "</Sh-Data>".repeat(33));
    let big = format!("<Sh-Data><a>{}</a></Sh-Data>", "x".repeat(MAX_OCTETS));
    let cases: &[(&str, Option<BadData>)] = &[
        ("<!DOCTYPE a SYSTEM 'http://192.0.2.1/'><Sh-Data/>", None),
        ("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><Sh-Data>&x;</Sh-Data>", None),
        ("<Sh-Data>&lol;</Sh-Data>", None),
        ("<Other/>", None),
        ("<Sh-Data>", None),
        ("", None),
        (&deep, Some(BadData::Malformed("nested too deeply"))),
        (&big, Some(BadData::TooLarge)),
        (
            "<Sh-Data><RepositoryData><ServiceIndication>s</ServiceIndication></RepositoryData></Sh-Data>",
            None,
        ),
        (
            "<Sh-Data><RepositoryData><SequenceNumber>1</SequenceNumber></RepositoryData></Sh-Data>",
            None,
        ),
        (
            "<Sh-Data><RepositoryData><ServiceIndication>s</ServiceIndication>\
             <SequenceNumber>65536</SequenceNumber></RepositoryData></Sh-Data>",
            None,
        ),
    ];
    for (xml, wanted) in cases {
        let found = ShData::parse(xml.as_bytes()).expect_err(&xml[..xml.len().min(60)]);
        assert!(wanted.is_none_or(|wanted| wanted == found), "{found}");
    }
    assert_eq!(ShData::parse(b"\xff\xff").ok(), None);
}

/// Proves SH-040.
#[test]
fn a_deletion_has_no_service_data() {
    let slot = Repository {
        service_indication: "oma-im-settings".to_owned(),
        sequence: 18,
        data: Presence::Absent,
    };
    let written = ShData { repository: vec![slot], ..ShData::default() }.write();
    assert_eq!(
        written,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Sh-Data><RepositoryData>\
         <ServiceIndication>oma-im-settings</ServiceIndication><SequenceNumber>18</SequenceNumber>\
         </RepositoryData></Sh-Data>"
    );
}

fn any_text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9:@.;=&<>\"'+-]{1,24}"
}

fn any_identities() -> impl Strategy<Value = Identities> {
    let set = prop::sample::select(vec![
        Set::Unsaid,
        Set::Registered,
        Set::Implicit,
        Set::All,
        Set::Alias,
        Set::Deleted,
    ]);
    let kind = prop::option::of(prop::sample::select(IdentityType::ALL.to_vec()));
    let texts = || prop::collection::vec(any_text(), 0..3);
    let wild = || prop::option::of(any_text());
    (set, texts(), texts(), kind, wild(), wild()).prop_map(
        |(set, uris, msisdns, kind, wildcarded_psi, wildcarded_impu)| Identities {
            set,
            uris,
            msisdns,
            kind,
            wildcarded_psi,
            wildcarded_impu,
        },
    )
}

fn any_presence(value: impl Strategy<Value = String>) -> impl Strategy<Value = Presence<String>> {
    prop_oneof![Just(Presence::Absent), Just(Presence::Empty), value.prop_map(Presence::Present)]
}

proptest! {
    /// Proves SH-035, SH-038.
    #[test]
    fn what_is_written_is_read_back(
        identities in prop::collection::vec(any_identities(), 0..4),
        slots in prop::collection::vec((any_text(), any::<u16>(), any_presence(Just("<a xmlns=\"u\">&lt;</a>".to_owned()))), 0..3),
        scscf in any_presence(any_text()),
        state in prop::option::of(prop::sample::select(UserState::ALL.to_vec())),
        psi_active in prop::option::of(any::<bool>()),
        dsai in prop::collection::vec((any_text(), any::<bool>()), 0..3),
        charging in prop::option::of((prop::option::of(any_text()), prop::option::of(any_text()))),
    ) {
        let mut identities = identities;
        let order = |block: &Identities| block.set as u8;
        identities.sort_by_key(order);
        let data = ShData {
            identities,
            repository: slots
                .into_iter()
                .map(|(service_indication, sequence, data)| Repository { service_indication, sequence, data })
                .collect(),
            scscf,
            filter_criteria: Presence::Absent,
            state,
            charging: charging.map(|(primary_event, secondary_collection)| Charging {
                primary_event,
                secondary_collection,
                ..Charging::default()
            }),
            psi_active,
            dsai,
        };
        prop_assert_eq!(ShData::parse(data.write().as_bytes()), Ok(data));
    }

    #[test]
    fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..400) {
        let _ = ShData::parse(&octets);
        let whole = ALIASES.as_bytes();
        let mut cut_up = whole[..cut.min(whole.len())].to_vec();
        cut_up.extend(&octets);
        let _ = ShData::parse(&cut_up);
    }
}

use super::*;
use crate::sh::userdata::{Repository, ShData};

/// A slot as an HSS keeps it.
#[derive(Clone, Default)]
struct Stored(Arc<Mutex<Option<(u16, String)>>>);

impl Stored {
    fn new(sequence: u16, xml: &str) -> Self {
        Self(Arc::new(Mutex::new(Some((sequence, xml.to_owned())))))
    }

    fn now(&self) -> Option<(u16, String)> {
        self.0.lock().expect("no panic").clone()
    }

    fn serves(&self, asked: &Asked) -> Reply {
        let mut stored = self.0.lock().expect("no panic");
        match asked.code() {
            command::PROFILE_UPDATE => {
                let document = asked.document().expect("a document");
                let Repository { sequence, data, .. } =
                    ShData::parse(document.as_bytes()).expect("ours").repository.remove(0);
                // SH-040: what an HSS accepts (3GPP TS 29.328 §6.1.2.1).
                let fits = match &*stored {
                    None => sequence == 0,
                    Some((known, _)) => {
                        sequence != 0 && u32::from(sequence - 1) == u32::from(*known) % 65_535
                    }
                };
                if !fits {
                    return refused(asked, 5105);
                }
                *stored = data.value().map(|xml| (sequence, xml.clone()));
                base(asked, 2001)
            }
            _ => match &*stored {
                Some((sequence, xml)) => {
                    let data = format!("<ServiceData>{xml}</ServiceData>");
                    good(asked, &slot(u32::from(*sequence), &data), vec![])
                }
                None => good(asked, "", vec![]),
            },
        }
    }
}

async fn put(world: &World, xml: Option<&str>) -> Result<(), NotWritten> {
    let xml = xml.map(str::to_owned);
    world.client.update(&user("alice"), "oma-im-settings", move |_| xml.clone()).await
}

fn writes(world: &World) -> Vec<String> {
    let asked = world.asked();
    asked
        .iter()
        .filter(|asked| asked.code() == command::PROFILE_UPDATE)
        .filter_map(Asked::document)
        .collect()
}

/// Proves SH-040, SH-042.
#[tokio::test(start_paused = true)]
async fn a_slot_is_made_changed_and_deleted() {
    let stored = Stored::default();
    let hss = stored.clone();
    let world = World::new(move |asked| hss.serves(asked));
    assert_eq!(put(&world, Some("<a/>")).await, Ok(()));
    assert_eq!(stored.now(), Some((0, "<a/>".to_owned())));
    assert_eq!(put(&world, Some("<b/>")).await, Ok(()));
    assert_eq!(stored.now(), Some((1, "<b/>".to_owned())));
    world.asked();
    // What was sent is known.
    let known = world.client.service_settings(&user("alice")).await.data().expect("settings");
    assert_eq!((known.sequence, known.xml.as_deref()), (1, Some("<b/>")));
    assert_eq!(world.asked().len(), 0);
    assert_eq!(put(&world, Some("<b/>")).await, Ok(()), "nothing to change");
    assert!(writes(&world).is_empty());
    assert_eq!(put(&world, None).await, Ok(()));
    let [delete] = &writes(&world)[..] else { panic!("one write") };
    assert!(
        delete.contains("<SequenceNumber>2</SequenceNumber>") && !delete.contains("ServiceData")
    );
    assert_eq!(stored.now(), None);
    assert_eq!(put(&world, None).await, Ok(()));
    assert!(writes(&world).is_empty());
    *stored.0.lock().expect("no panic") = Some((65_535, "<z/>".to_owned()));
    assert_eq!(put(&world, Some("<a/>")).await, Ok(()));
    assert_eq!(stored.now(), Some((1, "<a/>".to_owned())));
}

/// Proves SH-041.
#[tokio::test(start_paused = true)]
async fn two_writers_lose_nothing() {
    let stored = Stored::new(5, "<s>0</s>");
    let hss = stored.clone();
    let mut between = Some(());
    let other = stored.clone();
    let world = World::new(move |asked| {
        // Another server writes between our reading and our writing.
        if asked.code() == command::PROFILE_UPDATE && between.take().is_some() {
            *other.0.lock().expect("no panic") = Some((6, "<s>10</s>".to_owned()));
        }
        hss.serves(asked)
    });
    let add = |xml: Option<&str>| {
        let number: u32 = xml?.trim_start_matches("<s>").trim_end_matches("</s>").parse().ok()?;
        Some(format!("<s>{}</s>", number + 1))
    };
    let (client, also) = (Arc::clone(&world.client), Arc::clone(&world.client));
    let one =
        tokio::spawn(async move { client.update(&user("alice"), "oma-im-settings", add).await });
    let two =
        tokio::spawn(async move { also.update(&user("alice"), "oma-im-settings", add).await });
    assert_eq!(one.await.expect("no panic"), Ok(()));
    assert_eq!(two.await.expect("no panic"), Ok(()));
    assert_eq!(stored.now(), Some((8, "<s>12</s>".to_owned())));
}

/// Proves SH-041.
#[tokio::test(start_paused = true)]
async fn rounds_and_waits_have_an_end() {
    let world = World::new(|asked| match asked.code() {
        command::PROFILE_UPDATE => refused(asked, 5105),
        _ => good(asked, &settings_slot(1, "a"), vec![]),
    });
    assert_eq!(put(&world, Some("<b/>")).await, Err(NotWritten::Contended));
    assert_eq!(writes(&world).len(), 3);
    let begin = tokio::time::Instant::now();
    let world = World::new(|asked| match asked.code() {
        command::PROFILE_UPDATE => refused(asked, 4101),
        _ => good(asked, &settings_slot(1, "a"), vec![]),
    });
    assert_eq!(put(&world, Some("<b/>")).await, Err(NotWritten::Contended));
    assert_eq!(writes(&world).len(), 4);
    assert_eq!(begin.elapsed().as_secs(), 3);
    for (code, error) in [
        (5008, NotWritten::TooMuch),
        (5101, NotWritten::Refused),
        (5103, NotWritten::Refused),
        (5001, NotWritten::UnknownUser),
    ] {
        let world = World::new(move |asked| match asked.code() {
            command::PROFILE_UPDATE => refused(asked, code),
            _ => good(asked, &settings_slot(1, "a"), vec![]),
        });
        assert_eq!(put(&world, Some("<b/>")).await, Err(error), "{code}");
    }
}

/// Proves SH-042, SH-028.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_looked_up() {
    for (loses, repeats) in [(true, false), (false, true)] {
        let stored = Stored::new(5, "<s>0</s>");
        let hss = stored.clone();
        let mut first = Some(());
        let world = World::new(move |asked| {
            if asked.code() == command::PROFILE_UPDATE && first.take().is_some() {
                let done = hss.serves(asked);
                if loses {
                    return silent();
                }
                // A copy of it came over another link.
                return if repeats { hss.serves(asked) } else { done };
            }
            hss.serves(asked)
        });
        assert_eq!(put(&world, Some("<s>1</s>")).await, Ok(()));
        assert_eq!(stored.now(), Some((6, "<s>1</s>".to_owned())));
        let expected = if loses { 2 } else { 1 };
        assert!(writes(&world).len() <= expected, "not written again");
    }
    // Nobody took it, nobody answers.
    let world = World::new(|asked| match asked.code() {
        command::PROFILE_UPDATE => down(),
        _ => good(asked, &settings_slot(1, "a"), vec![]),
    });
    assert_eq!(put(&world, Some("<b/>")).await, Err(NotWritten::Contended));
    let world = World::new(|_| down());
    assert_eq!(put(&world, Some("<b/>")).await, Err(NotWritten::Unavailable));
}

//! Service settings that users keep at the HSS: what the repository has comes before what the XDMS has.
//!
//! Start at [`Slots`]. Where the HSS has none, or cannot say, the XDMS is asked as ever (section 11 of the rules).

use std::sync::Arc;

use bytes::Bytes;

use crate::sh::client::{Answer, Client, Subject};
use crate::xdms::path::{DocumentPath, SERVICE_SETTINGS, SERVICE_SETTINGS_TYPE, Tree};
use crate::xdms::resolver::{Copies, Fetching, Health, Source};
use crate::xdms::store::{Document, Store};
use crate::xdms::ut::http::Heard;
use crate::xdms::ut::url::Url;

/// Documents of the XDMS, with those settings in front.
pub struct Slots {
    pub documents: Arc<dyn Source>,
    pub client: Arc<Client>,
}

impl Source for Slots {
    fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
        let user = match &path.tree {
            Tree::User(user) if path.auid == SERVICE_SETTINGS => Subject::user(user),
            _ => None,
        };
        let Some(user) = user else { return self.documents.fetch(path) };
        Box::pin(async move {
            let Answer::Data(slot) = self.client.service_settings(&user).await else {
                return self.documents.fetch(path).await;
            };
            let Some(xml) = &slot.xml else { return Ok(None) };
            Ok(Some(Arc::new(Document {
                path: path.clone(),
                etag: format!("\"{}\"", slot.sequence),
                content_type: SERVICE_SETTINGS_TYPE,
                bytes: Bytes::copy_from_slice(xml.as_bytes()),
                group: None,
            })))
        })
    }

    fn elsewhere<'a>(&'a self, url: &'a Url) -> Option<Fetching<'a>> {
        self.documents.elsewhere(url)
    }

    fn health(&self) -> Health {
        self.documents.health()
    }

    fn hears(&self, heard: Heard) {
        self.documents.hears(heard);
    }

    fn store(&self) -> Option<&Store> {
        self.documents.store()
    }

    fn copies(&self) -> Option<&dyn Copies> {
        self.documents.copies()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sh::client::{Asking, House, Hss, Kept, Moment, Settings};
    use crate::sh::codec::{Avp, Message};
    use crate::sh::dictionary::{self as d, APPLICATION_SH};
    use crate::sh::routing::Request;

    /// Alice has a slot, nobody else has.
    struct Repository;

    impl Hss for Repository {
        fn ask(&self, request: Request) -> Asking {
            let group = request.avps.iter().find(|avp| avp.is(&d::USER_IDENTITY));
            let identity = group.and_then(|avp| avp.as_group().ok()).expect("a group");
            let is_alice = identity[0].as_text() == Ok("sip:alice@ims.test");
            let mut avps = vec![Avp::u32(&d::RESULT_CODE, 2001)];
            if is_alice {
                let document = "<Sh-Data><RepositoryData><ServiceIndication>im</ServiceIndication>\
                    <SequenceNumber>7</SequenceNumber><ServiceData><a xmlns=\"u\"/></ServiceData>\
                    </RepositoryData></Sh-Data>";
                avps.push(Avp::octets(&d::USER_DATA, document));
            }
            let answer = Message::request(request.code, APPLICATION_SH, avps);
            Box::pin(std::future::ready(Ok(answer)))
        }
    }

    struct Nowhere;

    impl House for Nowhere {
        fn moment(&self) -> Moment {
            let now: Instant = tokio::time::Instant::now().into_std();
            Moment { now, unix_ms: 1_000_000_000_000 }
        }

        fn keep(&self, _: String, _: Option<Kept>) {}

        fn answered(&self, _: &'static str, _: &'static str) {}
    }

    /// An XDMS that has every document.
    struct Everything;

    impl Source for Everything {
        fn fetch<'a>(&'a self, path: &'a DocumentPath) -> Fetching<'a> {
            let document = Document {
                path: path.clone(),
                etag: "\"x\"".to_owned(),
                content_type: SERVICE_SETTINGS_TYPE,
                bytes: Bytes::from_static(b"<x/>"),
                group: None,
            };
            Box::pin(std::future::ready(Ok(Some(Arc::new(document)))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn settings_at_the_hss_come_before_those_of_the_xdms() {
        let settings = Settings {
            origin_host: "as1.ims.test".to_owned(),
            origin_realm: "ims.test".to_owned(),
            cache_ttl: std::time::Duration::from_secs(300),
            subscription_time: std::time::Duration::from_secs(3600),
            max_subscriptions: 10,
            binding_ttl: std::time::Duration::from_secs(3600),
            service_indication: "im".into(),
        };
        let client = Client::new(settings, Arc::new(Repository), Box::new(Nowhere), 1);
        let slots = Slots { documents: Arc::new(Everything), client };
        let of = async |path: DocumentPath| {
            slots.fetch(&path).await.expect("available").expect("a document").bytes.clone()
        };
        let alice = of(DocumentPath::service_settings("sip:alice@ims.test")).await;
        assert_eq!(&alice[..], b"<a xmlns=\"u\"/>");
        assert_eq!(&of(DocumentPath::service_settings("sip:bob@ims.test")).await[..], b"<x/>");
        assert_eq!(&of(DocumentPath::access_rules("sip:alice@ims.test")).await[..], b"<x/>");
    }
}

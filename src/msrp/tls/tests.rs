//! Certificates that come and go, and what a certificate proves.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

fn certified(params: &CertificateParams) -> Arc<CertifiedKey> {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    own(&certificate, &key)
}

fn own(certificate: &rcgen::Certificate, key: &KeyPair) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![certificate.der().clone()];
    Arc::new(CertifiedKey::from_der(chain, key, &provider()).expect("they belong together"))
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).expect("a name")
}

fn material(own: Option<Arc<CertifiedKey>>) -> Material {
    Material { files: Files::default(), own, roots: None, print: [0; 32] }
}

fn print(own: &CertifiedKey) -> String {
    fingerprint(own).expect("a certificate")
}

/// Proves MS-112: whoever was told of a certificate finds it, and everybody else finds one he was told of.
#[test]
fn an_old_certificate_is_shown_until_all_who_wait_for_it_have_come() {
    let [old, new] = [1, 2].map(|_| certified(&params("as1.ims.test")));
    let tls = Tls::new(material(Some(Arc::clone(&old))), "as1.ims.test").expect("made");
    let early = tls.announce();
    assert_eq!(early.fingerprints, [print(&old)]);
    tls.replace(&material(Some(Arc::clone(&new))));
    let between = tls.announce();
    assert_eq!(between.fingerprints, [print(&old), print(&new)], "both may be shown");
    let first = tls.generation();
    drop(early);
    assert_ne!(tls.generation(), first, "nobody waits for the old one");
    assert_eq!(tls.announce().fingerprints, [print(&new)]);
    let second = tls.generation();
    tls.replace(&material(Some(Arc::clone(&new))));
    assert_eq!(tls.generation(), second, "the same file again changes nothing");
    tls.replace(&material(Some(Arc::clone(&old))));
    assert_eq!(tls.generation(), second, "somebody was told of both, and of none after them");
    drop(between);
    assert_ne!(tls.generation(), second);
}

#[test]
fn certificates_that_wait_are_bounded() {
    let tls = Tls::new(material(None), "as1.ims.test").expect("made");
    let mut held = Vec::new();
    for _ in 0..3 * MOST_GENERATIONS {
        held.push(tls.announce());
        tls.replace(&material(Some(certified(&params("as1.ims.test")))));
    }
    assert_eq!(tls.announce().fingerprints.len(), MOST_GENERATIONS);
}

#[test]
fn one_made_at_start_stays_until_a_file_names_another() {
    let tls = Tls::new(material(None), "192.0.2.1").expect("made for an address, too");
    let made = tls.announce().fingerprints;
    tls.replace(&material(None));
    assert_eq!(tls.announce().fingerprints, made);
}

/// Proves MS-112: both modes, as the client shows itself.
#[test]
fn a_certificate_proves_what_it_should() {
    let expired = {
        let mut params = params("bob.ims.test");
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        certified(&params)
    };
    let shown = |own: &CertifiedKey| Shown::of(Some(&own.cert)).expect("a certificate");
    let of =
        |own: &CertifiedKey| Proof::Fingerprint(vec![Fingerprint::of(Hash::Sha512, &own.cert[0])]);
    let other = certified(&params("bob.ims.test"));
    assert!(shown(&expired).satisfies(&of(&expired), None), "only the hash counts");
    assert!(!shown(&expired).satisfies(&of(&other), None));

    let mut authority = params("ca.ims.test");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("a CA");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    let roots = Some(Arc::new(roots));
    let key = KeyPair::generate().expect("a key");
    let signed = own(&params("bob.ims.test").signed_by(&key, &authority).expect("signed"), &key);
    let named = |host: &str| Proof::Name(host.to_owned());
    assert!(shown(&signed).satisfies(&named("bob.ims.test"), roots.clone()));
    assert!(!shown(&signed).satisfies(&named("carol.ims.test"), roots.clone()), "another host");
    assert!(!shown(&other).satisfies(&named("bob.ims.test"), roots.clone()), "nobody signed it");
    assert!(!shown(&expired).satisfies(&named("bob.ims.test"), roots), "and its time is over");
    assert!(!shown(&signed).satisfies(&named("bob.ims.test"), None), "nobody may sign");
    assert!(Shown::of(None).is_none() && Shown::of(Some(&[])).is_none());
}

//! Any octets as user data of the HSS, and as the service settings that lie in it: what is read is written so that it
//! reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagecast::content::service_settings::ServiceSettings;
use pagecast::sh::userdata::{MAX_OCTETS, Presence, ShData};

fuzz_target!(|data: &[u8]| {
    let _ = ServiceSettings::parse(data).map(|settings| settings.is_reachable());
    let Ok(read) = ShData::parse(data) else { return };
    assert!(data.len() <= MAX_OCTETS);
    for slot in &read.repository {
        if let Presence::Present(inner) = &slot.data {
            let _ = ServiceSettings::parse(inner.as_bytes());
        }
    }
    let written = read.write();
    let Ok(again) = ShData::parse(written.as_bytes()) else {
        // What is written in full may be longer than what was read.
        assert!(written.len() > MAX_OCTETS, "{written}");
        return;
    };
    assert_eq!(again.write(), written);
});

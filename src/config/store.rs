//! `[store]`: where state is kept, and how much may wait for it.

use super::layer::{ConfigError, Origin, Raw, Reader};
use super::value::{Size, Value};
use crate::store::{Address, Bounds};

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// In `node.data_dir`.
    Embedded,
    /// Nothing survives; for tests.
    Memory,
    /// In a database that others may share.
    Postgres(Box<Address>),
}

impl Value for Store {
    fn read(raw: &Raw, origin: &Origin) -> Result<Self, String> {
        let Raw::Text(text) = raw else { return Err(format!("{} is no text", raw.describe())) };
        match text.as_str() {
            "embedded:" => Ok(Self::Embedded),
            "memory:" => Ok(Self::Memory),
            url if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                let address = Address::parse(url, origin.folder());
                address.map(Box::new).map(Self::Postgres).map_err(|bad| bad.to_string())
            }
            other => {
                // The address may hold a password: only its scheme is repeated.
                let scheme = other.split(':').next().unwrap_or_default();
                Err(format!("a store {scheme:?} is not supported by this version"))
            }
        }
    }

    fn right() -> String {
        "write \"embedded:\", \"memory:\" or \"postgres://user@host/name\"".into()
    }

    fn show(&self) -> String {
        match self {
            Self::Embedded => "\"embedded:\"".into(),
            Self::Memory => "\"memory:\"".into(),
            Self::Postgres(address) => format!("\"{address}\""),
        }
    }
}

/// Takes the section.
pub fn read(r: &mut Reader) -> Result<(Store, Bounds), ConfigError> {
    let store = r.take("store.url", Store::Embedded)?;
    let usual = Bounds::default();
    let batches = r.take_within("store.max_waiting", 10_000u32, 1, 10_000_000)?;
    let (least, most) = (Size::mib(1), Size(1 << 40));
    let octets = r.take_within("store.max_waiting_size", Size::mib(64), least, most)?;
    let batches = usize::try_from(batches).unwrap_or(usize::MAX);
    Ok((store, Bounds { batches, octets: octets.as_usize(), ..usual }))
}

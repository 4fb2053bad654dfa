//! The forms a setting can have: switches, numbers, sizes, durations, rates, addresses, paths, choices.
//!
//! Each says what would be right when it is wrong, and how `check` shows it. Start at [`Value`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::layer::{Origin, Raw, resolve};
use crate::engine::policy::DeferCause;
use crate::sip::Protocol;
use crate::sip::transport::tls::Names;

/// A form of setting.
pub trait Value: Sized {
    /// Reads the value, or says what is wrong with it.
    ///
    /// # Errors
    /// The text of an error message without the key.
    fn read(raw: &Raw, origin: &Origin) -> Result<Self, String>;

    /// What would be right, in the imperative.
    fn right() -> String;

    /// The value as TOML would write it.
    fn show(&self) -> String;
}

impl Value for bool {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        match raw {
            Raw::Switch(on) => Ok(*on),
            other => Err(format!("{} is no switch", other.describe())),
        }
    }

    fn right() -> String {
        "write true or false".into()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if !text.contains(['\r', '\n', '\0']) => Ok(text.clone()),
            Raw::Text(_) => Err("holds a line break".into()),
            other => Err(format!("{} is no text", other.describe())),
        }
    }

    fn right() -> String {
        "write one line of text in quotes".into()
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
                match raw {
                    Raw::Integer(number) => Self::try_from(*number)
                        .map_err(|_| format!("{number} is out of bounds")),
                    other => Err(format!("{} is no number", other.describe())),
                }
            }

            fn right() -> String {
                format!("write a whole number from 0 to {}", (Self::MAX as u128).min(i64::MAX as u128))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

number!(u8, u16, u32, u64);

/// A number of octets: an integer, or text with B, KiB, MiB or GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// So many KiB.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// The size for what is held in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Value for Size {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        let wrong = || format!("{} is no size", raw.describe());
        match raw {
            Raw::Integer(octets) => u64::try_from(*octets).map(Self).map_err(|_| wrong()),
            Raw::Text(text) => SIZE_UNITS
                .iter()
                .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
                .and_then(|(digits, factor)| {
                    digits.trim_end().parse::<u64>().ok()?.checked_mul(factor)
                })
                .map(Self)
                .ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }

    fn right() -> String {
        "write a number of octets or a text like \"10MiB\" (B, KiB, MiB, GiB)".into()
    }

    fn show(&self) -> String {
        let (unit, factor) = SIZE_UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        if factor == 1 { self.0.to_string() } else { format!("\"{}{unit}\"", self.0 / factor) }
    }
}

const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The longest duration anybody needs; keeps every sum of times far from overflow.
const LONGEST: u64 = 3650 * 86_400_000;

impl Value for Duration {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        let wrong = || format!("{} is no duration", raw.describe());
        let Raw::Text(text) = raw else { return Err(wrong()) };
        TIME_UNITS
            .iter()
            .find_map(|(unit, factor)| {
                let digits = text.strip_suffix(unit)?.trim_end();
                digits.parse::<u64>().ok()?.checked_mul(*factor)
            })
            .filter(|millis| *millis <= LONGEST)
            .map(Duration::from_millis)
            .ok_or_else(wrong)
    }

    fn right() -> String {
        "write a text like \"500ms\", \"30s\", \"5m\" or \"72h\"".into()
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        let (unit, factor) = TIME_UNITS
            .into_iter()
            .rev()
            // Minutes and more only where they are whole and more than two: "120s", but "10m".
            .find(|(_, factor)| {
                let factor = u128::from(*factor);
                millis.is_multiple_of(factor) && (factor <= 1000 || millis > 2 * factor)
            })
            .unwrap_or(("ms", 1));
        format!("\"{}{unit}\"", millis / u128::from(factor))
    }
}

/// So many per second or minute: `"10/s"`, `"600/m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}

impl Rate {
    /// So many a second.
    pub const fn per_second(count: u32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }

    /// The rate a second where that is a whole number and not 0.
    pub fn a_second(self) -> Option<u32> {
        let seconds = u32::try_from(self.per.as_secs()).ok()?;
        (self.count > 0 && self.count.is_multiple_of(seconds)).then(|| self.count / seconds)
    }
}

impl Value for Rate {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        let wrong = || format!("{} is no rate", raw.describe());
        let Raw::Text(text) = raw else { return Err(wrong()) };
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let per = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(wrong()),
        };
        Ok(Self { count: count.trim().parse().map_err(|_| wrong())?, per })
    }

    fn right() -> String {
        "write a text like \"10/s\" or \"600/m\"".into()
    }

    fn show(&self) -> String {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        format!("\"{}/{unit}\"", self.count)
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(raw: &Raw, origin: &Origin) -> Result<Self, String> {
        match raw {
            Raw::List(elements) => elements.iter().map(|each| T::read(each, origin)).collect(),
            other => Err(format!("{} is no list", other.describe())),
        }
    }

    fn right() -> String {
        format!("write a list [...]; for each element: {}", T::right())
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Value::show).collect::<Vec<_>>().join(", "))
    }
}

impl Value for DeferCause {
    fn read(raw: &Raw, origin: &Origin) -> Result<Self, String> {
        match raw {
            Raw::Text(word) if word == "timeout" => Ok(Self::Timeout),
            Raw::Text(word) => Err(format!("{word:?} is no cause")),
            number => match u16::read(number, origin)? {
                status @ 300..=699 => Ok(Self::Status(status)),
                other => Err(format!("{other} is no final answer")),
            },
        }
    }

    fn right() -> String {
        "write a status from 300 to 699, or \"timeout\"".into()
    }

    fn show(&self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::Timeout => "\"timeout\"".into(),
        }
    }
}

/// A path, resolved against the folder of the file that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl Value for FilePath {
    fn read(raw: &Raw, origin: &Origin) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if !text.is_empty() => Ok(Self(resolve(text, origin))),
            other => Err(format!("{} is no path", other.describe())),
        }
    }

    fn right() -> String {
        "write a path, relative to this file or absolute".into()
    }

    fn show(&self) -> String {
        format!("{:?}", self.0.display().to_string())
    }
}

impl Value for SocketAddr {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        text(raw, "address", |text| text.parse().ok())
    }

    fn right() -> String {
        "write IP:port, like \"127.0.0.1:9464\" or \"[::1]:9464\"".into()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// An address to listen on, or `""` for a door that stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door(pub Option<SocketAddr>);

impl Value for Door {
    fn read(raw: &Raw, origin: &Origin) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text.is_empty() => Ok(Self(None)),
            other => SocketAddr::read(other, origin).map(|address| Self(Some(address))),
        }
    }

    fn right() -> String {
        format!("{}, or \"\" to keep it closed", SocketAddr::right())
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "\"\"".into(), |address| address.show())
    }
}

/// Where the SIP stack listens: `udp:ADDRESS`, `tcp:ADDRESS` or `tls:ADDRESS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub protocol: Protocol,
    pub address: SocketAddr,
}

impl Value for Listen {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        let Raw::Text(text) = raw else { return Err(format!("{} is no text", raw.describe())) };
        let listen = text.split_once(':').and_then(|(protocol, address)| {
            let protocol = match protocol {
                "udp" => Protocol::Udp,
                "tcp" => Protocol::Tcp,
                "tls" => Protocol::Tls,
                _ => return None,
            };
            Some(Self { protocol, address: address.parse().ok()? })
        });
        match listen {
            Some(listen) => Ok(listen),
            None => Err(format!("{text:?} is no address to listen on")),
        }
    }

    fn right() -> String {
        "write \"udp:IP:port\", \"tcp:IP:port\" or \"tls:IP:port\"".into()
    }

    fn show(&self) -> String {
        format!("\"{}:{}\"", self.protocol.via_token().to_ascii_lowercase(), self.address)
    }
}

/// A host name or IP address with a port, as others are told to reach us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// IPv6 addresses stand in brackets.
    pub host: String,
    /// 0: the port that was taken when listening.
    pub port: u16,
}

impl HostPort {
    /// Host and port of a socket address.
    pub fn of(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        Self { host, port: address.port() }
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Value for HostPort {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        text(raw, "host and port", |text| {
            let (host, port) = text.rsplit_once(':')?;
            let plain =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            let literal = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
            let named = !host.is_empty() && host.bytes().all(plain);
            (named || literal).then_some(())?;
            Some(Self { host: host.to_owned(), port: port.parse().ok()? })
        })
    }

    fn right() -> String {
        "write \"host:port\"".into()
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// Addresses of peers: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers(pub IpNet);

impl Value for Peers {
    fn read(raw: &Raw, _: &Origin) -> Result<Self, String> {
        let Raw::Text(text) = raw else { return Err(format!("{} is no text", raw.describe())) };
        text.parse::<IpNet>()
            .ok()
            .or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no CIDR block"))
    }

    fn right() -> String {
        "write \"10.0.0.0/8\" or \"192.0.2.7\"".into()
    }

    fn show(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

/// A peer of the SIP stack: by address, or by a name in the certificate it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedPeer {
    Net(IpNet),
    /// A host or a SIP URI, as written.
    Name(String),
}

impl Value for TrustedPeer {
    fn read(raw: &Raw, origin: &Origin) -> Result<Self, String> {
        if let Ok(Peers(net)) = Peers::read(raw, origin) {
            return Ok(Self::Net(net));
        }
        match raw {
            // Digits and dots alone are an address with a mistake in it.
            Raw::Text(text) if text.contains(|c: char| c.is_ascii_alphabetic()) => {
                Names::fold(text).map(|_| Self::Name(text.clone()))
            }
            _ => None,
        }
        .ok_or_else(|| format!("{} is neither a CIDR block nor a name", raw.describe()))
    }

    fn right() -> String {
        "write \"10.0.0.0/8\", \"192.0.2.7\", or a name in the peer's certificate like \"scscf.example.net\"".into()
    }

    fn show(&self) -> String {
        match self {
            Self::Net(net) => Peers(*net).show(),
            Self::Name(name) => format!("{name:?}"),
        }
    }
}

fn text<T>(raw: &Raw, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    let wrong = || format!("{} is no {what}", raw.describe());
    match raw {
        Raw::Text(text) => parse(text).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// Makes a type with a fixed list of values a [`Value`]: `choice!(Type { Variant = "text", ... })`.
macro_rules! choice {
    ($kind:ty { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $crate::config::value::Value for $kind {
            fn read(
                raw: &$crate::config::layer::Raw,
                _: &$crate::config::layer::Origin,
            ) -> Result<Self, String> {
                match raw {
                    $($crate::config::layer::Raw::Text(text) if text == $text => Ok(Self::$variant),)+
                    other => Err(format!("{} is none of the choices", other.describe())),
                }
            }

            fn right() -> String {
                format!("write one of: {}", [$($text),+].map(|text| format!("{text:?}")).join(", "))
            }

            fn show(&self) -> String {
                match self {
                    $(Self::$variant => format!("{:?}", $text),)+
                }
            }
        }
    };
}
pub(crate) use choice;

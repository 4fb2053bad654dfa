//! The log: text or JSON lines on stderr, with a level that can be changed while running.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// The word that stands in configuration and in `PUT /admin/log`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The text is no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write one of: error, warn, info, debug, trace")]
pub struct BadLevel;

impl std::str::FromStr for Level {
    type Err = BadLevel;

    fn from_str(text: &str) -> Result<Self, BadLevel> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or(BadLevel)
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// `[log]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub level: Level,
    pub format: Format,
}

/// Changes the level of the running log.
#[derive(Debug, Clone)]
pub struct Handle(reload::Handle<EnvFilter, Registry>);

impl Handle {
    /// Sets another level.
    ///
    /// # Errors
    /// The log is gone.
    pub fn set(&self, level: Level) -> Result<(), String> {
        self.0.reload(filter(level)).map_err(|error| error.to_string())
    }
}

/// Starts the log of this process, on stderr only: stdout belongs to results.
///
/// # Errors
/// There is a log already.
pub fn init(settings: Settings) -> Result<Handle, String> {
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    let lines = match settings.format {
        Format::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
        Format::Json => {
            fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        }
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(Handle(handle))
}

/// Our own lines at `level`; of libraries only what is wrong, they would repeat addresses and headers.
fn filter(level: Level) -> EnvFilter {
    let libraries = if matches!(level, Level::Error) { "error" } else { "warn" };
    EnvFilter::new(format!("{libraries},pagecast={}", level.as_str()))
}

//! `[charging]`.

use std::path::Path;
use std::time::Duration;

use super::ConfigError;
use super::layer::Reader;
use super::value::{FilePath, Size, Value as _};
use crate::charging::Settings;

/// Where records go, if there are any; `data_dir` is the node's.
pub(super) fn read(r: &mut Reader, data_dir: &Path) -> Result<Option<Settings>, ConfigError> {
    let enabled = r.take("charging.enabled", false)?;
    let set = r.take_if_set::<FilePath>("charging.folder")?.map(|path| path.0);
    let folder = set.unwrap_or_else(|| data_dir.join("charging"));
    if enabled {
        r.amounts_to("charging.folder", FilePath(folder.clone()).show());
    }
    let settings = Settings {
        folder,
        max_file: r.take_within("charging.max_file", Size::mib(64), Size::kib(1), Size(1 << 40))?.0,
        max_age: r.take_within(
            "charging.max_age",
            Duration::from_secs(900),
            Duration::from_secs(1),
            Duration::from_secs(86_400),
        )?,
        disk: r.take_within("charging.disk", Size::mib(1024), Size::kib(1), Size(1 << 50))?.0,
        max_waiting: r.take_within("charging.max_waiting", 100_000u32, 1, 100_000_000)? as usize,
    };
    Ok(enabled.then_some(settings))
}

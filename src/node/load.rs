//! How far a thread is behind: the measure of overload.
//!
//! Start at [`Load::handled`]. Nobody knows how long a datagram lay in the kernel's buffer. But nothing can have waited
//! longer than since the thread last found nothing to do, and one that keeps up finds that every few milliseconds: so the
//! time since then is its lag. Follows ISC-069.

use std::time::{Duration, Instant};

use crate::isc::rules::overload::{Pressure, Shed};

/// The lag of one thread, with hysteresis: it takes the whole limit to be busy and half of it to be so no more.
#[derive(Debug)]
pub struct Load {
    /// `node.max_lag`
    limit: Duration,
    /// The first message since there was nothing to do.
    since: Option<Instant>,
    lag: Duration,
    pressure: Pressure,
}

impl Load {
    /// Lag up to `limit` is none; more than twice as much is far too much.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: None, lag: Duration::ZERO, pressure: Pressure::None }
    }

    /// Another limit from now on.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Nothing waits. Returns the pressure if it changed.
    pub fn idle(&mut self) -> Option<Pressure> {
        self.since = None;
        self.is_behind(Duration::ZERO)
    }

    /// A message is about to be handled. Returns the pressure if it changed.
    pub fn handled(&mut self, now: Instant) -> Option<Pressure> {
        let since = *self.since.get_or_insert(now);
        self.is_behind(now.saturating_duration_since(since))
    }

    fn is_behind(&mut self, lag: Duration) -> Option<Pressure> {
        self.lag = lag;
        let before = self.pressure;
        self.pressure = match before {
            _ if lag > self.limit * 2 => Pressure::Full,
            Pressure::Full if lag > self.limit => Pressure::Full,
            _ if lag > self.limit => Pressure::Busy,
            Pressure::Busy | Pressure::Full if lag > self.limit / 2 => Pressure::Busy,
            _ => Pressure::None,
        };
        (self.pressure != before).then_some(self.pressure)
    }

    /// How far behind it is.
    pub fn lag(&self) -> Duration {
        self.lag
    }

    /// What is to be sent away; `full`: no room for more pages.
    ///
    /// ISC-069: Retry-After of 1 to 30 s, the longer the further behind.
    pub fn shed(&self, full: bool) -> Shed {
        const ROOM: u32 = 10;
        let behind = u32::try_from(self.lag.as_secs()).unwrap_or(u32::MAX);
        let wait = behind.saturating_mul(2).saturating_add(2).clamp(1, 30);
        match self.pressure {
            Pressure::None if full => Shed { pressure: Pressure::Busy, retry_after: ROOM },
            pressure => Shed { pressure, retry_after: wait },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_pressure_follows_the_lag_and_lets_go_later_than_it_takes_hold() {
        let mut load = Load::new(millis(100));
        for (lag, want) in [
            (0, Pressure::None),
            (100, Pressure::None),
            (101, Pressure::Busy),
            (60, Pressure::Busy),
            (201, Pressure::Full),
            (150, Pressure::Full),
            (90, Pressure::Busy),
            (50, Pressure::None),
            (99, Pressure::None),
        ] {
            load.is_behind(millis(lag));
            assert_eq!(load.pressure, want, "{lag} ms");
        }
    }

    #[test]
    fn a_thread_that_is_never_idle_is_behind() {
        let start = tokio::time::Instant::now().into_std();
        let mut load = Load::new(millis(100));
        assert_eq!(load.handled(start), None);
        assert_eq!(load.idle(), None);
        // It slept meanwhile.
        let start = start + millis(60_000);
        let changes: Vec<_> = (0..300).filter_map(|n| load.handled(start + millis(n))).collect();
        assert_eq!(changes, [Pressure::Busy, Pressure::Full]);
        assert_eq!(load.shed(false), Shed { pressure: Pressure::Full, retry_after: 2 });
        assert_eq!(load.idle(), Some(Pressure::None));
        assert_eq!(load.shed(false).pressure, Pressure::None);
        assert_eq!(load.shed(true), Shed { pressure: Pressure::Busy, retry_after: 10 });
    }

    /// ISC-069: 1 to 30 s.
    #[test]
    fn the_wait_is_within_its_bounds() {
        for (behind, wait) in [(1, 4), (10, 22), (14, 30), (500, 30)] {
            let mut load = Load::new(millis(100));
            load.is_behind(Duration::from_secs(behind));
            assert_eq!(load.shed(false).retry_after, wait);
        }
    }
}

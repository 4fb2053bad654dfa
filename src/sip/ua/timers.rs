//! One ordered queue for all timers of a user agent. Cancelling removes at once, so nothing dead is kept.

use std::collections::BTreeMap;
use std::time::Instant;

/// Names one timer that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token {
    at: Instant,
    /// Timers of one moment ring in the order they were set.
    order: u64,
}

/// Timers and what each stands for.
#[derive(Debug)]
pub struct Queue<T> {
    entries: BTreeMap<Token, T>,
    next_order: u64,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self { entries: BTreeMap::new(), next_order: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn start(&mut self, at: Instant, what: T) -> Token {
        let token = Token { at, order: self.next_order };
        self.next_order += 1;
        self.entries.insert(token, what);
        token
    }

    pub fn stop(&mut self, token: Token) {
        self.entries.remove(&token);
    }

    /// When the first one rings.
    pub fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(token, _)| token.at)
    }

    /// The first one that has rung by `now`.
    pub fn expired(&mut self, now: Instant) -> Option<(Token, T)> {
        let entry = self.entries.first_entry()?;
        if entry.key().at > now {
            return None;
        }
        Some(entry.remove_entry())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sip::ua::tests::epoch;

    #[test]
    fn rings_in_order_and_not_before_its_time() {
        let start = epoch();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = Queue::new();
        let late = queue.start(at(3), 'c');
        queue.start(at(1), 'a');
        queue.start(at(1), 'b');
        assert_eq!((queue.next(), queue.len()), (Some(at(1)), 3));
        assert_eq!(queue.expired(at(0)), None);
        let order: Vec<char> =
            std::iter::from_fn(|| queue.expired(at(1)).map(|(_, what)| what)).collect();
        assert_eq!(order, ['a', 'b']);
        queue.stop(late);
        assert_eq!((queue.next(), queue.len(), queue.expired(at(9))), (None, 0, None));
    }
}

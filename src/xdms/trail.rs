//! What was asked of an XDMS on behalf of one question: so that a page's call flow can show it.
//!
//! Whoever asks the resolver wraps the question in [`gathered`]; a source that goes over the wire calls [`note`]. Decides
//! nothing.

use std::sync::{Mutex, PoisonError};

use super::ut::http::Exchange;

tokio::task_local! {
    static EXCHANGES: Mutex<Vec<Exchange>>;
}

/// Exchanges kept of one question.
const MOST: usize = 128;

/// Runs a question; gives what was exchanged for it besides, in order of its end.
pub async fn gathered<F: Future>(question: F) -> (F::Output, Vec<Exchange>) {
    EXCHANGES
        .scope(Mutex::default(), async {
            let answer = question.await;
            let all = EXCHANGES.with(|all| {
                std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner))
            });
            (answer, all)
        })
        .await
}

/// Notes exchanges for the question this task is asked, if somebody wants to know.
pub fn note(exchanges: &[Exchange]) {
    // Without a scope nobody does.
    let _ = EXCHANGES.try_with(|all| {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST.saturating_sub(all.len());
        all.extend(exchanges.iter().take(room).cloned());
    });
}

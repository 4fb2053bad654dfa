//! The thread that reads. Questions wait in a queue of a fixed length; beyond it they hear [`Down`] at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{Down, Reader};

/// Asks the reader, or hears that there is none.
type Question = Box<dyn FnOnce(Option<&mut dyn Reader>) + Send>;

/// The way to the reader's thread.
pub struct Reads {
    asks: Mutex<Option<SyncSender<Question>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Reads {
    /// Starts the thread. At most `most` questions wait.
    pub fn start(mut reader: Box<dyn Reader>, most: usize) -> std::io::Result<Self> {
        let (asks, asked) = sync_channel::<Question>(most.max(1));
        let thread =
            std::thread::Builder::new().name("pagecast-reads".to_owned()).spawn(move || {
                for question in asked {
                    // Whoever panics over an answer does not take the reader along, on which all others wait.
                    let asked = AssertUnwindSafe(|| question(Some(reader.as_mut())));
                    if catch_unwind(asked).is_err() {
                        tracing::error!("whoever asked the store panicked over the answer");
                    }
                }
            })?;
        Ok(Self { asks: Mutex::new(Some(asks)), thread: Mutex::new(Some(thread)) })
    }

    /// Asks; `then` hears the answer on the reader's thread, or at once that there is none.
    pub fn ask<T: 'static>(
        &self,
        question: impl FnOnce(&mut dyn Reader) -> Result<T, String> + Send + 'static,
        then: impl FnOnce(Result<T, Down>) + Send + 'static,
    ) {
        let question: Question = Box::new(move |reader| {
            then(match reader.map(question) {
                Some(Ok(answer)) => Ok(answer),
                Some(Err(error)) => {
                    tracing::error!(error, "the store cannot be read");
                    Err(Down)
                }
                None => Err(Down),
            });
        });
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unasked = match asks {
            Some(asks) => match asks.try_send(question) {
                Ok(()) => return,
                Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => {
                    question
                }
            },
            None => question,
        };
        unasked(None);
    }

    /// Answers what waits and ends.
    pub fn close(&self) {
        drop(self.asks.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's reader had panicked");
        }
    }
}

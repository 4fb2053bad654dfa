//! Reading: buffers that are used again once nobody holds any octet of them, and none for those who wait.
//!
//! Start at [`Intake::read`]. A page keeps what it was read into, so busy connections need a new buffer with nearly
//! every read. Memory that comes back from pages that are over is warm and costs no system call; at most [`MOST`] buffers
//! are kept for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Octets of one buffer.
pub const SIZE: usize = 64 * 1024;
/// Buffers kept, used and unused.
const MOST: usize = 256;
/// A connection goes on reading into its buffer while that has room for so much.
const ROOM: usize = SIZE / 4;
/// Reads that bring less are copied, and their buffer is free at once.
const LITTLE: usize = SIZE / 8;
/// How many are looked at to find one nobody uses; pages end about in the order they began.
const TRIES: usize = 2;

/// Handles on buffers handed out before; each keeps its memory, whoever else still does.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<VecDeque<BytesMut>>);

impl Buffers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<BytesMut>> {
        // Single pushes and pops.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer with room for [`SIZE`] octets.
    pub fn take(&self) -> BytesMut {
        let mut kept = self.lock();
        for _ in 0..TRIES {
            let Some(mut buffer) = kept.pop_front() else { break };
            buffer.clear();
            if buffer.try_reclaim(SIZE) {
                return buffer;
            }
            kept.push_back(buffer);
        }
        drop(kept);
        BytesMut::with_capacity(SIZE)
    }

    /// Gives a buffer back that [`Buffers::take`] made; others may still hold octets of it.
    pub fn give(&self, buffer: BytesMut) {
        let mut kept = self.lock();
        if kept.len() < MOST {
            kept.push_back(buffer);
        }
    }

    /// Gives a buffer back nobody else has seen.
    fn unused(&self, buffer: BytesMut) {
        let mut kept = self.lock();
        if kept.len() < MOST {
            kept.push_front(buffer);
        }
    }
}

/// How one connection reads.
#[derive(Debug, Default)]
pub struct Intake {
    /// The connection's buffer is one of the shared ones.
    large: bool,
}

impl Intake {
    /// Appends what has arrived to `buffer` and says how much it was; 0 at the end of the stream. May be dropped at any
    /// time without losing octets. While it waits `buffer` holds what was left in it and not much more.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn read<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        buffer: &mut BytesMut,
        buffers: &Buffers,
    ) -> io::Result<usize> {
        poll_fn(|context| {
            if self.large && buffer.capacity() - buffer.len() >= ROOM {
                let read = pin!(reader.read_buf(buffer)).poll(context);
                if read.is_pending() {
                    let rest = BytesMut::from(&buffer[..]);
                    buffers.give(std::mem::replace(buffer, rest));
                    self.large = false;
                }
                return read;
            }
            if buffer.len() >= SIZE / 2 {
                // A header section somebody allows to be that long.
                buffer.reserve(LITTLE);
                return pin!(reader.read_buf(buffer)).poll(context);
            }
            let mut next = buffers.take();
            next.extend_from_slice(buffer);
            let before = next.len();
            let read = pin!(reader.read_buf(&mut next)).poll(context);
            match read {
                Poll::Ready(Ok(octets)) if octets >= LITTLE => {
                    let last = std::mem::replace(buffer, next);
                    if std::mem::replace(&mut self.large, true) {
                        buffers.give(last);
                    }
                }
                _ => {
                    if std::mem::take(&mut self.large) {
                        let rest = BytesMut::from(&buffer[..]);
                        buffers.give(std::mem::replace(buffer, rest));
                    }
                    buffer.extend_from_slice(&next[before..]);
                    buffers.unused(next);
                }
            }
            read
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_holds_it() {
        let buffers = Buffers::default();
        let mut first = buffers.take();
        first.extend_from_slice(&[7; 1000]);
        let held = first.split_to(500).freeze();
        let place = held.as_ptr();
        buffers.give(first);
        let second = buffers.take();
        assert_ne!(second.as_ptr(), place, "still in use");
        assert_eq!(held, [7; 500][..]);
        drop(held);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, SIZE));
        for _ in 0..2 * MOST {
            buffers.give(BytesMut::with_capacity(SIZE));
            buffers.unused(BytesMut::with_capacity(SIZE));
        }
        assert_eq!(buffers.lock().len(), MOST);
    }

    #[tokio::test]
    async fn reads_of_any_size_arrive_and_waiting_costs_no_buffer() {
        use tokio::io::AsyncWriteExt;
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (buffers, mut intake, mut buffer) =
            (Buffers::default(), Intake::default(), BytesMut::new());
        let mut expect = Vec::new();
        for n in [1, 100, 9000, 20_000, 70_000, 200_000, LITTLE, 3] {
            let octets: Vec<u8> = (0..n).map(|at| (at * 31 + n) as u8).collect();
            ours.write_all(&octets).await.expect("room");
            expect.extend_from_slice(&octets);
            while !expect.is_empty() {
                let before = buffer.len();
                let got = intake.read(&mut theirs, &mut buffer, &buffers).await.expect("octets");
                assert_eq!(buffer.len(), before + got);
                // A page takes most of it.
                let taken = buffer.split_to(buffer.len() - buffer.len().min(10));
                assert_eq!(taken, expect[..taken.len()]);
                expect.drain(..taken.len());
                if buffer == expect {
                    break;
                }
            }
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let waits = pin!(intake.read(&mut theirs, &mut buffer, &buffers)).poll(&mut context);
            assert!(waits.is_pending());
            assert_eq!(buffer, expect);
            assert!(buffer.capacity() < 2 * buffer.len() + 64, "{} held", buffer.capacity());
        }
        drop(ours);
        let end = intake.read(&mut theirs, &mut buffer, &buffers).await;
        assert_eq!(end.expect("no error"), 0);
    }
}

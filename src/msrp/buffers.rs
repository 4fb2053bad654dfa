//! Reading: buffers that are used again once nobody holds any octet of them, and none for those who wait.
//!
//! Start at [`Intake::poll_read`]. A page keeps what it was read into, so busy connections need a new buffer with nearly
//! every read. Memory that comes back from pages that are over is warm and costs no system call; so many of
//! either size are kept for it as two large pages need. Frames are gathered in the small ones, too.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Octets of a small buffer.
pub const SIZE: usize = 64 * 1024;
/// Octets of a large one, for connections that bring pages as fast as they are read.
const LARGE: usize = 4 * SIZE;
/// Reads that bring less are copied, and their buffer is free at once.
const LITTLE: usize = SIZE / 8;
/// How many are looked at to find one nobody uses; pages end about in the order they began.
const TRIES: usize = 2;

/// Which of the two sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Small,
    Large,
}

impl Size {
    fn octets(self) -> usize {
        match self {
            Self::Small => SIZE,
            Self::Large => LARGE,
        }
    }

    /// Buffers kept, used and unused.
    fn most(self) -> usize {
        match self {
            Self::Small => 64,
            Self::Large => 128,
        }
    }
}

/// Handles on buffers handed out before; each keeps its memory, whoever else still does.
#[derive(Debug, Default)]
pub struct Buffers {
    small: Mutex<VecDeque<BytesMut>>,
    large: Mutex<VecDeque<BytesMut>>,
}

impl Buffers {
    fn lock(&self, size: Size) -> MutexGuard<'_, VecDeque<BytesMut>> {
        let kept = match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
        };
        // Single pushes and pops.
        kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer of that size.
    pub fn take(&self, size: Size) -> BytesMut {
        let mut kept = self.lock(size);
        for _ in 0..TRIES {
            let Some(mut buffer) = kept.pop_front() else { break };
            buffer.clear();
            if buffer.try_reclaim(size.octets()) {
                return buffer;
            }
            kept.push_back(buffer);
        }
        drop(kept);
        BytesMut::with_capacity(size.octets())
    }

    /// Gives a buffer back that [`Buffers::take`] made; others may still hold octets of it.
    pub fn give(&self, buffer: BytesMut, size: Size) {
        let mut kept = self.lock(size);
        if kept.len() < size.most() {
            kept.push_back(buffer);
        }
    }

    /// Gives a buffer back of which nobody holds anything.
    pub fn unused(&self, buffer: BytesMut, size: Size) {
        let mut kept = self.lock(size);
        if kept.len() < size.most() {
            kept.push_front(buffer);
        }
    }
}

/// How one connection reads.
#[derive(Debug, Default)]
pub struct Intake {
    /// The connection's buffer is a shared one of this size.
    holds: Option<Size>,
    /// Octets of it that pages keep.
    kept: usize,
    /// The next one is large.
    wide: bool,
}

impl Intake {
    /// A page keeps so many octets of what was read last.
    ///
    /// Large buffers are for those whose octets are worth keeping: what pages are counted with is at least an eighth of
    /// what they keep in use.
    pub fn keeps(&mut self, octets: usize) {
        if octets >= LITTLE {
            self.kept += octets;
        }
    }

    /// Appends what has arrived to `buffer` and says how much it was; 0 at the end of the stream. While it waits `buffer`
    /// holds what was left in it and not much more.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        buffer: &mut BytesMut,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        if let Some(size) = self.holds
            && buffer.capacity() - buffer.len() >= size.octets() / 4
        {
            let read = fill(reader, buffer, context);
            if read.is_pending() {
                self.let_go(buffer, buffers);
            }
            return read;
        }
        if buffer.len() >= SIZE / 2 {
            // A header section somebody allows to be that long.
            buffer.reserve(LITTLE);
            return fill(reader, buffer, context);
        }
        self.judge();
        let size = if self.wide { Size::Large } else { Size::Small };
        let mut next = buffers.take(size);
        next.extend_from_slice(buffer);
        let before = next.len();
        let read = fill(reader, &mut next, context);
        match read {
            Poll::Ready(Ok(octets)) if octets >= size.octets() / 8 => {
                let last = std::mem::replace(buffer, next);
                if let Some(size) = self.holds.replace(size) {
                    buffers.give(last, size);
                }
            }
            _ => {
                self.let_go(buffer, buffers);
                self.wide = false;
                buffer.extend_from_slice(&next[before..]);
                buffers.unused(next, size);
            }
        }
        read
    }

    /// Goes on without a shared buffer.
    fn let_go(&mut self, buffer: &mut BytesMut, buffers: &Buffers) {
        self.judge();
        if let Some(size) = self.holds.take() {
            let rest = BytesMut::from(&buffer[..]);
            buffers.give(std::mem::replace(buffer, rest), size);
        }
    }

    /// Draws the conclusion from a buffer that is done with.
    fn judge(&mut self) {
        match self.holds {
            Some(Size::Small) => self.wide = self.kept >= SIZE / 2,
            Some(Size::Large) => self.wide = self.kept >= LARGE / 8,
            None => {}
        }
        self.kept = 0;
    }
}

fn fill<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let read: Pin<&mut _> = pin!(reader.read_buf(buffer));
    let octets = ready!(Future::poll(read, context))?;
    Poll::Ready(Ok(octets))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_holds_it() {
        let buffers = Buffers::default();
        for size in [Size::Small, Size::Large] {
            let mut first = buffers.take(size);
            first.extend_from_slice(&[7; 1000]);
            let held = first.split_to(500).freeze();
            let place = held.as_ptr();
            buffers.give(first, size);
            let second = buffers.take(size);
            assert_ne!(second.as_ptr(), place, "still in use");
            assert_eq!(held, [7; 500][..]);
            drop(held);
            let again = buffers.take(size);
            assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, size.octets()));
            for _ in 0..size.most() {
                buffers.give(BytesMut::new(), size);
                buffers.unused(BytesMut::new(), size);
            }
            assert_eq!(buffers.lock(size).len(), size.most());
        }
    }

    #[tokio::test]
    async fn reads_of_any_size_arrive_and_waiting_costs_no_buffer() {
        use tokio::io::AsyncWriteExt;
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (buffers, mut intake, mut buffer) =
            (Buffers::default(), Intake::default(), BytesMut::new());
        let mut expect = Vec::new();
        for n in [1, 100, 9000, 20_000, 70_000, 900_000, LITTLE, 300_000, 3] {
            let octets: Vec<u8> = (0..n).map(|at| (at * 31 + n) as u8).collect();
            ours.write_all(&octets).await.expect("room");
            expect.extend_from_slice(&octets);
            while !expect.is_empty() {
                let before = buffer.len();
                let read = |context: &mut Context<'_>| {
                    intake.poll_read(context, &mut theirs, &mut buffer, &buffers)
                };
                let got = poll_fn(read).await.expect("octets");
                assert_eq!(buffer.len(), before + got);
                // A page takes most of it.
                let taken = buffer.split_to(buffer.len() - buffer.len().min(10));
                assert_eq!(taken, expect[..taken.len()]);
                intake.keeps(taken.len());
                expect.drain(..taken.len());
                if buffer == expect {
                    break;
                }
            }
            let mut context = Context::from_waker(std::task::Waker::noop());
            let waits = intake.poll_read(&mut context, &mut theirs, &mut buffer, &buffers);
            assert!(waits.is_pending());
            assert_eq!(buffer, expect);
            assert!(buffer.capacity() < 2 * buffer.len() + 64, "{} held", buffer.capacity());
        }
        drop(ours);
        let end = poll_fn(|context| intake.poll_read(context, &mut theirs, &mut buffer, &buffers));
        assert_eq!(end.await.expect("no error"), 0);
    }

    /// What pages are counted with is at least an eighth of what they keep in use.
    #[tokio::test]
    async fn only_those_who_bring_pages_read_a_lot_at_once() {
        use tokio::io::AsyncWriteExt;
        let (mut ours, mut theirs) = tokio::io::duplex(4 << 20);
        let (buffers, mut intake, mut buffer) =
            (Buffers::default(), Intake::default(), BytesMut::new());
        ours.write_all(&vec![7; 4 << 20]).await.expect("room");
        poll_fn(|context| intake.poll_read(context, &mut theirs, &mut buffer, &buffers))
            .await
            .expect("octets");
        // Octets kept of each buffer, and the size of the next one.
        for (kept, next) in [
            (SIZE / 2, LARGE),
            (LARGE / 8, LARGE),
            (LARGE / 8 - 1, SIZE),
            (SIZE / 2 - 1, SIZE),
            (SIZE, LARGE),
            (0, SIZE),
        ] {
            intake.keeps(kept);
            intake.keeps(LITTLE - 1);
            buffer = BytesMut::new();
            poll_fn(|context| intake.poll_read(context, &mut theirs, &mut buffer, &buffers))
                .await
                .expect("octets");
            assert_eq!(buffer.len(), next, "after {kept} were kept");
        }
    }
}

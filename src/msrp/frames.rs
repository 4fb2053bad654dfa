//! What a connection is about to write: small frames gathered, page octets shared, one total.
//!
//! Never copies large slices: page octets stay the spool's own [`Bytes`] until the socket takes them. What is gathered
//! lies in shared buffers once it is more than a few frames, and in none when everything is written.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::buffers::{Buffers, Size};
use super::tap::Outlet;

/// Slices below this are cheaper to copy than to list. No more is gathered in a buffer of one's own.
const COPY_BELOW: usize = 4096;
/// Octets a frame without its body has, about.
const HEAD: usize = 1024;
/// Most slices handed to one write.
pub const SLICES: usize = 64;

/// Octets waiting for the socket, in order. The caller keeps it bounded by looking at [`Frames::len`].
#[derive(Debug, Default)]
pub struct Frames {
    segments: VecDeque<Bytes>,
    stage: BytesMut,
    /// `stage` is one of these.
    shared: bool,
    buffers: Arc<Buffers>,
    len: usize,
    produced: u64,
    /// Watches what is put in, where somebody wants to know.
    pub outlet: Option<Box<Outlet>>,
}

impl Frames {
    /// Nothing to write yet; what is put in is shown to `outlet`.
    pub fn watched(buffers: Arc<Buffers>, outlet: Option<Outlet>) -> Self {
        Self { outlet: outlet.map(Box::new), buffers, ..Self::default() }
    }

    /// Octets not yet written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets ever put in: the place behind the last one, to find out when it is written.
    pub fn produced(&self) -> u64 {
        self.produced
    }

    /// Octets ever taken out by [`Frames::advance`].
    pub fn written(&self) -> u64 {
        self.produced - self.len as u64
    }

    /// Lets `write` append text.
    pub fn text(&mut self, write: impl FnOnce(&mut BytesMut)) {
        self.make_room(HEAD);
        let before = self.stage.len();
        write(&mut self.stage);
        if let Some(outlet) = &mut self.outlet {
            outlet.text(&self.stage[before..]);
        }
        self.added(self.stage.len() - before);
    }

    /// Appends octets of a page.
    pub fn body(&mut self, octets: Bytes) {
        if let Some(outlet) = &mut self.outlet {
            outlet.body(octets.len());
        }
        self.added(octets.len());
        if octets.len() < COPY_BELOW {
            self.make_room(octets.len());
            self.stage.extend_from_slice(&octets);
        } else {
            self.seal();
            self.segments.push_back(octets);
        }
    }

    /// What is gathered becomes a segment.
    fn seal(&mut self) {
        if !self.stage.is_empty() {
            self.segments.push_back(self.stage.split().freeze());
        }
    }

    fn make_room(&mut self, octets: usize) {
        if self.stage.capacity() - self.stage.len() >= octets {
            return;
        }
        if !self.shared && self.stage.len() + octets <= COPY_BELOW {
            return self.stage.reserve(octets);
        }
        let next = self.buffers.take(Size::Small);
        if self.shared {
            self.seal();
            self.buffers.give(std::mem::replace(&mut self.stage, next), Size::Small);
        } else {
            let few = std::mem::replace(&mut self.stage, next);
            self.stage.extend_from_slice(&few);
            self.shared = true;
        }
    }

    fn added(&mut self, octets: usize) {
        self.len += octets;
        self.produced += octets as u64;
    }

    /// Fills `slices` with the next octets to write and says how many slices it used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut used = 0;
        let all = self.segments.iter().map(|s| &s[..]).chain([&self.stage[..]]);
        for (slot, octets) in slices.iter_mut().zip(all.filter(|s| !s.is_empty())) {
            *slot = IoSlice::new(octets);
            used += 1;
        }
        used
    }

    /// Drops the first `octets`, which are written.
    pub fn advance(&mut self, mut octets: usize) {
        self.len -= octets;
        while octets > 0 {
            let Some(first) = self.segments.front_mut() else {
                self.stage.advance(octets);
                break;
            };
            let taken = octets.min(first.len());
            first.advance(taken);
            octets -= taken;
            if first.is_empty() {
                self.segments.pop_front();
            }
        }
        if self.len == 0 {
            let stage = std::mem::take(&mut self.stage);
            if std::mem::take(&mut self.shared) {
                self.buffers.unused(stage, Size::Small);
            }
        }
    }

    /// An idle connection holds nothing.
    pub fn rest(&mut self) {
        if self.len == 0 && self.segments.capacity() > 0 {
            self.segments = VecDeque::new();
        }
    }

    /// Everything not yet written, for tests.
    #[cfg(test)]
    pub fn take(&mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        for segment in self.segments.drain(..) {
            all.extend_from_slice(&segment);
        }
        all.extend_from_slice(&self.stage.split());
        self.len = 0;
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_count_hold_whatever_the_sizes() {
        let mut frames = Frames::default();
        let mut expect = Vec::new();
        let sizes = [1_usize, 5000, 3, 4096, 4095, 70_000, 2];
        for n in sizes.into_iter().chain((0..100).map(|n| 997 + n)) {
            let octets = vec![n as u8; n];
            expect.extend_from_slice(&octets);
            frames.body(octets.into());
            frames.text(|out| out.extend_from_slice(b"x"));
            expect.push(b'x');
        }
        assert_eq!(frames.len(), expect.len());
        let mut got = Vec::new();
        while !frames.is_empty() {
            let mut slices = [IoSlice::new(b""); SLICES];
            let used = frames.slices(&mut slices);
            let all: Vec<u8> = slices[..used].iter().flat_map(|s| s.iter().copied()).collect();
            let taken = all.len().min(1777);
            got.extend_from_slice(&all[..taken]);
            frames.advance(taken);
            assert_eq!(frames.written(), got.len() as u64);
        }
        assert_eq!(got, expect);
        assert_eq!(frames.produced(), expect.len() as u64);
        assert_eq!((frames.stage.capacity(), frames.shared), (0, false), "nothing is held");
    }
}

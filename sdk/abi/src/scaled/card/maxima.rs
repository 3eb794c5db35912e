//! Maxima that the casts of all layers have met, on the card until one is asked for: then all are fetched at once.

#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fp8flow_cuda::{Card, Memory, cast};

use crate::Result;

/// Floats of a page: those of over a thousand layers.
const FLOATS: usize = 4096;

/// Where the next layer's maxima go: a page, and how many of its floats are taken.
#[derive(Debug, Default)]
pub(super) struct Maxima(Mutex<Option<(Arc<Page>, usize)>>);

/// Floats on the card, and what they were when they were last fetched, unless one has been noted since.
#[derive(Debug)]
pub(super) struct Page {
    memory: Memory,
    fetched: Mutex<Option<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Maxima {
    /// Room for `n` floats, at most a page of them: the page, and the first of them.
    pub(super) fn take(&self, card: &Card, n: usize) -> Result<(Arc<Page>, usize)> {
        let mut last = lock(&self.0);
        let (page, first) = match last.take().filter(|(_, taken)| taken + n <= FLOATS) {
            Some(found) => found,
            None => (Arc::new(Page::new(card)?), 0),
        };
        *last = Some((page.clone(), first + n));
        Ok((page, first))
    }
}

impl Page {
    fn new(card: &Card) -> Result<Self> {
        let memory = card.take(FLOATS * size_of::<f32>())?;
        memory.fill(0, memory.bytes(), 0)?;
        Ok(Self { memory, fetched: Mutex::new(None) })
    }

    /// Asks the stream to copy the float at `maximum` to float `index`: by a kernel, since kernels wait for a copy longer
    /// than for each other.
    ///
    /// # Safety
    /// That it lies on the card until the stream has come past this.
    pub(super) unsafe fn note(&self, index: usize, maximum: u64) -> Result<()> {
        *lock(&self.fetched) = None;
        assert!(index < FLOATS, "float {index} of {FLOATS}");
        let to = self.memory.address() + (index * size_of::<f32>()) as u64;
        // SAFETY: the caller's, and a float of ours.
        unsafe { cast::repeat(self.memory.card(), maximum, to, 1)? };
        Ok(())
    }

    /// Float `index`, after all that was asked of the stream before it was noted.
    pub(super) fn read(&self, index: usize) -> Result<f32> {
        let mut fetched = lock(&self.fetched);
        if fetched.is_none() {
            let mut bytes = vec![0; self.memory.bytes()];
            self.memory.read(0, &mut bytes)?;
            *fetched = Some(bytes);
        }
        let floats = fetched.as_deref().unwrap_or_default().as_chunks().0;
        Ok(floats.get(index).map_or(f32::NAN, |bytes| f32::from_le_bytes(*bytes)))
    }
}

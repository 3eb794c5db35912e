//! The card's side of [`crate::inspect`].

#![allow(unsafe_code)]

use fp8flow_cuda::{Arg, Result, Shape, Source, source};

use super::launch::count;
use crate::Tensor;

pub(super) const SOURCE: Source = source!("inspect");

const THREADS: u32 = 256;

pub(crate) fn count_bits(x: &Tensor, bits: u32) -> Result<usize> {
    let (memory, _, bytes) = x.stretch();
    let (card, n) = (memory.card(), bytes / size_of::<f32>());
    let found = card.take(size_of::<u64>())?;
    found.fill(0, found.bytes(), 0)?;
    let most = card.properties().multiprocessors as usize * 8;
    let shape = Shape::new(n.div_ceil(4 * THREADS as usize).min(most), THREADS);
    let kernel = card.kernel(SOURCE, "count_bits")?;
    // SAFETY: n floats, and a place for their number.
    unsafe { kernel.launch(card, shape, &[x.address(), n.into(), Arg::U32(bits), found.at(0)])? };
    let mut number = 0_u64;
    found.read(0, bytemuck::bytes_of_mut(&mut number))?;
    Ok(number as usize)
}

pub(crate) fn largest_of_stretches(x: &Tensor, stretch: usize) -> Result<Vec<usize>> {
    let (memory, _, bytes) = x.stretch();
    let (card, n) = (memory.card(), bytes / size_of::<f32>());
    let mut places = vec![0_u32; n.div_ceil(stretch)];
    let found = card.take(size_of_val(&places[..]))?;
    let kernel = card.kernel(SOURCE, "largest_of_stretches")?;
    let arguments = [x.address(), n.into(), count(stretch), found.at(0)];
    // SAFETY: a block has a stretch of the n floats, and there is a place for what it finds.
    unsafe { kernel.launch(card, Shape::new(places.len(), THREADS), &arguments)? };
    found.read(0, bytemuck::cast_slice_mut(&mut places))?;
    Ok(places.into_iter().enumerate().map(|(i, place)| i * stretch + place as usize).collect())
}

pub(crate) fn elements_at(x: &Tensor, places: &[usize]) -> Result<Vec<f32>> {
    let (memory, _, bytes) = x.stretch();
    let card = memory.card();
    assert!(places.iter().all(|&place| place < bytes / size_of::<f32>()), "elements that there are");
    let places: Vec<u64> = places.iter().map(|&place| place as u64).collect();
    let there = card.take(size_of_val(&places[..]))?;
    there.write(0, bytemuck::cast_slice(&places))?;
    let mut elements = vec![0.0_f32; places.len()];
    let found = card.take(size_of_val(&elements[..]))?;
    let kernel = card.kernel(SOURCE, "elements_at")?;
    let arguments = [x.address(), there.at(0), count(places.len()), found.at(0)];
    // SAFETY: each place is one of the floats, and there is room for what lies there.
    unsafe { kernel.launch(card, Shape::each(places.len(), THREADS), &arguments)? };
    found.read(0, bytemuck::cast_slice_mut(&mut elements))?;
    Ok(elements)
}

//! The layer on an NVIDIA card: the same table of casts, the same counters, and the products of the card.
//!
//! FP8 is multiplied only along memory, so a cast is written in the layout that its product reads: as the matrix lies for
//! fprop and dgrad, turned over for wgrad and for the weight in dgrad; both in one pass where one cast serves both.
//! Regions are addresses here, and everything stays on the card: scales too, but those of earlier steps, which are the
//! recipe's.
//!
//! | region | holds |
//! | --- | --- |
//! | `group.forward` | `x` as fprop reads it, for all layers of the group |
//! | `group.saved` | `x` as wgrad reads it |
//! | backward scratch | `dy` as dgrad reads it and as wgrad does; a result that products cannot write in place |
//! | forward scratch | a result that products cannot write in place |

mod bench;
mod maxima;
mod notes;
mod product;
mod spot;
mod weights;

use std::sync::Arc;

use fp8flow_cuda::cast::{Granularity as OnCard, Input, Layout};
use fp8flow_cuda::gemm::{Format, Operand, Output, Product};

use self::bench::Bench;
use self::notes::Notes;
use self::spot::{Cursor, Encoder, Side, Spot};
use self::weights::Weights;
use crate::scaled::cast::{Cast, Gemms};
use crate::scaled::operand::Role;
use crate::scaled::scales::Scales;
use crate::scaled::shapes;
use crate::scaled::weights::Generation;
use crate::{
    Backward, Counters, DType, DeviceId, Error, Forward, Group, InputFormat, LayerFacts, Linear, Memory,
    Pass, Result, TensorRef,
};

/// A layer on a card.
#[derive(Debug)]
pub(super) struct CardLinear {
    device: DeviceId,
    /// K.
    in_features: usize,
    /// N.
    out_features: usize,
    gemms: Gemms,
    pub(super) scales: Option<Box<dyn Scales>>,
    weights: Weights,
    /// What is opened at the first call: the card with its products, and the layer's notes on it.
    opened: Option<(Arc<Bench>, Notes)>,
    counters: Counters,
}

impl CardLinear {
    pub(super) fn new(device: DeviceId, layer: &LayerFacts, gemms: Gemms, generation: Generation) -> Self {
        let (n, k) = (layer.out_features, layer.in_features);
        Self {
            device,
            in_features: k,
            out_features: n,
            gemms,
            scales: None,
            weights: Weights::new(&gemms, n, k, generation),
            opened: None,
            counters: Counters::default(),
        }
    }

    fn open(&mut self) -> Result<Arc<Bench>> {
        if let Some((bench, _)) = &self.opened {
            return Ok(bench.clone());
        }
        let bench = Bench::of(self.device)?;
        let notes = Notes::new(&bench)?;
        self.opened = Some((bench.clone(), notes));
        Ok(bench)
    }

    /// A matrix of activations on this card.
    fn matrix(&self, what: &str, tensor: &TensorRef<'_>, cols: usize) -> Result<Input> {
        match *tensor.shape() {
            [rows, found] if found == cols as u64 => {
                let element = spot::element(what, tensor.dtype())?;
                let address = shapes::address(what, &tensor.raw(), self.device)?;
                Ok(Input { address, element, rows: rows as usize, cols })
            }
            ref found => Err(Error::invalid(format!("{what}: expected [M, {cols}], found {found:?}"))),
        }
    }

    /// The f32 master on this card.
    fn master(&self, weight: &TensorRef<'_>) -> Result<Input> {
        let matrix = self.matrix("weight", weight, self.in_features)?;
        if weight.dtype() != DType::F32 || matrix.rows != self.out_features {
            let (n, k) = (self.out_features, self.in_features);
            return Err(Error::invalid(format!(
                "weight: expected f32 [{n}, {k}], found {:?}",
                weight.shape()
            )));
        }
        Ok(matrix)
    }

    /// Where the casts of `x` lie, as fprop and as wgrad read them; only the first where nothing is kept.
    fn sides_of_x(&self, rows: usize, keep: bool) -> [Option<Side>; 2] {
        let later = self.gemms.wgrad.filter(|_| keep).map(|wgrad| wgrad.x);
        sides([Some(self.gemms.fprop.x), later], rows, self.in_features)
    }

    fn sides_of_dy(&self, rows: usize, needed: bool) -> [Option<Side>; 2] {
        let dgrad = Some(self.gemms.dgrad.dy).filter(|_| needed);
        sides([dgrad, self.gemms.wgrad.map(|wgrad| wgrad.dy)], rows, self.out_features)
    }

    /// What encodes for this layer.
    fn encoder<'a>(&'a mut self, bench: &'a Bench, role: Role, pass: Pass, telemetry: bool) -> Encoder<'a> {
        let notes = self.opened.as_ref().map(|(_, notes)| notes);
        Encoder {
            bench,
            role,
            pass,
            telemetry,
            scales: self.scales.as_deref_mut(),
            notes,
            counters: &mut self.counters,
        }
    }
}

impl Linear for CardLinear {
    fn memory(&self, tokens: usize) -> Memory {
        let bytes = |sides: [Option<Side>; 2]| sides.map(|side| side.map_or(0, Side::bytes));
        let [forward, saved] = bytes(self.sides_of_x(tokens, true));
        let [dgrad, wgrad] = bytes(self.sides_of_dy(tokens, true));
        let (n, k) = (self.out_features, self.in_features);
        let aside = |cast: Cast, cols| product::aside(cast, tokens, cols);
        Memory {
            shared_saved: saved,
            shared_forward: forward,
            saved: 0,
            forward_scratch: aside(self.gemms.fprop.x, n),
            backward_scratch: dgrad + wgrad + aside(self.gemms.dgrad.dy, k),
            own: self.weights.bytes() + Notes::BYTES,
            keep_input: self.gemms.wgrad.is_none(),
        }
    }

    fn input_formats(&self) -> Vec<InputFormat> {
        Vec::new()
    }

    fn forward(&mut self, call: Forward<'_>) -> Result<()> {
        let Forward { pass, x, weight, y, group, scratch, telemetry, .. } = call;
        let input = self.matrix("x", &x.tensor, self.in_features)?;
        let master = self.master(&weight)?;
        let (m, n, k) = (input.rows, self.out_features, self.in_features);
        let output = product::output("y", (y.dtype(), y.shape()), x.tensor.dtype(), [m, n])?;
        let at_y = shapes::address("y", &y.raw(), self.device)?;
        if m == 0 {
            return Ok(());
        }
        let bench = self.open()?;
        let Group { ready, saved, forward } = group;
        let [now, later] = self.sides_of_x(m, pass != Pass::Eval);
        let now = now.ok_or_else(|| Error::protocol("fprop without a cast"))?;
        let mut forward = Cursor::new("shared forward region", forward);
        let now = (now, forward.spot(now)?);
        let mut saved = Cursor::new("shared saved region", saved);
        let later = saved.placed(later)?;
        let mut encoder = self.encoder(&bench, Role::Input, pass, telemetry);
        if !ready {
            encoder.encode(&input, [Some(now), later])?;
        }
        encoder.record(now)?;

        let mut weights = std::mem::take(&mut self.weights);
        let cast = weights.refresh(&mut self.encoder(&bench, Role::Weight, pass, telemetry), &master);
        self.weights = weights;
        cast?;
        let w = self.weights.fprop()?;
        let product = Product::new([m, n, k], now.0.operand()?, w.0, output).fast();
        let scratch = Cursor::new("forward scratch", scratch);
        product::run(&bench, product, now.1, w.1, at_y, scratch)?;
        self.counters.fprop += 1;
        Ok(())
    }

    fn backward(&mut self, call: Backward<'_>) -> Result<()> {
        let Backward { dy, weight, x, dx, dw, group_saved, scratch, telemetry, .. } = call;
        let (n, k) = (self.out_features, self.in_features);
        let gradient = self.matrix("dy", &dy, n)?;
        let master = self.master(&weight)?;
        let m = gradient.rows;
        let dx = dx.map(|dx| {
            let output = product::output("dx", (dx.dtype(), dx.shape()), dy.dtype(), [m, k])?;
            Ok::<_, Error>((shapes::address("dx", &dx.raw(), self.device)?, output))
        });
        let dx = dx.transpose()?;
        product::output("dw", (dw.dtype(), dw.shape()), DType::F32, [n, k])?;
        let at_dw = shapes::address("dw", &dw.raw(), self.device)?;
        let bench = self.open()?;
        if m == 0 {
            return if call.accumulate_dw { Ok(()) } else { bench.clear(at_dw, n * k * size_of::<f32>()) };
        }
        let mut scratch = Cursor::new("backward scratch", scratch);
        let [dgrad, wgrad] = self.sides_of_dy(m, dx.is_some());
        let mut spot =
            |side: Option<Side>| side.map(|side| Ok::<_, Error>((side, scratch.spot(side)?))).transpose();
        let (dgrad, wgrad) = (spot(dgrad)?, spot(wgrad)?);
        let mut encoder = self.encoder(&bench, Role::Gradient, Pass::Train, telemetry);
        encoder.encode(&gradient, [dgrad, wgrad])?;
        if let Some(cast) = dgrad.or(wgrad) {
            encoder.record(cast)?;
        }

        if let (Some((at, output)), Some((side, spot))) = (dx, dgrad) {
            let mut weights = std::mem::take(&mut self.weights);
            let cast =
                weights.refresh(&mut self.encoder(&bench, Role::Weight, Pass::Train, telemetry), &master);
            self.weights = weights;
            cast?;
            let w = self.weights.dgrad()?;
            let product = Product::new([m, k, n], side.operand()?, w.0, output);
            let product = if call.accumulate_dx { product.accumulated() } else { product };
            product::run(&bench, product, spot, w.1, at, scratch)?;
            self.counters.dgrad += 1;
        }
        let accumulated = |product: Product| if call.accumulate_dw { product.accumulated() } else { product };
        if let Some((side, spot)) = wgrad {
            let [_, saved] = self.sides_of_x(m, true);
            let x = saved.ok_or_else(|| Error::protocol("wgrad without a cast"))?;
            let at_x = Cursor::to_read("shared saved region", group_saved).spot(x)?;
            let (a, b) = (side.operand()?, x.operand()?);
            let product = accumulated(Product::new([n, k, fp8flow_cuda::cast::padded(m)], a, b, Output::F32));
            product::run(&bench, product, spot, at_x, at_dw, Cursor::nothing())?;
            self.counters.wgrad += 1;
        } else {
            let x = x.ok_or_else(|| Error::protocol("backward needs x, as `Memory::keep_input` says"))?;
            let input = self.matrix("x", &x, k)?;
            let format = |of: &Input| match of.element {
                fp8flow_cuda::cast::Element::Bf16 => Format::Bf16,
                fp8flow_cuda::cast::Element::F32 => Format::F32,
            };
            let (a, b) = (Operand::transposed(format(&gradient), n), Operand::transposed(format(&input), k));
            let product = accumulated(Product::new([n, k, m], a, b, Output::F32));
            let [dy, x] = [gradient, input].map(|input| Spot::of(input.address));
            product::run(&bench, product, dy, x, at_dw, Cursor::nothing())?;
            self.counters.high_precision += 1;
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        let age = |role| self.scales.as_ref().map_or(0, |scales| scales.age(role));
        let known =
            Counters { scale_age: [Role::Input, Role::Weight, Role::Gradient].map(age), ..self.counters };
        match &self.opened {
            Some((_, notes)) => notes.add_to(known),
            None => known,
        }
    }
}

/// The casts of a matrix, as it lies and turned over.
fn sides(casts: [Option<Cast>; 2], rows: usize, cols: usize) -> [Option<Side>; 2] {
    let [as_it_lies, turned] = casts;
    [
        as_it_lies.map(|cast| Side { cast, layout: Layout::Rows, rows, cols }),
        turned.map(|cast| Side { cast, layout: Layout::Turned, rows, cols }),
    ]
}

/// A granularity as the card knows it; an error for blocks that it has not.
fn on_card(cast: Cast) -> Result<OnCard> {
    use crate::scaled::cast::Granularity;
    match cast.granularity {
        Granularity::Tensor => Ok(OnCard::Tensor),
        Granularity::Row => Ok(OnCard::Row),
        Granularity::Col => Ok(OnCard::Col),
        Granularity::Blocks { rows, cols } => OnCard::blocks(rows, cols).ok_or_else(|| {
            Error::unsupported(format!(
                "a card has no blocks of {rows}×{cols}, but of 1×128, 128×1 and 128×128"
            ))
        }),
    }
}

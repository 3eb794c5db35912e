//! Attention on a card: a layer of Llama-3-8B with 8192 tokens, in short sequences and in a long one.

use super::line::{CardLine, Extent, Heads};
use super::{CardBench, Name, Sizes, Work};
use crate::BenchError;
use crate::attention::{Layer, PASSES};
use crate::line::Line;

/// What is measured where nobody asks for anything else.
pub const USUAL: [Heads; 2] = [
    Heads { batch: 4, sequence: 2048, heads: 32, kv_heads: 8, head_dim: 128 },
    Heads { batch: 1, sequence: 8192, heads: 32, kv_heads: 8, head_dim: 128 },
];
const SMALL: [Heads; 1] = [Heads { batch: 2, sequence: 48, heads: 2, kv_heads: 1, head_dim: 64 }];

/// Measures both passes for `heads`, or for the usual ones.
pub fn attention(
    bench: &CardBench,
    heads: Option<Heads>,
    show: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let usual: &[Heads] = match bench.sizes {
        Sizes::Usual => &USUAL,
        Sizes::Small => &SMALL,
    };
    for &heads in heads.as_ref().map_or(usual, std::slice::from_ref) {
        let name = |what| Name { what, scales: None, extent: Extent::Heads(heads) };
        if let Some(why) = bench.objection(heads.bytes())? {
            for (what, ..) in PASSES {
                show(CardBench::left_out(name(what), why.clone()));
            }
            continue;
        }
        let device = &*bench.device;
        let mut layer = Layer::new(device, heads)?;
        for (what, products, run) in PASSES {
            let call = |_| {
                run(&mut layer, device);
                Ok(())
            };
            let line = bench.case(name(what), Work::Bf16(heads.flops(products)), call)?;
            show(Line::Card(CardLine::Case(line)));
        }
    }
    Ok(())
}

//! Tensors that are not one dense, aligned piece.

use fp8flow_sdk::ErrorKind;

use super::Found;
use crate::driver::Results;
use crate::failure::Failure;
use crate::layout::Layout;
use crate::memory::Fence;
use crate::step::Step;
use crate::subject::{Subject, input, output_gradients};
use crate::values::Activations::{self, Bf16, F32};
use crate::values::Values;

const TOKENS: usize = 18;
const TENSORS: [&str; 6] = ["x", "weight", "dy", "y", "dx", "dw"];

/// A layer refuses such a tensor, or computes what it computes from a dense one.
pub(crate) fn odd_layouts_are_refused_or_right(subject: &Subject<'_>) -> Found {
    let (mut taken, mut refused) = (0, 0);
    for dtype in [F32, Bf16] {
        let expected = step(subject, dtype, "", Layout::Dense)?;
        for odd in TENSORS {
            for layout in [Layout::Strided, Layout::Misaligned, Layout::Shifted] {
                match step(subject, dtype, odd, layout) {
                    Ok(found) => {
                        // An algorithm for an odd address may be another one, which adds in another order.
                        if let Some(what) = expected.differs(&found, subject.on_card()) {
                            return Err(Failure::Wrong(format!(
                                "{what} is wrong where {odd} is {layout:?}, and no error says so: look at the \
                                 strides and at the address of every tensor, and return ErrorKind::Unsupported or \
                                 Invalid for what is not taken"
                            )));
                        }
                        taken += 1;
                    }
                    Err(Failure::Call { error, .. }) if error.kind != ErrorKind::Panicked => refused += 1,
                    Err(failure) => {
                        return Err(Failure::Wrong(format!("where {odd} is {layout:?}, {failure}")));
                    }
                }
            }
        }
    }
    Ok(format!("{taken} taken, {refused} refused"))
}

/// A step in which one tensor lies otherwise.
fn step(subject: &Subject<'_>, dtype: Activations, odd: &str, layout: Layout) -> Result<Step, Failure> {
    let lie = |name: &str| if name == odd { layout } else { Layout::Dense };
    let mut layers = subject.group()?;
    layers.results = Results { y: lie("y"), dx: lie("dx"), dw: lie("dw") };
    layers.move_weights(Fence::Bytes, lie("weight"));
    let place = |values: &Values, layout| values.copied_to(Fence::Bytes, layout);
    let x = place(&input(dtype, TOKENS, 0), lie("x"));
    let dys: Vec<_> = output_gradients(dtype, TOKENS, 0).iter().map(|dy| place(dy, lie("dy"))).collect();
    layers.step(&x, &dys)
}

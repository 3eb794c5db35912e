//! Evaluations and sample answers that are asked to stop.

use std::cell::Cell;

use fp8flow_kernels::Serial;
use fp8flow_model::{Decoder, DecoderOptions, initialise};
use fp8flow_tensor::{Arena, DType};
use fp8flow_train::{evaluate, samples};

use crate::common::{cpu, examples, model};

#[test]
fn an_evaluation_stops_between_micro_batches_and_an_answer_between_tokens() {
    let (cpu, config, set) = (cpu(), model(), examples(6, 0));
    let options = DecoderOptions { dtype: DType::F32, recompute: false, tokens: 64 };
    let mut decoder = Decoder::new(&config, options, None, &mut Arena::allocate()).unwrap();
    let parameters = initialise(&config, 3, &Serial);
    decoder.weights_changed(&cpu, &parameters).unwrap();
    let asked = Cell::new(0);
    let only = |most: u32| {
        asked.set(0);
        let asked = &asked;
        move || {
            asked.set(asked.get() + 1);
            asked.get() <= most
        }
    };
    let proceed = only(2);
    assert_eq!(evaluate(&cpu, &mut decoder, &parameters, &set, 2, |_| proceed()).unwrap(), None);
    assert_eq!((asked.get(), decoder.evaluations()), (3, 2));
    assert_eq!(samples(&cpu, &mut decoder, &parameters, &set, 3, only(4)).unwrap(), None);
    assert_eq!((asked.get(), decoder.evaluations()), (5, 6));
    let answers = samples(&cpu, &mut decoder, &parameters, &set, 3, || true).unwrap();
    assert_eq!(answers.map(|answers| answers.len()), Some(3));
}

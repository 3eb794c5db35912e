//! A card shows that it computes what the specification says before anything is trusted to it.
//!
//! Every operation of a decoder runs once on the card and once on the CPU, and so does a layer of every recipe. What casts
//! to FP8 and multiplies codes gives the CPU's result but for the order of sums; what does not, or multiplies something
//! else, is further off than [`CLOSE_DB`].

use fp8flow_flow::{Class, StageError};
use fp8flow_model::{ModelConfig, try_layer};
use fp8flow_sdk::Recipe;
use fp8flow_tensor::check::check;
use fp8flow_tensor::{CardError, DType, Device};
use fp8flow_testkit::snr_db;
use fp8flow_train::TrainError;

use crate::Engine;
use crate::failure::OrFail as _;

/// How near a layer's results must be to those of the CPU, in dB. Rounding to bf16 in another order of sums leaves 50 and
/// more; the same product without FP8 is some 28 away from one with it.
const CLOSE_DB: f64 = 42.0;

/// What one can do about a card that computes wrongly.
const HELP: &str = "Nothing was computed with it. Look at the driver and the card's health (`nvidia-smi -q`), try another \
                    card, or set `device = \"cpu\"`; if other programs compute well on it, please report this.";

/// A card that has shown that it computes as the CPU does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checked {
    /// The card.
    pub(crate) card: String,
    /// How many results were compared.
    pub(crate) results: usize,
}

impl Checked {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let Self { card, results } = self;
        format!("card: {card} computes what the CPU does: {results} results of every operation were compared")
    }
}

/// Tries the operations of a decoder of `config` on the card of `engine`; none without one.
pub(crate) fn operations(
    engine: &Engine,
    config: &ModelConfig,
    dtype: DType,
) -> Result<Option<Checked>, StageError> {
    let device = engine.device();
    let Some(card) = name(&*device) else { return Ok(None) };
    let compared =
        check(&*device, engine.cpu_device(), config.head_dim, dtype).map_err(|error| unable(&error))?;
    if let Some(wrong) = compared.iter().find(|compared| !compared.holds()) {
        let due = match wrong.bound {
            0.0 => "its bits must be the CPU's".into(),
            bound => format!("{bound} at most is due to the order of sums"),
        };
        let (result, off) = (wrong.result, wrong.off);
        let message =
            format!("{card} computes wrongly: {result} is off by {off:.3} of its largest element; {due}");
        return Err(StageError::new(Class::Failed, message).help(HELP));
    }
    Ok(Some(Checked { card, results: compared.len() }))
}

/// Tries a layer of `shape`, K and N, under a recipe that `fresh` gives, on the card of `engine`: signal-to-noise in dB of
/// y, dx and dW beside the CPU's; none without a card.
pub(crate) fn layer(
    engine: &Engine,
    recipe: &str,
    shape: [usize; 2],
    fresh: impl Fn() -> Result<Box<dyn Recipe>, StageError>,
) -> Result<Option<[f64; 3]>, StageError> {
    let device = engine.device();
    let Some(card) = name(&*device) else { return Ok(None) };
    let run = |device: &dyn Device, recipe| try_layer(device, recipe, shape).map_err(TrainError::from);
    let expected = run(engine.cpu_device(), fresh()?).or_fail()?;
    let found = run(&*device, fresh()?).or_fail()?;
    let refuse = |what: String| {
        let message =
            format!("{card} does not compute recipe `{recipe}` as the CPU does: of a small layer {what}");
        Err(StageError::new(Class::Failed, message).help(HELP))
    };
    let pairs =
        [("y", &found.y, &expected.y), ("dx", &found.dx, &expected.dx), ("dW", &found.dw, &expected.dw)];
    let mut db = [f64::INFINITY; 3];
    for (db, (what, found, expected)) in db.iter_mut().zip(pairs) {
        let exact: Vec<f64> = expected.iter().copied().map(f64::from).collect();
        *db = snr_db(&exact, found);
        if db.is_nan() || *db < CLOSE_DB {
            return refuse(format!("{what} is {db:.0} dB from it, where {CLOSE_DB} are due"));
        }
    }
    let gemms = |tried: &fp8flow_model::Tried| {
        let counters = &tried.counters;
        [counters.fprop, counters.dgrad, counters.wgrad, counters.high_precision]
    };
    if gemms(&found) != gemms(&expected) {
        return refuse(format!("it counted {:?} GEMMs, not {:?}", gemms(&found), gemms(&expected)));
    }
    Ok(Some(db))
}

/// The card of `device` as people call it.
pub(crate) fn name(device: &dyn Device) -> Option<String> {
    device.card().map(|card| card.properties().name.clone())
}

fn unable(error: &CardError) -> StageError {
    StageError::new(Class::Failed, format!("the card: {error}"))
}

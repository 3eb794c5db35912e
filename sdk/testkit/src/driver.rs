//! Drives layers through the protocol as the engine does: memory on loan, groups, passes.

use fp8flow_sdk::kernels::{Elements, ElementsMut};
use fp8flow_sdk::{
    Backward, Counters, Decision, Error, Event, Forward, Group, Input, LayerFacts, Linear, Pass,
    QuantizedInput, Recipe, TensorMut, TensorRef,
};

use crate::memory::Guarded;
use crate::values::Values;

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The backend returned an error.
    #[error("{call} failed: {error}")]
    Call {
        /// Which call.
        call: &'static str,
        /// What it returned.
        error: Error,
    },
    /// Memory beside what was lent has changed.
    #[error("{call} wrote outside the {region}")]
    OutOfBounds {
        /// Which call.
        call: &'static str,
        /// Beside what.
        region: &'static str,
    },
    /// Anything else that should be otherwise.
    #[error("{0}")]
    Wrong(String),
}

/// Layers that read the same input, as `q_proj`, `k_proj` and `v_proj` do, with their weights.
pub struct Layers {
    recipe: Box<dyn Recipe>,
    linears: Vec<Box<dyn Linear>>,
    decisions: Vec<Decision>,
    weights: Vec<Vec<f32>>,
    in_features: usize,
    /// Whether calls ask for telemetry.
    pub telemetry: bool,
    /// What lent memory is full of before a call.
    pub fill: u8,
}

/// What a forward has left for backward.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The group's region.
    pub group: Guarded,
    /// Each layer's own.
    pub layers: Vec<Guarded>,
}

/// What a backward should write.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[M, K]`, unless nobody needs it.
    pub dx: Option<Values>,
    /// `[N, K]`, f32.
    pub dw: Vec<f32>,
    /// Whether to add to what is in `dx`.
    pub accumulate_dx: bool,
    /// Whether to add to what is in `dw`.
    pub accumulate_dw: bool,
}

/// What a step computed, layer by layer.
#[derive(Clone, Debug)]
pub struct Step {
    /// `[M, N]` each.
    pub outputs: Vec<Values>,
    /// `dx` and `dW` each.
    pub gradients: Vec<Gradients>,
}

impl Step {
    /// Every bit of it, for comparisons.
    pub fn bits(&self) -> Vec<u8> {
        let mut bits: Vec<u8> = self.outputs.iter().flat_map(|y| y.bytes().to_vec()).collect();
        for Gradients { dx, dw, .. } in &self.gradients {
            bits.extend(dx.iter().flat_map(Values::bytes));
            bits.extend(dw.iter().flat_map(|dw| dw.to_le_bytes()));
        }
        bits
    }
}

impl Layers {
    /// Layers of `weights` (`[N, K]` each) under `recipe`.
    pub fn new(
        mut recipe: Box<dyn Recipe>,
        in_features: usize,
        weights: Vec<Vec<f32>>,
    ) -> Result<Self, Failure> {
        let mut linears = Vec::new();
        let mut decisions = Vec::new();
        for (i, weight) in weights.iter().enumerate() {
            let facts = facts(i, weights.len(), in_features, weight.len() / in_features);
            decisions.push(recipe.decide(&facts));
            linears.push(
                recipe.linear(&facts).map_err(|error| Failure::Call { call: "Recipe::linear", error })?,
            );
        }
        Ok(Self { recipe, linears, decisions, weights, in_features, telemetry: false, fill: 0xa5 })
    }

    /// Layer `i`.
    pub fn layer(&self, i: usize) -> &dyn Linear {
        &*self.linears[i]
    }

    /// What the recipe decided for layer `i`.
    pub fn decision(&self, i: usize) -> &Decision {
        &self.decisions[i]
    }

    /// How many layers there are.
    pub fn len(&self) -> usize {
        self.linears.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.linears.is_empty()
    }

    /// N of layer `i`.
    pub fn out_features(&self, i: usize) -> usize {
        self.weights[i].len() / self.in_features
    }

    /// The counters of layer `i`.
    pub fn counters(&self, i: usize) -> Counters {
        self.linears[i].counters()
    }

    /// The recipe.
    pub fn recipe(&self) -> &dyn Recipe {
        &*self.recipe
    }

    /// The recipe, to restore its state.
    pub fn recipe_mut(&mut self) -> &mut dyn Recipe {
        &mut *self.recipe
    }

    /// Tells the recipe of a point in the protocol.
    pub fn on(&mut self, event: Event) -> Result<(), Failure> {
        self.recipe.on(event).map_err(|error| Failure::Call { call: "Recipe::on", error })
    }

    /// Changes the weight of layer `i`, without telling anybody.
    pub fn weight_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.weights[i]
    }

    /// The weight of layer `i`.
    pub fn weight(&self, i: usize) -> &[f32] {
        &self.weights[i]
    }

    /// One pass of all layers over `x`: their outputs, and what backward needs.
    pub fn forward(&mut self, pass: Pass, x: &Values) -> Result<(Vec<Values>, Saved), Failure> {
        self.forward_given(pass, x, None)
    }

    /// One optimizer step of a single micro-batch: forward and backward of every layer, all events in between.
    pub fn step(&mut self, x: &Values, dys: &[Values]) -> Result<Step, Failure> {
        let (outputs, saved) = self.forward(Pass::Train, x)?;
        self.on(Event::ForwardDone)?;
        let gradients = self.all_gradients(&saved, x, dys)?;
        self.on(Event::BackwardDone)?;
        self.on(Event::WeightsChanged)?;
        Ok(Step { outputs, gradients })
    }

    /// The backward of every layer, last to first, into fresh memory.
    pub fn all_gradients(
        &mut self,
        saved: &Saved,
        x: &Values,
        dys: &[Values],
    ) -> Result<Vec<Gradients>, Failure> {
        let mut gradients = Vec::new();
        for (i, dy) in dys.iter().enumerate().rev() {
            gradients.insert(0, self.gradients(i, saved, x, dy)?);
        }
        Ok(gradients)
    }

    /// [`Layers::forward`] with an input that its producer has cast.
    pub fn forward_given(
        &mut self,
        pass: Pass,
        x: &Values,
        quantized: Option<QuantizedInput<'_>>,
    ) -> Result<(Vec<Values>, Saved), Failure> {
        const CALL: &str = "Linear::forward";
        let tokens = x.rows();
        let memory: Vec<_> = self.linears.iter().map(|layer| layer.memory(tokens)).collect();
        let keep = usize::from(pass != Pass::Eval);
        let largest = |bytes: fn(&fp8flow_sdk::Memory) -> usize| memory.iter().map(bytes).max().unwrap_or(0);
        let mut group_saved = Guarded::new(keep * largest(|m| m.shared_saved), self.fill);
        let mut group_forward = Guarded::new(largest(|m| m.shared_forward), self.fill);
        let mut kept = Vec::new();
        let mut outputs = Vec::new();
        for (i, layer) in self.linears.iter_mut().enumerate() {
            let n = self.weights[i].len() / self.in_features;
            let mut saved = Guarded::new(keep * memory[i].saved, self.fill);
            let mut scratch = Guarded::new(memory[i].forward_scratch, self.fill);
            let mut y = Values::unwritten(x.dtype(), tokens, n);
            layer
                .forward(Forward {
                    pass,
                    x: Input { tensor: x.tensor(), quantized },
                    weight: TensorRef::new(Elements::F32(&self.weights[i]), &[n, self.in_features]),
                    y: y.tensor_mut(),
                    group: Group {
                        ready: i > 0,
                        saved: group_saved.bytes_mut(),
                        forward: group_forward.bytes_mut(),
                    },
                    saved: saved.bytes_mut(),
                    scratch: scratch.bytes_mut(),
                    telemetry: self.telemetry,
                })
                .map_err(|error| Failure::Call { call: CALL, error })?;
            intact(
                CALL,
                &[("group's saved region", &group_saved), ("group's forward region", &group_forward)],
            )?;
            intact(CALL, &[("saved region", &saved), ("scratch", &scratch)])?;
            if !y.is_intact() {
                return Err(Failure::OutOfBounds { call: CALL, region: "output" });
            }
            kept.push(saved);
            outputs.push(y);
        }
        Ok((outputs, Saved { group: group_saved, layers: kept }))
    }

    /// The backward of layer `i`, on top of what `gradients` hold. `x` is passed on only if the layer asks for it.
    pub fn backward(
        &mut self,
        i: usize,
        saved: &Saved,
        x: &Values,
        dy: &Values,
        gradients: &mut Gradients,
    ) -> Result<(), Failure> {
        const CALL: &str = "Linear::backward";
        let memory = self.linears[i].memory(dy.rows());
        let mut scratch = Guarded::new(memory.backward_scratch, self.fill);
        let shape = [self.out_features(i), self.in_features];
        self.linears[i]
            .backward(Backward {
                dy: dy.tensor(),
                weight: TensorRef::new(Elements::F32(&self.weights[i]), &shape),
                x: memory.keep_input.then(|| x.tensor()),
                dx: gradients.dx.as_mut().map(Values::tensor_mut),
                accumulate_dx: gradients.accumulate_dx,
                dw: TensorMut::new(ElementsMut::F32(&mut gradients.dw), &shape),
                accumulate_dw: gradients.accumulate_dw,
                group_saved: saved.group.bytes(),
                saved: saved.layers[i].bytes(),
                scratch: scratch.bytes_mut(),
                telemetry: self.telemetry,
            })
            .map_err(|error| Failure::Call { call: CALL, error })?;
        intact(CALL, &[("scratch", &scratch)])?;
        if gradients.dx.as_ref().is_some_and(|dx| !dx.is_intact()) {
            return Err(Failure::OutOfBounds { call: CALL, region: "gradient of the input" });
        }
        Ok(())
    }

    /// The backward of layer `i` into fresh memory.
    pub fn gradients(
        &mut self,
        i: usize,
        saved: &Saved,
        x: &Values,
        dy: &Values,
    ) -> Result<Gradients, Failure> {
        let mut gradients = Gradients {
            dx: Some(Values::unwritten(x.dtype(), x.rows(), x.cols())),
            dw: vec![f32::NAN; self.weights[i].len()],
            accumulate_dx: false,
            accumulate_dw: false,
        };
        self.backward(i, saved, x, dy, &mut gradients)?;
        Ok(gradients)
    }
}

/// What a recipe is told of layer `i` of a group of `layers`.
pub(crate) fn facts(i: usize, layers: usize, in_features: usize, out_features: usize) -> LayerFacts {
    let name = |i: usize| format!("block.proj_{i}");
    let group = (0..layers).map(name).collect();
    LayerFacts { name: name(i), in_features, out_features, tokens: None, block: Some(0), group }
}

fn intact(call: &'static str, regions: &[(&'static str, &Guarded)]) -> Result<(), Failure> {
    match regions.iter().find(|(_, memory)| !memory.is_intact()) {
        Some((region, _)) => Err(Failure::OutOfBounds { call, region }),
        None => Ok(()),
    }
}

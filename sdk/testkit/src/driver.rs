//! Drives layers through the protocol as the engine does: memory on loan, groups, passes.

use fp8flow_sdk::{
    Backward, Counters, Decision, Event, Forward, Group, Input, LayerFacts, Linear, Pass, QuantizedInput,
    Recipe,
};

use crate::failure::{Failure, Lent, intact};
use crate::layout::Layout;
use crate::memory::{Fence, Guarded};
use crate::step::{Gradients, Saved, Step};
use crate::values::{Activations, Values};

/// Layers that read the same input, as `q_proj`, `k_proj` and `v_proj` do, with their weights.
pub struct Layers {
    recipe: Box<dyn Recipe>,
    linears: Vec<Box<dyn Linear>>,
    decisions: Vec<Decision>,
    weights: Vec<Values>,
    in_features: usize,
    /// Whether calls ask for telemetry.
    pub telemetry: bool,
    /// What lent memory is full of before a call.
    pub fill: u8,
    /// What stands around lent memory.
    pub fence: Fence,
    /// How what is to be written lies.
    pub(crate) results: Results,
    /// Where scratch memory goes after a call, overwritten, if it is not to be given back.
    pub(crate) retired: Option<Vec<Guarded>>,
}

/// How the results of calls lie in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Results {
    pub(crate) y: Layout,
    pub(crate) dx: Layout,
    pub(crate) dw: Layout,
}

impl Layers {
    /// Layers of `weights` (`[N, K]` each) under `recipe`.
    pub fn new(recipe: Box<dyn Recipe>, in_features: usize, weights: Vec<Vec<f32>>) -> Result<Self, Failure> {
        Self::named("block.proj", recipe, in_features, weights)
    }

    /// The same with names that begin with `name`: a recipe has one layer of a name.
    pub(crate) fn named(
        name: &str,
        mut recipe: Box<dyn Recipe>,
        in_features: usize,
        weights: Vec<Vec<f32>>,
    ) -> Result<Self, Failure> {
        let mut linears = Vec::new();
        let mut decisions = Vec::new();
        for (i, weight) in weights.iter().enumerate() {
            let facts = facts_of(name, i, weights.len(), in_features, weight.len() / in_features);
            decisions.push(recipe.decide(&facts));
            linears.push(
                recipe.linear(&facts).map_err(|error| Failure::Call { call: "Recipe::linear", error })?,
            );
        }
        let matrix = |weight: Vec<f32>| {
            Values::new(Activations::F32, weight.len() / in_features, in_features, &weight)
        };
        Ok(Self {
            recipe,
            linears,
            decisions,
            weights: weights.into_iter().map(matrix).collect(),
            in_features,
            telemetry: false,
            fill: 0xa5,
            fence: Fence::Bytes,
            results: Results::default(),
            retired: None,
        })
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
        self.weights[i].rows()
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
        self.weights[i].floats_mut()
    }

    /// Moves the weights to other memory; what is left behind is overwritten, and retired if anything is.
    pub(crate) fn move_weights(&mut self, fence: Fence, layout: Layout) {
        for weight in &mut self.weights {
            let mut left = std::mem::replace(weight, weight.copied_to(fence, layout));
            left.bytes_mut().fill(GARBAGE);
            if let Some(retired) = &mut self.retired {
                retired.push(left.into_memory());
            }
        }
    }

    /// The weight of layer `i`.
    pub fn weight(&self, i: usize) -> &[f32] {
        self.weights[i].floats()
    }

    /// The weight of layer `i`, wherever it lies.
    pub(crate) fn dense_weight(&self, i: usize) -> Vec<f32> {
        self.weights[i].dense().to_f32()
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
        let lend = |bytes| Guarded::within(self.fence, bytes, self.fill);
        let mut group_saved = lend(keep * largest(|m| m.shared_saved));
        let mut group_forward = lend(largest(|m| m.shared_forward));
        let mut kept = Vec::new();
        let mut outputs = Vec::new();
        for (i, layer) in self.linears.iter_mut().enumerate() {
            let weight = &self.weights[i];
            let mut saved = lend(keep * memory[i].saved);
            let mut scratch = lend(memory[i].forward_scratch);
            let mut y = Values::unwritten_as(x.dtype(), tokens, weight.rows(), self.fence, self.results.y);
            let lent = Lent::new(&[("x", x.bytes()), ("weight", weight.bytes())]);
            layer
                .forward(Forward {
                    pass,
                    x: Input { tensor: x.tensor(), quantized },
                    weight: weight.tensor(),
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
            let written: [(&'static str, bool); 7] = [
                ("group's saved region", group_saved.is_intact()),
                ("group's forward region", group_forward.is_intact()),
                ("saved region", saved.is_intact()),
                ("scratch", scratch.is_intact()),
                ("output", y.is_intact()),
                ("input", x.is_intact()),
                ("weight", weight.is_intact()),
            ];
            intact(CALL, &written)?;
            lent.unchanged(CALL, &[x.bytes(), weight.bytes()])?;
            retire(&mut self.retired, scratch);
            kept.push(saved);
            outputs.push(if self.results.y == Layout::Dense { y } else { y.dense() });
        }
        retire(&mut self.retired, group_forward);
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
        let mut scratch = Guarded::within(self.fence, memory.backward_scratch, self.fill);
        let weight = &self.weights[i];
        let place = |values: &Values, layout| values.copied_to(self.fence, layout);
        let mut dx = gradients.dx.as_ref().map(|dx| place(dx, self.results.dx));
        let dw = Values::new(Activations::F32, weight.rows(), weight.cols(), &gradients.dw);
        let mut dw = place(&dw, self.results.dw);
        let inputs = || [dy.bytes(), weight.bytes(), x.bytes(), saved.group.bytes(), saved.layers[i].bytes()];
        let names = ["dy", "weight", "x", "group_saved", "saved"];
        let lent = Lent::new(&std::array::from_fn::<_, 5, _>(|j| (names[j], inputs()[j])));
        self.linears[i]
            .backward(Backward {
                dy: dy.tensor(),
                weight: weight.tensor(),
                x: memory.keep_input.then(|| x.tensor()),
                dx: dx.as_mut().map(Values::tensor_mut),
                accumulate_dx: gradients.accumulate_dx,
                dw: dw.tensor_mut(),
                accumulate_dw: gradients.accumulate_dw,
                group_saved: saved.group.bytes(),
                saved: saved.layers[i].bytes(),
                scratch: scratch.bytes_mut(),
                telemetry: self.telemetry,
            })
            .map_err(|error| Failure::Call { call: CALL, error })?;
        let written: [(&'static str, bool); 7] = [
            ("scratch", scratch.is_intact()),
            ("gradient of the input", dx.as_ref().is_none_or(Values::is_intact)),
            ("gradient of the weight", dw.is_intact()),
            ("gradient of the output", dy.is_intact()),
            ("weight", weight.is_intact()),
            ("group's saved region", saved.group.is_intact()),
            ("saved region", saved.layers[i].is_intact()),
        ];
        intact(CALL, &written)?;
        lent.unchanged(CALL, &inputs())?;
        gradients.dw.copy_from_slice(dw.dense().floats());
        gradients.dx = dx.map(|dx| dx.dense());
        retire(&mut self.retired, scratch);
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
            dw: vec![f32::NAN; self.weights[i].rows() * self.in_features],
            accumulate_dx: false,
            accumulate_dw: false,
        };
        self.backward(i, saved, x, dy, &mut gradients)?;
        Ok(gradients)
    }
}

/// What memory is full of that a backend should have forgotten.
pub(crate) const GARBAGE: u8 = 0x5b;

fn retire(retired: &mut Option<Vec<Guarded>>, mut memory: Guarded) {
    if let Some(retired) = retired {
        memory.bytes_mut().fill(GARBAGE);
        retired.push(memory);
    }
}

/// What a recipe is told of layer `i` of a group of `layers`.
pub(crate) fn facts(i: usize, layers: usize, in_features: usize, out_features: usize) -> LayerFacts {
    facts_of("block.proj", i, layers, in_features, out_features)
}

fn facts_of(name: &str, i: usize, layers: usize, in_features: usize, out_features: usize) -> LayerFacts {
    let name = |i: usize| format!("{name}_{i}");
    let group = (0..layers).map(name).collect();
    LayerFacts { device: None, name: name(i), in_features, out_features, tokens: None, block: Some(0), group }
}

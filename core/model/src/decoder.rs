//! A decoder: embedding, blocks, norm and output head in a straight line, forward and backward over planned memory.

use fp8flow_sdk::{Counters, Decision, Event, LayerFacts, Pass, Precision, Recipe, StateDict};
use fp8flow_tensor::{Arena, CrossEntropy, DType, Device, RopeTable, Tensor, Workload};

use crate::block::{Block, KeptBlock, Surroundings, Workspace, attention};
use crate::by_reference::device_id;
use crate::layers::OUTPUT_HEAD;
use crate::linear::{LinearGroup, LoanSize};
use crate::parameters::position;
use crate::{DecoderError, ModelConfig, ParameterKind, Parameters, linear_layers, parameter_specs};

/// A micro-batch: sequences one after the other, without padding.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Token ids, all sequences in a row.
    pub ids: &'a [u32],
    /// For each position the token to predict, or −1 for none.
    pub targets: &'a [i32],
    /// Where each sequence starts and, last, the number of tokens.
    pub sequences: &'a [u32],
}

/// How a decoder runs.
#[derive(Clone, Copy, Debug)]
pub struct DecoderOptions {
    /// Element type of activations.
    pub dtype: DType,
    /// Whether only the inputs of blocks are kept, and each block runs forward again before its backward.
    pub recompute: bool,
    /// The most tokens a micro-batch may have.
    pub tokens: usize,
}

impl DecoderOptions {
    /// Which memory block `i` keeps its activations in.
    fn slot(&self, i: usize) -> usize {
        if self.recompute { 0 } else { i }
    }
}

/// The recipe that FP8 layers run under, and the decision for every layer.
pub struct Fp8Layers {
    /// The recipe; under several, the one that leads to each.
    pub recipe: Box<dyn Recipe>,
    /// Every layer with its decision. Layers of one [`LayerFacts::group`] share the cast of their input.
    pub layers: Vec<(LayerFacts, Decision)>,
}

impl Fp8Layers {
    /// The layer as the recipe is asked for it, where it runs in FP8: with the group that was planned.
    fn planned(&self, layer: &LayerFacts) -> Option<LayerFacts> {
        let (planned, decision) = self.layers.iter().find(|(facts, _)| facts.name == layer.name)?;
        let group =
            || if planned.group.is_empty() { vec![layer.name.clone()] } else { planned.group.clone() };
        (decision.precision == Precision::Fp8).then(|| LayerFacts { group: group(), ..layer.clone() })
    }
}

/// A decoder with the memory of its activations. Parameters and gradients are the caller's.
pub struct Decoder {
    config: ModelConfig,
    options: DecoderOptions,
    rope: RopeTable,
    blocks: Vec<Block>,
    recipe: Option<Box<dyn Recipe>>,
    embedding: usize,
    final_norm: usize,
    head: usize,
    /// The head in the activations' type, where that is not f32.
    rounded_head: Option<Tensor>,
    /// The residual stream before each block and after the last.
    stream: Vec<Tensor>,
    kept: Vec<KeptBlock>,
    space: Workspace,
    final_rstd: Tensor,
    final_normed: Tensor,
    grad: Tensor,
    dnormed: Tensor,
    bytes: usize,
    own: usize,
    evaluations: u64,
    /// Whether layers count saturated and underflowed elements.
    pub telemetry: bool,
}

impl Decoder {
    /// A decoder of `config`; its memory comes from `arena`.
    ///
    /// The layers are created in the model's order. With an arena that only measures, nothing can be run.
    pub fn new(
        config: &ModelConfig,
        options: DecoderOptions,
        mut fp8: Option<Fp8Layers>,
        arena: &mut Arena,
    ) -> Result<Self, DecoderError> {
        let specs = parameter_specs(config);
        let index = |name: &str| position(&specs, name).ok_or_else(|| DecoderError::NoParameter(name.into()));
        let DecoderOptions { dtype, tokens, recompute } = options;
        let (before, allocates) = (arena.bytes(), arena.allocates());
        let mut facts = linear_layers(config, Some(tokens));
        let mut wanted = Vec::new();
        for layer in &mut facts {
            let planned = fp8.as_ref().and_then(|fp8| fp8.planned(layer));
            wanted.extend(planned.iter().map(|planned| planned.name.clone()));
            // A layer in high precision has no cast to share.
            *layer = planned.unwrap_or_else(|| LayerFacts { group: Vec::new(), ..layer.clone() });
            layer.device = arena.card().map(device_id);
        }
        let in_block = (facts.len() - 1) / config.blocks.max(1);
        let mut blocks = Vec::new();
        for block in 0..config.blocks {
            let facts = &facts[block * in_block..][..in_block];
            blocks.push(Block::new(block, facts, &specs, dtype, arena, |layer| match &mut fp8 {
                Some(fp8) if wanted.contains(&layer.name) => fp8
                    .recipe
                    .linear(layer)
                    .map(Some)
                    .map_err(|source| DecoderError::layer(&layer.name, source)),
                _ => Ok(None),
            })?);
        }
        if wanted.last().is_some_and(|name| name == OUTPUT_HEAD) {
            return Err(DecoderError::layer(
                OUTPUT_HEAD,
                fp8flow_sdk::Error::unsupported(format!(
                    "{OUTPUT_HEAD} is part of the loss, in high precision"
                )),
            ));
        }
        let loan = blocks.iter().fold(LoanSize::default(), |size, block| size.max(block.loan(tokens)));
        // The blocks that take turns in one memory.
        let turns = if recompute { config.blocks.max(1) } else { 1 };
        let slots = blocks.chunks(turns);
        let kept = slots.map(|blocks| Block::kept(blocks, config, dtype, tokens, arena)).collect();
        let h = config.hidden_size;
        let positions = tokens.min(config.max_positions);
        let rope = config.rope_table(if allocates { positions } else { 0 }).copy_to(arena.card())?;
        let mut tensor = |dtype, rows, cols| arena.tensor(dtype, rows, cols);
        let head = if config.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let mut decoder = Self {
            rope,
            embedding: index("model.embed_tokens.weight")?,
            final_norm: index("model.norm.weight")?,
            head: index(head)?,
            rounded_head: (dtype != DType::F32).then(|| tensor(dtype, config.vocab_size, h)),
            stream: (0..=config.blocks).map(|_| tensor(dtype, tokens, h)).collect(),
            final_rstd: tensor(DType::F32, tokens, 1),
            final_normed: tensor(dtype, tokens, h),
            grad: tensor(dtype, tokens, h),
            dnormed: tensor(dtype, tokens, h),
            kept,
            space: Workspace::new(config, loan, dtype, tokens, arena),
            own: blocks.iter().flat_map(Block::groups).map(|group| group.own(tokens)).sum(),
            blocks,
            recipe: fp8.map(|fp8| fp8.recipe),
            config: config.clone(),
            options,
            bytes: 0,
            evaluations: 0,
            telemetry: false,
        };
        arena.check()?;
        decoder.bytes = arena.bytes() - before + RopeTable::bytes(positions, config.head_dim);
        Ok(decoder)
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How it runs.
    pub fn options(&self) -> DecoderOptions {
        self.options
    }

    /// Forwards for evaluation so far: what layers have counted beside those of training.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// The most tokens a micro-batch may have.
    pub fn capacity(&self) -> usize {
        self.options.tokens
    }

    /// Bytes of activations and tables, of weights in the activations' type and of what is lent to backends.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that backends say they hold themselves, such as cast weights.
    pub fn backend_bytes(&self) -> usize {
        self.own
    }

    /// What it asks of a device with the largest micro-batch.
    pub fn workload(&self) -> Workload {
        let config = &self.config;
        Workload {
            dtype: self.options.dtype,
            tokens: self.options.tokens,
            hidden: config.hidden_size,
            vocabulary: config.vocab_size,
            attention: attention(config),
            linears: self.blocks.iter().flat_map(Block::groups).flat_map(LinearGroup::high).collect(),
        }
    }

    /// The recipe of the FP8 layers.
    pub fn recipe(&self) -> Option<&dyn Recipe> {
        self.recipe.as_deref()
    }

    /// Name and counters of every layer that runs through the backend, in the model's order.
    ///
    /// An error if the backend failed to count: no counter is believed then.
    pub fn counters(&self) -> Result<Vec<(String, Counters)>, DecoderError> {
        let groups = self.blocks.iter().flat_map(Block::groups);
        let counters = groups
            .flat_map(LinearGroup::counters)
            .map(|(name, counted)| (name.to_owned(), counted))
            .collect();
        self.recipe.as_ref().map_or(Ok(()), |recipe| recipe.healthy())?;
        Ok(counters)
    }

    /// State of the recipe that must survive a restart.
    pub fn recipe_state(&self) -> Result<StateDict, DecoderError> {
        Ok(self.recipe.as_ref().map(|recipe| recipe.state()).transpose()?.unwrap_or_default())
    }

    /// Takes back what [`Decoder::recipe_state`] gave.
    pub fn restore_recipe(&mut self, state: &StateDict) -> Result<(), DecoderError> {
        match &mut self.recipe {
            Some(recipe) => Ok(recipe.restore(state)?),
            None => Ok(state.expect_empty()?),
        }
    }

    /// The masters have changed: weights cast or rounded from them are stale. Must be called before the first batch.
    pub fn weights_changed(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
    ) -> Result<(), DecoderError> {
        for group in self.blocks.iter_mut().flat_map(Block::groups_mut) {
            group.weights_changed(device, parameters);
        }
        if let Some(rounded) = &mut self.rounded_head {
            device.convert(&parameters.tensors()[self.head], rounded);
        }
        self.announce(Event::WeightsChanged)
    }

    fn announce(&mut self, event: Event) -> Result<(), DecoderError> {
        Ok(self.recipe.as_mut().map_or(Ok(()), |recipe| recipe.on(event))?)
    }

    /// Loss and predictions; leaves no trace in the recipe's state.
    pub fn evaluate(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        batch: Batch<'_>,
    ) -> Result<CrossEntropy, DecoderError> {
        self.forward(device, parameters, batch, Pass::Eval)?;
        let head = self.rounded_head.as_ref().unwrap_or(&parameters.tensors()[self.head]);
        Ok(device.cross_entropy(&self.final_normed, head, batch.targets, None))
    }

    /// Logits `[T, V]` in f32, for inspection and tests.
    pub fn logits(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        batch: Batch<'_>,
    ) -> Result<Tensor, DecoderError> {
        self.forward(device, parameters, batch, Pass::Eval)?;
        let head = self.rounded_head.as_ref().unwrap_or(&parameters.tensors()[self.head]);
        let (tokens, vocabulary) = (batch.ids.len(), self.config.vocab_size);
        let mut logits = match device.card() {
            Some(card) => Tensor::zeros_on(card, DType::F32, tokens, vocabulary)?,
            None => Tensor::zeros(DType::F32, tokens, vocabulary),
        };
        device.logits(&self.final_normed, head, &mut logits);
        Ok(logits)
    }

    /// Loss of a micro-batch, and the gradient of `factor · loss_sum` into `gradients`: added to what is there, or
    /// instead of it.
    pub fn train(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        batch: Batch<'_>,
        factor: f32,
        gradients: &mut Parameters,
        accumulate: bool,
    ) -> Result<CrossEntropy, DecoderError> {
        self.forward(device, parameters, batch, Pass::Train)?;
        self.announce(Event::ForwardDone)?;
        if !accumulate {
            clear_gained(device, gradients);
        }
        let weights = parameters.tensors();
        let head = self.rounded_head.as_ref().unwrap_or(&weights[self.head]);
        let dhead = &mut gradients.tensors_mut()[self.head];
        let loss = device.cross_entropy(
            &self.final_normed,
            head,
            batch.targets,
            Some((&mut self.dnormed, dhead, factor)),
        );
        device.fill(&mut self.grad, 0.0);
        let last = &self.stream[self.config.blocks];
        let (norm, dweight) = (&weights[self.final_norm], &mut gradients.tensors_mut()[self.final_norm]);
        device.rms_norm_backward(&self.dnormed, last, norm, &self.final_rstd, &mut self.grad, dweight);

        let rope = &self.rope;
        let around =
            Surroundings::new(&self.config, device, parameters, rope, batch.sequences, self.telemetry);
        for (i, block) in self.blocks.iter_mut().enumerate().rev() {
            let (before, after) = self.stream.split_at_mut(i + 1);
            let (x, space) = (&before[i], &mut self.space);
            let kept = &mut self.kept[self.options.slot(i)];
            if self.options.recompute {
                block.forward(&around, Pass::Recompute, x, &mut after[0], kept, space)?;
            }
            block.backward(&around, x, &mut self.grad, gradients, accumulate, kept, space)?;
        }
        device.embedding_backward(batch.ids, &self.grad, &mut gradients.tensors_mut()[self.embedding]);
        self.announce(Event::BackwardDone)?;
        Ok(loss)
    }

    fn forward(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        batch: Batch<'_>,
        pass: Pass,
    ) -> Result<(), DecoderError> {
        self.begin(batch)?;
        self.evaluations += u64::from(pass == Pass::Eval);
        device.embedding(batch.ids, &parameters.tensors()[self.embedding], &mut self.stream[0]);
        for i in 0..self.blocks.len() {
            self.forward_block(device, parameters, batch, pass, i)?;
        }
        let last = &self.stream[self.config.blocks];
        let norm = &parameters.tensors()[self.final_norm];
        let (normed, rstd) = (&mut self.final_normed, &mut self.final_rstd);
        device.rms_norm(last, norm, self.config.rms_norm_eps, normed, rstd);
        Ok(())
    }

    fn forward_block(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        batch: Batch<'_>,
        pass: Pass,
        i: usize,
    ) -> Result<(), DecoderError> {
        let rope = &self.rope;
        let around =
            Surroundings::new(&self.config, device, parameters, rope, batch.sequences, self.telemetry);
        let (before, after) = self.stream.split_at_mut(i + 1);
        let kept = &mut self.kept[self.options.slot(i)];
        self.blocks[i].forward(&around, pass, &before[i], &mut after[0], kept, &mut self.space)
    }

    /// Checks a micro-batch and gives every tensor its number of rows.
    fn begin(&mut self, batch: Batch<'_>) -> Result<(), DecoderError> {
        let (tokens, room) = (batch.ids.len(), self.options.tokens);
        if tokens == 0 || tokens > room {
            return Err(DecoderError::Batch(format!("{tokens} tokens, where 1 to {room} were planned")));
        }
        if batch.targets.len() != tokens {
            return Err(DecoderError::Batch(format!("{tokens} tokens and {} targets", batch.targets.len())));
        }
        let vocabulary = self.config.vocab_size;
        let foreign = batch.ids.iter().copied().find(|&id| id as usize >= vocabulary);
        let target = batch.targets.iter().copied().find(|&id| id >= 0 && id as usize >= vocabulary);
        if let Some(id) = foreign.map(i64::from).or(target.map(i64::from)) {
            return Err(DecoderError::Batch(format!("token {id} in a vocabulary of {vocabulary}")));
        }
        let sequences = batch.sequences;
        let ascending = sequences.windows(2).all(|pair| pair[0] < pair[1]);
        if sequences.first() != Some(&0) || sequences.last() != Some(&(tokens as u32)) || !ascending {
            return Err(DecoderError::Batch(
                "sequences must start at 0, ascend and end at the last token".into(),
            ));
        }
        let longest = sequences.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as usize;
        let context = self.config.max_positions;
        if longest > context {
            return Err(DecoderError::Batch(format!(
                "a sequence of {longest} tokens, where the model has {context} positions"
            )));
        }
        self.stream.iter_mut().for_each(|tensor| tensor.set_rows(tokens));
        self.kept.iter_mut().for_each(|kept| kept.set_rows(tokens));
        self.space.set_rows(tokens);
        for tensor in [&mut self.final_rstd, &mut self.final_normed, &mut self.grad, &mut self.dnormed] {
            tensor.set_rows(tokens);
        }
        Ok(())
    }

    /// Runs forward again and names the first place whose output holds an infinity or NaN, if there is one.
    pub fn first_non_finite(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        batch: Batch<'_>,
    ) -> Result<Option<String>, DecoderError> {
        for (spec, tensor) in parameters.iter() {
            if !is_finite(tensor)? {
                return Ok(Some(format!("parameter `{}`", spec.name)));
            }
        }
        self.begin(batch)?;
        device.embedding(batch.ids, &parameters.tensors()[self.embedding], &mut self.stream[0]);
        for i in 0..self.blocks.len() {
            self.forward_block(device, parameters, batch, Pass::Eval, i)?;
            let kept = &self.kept[self.options.slot(i)];
            let outputs = kept.made().into_iter().chain([("mlp.down_proj", &self.stream[i + 1])]);
            for (name, tensor) in outputs {
                if !is_finite(tensor)? {
                    return Ok(Some(format!("the output of `model.layers.{i}.{name}`")));
                }
            }
        }
        Ok(None)
    }
}

/// Zeroes the gradients that only gain: all but the weights of linear layers, which are overwritten.
///
/// With −0, to which every x adds up to x: a −0 that is still there afterwards was never added to.
fn clear_gained(device: &dyn Device, gradients: &mut Parameters) {
    for i in 0..gradients.specs().len() {
        if gradients.specs()[i].kind != ParameterKind::Matrix {
            device.fill(&mut gradients.tensors_mut()[i], -0.0);
        }
    }
}

fn is_finite(tensor: &Tensor) -> Result<bool, DecoderError> {
    let here = tensor.here()?;
    let elements = here.elements();
    Ok((0..elements.len()).all(|i| elements.get(i).is_finite()))
}

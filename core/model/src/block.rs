//! One decoder block, forward and backward: attention and MLP, each behind a norm and beside a residual.

use fp8flow_sdk::{LayerFacts, Linear, Pass};
use fp8flow_tensor::{Arena, AttentionShape, DType, Device, RopeTable, Rotation, Tensor};

use crate::linear::{Kept, LinearGroup, Loan, LoanSize};
use crate::parameters::position;
use crate::{DecoderError, ModelConfig, ParameterSpec, Parameters};

/// The layers of a block and where its norms stand among the parameters.
pub(crate) struct Block {
    qkv: LinearGroup,
    o: LinearGroup,
    gate_up: LinearGroup,
    down: LinearGroup,
    attention_norm: usize,
    mlp_norm: usize,
}

/// What all blocks have in common for a micro-batch.
pub(crate) struct Surroundings<'a> {
    pub(crate) device: &'a dyn Device,
    pub(crate) parameters: &'a Parameters,
    pub(crate) rope: &'a RopeTable,
    pub(crate) shape: AttentionShape,
    pub(crate) eps: f32,
    pub(crate) sequences: &'a [u32],
    pub(crate) telemetry: bool,
}

impl<'a> Surroundings<'a> {
    pub(crate) fn new(
        config: &ModelConfig,
        device: &'a dyn Device,
        parameters: &'a Parameters,
        rope: &'a RopeTable,
        sequences: &'a [u32],
        telemetry: bool,
    ) -> Self {
        let (shape, eps) = (attention(config), config.rms_norm_eps);
        Self { device, parameters, rope, shape, eps, sequences, telemetry }
    }
}

/// The attention of every block.
pub(crate) fn attention(config: &ModelConfig) -> AttentionShape {
    AttentionShape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        scale: 1.0 / (config.head_dim as f32).sqrt(),
    }
}

/// What a block keeps from forward to backward, for up to a number of tokens.
#[derive(Debug)]
pub(crate) struct KeptBlock {
    rstd: [Tensor; 2],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    attended: Tensor,
    /// The residual stream between attention and MLP.
    middle: Tensor,
    gate: Tensor,
    up: Tensor,
    /// Inputs of the groups, where their backward reads them again: normed, normed, SwiGLU's output.
    inputs: [Option<Tensor>; 3],
    groups: [Kept; 4],
}

/// Memory that blocks use one after the other.
#[derive(Debug)]
pub(crate) struct Workspace {
    loan: Loan,
    /// Inputs of groups that are not kept.
    normed: Tensor,
    activated: Tensor,
    /// Gradients inside a block.
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    dattended: Tensor,
    dgate: Tensor,
    dup: Tensor,
    dactivated: Tensor,
    dnormed: Tensor,
}

impl Block {
    /// Block `index` with the layers of `facts`, in the order of [`crate::linear_layers`].
    pub(crate) fn new(
        index: usize,
        facts: &[LayerFacts],
        specs: &[ParameterSpec],
        dtype: DType,
        arena: &mut Arena,
        mut backend: impl FnMut(&LayerFacts) -> Result<Option<Box<dyn Linear>>, DecoderError>,
    ) -> Result<Self, DecoderError> {
        let norm = |name: &str| {
            let name = format!("model.layers.{index}.{name}");
            position(specs, &format!("{name}.weight")).ok_or(DecoderError::NoParameter(name))
        };
        let mut group = |facts: &[LayerFacts]| LinearGroup::new(facts, specs, dtype, arena, &mut backend);
        Ok(Self {
            qkv: group(&facts[0..3])?,
            o: group(&facts[3..4])?,
            gate_up: group(&facts[4..6])?,
            down: group(&facts[6..7])?,
            attention_norm: norm("input_layernorm")?,
            mlp_norm: norm("post_attention_layernorm")?,
        })
    }

    pub(crate) fn groups(&self) -> [&LinearGroup; 4] {
        [&self.qkv, &self.o, &self.gate_up, &self.down]
    }

    pub(crate) fn groups_mut(&mut self) -> [&mut LinearGroup; 4] {
        [&mut self.qkv, &mut self.o, &mut self.gate_up, &mut self.down]
    }

    /// What must be lent to any of its layers.
    pub(crate) fn loan(&self, tokens: usize) -> LoanSize {
        self.groups().into_iter().fold(LoanSize::default(), |size, group| size.max(group.loan(tokens)))
    }

    /// Room for what any one of `blocks` keeps: under recompute they take turns in it, and need not be alike.
    pub(crate) fn kept(
        blocks: &[Self],
        config: &ModelConfig,
        dtype: DType,
        tokens: usize,
        arena: &mut Arena,
    ) -> KeptBlock {
        let (h, mlp) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let groups = |i: usize| blocks.iter().map(|block| block.groups()[i]).collect::<Vec<_>>();
        let input = |i: usize, cols, arena: &mut Arena| {
            let kept = groups(i).into_iter().any(|group| group.keeps_input(tokens));
            kept.then(|| arena.tensor(dtype, tokens, cols))
        };
        KeptBlock {
            rstd: [arena.tensor(DType::F32, tokens, 1), arena.tensor(DType::F32, tokens, 1)],
            q: arena.tensor(dtype, tokens, q),
            k: arena.tensor(dtype, tokens, kv),
            v: arena.tensor(dtype, tokens, kv),
            lse: arena.tensor(DType::F32, tokens, config.heads),
            attended: arena.tensor(dtype, tokens, q),
            middle: arena.tensor(dtype, tokens, h),
            gate: arena.tensor(dtype, tokens, mlp),
            up: arena.tensor(dtype, tokens, mlp),
            inputs: [input(0, h, arena), input(2, h, arena), input(3, mlp, arena)],
            groups: std::array::from_fn(|i| LinearGroup::kept(&groups(i), tokens, arena)),
        }
    }

    /// `output = block(x)`; `x, output: [T, H]`.
    pub(crate) fn forward(
        &mut self,
        around: &Surroundings<'_>,
        pass: Pass,
        x: &Tensor,
        output: &mut Tensor,
        kept: &mut KeptBlock,
        space: &mut Workspace,
    ) -> Result<(), DecoderError> {
        let Surroundings { device, parameters, rope, shape, eps, sequences, telemetry } = *around;
        let weights = parameters.tensors();
        let KeptBlock { rstd, q, k, v, lse, attended, middle, gate, up, inputs, groups } = kept;
        let Workspace { loan, normed: spare, activated: spare_activated, .. } = space;
        let [qkv_input, mlp_input, down_input] = inputs;
        let [kept_qkv, kept_o, kept_gate_up, kept_down] = groups;

        let normed = qkv_input.as_mut().unwrap_or(spare);
        device.rms_norm(x, &weights[self.attention_norm], eps, normed, &mut rstd[0]);
        let outputs = &mut [&mut *q, &mut *k, &mut *v];
        self.qkv.forward(device, parameters, pass, telemetry, normed, outputs, kept_qkv, loan)?;
        device.rope(q, shape.head_dim, sequences, rope, Rotation::Forward);
        device.rope(k, shape.head_dim, sequences, rope, Rotation::Forward);
        device.attention(shape, sequences, q, k, v, attended, lse);
        self.o.forward(device, parameters, pass, telemetry, attended, &mut [middle], kept_o, loan)?;
        device.add(middle, x);

        let normed = mlp_input.as_mut().unwrap_or(spare);
        device.rms_norm(middle, &weights[self.mlp_norm], eps, normed, &mut rstd[1]);
        let outputs = &mut [&mut *gate, &mut *up];
        self.gate_up.forward(device, parameters, pass, telemetry, normed, outputs, kept_gate_up, loan)?;
        let activated = down_input.as_mut().unwrap_or(spare_activated);
        device.swiglu(gate, up, activated);
        self.down.forward(device, parameters, pass, telemetry, activated, &mut [output], kept_down, loan)?;
        device.add(output, middle);
        Ok(())
    }

    /// Turns `grad`, the gradient of the block's output, into that of its input `x`; adds to `gradients`.
    ///
    /// Weights of linear layers are overwritten unless `accumulate`; everything else gains.
    pub(crate) fn backward(
        &mut self,
        around: &Surroundings<'_>,
        x: &Tensor,
        grad: &mut Tensor,
        gradients: &mut Parameters,
        accumulate: bool,
        kept: &KeptBlock,
        space: &mut Workspace,
    ) -> Result<(), DecoderError> {
        let Surroundings { device, parameters, rope, shape, sequences, telemetry, .. } = *around;
        let weights = parameters.tensors();
        let KeptBlock { rstd, q, k, v, lse, attended, middle, gate, up, inputs, groups } = kept;
        let Workspace { loan, dq, dk, dv, dattended, dgate, dup, dactivated, dnormed, .. } = space;
        let [qkv_input, mlp_input, down_input] = inputs.each_ref().map(Option::as_ref);
        let [kept_qkv, kept_o, kept_gate_up, kept_down] = groups;
        let mut linear =
            |group: &mut LinearGroup, x, dys: &[&Tensor], dx: &mut Tensor, gradients: &mut _, kept| {
                group.backward(device, parameters, telemetry, x, dys, dx, gradients, accumulate, kept, loan)
            };

        linear(&mut self.down, down_input, &[grad], dactivated, gradients, kept_down)?;
        device.swiglu_backward(dactivated, gate, up, dgate, dup);
        linear(&mut self.gate_up, mlp_input, &[dgate, dup], dnormed, gradients, kept_gate_up)?;
        let norm = self.mlp_norm;
        let dweight = &mut gradients.tensors_mut()[norm];
        device.rms_norm_backward(dnormed, middle, &weights[norm], &rstd[1], grad, dweight);

        linear(&mut self.o, Some(attended), &[grad], dattended, gradients, kept_o)?;
        device.attention_backward(shape, sequences, dattended, q, k, v, attended, lse, dq, dk, dv);
        device.rope(dq, shape.head_dim, sequences, rope, Rotation::Backward);
        device.rope(dk, shape.head_dim, sequences, rope, Rotation::Backward);
        linear(&mut self.qkv, qkv_input, &[dq, dk, dv], dnormed, gradients, kept_qkv)?;
        let norm = self.attention_norm;
        let dweight = &mut gradients.tensors_mut()[norm];
        device.rms_norm_backward(dnormed, x, &weights[norm], &rstd[0], grad, dweight);
        Ok(())
    }
}

impl KeptBlock {
    /// The tensors that a check for infinities and NaNs looks at, in the order they were made.
    pub(crate) fn made(&self) -> [(&'static str, &Tensor); 7] {
        [
            ("self_attn.q_proj", &self.q),
            ("self_attn.k_proj", &self.k),
            ("self_attn.v_proj", &self.v),
            ("self_attn", &self.attended),
            ("self_attn.o_proj", &self.middle),
            ("mlp.gate_proj", &self.gate),
            ("mlp.up_proj", &self.up),
        ]
    }

    pub(crate) fn set_rows(&mut self, rows: usize) {
        let Self { rstd: [a, b], q, k, v, lse, attended, middle, gate, up, inputs, .. } = self;
        for tensor in [a, b, q, k, v, lse, attended, middle, gate, up] {
            tensor.set_rows(rows);
        }
        inputs.iter_mut().flatten().for_each(|tensor| tensor.set_rows(rows));
    }
}

impl Workspace {
    pub(crate) fn new(
        config: &ModelConfig,
        loan: LoanSize,
        dtype: DType,
        tokens: usize,
        arena: &mut Arena,
    ) -> Self {
        let (h, mlp) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let loan = loan.take(arena);
        let mut tensor = |cols| arena.tensor(dtype, tokens, cols);
        Self {
            loan,
            normed: tensor(h),
            activated: tensor(mlp),
            dq: tensor(q),
            dk: tensor(kv),
            dv: tensor(kv),
            dattended: tensor(q),
            dgate: tensor(mlp),
            dup: tensor(mlp),
            dactivated: tensor(mlp),
            dnormed: tensor(h),
        }
    }

    pub(crate) fn set_rows(&mut self, rows: usize) {
        let Self { normed, activated, dq, dk, dv, dattended, dgate, dup, dactivated, dnormed, .. } = self;
        for tensor in [normed, activated, dq, dk, dv, dattended, dgate, dup, dactivated, dnormed] {
            tensor.set_rows(rows);
        }
    }
}

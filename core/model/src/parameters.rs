//! The parameters of a decoder by name: f32 masters, in one fixed order.

use fp8flow_tensor::{CardError, DType, Device, Tensor};

use crate::ModelConfig;

/// What a parameter is to the optimizer and the initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Token embedding, `[V, H]`; the output head too where both are tied.
    Embedding,
    /// Output head, `[V, H]`.
    Head,
    /// Weight of a linear layer in a block, `[N, K]`.
    Matrix,
    /// Weight of a norm, `[H]`.
    Norm,
    /// Bias of a linear layer, `[N]`.
    Bias,
}

/// Name, shape and kind of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// As Hugging Face names it: `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// One or two dimensions.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParameterKind,
}

impl ParameterSpec {
    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The indices of the element `index`, counted row by row.
    pub(crate) fn at(&self, index: usize) -> Vec<usize> {
        match *self.shape {
            [_, cols] => vec![index / cols, index % cols],
            _ => vec![index],
        }
    }

    /// Zeros of its shape, f32.
    pub fn zeros(&self) -> Tensor {
        let [rows, cols] = self.rows_and_cols();
        Tensor::zeros(DType::F32, rows, cols)
    }

    /// Its shape as a matrix; a vector is one row.
    fn rows_and_cols(&self) -> [usize; 2] {
        match *self.shape {
            [n] => [1, n],
            [rows, cols] => [rows, cols],
            _ => unreachable!("parameters have one or two dimensions"),
        }
    }
}

/// How many numbers the parameters of a model of `config` are.
pub fn parameter_count(config: &ModelConfig) -> u64 {
    parameter_specs(config).iter().map(|spec| spec.len() as u64).sum()
}

/// Every parameter of a configuration, in the order of its model: embedding, blocks, norm, head.
///
/// Within a block: q, k, v, o, gate, up, down (each weight before its bias), then the two norms. The head is absent
/// where it is tied to the embedding.
pub fn parameter_specs(config: &ModelConfig) -> Vec<ParameterSpec> {
    let mut specs = Vec::new();
    let mut push = |name: String, shape: Vec<usize>, kind| specs.push(ParameterSpec { name, shape, kind });
    let (h, mlp) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    push("model.embed_tokens.weight".into(), vec![config.vocab_size, h], ParameterKind::Embedding);
    for block in 0..config.blocks {
        let linears = [
            ("self_attn.q_proj", q, h, config.attention_bias),
            ("self_attn.k_proj", kv, h, config.attention_bias),
            ("self_attn.v_proj", kv, h, config.attention_bias),
            ("self_attn.o_proj", h, q, config.attention_bias),
            ("mlp.gate_proj", mlp, h, config.mlp_bias),
            ("mlp.up_proj", mlp, h, config.mlp_bias),
            ("mlp.down_proj", h, mlp, config.mlp_bias),
        ];
        for (layer, n, k, bias) in linears {
            let name = format!("model.layers.{block}.{layer}");
            push(format!("{name}.weight"), vec![n, k], ParameterKind::Matrix);
            if bias {
                push(format!("{name}.bias"), vec![n], ParameterKind::Bias);
            }
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            push(format!("model.layers.{block}.{norm}.weight"), vec![h], ParameterKind::Norm);
        }
    }
    push("model.norm.weight".into(), vec![h], ParameterKind::Norm);
    if !config.tied {
        push("lm_head.weight".into(), vec![config.vocab_size, h], ParameterKind::Head);
    }
    specs
}

/// Where the parameter called `name` stands.
pub(crate) fn position(specs: &[ParameterSpec], name: &str) -> Option<usize> {
    specs.iter().position(|spec| spec.name == name)
}

/// One f32 tensor for every parameter, in the order of [`parameter_specs`]: masters, gradients or moments.
#[derive(Debug)]
pub struct Parameters {
    specs: Vec<ParameterSpec>,
    tensors: Vec<Tensor>,
}

impl Parameters {
    /// Zeros.
    pub fn zeros(specs: &[ParameterSpec]) -> Self {
        Self { specs: specs.to_vec(), tensors: specs.iter().map(ParameterSpec::zeros).collect() }
    }

    /// Zeros in the memory of `device`.
    pub fn zeros_on(device: &dyn Device, specs: &[ParameterSpec]) -> Result<Self, CardError> {
        let Some(card) = device.card() else { return Ok(Self::zeros(specs)) };
        let zeros = |spec: &ParameterSpec| {
            let [rows, cols] = spec.rows_and_cols();
            Tensor::zeros_on(card, DType::F32, rows, cols)
        };
        Ok(Self { specs: specs.to_vec(), tensors: specs.iter().map(zeros).collect::<Result<_, _>>()? })
    }

    /// The same in the memory of `device`: themselves, if they are there.
    pub fn moved_to(self, device: &dyn Device) -> Result<Self, CardError> {
        let Some(card) = device.card() else { return Ok(self) };
        let Self { specs, tensors } = self;
        // One after the other is let go here once it is there.
        let there = |tensor: Tensor| if tensor.card().is_some() { Ok(tensor) } else { tensor.copy_to(card) };
        let tensors = tensors.into_iter().map(there);
        Ok(Self { specs, tensors: tensors.collect::<Result<_, _>>()? })
    }

    /// Names, shapes and kinds.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// The tensors, in the order of the specifications.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensors, to write.
    pub fn tensors_mut(&mut self) -> &mut [Tensor] {
        &mut self.tensors
    }

    /// Where the parameter called `name` stands.
    pub fn index(&self, name: &str) -> Option<usize> {
        position(&self.specs, name)
    }

    /// Every parameter with its specification.
    pub fn iter(&self) -> impl Iterator<Item = (&ParameterSpec, &Tensor)> {
        self.specs.iter().zip(&self.tensors)
    }

    /// Elements of all parameters.
    pub fn len(&self) -> usize {
        self.specs.iter().map(ParameterSpec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }
}

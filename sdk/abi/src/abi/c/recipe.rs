//! A C plugin's recipe behind [`Recipe`].

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

use serde_json::Value;

use super::backend::{BackendHandle, c_string};
use super::contract::{
    CDecision, CLayer, CNamedTensor, CStateSink, CTextSink, OK, Status, checked, size_is_kept, text, text_at,
};
use super::host::LentHost;
use super::linear::CLinear;
use crate::abi::wire;
use crate::tensor::RawTensor;
use crate::{
    Decision, DeviceId, Error, Event, LayerFacts, Linear, Precision, Recipe, Result, StateDict, StateTensor,
    TensorRef,
};

/// What `recipe_new` has made; freed after its layers.
pub(super) struct RecipeHandle {
    pub(super) object: *mut c_void,
    /// The plugin may hold it until then.
    _host: LentHost,
    pub(super) backend: Arc<BackendHandle>,
}

// SAFETY: the contract lets a recipe be called from one thread after another; layers keep it alive, and no more.
unsafe impl Send for RecipeHandle {}
// SAFETY: as above.
unsafe impl Sync for RecipeHandle {}

impl Drop for RecipeHandle {
    fn drop(&mut self) {
        // SAFETY: the last use of the recipe.
        unsafe { (self.backend.table.recipe_free)(self.object) };
    }
}

pub(super) struct CRecipe(Arc<RecipeHandle>);

impl CRecipe {
    pub(super) fn new(object: *mut c_void, host: LentHost, backend: Arc<BackendHandle>) -> Self {
        Self(Arc::new(RecipeHandle { object, _host: host, backend }))
    }
}

/// A layer's facts on loan.
struct LentLayer {
    layer: CLayer,
    /// What the layer points to.
    _texts: (CString, Vec<CString>, Vec<*const c_char>),
}

impl LentLayer {
    fn new(facts: &LayerFacts) -> Self {
        let name = c_string(&facts.name);
        let group: Vec<_> = facts.group.iter().map(|name| c_string(name)).collect();
        let pointers: Vec<_> = group.iter().map(|name| name.as_ptr()).collect();
        let layer = CLayer {
            size: size_of::<CLayer>(),
            name: name.as_ptr(),
            in_features: facts.in_features as u64,
            out_features: facts.out_features as u64,
            tokens: facts.tokens.unwrap_or(0) as u64,
            block: facts.block.map_or(-1, |block| block as i64),
            group: pointers.as_ptr(),
            group_len: pointers.len(),
        };
        Self { layer, _texts: (name, group, pointers) }
    }
}

impl CRecipe {
    fn try_describe(&self) -> Result<Value> {
        let mut json = Vec::<u8>::new();
        let sink = CTextSink { size: size_of::<CTextSink>(), context: (&raw mut json).cast(), write };
        let (describe, recipe) = (self.0.backend.table.recipe_describe, self.0.object);
        // SAFETY: the sink lives through the call.
        checked(|error| unsafe { describe(recipe, &raw const sink, error) })?;
        wire::from_json(&String::from_utf8_lossy(&json))
    }

    fn try_decide(&self, facts: &LayerFacts) -> Result<Decision> {
        let lent = LentLayer::new(facts);
        let size = size_of::<CDecision>();
        let mut decision = CDecision { size, fp8: 0, fp8_gemms: [0; 3], reason: [0; 512] };
        let (decide, recipe) = (self.0.backend.table.recipe_decide, self.0.object);
        // SAFETY: the layer and the decision live through the call.
        checked(|error| unsafe { decide(recipe, &raw const lent.layer, &raw mut decision, error) })?;
        size_is_kept("fp8flow_decision", decision.size, size)?;
        Ok(Decision {
            precision: if decision.fp8 == 0 { Precision::High } else { Precision::Fp8 },
            reason: text(&decision.reason),
            fp8_gemms: decision.fp8_gemms.map(|gemms| u8::try_from(gemms).unwrap_or(u8::MAX)),
        })
    }
}

impl Recipe for CRecipe {
    /// Unwinds where the plugin fails, for the guard at the border to make it that call's error.
    fn describe(&self) -> Value {
        self.try_describe().unwrap_or_else(fail)
    }

    /// As [`Recipe::describe`].
    fn decide(&self, layer: &LayerFacts) -> Decision {
        self.try_decide(layer).unwrap_or_else(fail)
    }

    fn linear(&mut self, facts: &LayerFacts) -> Result<Box<dyn Linear>> {
        let lent = LentLayer::new(facts);
        let mut object = std::ptr::null_mut();
        let (linear, recipe) = (self.0.backend.table.recipe_linear, self.0.object);
        // SAFETY: the layer's facts live through the call.
        checked(|error| unsafe { linear(recipe, &raw const lent.layer, &raw mut object, error) })?;
        Ok(Box::new(CLinear::new(object, self.0.clone())))
    }

    fn on(&mut self, event: Event) -> Result<()> {
        let Some(on) = self.0.backend.table.all.recipe_on else { return Ok(()) };
        // SAFETY: a call of the contract.
        checked(|error| unsafe { on(self.0.object, wire::event_code(event), error) })
    }

    fn state(&self) -> Result<StateDict> {
        let Some(state) = self.0.backend.table.all.recipe_state else { return Ok(StateDict::default()) };
        let mut gathered = Gathered::default();
        let sink = CStateSink { size: size_of::<CStateSink>(), context: (&raw mut gathered).cast(), put };
        // SAFETY: the sink lives through the call.
        checked(|error| unsafe { state(self.0.object, &raw const sink, error) })?;
        gathered.wrong.map_or(Ok(gathered.state), Err)
    }

    fn restore(&mut self, state: &StateDict) -> Result<()> {
        let Some(restore) = self.0.backend.table.all.recipe_restore else { return state.expect_empty() };
        let lent = state.0.iter().map(|(name, tensor)| LentTensor::new(name, tensor));
        let lent = lent.collect::<Result<Vec<_>>>()?;
        let tensors: Vec<_> = lent.iter().map(LentTensor::pointer).collect();
        // SAFETY: the tensors and names live through the call.
        checked(|error| unsafe { restore(self.0.object, tensors.as_ptr(), tensors.len(), error) })
    }
}

/// A call whose signature has no error has failed: unwinds to the guard of the call, past the panic hook.
pub(super) fn fail<T>(error: Error) -> T {
    std::panic::resume_unwind(Box::new(error))
}

unsafe extern "C" fn write(sink: *const CTextSink, text: *const c_char, len: usize) {
    if len > 0 {
        // SAFETY: the plugin passes the sink that it was given, and `len` bytes of its own.
        unsafe {
            let json = &mut *(*sink).context.cast::<Vec<u8>>();
            json.extend_from_slice(std::slice::from_raw_parts(text.cast(), len));
        }
    }
}

/// State as it comes, and what was wrong with it.
#[derive(Default)]
struct Gathered {
    state: StateDict,
    wrong: Option<Error>,
}

unsafe extern "C" fn put(sink: *const CStateSink, name: *const c_char, tensor: *const RawTensor) -> Status {
    // SAFETY: the plugin passes the sink that it was given, with a text and a tensor of its own.
    let (gathered, name, raw) =
        unsafe { (&mut *(*sink).context.cast::<Gathered>(), text_at(name).unwrap_or_default(), *tensor) };
    // SAFETY: as above: the memory is the plugin's, for the length of the call.
    let tensor = unsafe { TensorRef::from_raw(raw) };
    match tensor.bytes() {
        Ok(bytes) => {
            let shape = tensor.shape().iter().map(|&n| n as usize).collect();
            let tensor = StateTensor { dtype: raw.dtype, shape, bytes: bytes.to_vec() };
            gathered.state.0.insert(name, tensor);
            OK
        }
        Err(error) => {
            let error = Error { message: format!("state `{name}`: {}", error.message), ..error };
            gathered.wrong.get_or_insert(error);
            1
        }
    }
}

/// A tensor of state on loan, aligned.
struct LentTensor {
    name: CString,
    words: Vec<u64>,
    raw: RawTensor,
}

impl LentTensor {
    fn new(name: &str, tensor: &StateTensor) -> Result<Self> {
        let rank = tensor.shape.len();
        if !(1..=4).contains(&rank) {
            return Err(Error::invalid(format!("state `{name}`: {rank} dimensions, expected 1 to 4")));
        }
        let mut words = vec![0_u64; tensor.bytes.len().div_ceil(8).max(1)];
        bytemuck::cast_slice_mut(&mut words)[..tensor.bytes.len()].copy_from_slice(&tensor.bytes);
        let (mut shape, mut strides) = ([1; 4], [0; 4]);
        let mut stride = 1_i64;
        for (i, &n) in tensor.shape.iter().enumerate().rev() {
            (shape[i], strides[i]) = (n as u64, stride);
            stride = stride.saturating_mul(n as i64);
        }
        let data = words.as_mut_ptr().cast();
        let (dtype, rank, device) = (tensor.dtype, rank as u32, DeviceId::CPU);
        Ok(Self { name: c_string(name), words, raw: RawTensor { data, dtype, rank, shape, strides, device } })
    }

    fn pointer(&self) -> CNamedTensor {
        debug_assert!(std::ptr::addr_eq(self.raw.data, self.words.as_ptr()));
        CNamedTensor { name: self.name.as_ptr(), tensor: self.raw }
    }
}

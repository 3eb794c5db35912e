//! What the calls carry: plain structs that never change, and codes that can grow.

use std::marker::PhantomData;

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RResult, RSlice, RSliceMut, RString};
use fp8flow_kernels::{Fp8, Isa};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::tensor::RawTensor;
use crate::{
    Backward, Error, ErrorKind, Event, Forward, Group, Input, Level, Pass, Quantize, QuantizedInput, Result,
    ScaleAxis, ScaledGemm, TensorMut, TensorRef,
};

/// A failure: [`Error`].
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct Failure {
    kind: u32,
    message: RString,
    help: ROption<RString>,
}

/// A call's result.
pub type Outcome<T> = RResult<T, Failure>;

const KINDS: [ErrorKind; 6] = [
    ErrorKind::Internal,
    ErrorKind::Invalid,
    ErrorKind::Unsupported,
    ErrorKind::Protocol,
    ErrorKind::Cancelled,
    ErrorKind::Panicked,
];

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = code(&KINDS, error.kind);
        Self { kind, message: error.message.into(), help: error.help.map(RString::from).into() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self {
            kind: KINDS.get(failure.kind as usize).copied().unwrap_or(ErrorKind::Internal),
            message: failure.message.into(),
            help: failure.help.into_option().map(String::from),
        }
    }
}

/// A result as it crosses.
pub(super) fn send<T>(result: Result<T>) -> Outcome<T> {
    result.map_err(Failure::from).into()
}

/// A result that has crossed.
pub(super) fn receive<T>(outcome: Outcome<T>) -> Result<T> {
    outcome.into_result().map_err(Error::from)
}

/// Whatever describes, as text.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<RString> {
    serde_json::to_string(value).map(RString::from).map_err(|error| {
        Error::new(ErrorKind::Internal, format!("what it returned cannot be written as JSON: {error}"))
    })
}

/// Whatever describes, from text.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let start: String = text.chars().take(80).collect();
        Error::new(ErrorKind::Internal, format!("not the JSON expected: {error} in {start:?}"))
    })
}

/// The code of a value: its place in the table. Tables only ever grow at the end.
fn code<T: Copy + PartialEq>(table: &[T], value: T) -> u32 {
    table.iter().position(|entry| *entry == value).map_or(u32::MAX, |place| place as u32)
}

fn decode<T: Copy>(table: &[T], code: u32, what: &str) -> Result<T> {
    table.get(code as usize).copied().ok_or_else(|| {
        Error::unsupported(format!("{what} number {code} is newer than this SDK"))
            .with_help("rebuild the plugin")
    })
}

const EVENTS: [Event; 3] = [Event::ForwardDone, Event::BackwardDone, Event::WeightsChanged];

pub(super) fn event_code(event: Event) -> u32 {
    code(&EVENTS, event)
}

/// None for an event that this SDK does not know: nothing in it can depend on that.
pub(super) fn event(code: u32) -> Option<Event> {
    EVENTS.get(code as usize).copied()
}

const LEVELS: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

pub(super) fn level_code(level: Level) -> u32 {
    code(&LEVELS, level)
}

/// A level finer than all that are known is the finest known.
pub(super) fn level(code: u32) -> Level {
    LEVELS.get(code as usize).copied().unwrap_or(Level::Trace)
}

pub(super) fn isa_code(isa: Isa) -> u32 {
    code(&Isa::ALL, isa)
}

/// All paths give the same bits, so for one that this SDK does not know the best one does.
pub(super) fn isa(code: u32) -> Isa {
    Isa::ALL.get(code as usize).copied().unwrap_or_else(Isa::best)
}

const PASSES: [Pass; 3] = [Pass::Train, Pass::Eval, Pass::Recompute];
const FORMATS: [Fp8; 2] = [Fp8::E4m3, Fp8::E5m2];
const AXES: [ScaleAxis; 3] = [ScaleAxis::Row, ScaleAxis::Col, ScaleAxis::Tensor];

pub(super) fn pass_code(pass: Pass) -> u32 {
    code(&PASSES, pass)
}

pub(super) fn axis_code(axis: ScaleAxis) -> u32 {
    code(&AXES, axis)
}

pub(super) fn axis(code: u32) -> Result<ScaleAxis> {
    decode(&AXES, code, "axis")
}

/// The tasks of a parallel loop: a function and what it works on, borrowed for the length of a call.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct Tasks<'a> {
    data: *const (),
    run: extern "C" fn(*const (), usize),
    borrowed: PhantomData<&'a ()>,
}

// SAFETY: `Tasks::new` takes only what may be used from several threads at once.
unsafe impl Send for Tasks<'_> {}
// SAFETY: as above.
unsafe impl Sync for Tasks<'_> {}

impl<'a> Tasks<'a> {
    /// Tasks that each call `T::run` with their number.
    pub(super) fn new<T: Task + Sync>(body: &'a T) -> Self {
        extern "C" fn run<T: Task>(data: *const (), task: usize) {
            // SAFETY: `data` came from a `&'a T` below, and `Tasks<'a>` does not outlive it.
            unsafe { &*data.cast::<T>() }.run(task);
        }
        Self { data: std::ptr::from_ref(body).cast(), run: run::<T>, borrowed: PhantomData }
    }

    /// Runs task number `task`.
    #[inline]
    pub(super) fn run(&self, task: usize) {
        (self.run)(self.data, task);
    }
}

/// The body of a parallel loop. It must not panic: it is called from the other side.
pub(super) trait Task {
    /// One task.
    fn run(&self, task: usize);
}

/// An operand cast by its producer.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct CastOperand {
    codes: RawTensor,
    scales: RawTensor,
}

impl CastOperand {
    fn send((codes, scales): (TensorRef<'_>, TensorRef<'_>)) -> Self {
        Self { codes: codes.raw(), scales: scales.raw() }
    }

    /// # Safety
    /// As [`ForwardCall::receive`].
    unsafe fn receive<'a>(self) -> (TensorRef<'a>, TensorRef<'a>) {
        // SAFETY: promised by the caller.
        unsafe { (TensorRef::from_raw(self.codes), TensorRef::from_raw(self.scales)) }
    }
}

/// [`Forward`].
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct ForwardCall<'a> {
    pass: u32,
    /// [`FLAG_READY`], [`FLAG_TELEMETRY`].
    flags: u32,
    x: RawTensor,
    by_row: ROption<CastOperand>,
    by_col: ROption<CastOperand>,
    weight: RawTensor,
    y: RawTensor,
    group_saved: RSliceMut<'a, u8>,
    group_forward: RSliceMut<'a, u8>,
    saved: RSliceMut<'a, u8>,
    scratch: RSliceMut<'a, u8>,
}

const FLAG_READY: u32 = 1;
const FLAG_TELEMETRY: u32 = 2;
const FLAG_ACCUMULATE_DX: u32 = 4;
const FLAG_ACCUMULATE_DW: u32 = 8;

fn flag(set: bool, flag: u32) -> u32 {
    if set { flag } else { 0 }
}

impl<'a> ForwardCall<'a> {
    pub(super) fn send(call: Forward<'a>) -> Self {
        let Forward { pass, x, weight, y, group, saved, scratch, telemetry } = call;
        let given = x.quantized.unwrap_or(QuantizedInput { by_row: None, by_col: None });
        Self {
            pass: pass_code(pass),
            flags: flag(group.ready, FLAG_READY) | flag(telemetry, FLAG_TELEMETRY),
            x: x.tensor.raw(),
            by_row: given.by_row.map(CastOperand::send).into(),
            by_col: given.by_col.map(CastOperand::send).into(),
            weight: weight.raw(),
            y: y.raw(),
            group_saved: group.saved.into(),
            group_forward: group.forward.into(),
            saved: saved.into(),
            scratch: scratch.into(),
        }
    }

    /// # Safety
    /// The tensors are valid for `'a`, and `y` is used by nobody else meanwhile: they were borrowed by `send`.
    pub(super) unsafe fn receive(self) -> Result<Forward<'a>> {
        let by_row = self.by_row.into_option();
        let by_col = self.by_col.into_option();
        // SAFETY: promised by the caller.
        unsafe {
            let quantized = (by_row.is_some() || by_col.is_some()).then(|| QuantizedInput {
                by_row: by_row.map(|operand| operand.receive()),
                by_col: by_col.map(|operand| operand.receive()),
            });
            Ok(Forward {
                pass: decode(&PASSES, self.pass, "pass")?,
                x: Input { tensor: TensorRef::from_raw(self.x), quantized },
                weight: TensorRef::from_raw(self.weight),
                y: TensorMut::from_raw(self.y),
                group: Group {
                    ready: self.flags & FLAG_READY != 0,
                    saved: self.group_saved.into_mut_slice(),
                    forward: self.group_forward.into_mut_slice(),
                },
                saved: self.saved.into_mut_slice(),
                scratch: self.scratch.into_mut_slice(),
                telemetry: self.flags & FLAG_TELEMETRY != 0,
            })
        }
    }
}

/// [`Backward`].
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct BackwardCall<'a> {
    /// [`FLAG_ACCUMULATE_DX`], [`FLAG_ACCUMULATE_DW`], [`FLAG_TELEMETRY`].
    flags: u32,
    dy: RawTensor,
    weight: RawTensor,
    x: ROption<RawTensor>,
    dx: ROption<RawTensor>,
    dw: RawTensor,
    group_saved: RSlice<'a, u8>,
    saved: RSlice<'a, u8>,
    scratch: RSliceMut<'a, u8>,
}

impl<'a> BackwardCall<'a> {
    pub(super) fn send(call: Backward<'a>) -> Self {
        Self {
            flags: flag(call.accumulate_dx, FLAG_ACCUMULATE_DX)
                | flag(call.accumulate_dw, FLAG_ACCUMULATE_DW)
                | flag(call.telemetry, FLAG_TELEMETRY),
            dy: call.dy.raw(),
            weight: call.weight.raw(),
            x: call.x.map(|x| x.raw()).into(),
            dx: call.dx.map(|dx| dx.raw()).into(),
            dw: call.dw.raw(),
            group_saved: call.group_saved.into(),
            saved: call.saved.into(),
            scratch: call.scratch.into(),
        }
    }

    /// # Safety
    /// The tensors are valid for `'a`, and `dx` and `dw` are used by nobody else meanwhile.
    pub(super) unsafe fn receive(self) -> Backward<'a> {
        // SAFETY: promised by the caller.
        unsafe {
            Backward {
                dy: TensorRef::from_raw(self.dy),
                weight: TensorRef::from_raw(self.weight),
                x: self.x.into_option().map(|x| TensorRef::from_raw(x)),
                dx: self.dx.into_option().map(|dx| TensorMut::from_raw(dx)),
                accumulate_dx: self.flags & FLAG_ACCUMULATE_DX != 0,
                dw: TensorMut::from_raw(self.dw),
                accumulate_dw: self.flags & FLAG_ACCUMULATE_DW != 0,
                group_saved: self.group_saved.into(),
                saved: self.saved.into(),
                scratch: self.scratch.into_mut_slice(),
                telemetry: self.flags & FLAG_TELEMETRY != 0,
            }
        }
    }
}

/// [`Quantize`].
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct QuantizeCall<'a> {
    x: RawTensor,
    format: u32,
    axis: u32,
    power_of_two: bool,
    codes: RawTensor,
    scales: RawTensor,
    borrowed: PhantomData<&'a ()>,
}

impl<'a> QuantizeCall<'a> {
    pub(super) fn send(call: Quantize<'a>) -> Self {
        let Quantize { x, format, axis, power_of_two, codes, scales } = call;
        Self {
            x: x.raw(),
            format: code(&FORMATS, format),
            axis: axis_code(axis),
            power_of_two,
            codes: codes.raw(),
            scales: scales.raw(),
            borrowed: PhantomData,
        }
    }

    /// # Safety
    /// The tensors are valid for `'a`, and `codes` and `scales` are used by nobody else meanwhile.
    pub(super) unsafe fn receive(self) -> Result<Quantize<'a>> {
        // SAFETY: promised by the caller.
        unsafe {
            Ok(Quantize {
                x: TensorRef::from_raw(self.x),
                format: decode(&FORMATS, self.format, "format")?,
                axis: self::axis(self.axis)?,
                power_of_two: self.power_of_two,
                codes: TensorMut::from_raw(self.codes),
                scales: TensorMut::from_raw(self.scales),
            })
        }
    }
}

/// [`ScaledGemm`].
#[repr(C)]
#[derive(Debug, StableAbi)]
pub struct ScaledGemmCall<'a> {
    a: RawTensor,
    transpose_a: bool,
    scale_a: RawTensor,
    b: RawTensor,
    transpose_b: bool,
    scale_b: RawTensor,
    out: RawTensor,
    accumulate: bool,
    borrowed: PhantomData<&'a ()>,
}

impl<'a> ScaledGemmCall<'a> {
    pub(super) fn send(call: ScaledGemm<'a>) -> Self {
        let ScaledGemm { a, transpose_a, scale_a, b, transpose_b, scale_b, out, accumulate } = call;
        Self {
            a: a.raw(),
            transpose_a,
            scale_a: scale_a.raw(),
            b: b.raw(),
            transpose_b,
            scale_b: scale_b.raw(),
            out: out.raw(),
            accumulate,
            borrowed: PhantomData,
        }
    }

    /// # Safety
    /// The tensors are valid for `'a`, and `out` is used by nobody else meanwhile.
    pub(super) unsafe fn receive(self) -> ScaledGemm<'a> {
        // SAFETY: promised by the caller.
        unsafe {
            ScaledGemm {
                a: TensorRef::from_raw(self.a),
                transpose_a: self.transpose_a,
                scale_a: TensorRef::from_raw(self.scale_a),
                b: TensorRef::from_raw(self.b),
                transpose_b: self.transpose_b,
                scale_b: TensorRef::from_raw(self.scale_b),
                out: TensorMut::from_raw(self.out),
                accumulate: self.accumulate,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_kind_message_and_help() {
        for kind in KINDS {
            for error in [Error::new(kind, "what"), Error::new(kind, "what").with_help("do")] {
                assert_eq!(Error::from(Failure::from(error.clone())), error);
            }
        }
        let newer = Failure { kind: 99, message: "what".into(), help: ROption::RNone };
        assert_eq!(Error::from(newer).kind, ErrorKind::Internal);
    }

    #[test]
    fn codes_of_a_newer_sdk_are_errors_or_nothing_and_never_something_else() {
        assert!(PASSES.iter().all(|&pass| decode(&PASSES, code(&PASSES, pass), "pass") == Ok(pass)));
        let error = decode(&PASSES, 3, "pass").unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Unsupported, "pass number 3 is newer than this SDK")
        );
        assert!(EVENTS.iter().all(|&known| event(event_code(known)) == Some(known)));
        assert_eq!(event(3), None);
        assert!(LEVELS.iter().all(|&known| level(level_code(known)) == known));
        assert_eq!(level(5), Level::Trace);
        assert!(Isa::ALL.iter().all(|&known| isa(isa_code(known)) == known));
        assert_eq!(isa(7), Isa::best());
    }

    #[test]
    fn a_call_arrives_as_it_was_sent() {
        let (x, mut y) = ([1.0_f32; 6], [0.0_f32; 4]);
        let codes = [7_u8; 6];
        let operand = |n| {
            let scales = TensorRef::new(fp8flow_kernels::Elements::F32(&x[..n]), &[n]);
            Some((TensorRef::new(fp8flow_kernels::Elements::E5m2(&codes), &[2, 3]), scales))
        };
        for (ready, by_row, by_col) in [
            (false, None, None),
            (true, operand(2), None),
            (false, None, operand(3)),
            (true, operand(2), operand(3)),
        ] {
            let (mut saved, mut scratch) = ([1; 64], [2; 32]);
            let quantized =
                (by_row.is_some() || by_col.is_some()).then_some(QuantizedInput { by_row, by_col });
            let call = Forward {
                pass: Pass::Recompute,
                x: Input { tensor: TensorRef::new(fp8flow_kernels::Elements::F32(&x), &[2, 3]), quantized },
                weight: TensorRef::new(fp8flow_kernels::Elements::F32(&x), &[2, 3]),
                y: TensorMut::new(fp8flow_kernels::ElementsMut::F32(&mut y), &[2, 2]),
                group: Group { ready, saved: &mut [], forward: &mut [] },
                saved: &mut saved,
                scratch: &mut scratch,
                telemetry: !ready,
            };
            let sent = format!("{call:?}");
            // SAFETY: the tensors were borrowed above.
            let received = unsafe { ForwardCall::send(call).receive() }.unwrap();
            assert_eq!(format!("{received:?}"), sent);
        }
    }

    #[test]
    fn a_backward_arrives_as_it_was_sent() {
        let x = [1.0_f32; 6];
        for bits in 0..32_u8 {
            let is = |bit: u8| bits >> bit & 1 == 1;
            let (mut dx, mut dw, mut scratch) = ([0.0_f32; 6], [0.0_f32; 9], [0; 8]);
            let tensor = || TensorRef::new(fp8flow_kernels::Elements::F32(&x), &[2, 3]);
            let call = Backward {
                dy: tensor(),
                weight: tensor(),
                x: is(0).then(tensor),
                dx: is(1).then(|| TensorMut::new(fp8flow_kernels::ElementsMut::F32(&mut dx), &[2, 3])),
                accumulate_dx: is(2),
                dw: TensorMut::new(fp8flow_kernels::ElementsMut::F32(&mut dw), &[3, 3]),
                accumulate_dw: is(3),
                group_saved: &[1, 2, 3],
                saved: &[4, 5],
                scratch: &mut scratch,
                telemetry: is(4),
            };
            let sent = format!("{call:?}");
            // SAFETY: the tensors were borrowed above.
            assert_eq!(format!("{:?}", unsafe { BackwardCall::send(call).receive() }), sent);
        }
    }
}

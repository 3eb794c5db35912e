//! Tensors as a backend is given them: by reference, or by their address where they are on a card.

use fp8flow_sdk::{DeviceId, TensorMut, TensorRef};
use fp8flow_tensor::{Card, DType, Tensor};

/// `x` to read.
pub fn tensor_ref(x: &Tensor) -> TensorRef<'_> {
    let shape = [x.rows(), x.cols()];
    match x.card() {
        Some(card) => TensorRef::on_card(device_id(card), x.card_address(), dtype(x), &shape),
        None => TensorRef::new(x.elements(), &shape),
    }
}

/// `x` to write.
pub fn tensor_mut(x: &mut Tensor) -> TensorMut<'_> {
    let shape = [x.rows(), x.cols()];
    match x.card() {
        Some(card) => TensorMut::on_card(device_id(card), x.card_address(), dtype(x), &shape),
        None => TensorMut::new(x.elements_mut(), &shape),
    }
}

/// A card as the SDK names it.
pub fn device_id(card: &Card) -> DeviceId {
    DeviceId::cuda(card.ordinal() as u32, card.stream_id())
}

fn dtype(x: &Tensor) -> fp8flow_sdk::DType {
    match x.dtype() {
        DType::F32 => fp8flow_sdk::DType::F32,
        DType::Bf16 => fp8flow_sdk::DType::BF16,
    }
}

//! What only unsafe code can do wrong.
#![allow(unsafe_code)]

use fp8flow_sdk::TensorRef;
use fp8flow_sdk::kernels::{Elements, Matrix, bf16};

/// Writes a byte into memory that was lent for reading.
pub(crate) fn write_into(tensor: &TensorRef<'_>) {
    // SAFETY: none is claimed: the caller has lent the memory for reading only. It is there, and nobody else reads it.
    unsafe { tensor.raw().data.write_volatile(0x77) };
}

/// Writes the byte before a region.
pub(crate) fn write_before(region: &mut [u8]) {
    // SAFETY: none is claimed: the byte lies outside the region. The suite keeps guard bytes there.
    unsafe { region.as_mut_ptr().wrapping_sub(1).write_volatile(0) };
}

/// Writes a page and a half behind a region.
pub(crate) fn write_far_behind(region: *mut u8, len: usize) {
    // SAFETY: none; that is the point.
    unsafe { region.wrapping_add(len + 6000).write_volatile(0) };
}

/// Says what `fp8flow plugin test` says to itself when all is well, and ends the process.
pub(crate) fn forge() {
    for line in
        [r#"{"ended":{"check":"contents","subject":"delayed","passed":true,"message":""}}"#, "survived"]
    {
        println!("\n@fp8flow-probe {line}");
    }
    std::process::exit(0);
}

/// Reads the null page.
pub(crate) fn segfault() {
    // SAFETY: none; that is the point.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(8).write_volatile(1) };
}

/// Sets flush-to-zero in the control register of this thread's arithmetic.
pub(crate) fn flush_to_zero() {
    #[cfg(target_arch = "x86_64")]
    {
        let mut control: u32 = 0;
        // SAFETY: the register is stored to and loaded from four bytes of the stack. That the compiler believes the
        // register to be as it was is what is wrong with this.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack));
            control |= 0x8040;
            std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack));
        }
    }
}

/// A matrix as it lay when it was lent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    data: *const u8,
    floats: bool,
    rows: usize,
    cols: usize,
}

// SAFETY: none is claimed beyond that of `get`.
unsafe impl Send for Held {}

impl Held {
    pub(crate) fn new(tensor: &TensorRef<'_>, rows: usize, cols: usize) -> Self {
        let floats = tensor.dtype() == fp8flow_sdk::DType::F32;
        Self { data: tensor.raw().data, floats, rows, cols }
    }

    /// What lies there now, read as if densely.
    pub(crate) fn get(&self) -> Matrix<'_> {
        let len = self.rows * self.cols;
        // SAFETY: none is claimed: the loan may be over. The suite keeps the memory mapped wherever this is called.
        #[allow(clippy::cast_ptr_alignment)]
        let elements = unsafe {
            if self.floats {
                Elements::F32(std::slice::from_raw_parts(self.data.cast(), len))
            } else {
                Elements::Bf16(std::slice::from_raw_parts(self.data.cast::<bf16>(), len))
            }
        };
        Matrix::new(elements, self.rows, self.cols)
    }
}

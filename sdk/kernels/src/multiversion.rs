//! One function, compiled for each instruction set.
//!
//! The body is plain Rust. rustc neither contracts `a * b + c` nor reorders float arithmetic, so the copies return
//! the same bits by construction; only their speed differs.

/// Declares a function whose body is compiled three times and called through an [`Isa`](crate::Isa).
///
/// The body may call `#[inline(always)]` functions; they are compiled for the instruction set with it. It may be
/// generic over types, `<T: Bound>`, and over sizes, `[const N, const M]`.
///
/// ```
/// fp8flow_kernels::multiversion! {
///     /// `y += a · x`.
///     pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
///         for (y, x) in y.iter_mut().zip(x) {
///             *y = a.mul_add(*x, *y);
///         }
///     }
/// }
///
/// let mut y = [1.0; 20];
/// axpy(fp8flow_kernels::Isa::best(), 2.0, &[3.0; 20], &mut y);
/// assert_eq!(y, [7.0; 20]);
/// ```
#[macro_export]
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($generic:ident : $bound:path),+>)? $([$(const $size:ident),+])? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name <$($($generic: $bound,)+)? $($(const $size: usize),+)?> (isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body <$($($generic: $bound,)+)? $($(const $size: usize),+)?> ($($arg: $ty),*) $(-> $ret)? $body
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2 <$($($generic: $bound,)+)? $($(const $size: usize),+)?> ($($arg: $ty),*) $(-> $ret)? {
                body::<$($($generic,)+)? $($($size),+)?>($($arg),*)
            }
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512 <$($($generic: $bound,)+)? $($(const $size: usize),+)?> ($($arg: $ty),*) $(-> $ret)? {
                body::<$($($generic,)+)? $($($size),+)?>($($arg),*)
            }
            isa.require();
            match isa {
                $crate::Isa::Scalar => body::<$($($generic,)+)? $($($size),+)?>($($arg),*),
                // SAFETY: `require` has seen that this CPU has it.
                $crate::Isa::Avx2 => unsafe { avx2::<$($($generic,)+)? $($($size),+)?>($($arg),*) },
                // SAFETY: as above.
                $crate::Isa::Avx512 => unsafe { avx512::<$($($generic,)+)? $($($size),+)?>($($arg),*) },
            }
        }
    };
}

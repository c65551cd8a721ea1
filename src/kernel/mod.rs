//! What each kernel computes: its parameters and its scalar twin, nothing else.
//!
//! The twin defines the kernel; every device form must give the same bits.

pub mod align;
pub mod chacha20;
pub mod keystream;
pub mod lookup;
pub mod otp;
pub mod pack;
pub mod pairhmm;
pub mod share;
pub mod ungapped;

/// Every kernel, with the forms that exist of it besides the scalar twin.
///
/// `xor` is the pad without the hash: its twin and its vector form are the functions of that name in
/// the files of `otp`. Key stream for pads is worked out within `otp`; `keystream` alone is the CPU's.
pub const KERNELS: &[(&str, &[Form])] = &[
    ("align", &[Form::Simd, Form::Cuda, Form::Wgsl, Form::Hls]),
    ("chacha20", &[Form::Simd]),
    ("keystream", &[Form::Simd]),
    ("lookup", &[Form::Simd, Form::Cuda, Form::Wgsl]),
    ("otp", &[Form::Simd, Form::Cuda, Form::Wgsl, Form::Hls]),
    ("pack", &[Form::Simd, Form::Cuda, Form::Wgsl]),
    ("pairhmm", &[Form::Simd, Form::Cuda, Form::Wgsl, Form::Hls]),
    ("share", &[Form::Simd, Form::Cuda, Form::Wgsl, Form::Hls]),
    ("ungapped", &[Form::Simd, Form::Cuda, Form::Wgsl]),
    ("xor", &[Form::Cuda, Form::Wgsl, Form::Hls]),
];

/// A form of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `src/device/cpu/<kernel>.rs`.
    Simd,
    /// `kernels/<kernel>.cu`.
    Cuda,
    /// `shaders/<kernel>.wgsl`.
    Wgsl,
    /// `hls/<kernel>/<kernel>.cpp`.
    Hls,
}

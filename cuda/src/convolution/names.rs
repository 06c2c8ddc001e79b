//! The kernels that are built on each tile.

use crate::tile::{Kind, Math, Tile};

/// Which of two kernels accumulates `kind`, by the type of sums.
pub(super) fn sums(kind: Kind, f32: &'static str, f64: &'static str) -> &'static str {
    if kind == Kind::F64 { f64 } else { f32 }
}

/// Which of four kernels reads `kind`.
pub(super) fn reads(kind: Kind, [f32, f64, bf16, f16]: [&'static str; 4]) -> &'static str {
    match kind {
        Kind::F32 => f32,
        Kind::F64 => f64,
        Kind::Bf16 => bf16,
        Kind::F16 => f16,
    }
}

/// Of `conv_correlate.cu`.
pub(super) fn correlate(math: Math, kind: Kind, tile: Tile) -> &'static str {
    match (math, kind, tile.side()) {
        (Math::Fma, Kind::F64, _) => "conv_correlate_fma_64_f64",
        (Math::Fma, _, 128) => "conv_correlate_fma_128_f32",
        (Math::Fma, ..) => "conv_correlate_fma_64_f32",
        (Math::Tf32x3, _, 128) => "conv_correlate_tf32x3_128_f32",
        (Math::Tf32x3, ..) => "conv_correlate_tf32x3_64_f32",
        (Math::Mma, Kind::Bf16, 128) => "conv_correlate_mma_128_bf16",
        (Math::Mma, Kind::Bf16, _) => "conv_correlate_mma_64_bf16",
        (Math::Mma, Kind::F16, 128) => "conv_correlate_mma_128_f16",
        (Math::Mma, Kind::F16, _) => "conv_correlate_mma_64_f16",
        (Math::Mma, ..) => "conv_correlate_mma_64_f64",
        (Math::Tf32, _, 128) => "conv_correlate_tf32_128_f32",
        (Math::Tf32, ..) => "conv_correlate_tf32_64_f32",
        (Math::Bf16, _, 128) => "conv_correlate_bf16_128_f32",
        (Math::Bf16, ..) => "conv_correlate_bf16_64_f32",
    }
}

/// Of `conv_unfold.cu`, on small tiles.
pub(super) fn unfold(math: Math, kind: Kind) -> &'static str {
    match (math, kind) {
        (Math::Fma, Kind::F64) => "conv_unfold_fma_64_f64",
        (Math::Fma, _) => "conv_unfold_fma_64_f32",
        (Math::Tf32x3, _) => "conv_unfold_tf32x3_64_f32",
        (Math::Mma, Kind::Bf16) => "conv_unfold_mma_64_bf16",
        (Math::Mma, Kind::F16) => "conv_unfold_mma_64_f16",
        (Math::Mma, _) => "conv_unfold_mma_64_f64",
        (Math::Tf32, _) => "conv_unfold_tf32_64_f32",
        (Math::Bf16, _) => "conv_unfold_bf16_64_f32",
    }
}

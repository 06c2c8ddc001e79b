//! The register tiles of `tile.cuh`: their sizes, their shared memory, and the kernels that are built on them.

use crate::stream::Precision;
use core::any::TypeId;
use core::fmt;
use foof_kernels::Input;
use half::{bf16, f16};

/// How a tile multiplies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Math {
    /// Fused multiply-adds.
    Fma,
    /// Tensor cores with f32's accuracy: three TF32 products of the parts of each factor.
    Tf32x3,
    /// Tensor cores on inputs that are exact in them: f64, bf16, f16.
    Mma,
    /// Tensor cores on inputs rounded to TF32.
    Tf32,
    /// Tensor cores on inputs rounded to bf16.
    Bf16,
}

impl Math {
    /// What `I` is multiplied with in a precision.
    pub fn of<I: Input>(precision: Precision) -> Math {
        match (Kind::of::<I>(), precision) {
            (Kind::F32, Precision::Full) => Math::Tf32x3,
            (Kind::F32, Precision::Tf32) => Math::Tf32,
            (Kind::F32, Precision::Bf16) => Math::Bf16,
            _ => Math::Mma,
        }
    }

    /// Every math for `I`.
    pub fn all<I: Input>() -> &'static [Math] {
        match Kind::of::<I>() {
            Kind::F32 => &[Math::Fma, Math::Tf32x3, Math::Tf32, Math::Bf16],
            Kind::F64 => &[Math::Fma, Math::Mma],
            Kind::Bf16 | Kind::F16 => &[Math::Mma],
        }
    }

    /// The sides of its tiles of `I`.
    pub fn sides<I: Input>() -> &'static [usize] {
        if Kind::of::<I>() == Kind::F64 { &[64] } else { &[64, 128] }
    }
}

impl fmt::Display for Math {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Math::Fma => "fma",
            Math::Tf32x3 => "tf32x3",
            Math::Mma => "mma",
            Math::Tf32 => "tf32",
            Math::Bf16 => "bf16",
        })
    }
}

/// An input type, as it ends the kernels' names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    F32,
    F64,
    Bf16,
    F16,
}

impl Kind {
    pub(crate) fn of<I: Input>() -> Kind {
        let id = TypeId::of::<I>();
        match () {
            () if id == TypeId::of::<f32>() => Kind::F32,
            () if id == TypeId::of::<f64>() => Kind::F64,
            () if id == TypeId::of::<bf16>() => Kind::Bf16,
            () if id == TypeId::of::<f16>() => Kind::F16,
            () => unreachable!("an input is one of four types"),
        }
    }

    /// Which of two kernels accumulates it, by the type of sums.
    pub(crate) fn sums(self, f32: &'static str, f64: &'static str) -> &'static str {
        if self == Kind::F64 { f64 } else { f32 }
    }

    /// Which of four kernels reads it.
    pub(crate) fn reads(self, [f32, f64, bf16, f16]: [&'static str; 4]) -> &'static str {
        match self {
            Kind::F32 => f32,
            Kind::F64 => f64,
            Kind::Bf16 => bf16,
            Kind::F16 => f16,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::F64 => 8,
            Kind::Bf16 | Kind::F16 => 2,
        }
    }

    fn bytes_of_sums(self) -> usize {
        if self == Kind::F64 { 8 } else { 4 }
    }
}

/// A register tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tile {
    pub(crate) math: Math,
    pub(crate) side: usize,
    pub(crate) kind: Kind,
    /// Threads of a block.
    pub(crate) threads: u32,
    stages: usize,
}

/// Depths of a stage, as in `tile.cuh`.
const DEPTH: usize = 16;

impl Tile {
    /// # Panics
    /// If there is none.
    pub(crate) fn new<I: Input>(math: Math, side: usize) -> Tile {
        let there = Math::all::<I>().contains(&math) && Math::sides::<I>().contains(&side);
        assert!(there, "no {math} tile of side {side} for this type");
        let (threads, stages) = if side == 128 { (256, 3) } else { (128, 4) };
        Tile { math, side, kind: Kind::of::<I>(), threads, stages }
    }

    /// Bytes of shared memory of a kernel that finishes tiles.
    pub(crate) fn finished_bytes(&self) -> u32 {
        (self.side * (self.side + 1) * self.kind.bytes_of_sums()) as u32
    }

    /// Of one that multiplies and finishes them.
    pub(crate) fn bytes(&self) -> u32 {
        let lead = self.side + if self.kind == Kind::F64 { 4 } else { 8 };
        let stages = self.stages * 2 * DEPTH * lead * self.kind.bytes();
        self.finished_bytes().max(stages as u32)
    }

    /// The kernel of `conv_correlate.cu`.
    pub(crate) fn correlate(&self) -> &'static str {
        match (self.math, self.kind, self.side) {
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

    /// The kernel of `conv_unfold.cu`, for tiles of side 64.
    pub(crate) fn unfold(&self) -> &'static str {
        match (self.math, self.kind) {
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
}

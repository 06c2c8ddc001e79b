//! The number types: what is accumulated ([`Element`]) and what is read ([`Input`]).

use crate::engine::kernels::Kernels;
use crate::isa::Isa;
use crate::view::{AnyView, View};
use core::fmt::{Debug, Display};
use half::{bf16, f16};

/// A type that kernels accumulate in: `f32` or `f64`.
pub trait Element:
    num_traits::Float
    + num_traits::NumAssign
    + bytemuck::Pod
    + Input<Acc = Self>
    + core::iter::Sum
    + Debug
    + Display
    + Default
    + Send
    + Sync
    + 'static
{
    /// Unit roundoff `u`: half the distance from 1 to the next larger number.
    const UNIT_ROUNDOFF: Self;

    /// Rounds to this type.
    fn from_f64(value: f64) -> Self;

    /// Exact for both element types.
    fn to_f64(self) -> f64;

    /// `bf16`, if it accumulates in this type; else the type itself.
    #[doc(hidden)]
    type Bf16: Input<Acc = Self>;

    /// `f16`, likewise.
    #[doc(hidden)]
    type F16: Input<Acc = Self>;

    /// The microkernels of `isa`.
    #[doc(hidden)]
    fn kernels(isa: Isa) -> &'static Kernels<Self>;
}

/// A type that operands are stored in: an [`Element`], or a half-width type that is widened exactly while packing.
pub trait Input: Copy + Send + Sync + 'static {
    /// The type products of this input are accumulated in.
    type Acc: Element;

    /// Exact conversion to the accumulator.
    fn widen(self) -> Self::Acc;

    /// Forgets the type of a view's elements.
    #[doc(hidden)]
    fn any<const R: usize>(view: View<'_, Self, R>) -> AnyView<'_, Self::Acc, R>;
}

macro_rules! element {
    ($t:ident, $bf16:ident, $f16:ident) => {
        impl Element for $t {
            type Bf16 = $bf16;
            type F16 = $f16;

            const UNIT_ROUNDOFF: $t = $t::EPSILON / 2.0;

            #[inline]
            fn from_f64(value: f64) -> $t {
                value as $t
            }

            #[inline]
            fn to_f64(self) -> f64 {
                self.into()
            }

            #[inline]
            fn kernels(isa: Isa) -> &'static Kernels<$t> {
                crate::engine::kernels::$t(isa)
            }
        }

        impl Input for $t {
            type Acc = $t;

            #[inline(always)]
            fn widen(self) -> $t {
                self
            }

            fn any<const R: usize>(view: View<'_, $t, R>) -> AnyView<'_, $t, R> {
                AnyView::Full(view)
            }
        }
    };
}

element!(f32, bf16, f16);
element!(f64, f64, f64);

impl Input for bf16 {
    type Acc = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        // bf16 is the upper half of an f32; `to_f32` also quiets NaNs, which costs the vectoriser its loop.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn any<const R: usize>(view: View<'_, bf16, R>) -> AnyView<'_, f32, R> {
        AnyView::Bf16(view)
    }
}

impl Input for f16 {
    type Acc = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn any<const R: usize>(view: View<'_, f16, R>) -> AnyView<'_, f32, R> {
        AnyView::F16(view)
    }
}

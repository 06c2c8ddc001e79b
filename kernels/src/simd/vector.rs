//! Vectors with operators, for kernels that are formulas rather than products.

use super::Simd;
use core::ops::{Add, Div, Mul, Sub};

/// A register of `S`. Making one is unsafe, using it is not: whoever made it vouched for the instruction set.
pub(crate) struct Vector<T: Copy, S: Simd<T>>(S::V);

impl<T: Copy, S: Simd<T>> Clone for Vector<T, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Copy, S: Simd<T>> Copy for Vector<T, S> {}

impl<T: Copy, S: Simd<T>> Vector<T, S> {
    /// # Safety
    /// On a CPU with S's instruction set, inside a function compiled for it, which the vector does not leave.
    #[inline(always)]
    pub(crate) unsafe fn splat(x: T) -> Self {
        // SAFETY: the caller's contract.
        Vector(unsafe { S::splat(x) })
    }

    /// # Safety
    /// As [`Vector::splat`]; LANES elements are readable at `p`.
    #[inline(always)]
    pub(crate) unsafe fn load(p: *const T) -> Self {
        // SAFETY: the caller's contract.
        Vector(unsafe { S::load(p) })
    }

    /// # Safety
    /// LANES elements are writable at `p`.
    #[inline(always)]
    pub(crate) unsafe fn store(self, p: *mut T) {
        // SAFETY: the caller's contract.
        unsafe { S::store(p, self.0) }
    }

    /// `self * b + c`.
    #[inline(always)]
    pub(crate) fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: a vector exists.
        Vector(unsafe { S::fma(self.0, b.0, c.0) })
    }

    /// `c - self * b`.
    #[inline(always)]
    pub(crate) fn fnma(self, b: Self, c: Self) -> Self {
        // SAFETY: a vector exists.
        Vector(unsafe { S::fnma(self.0, b.0, c.0) })
    }

    #[inline(always)]
    pub(crate) fn sqrt(self) -> Self {
        // SAFETY: a vector exists.
        Vector(unsafe { S::sqrt(self.0) })
    }

    #[inline(always)]
    pub(crate) fn abs(self) -> Self {
        // SAFETY: a vector exists.
        Vector(unsafe { S::abs(self.0) })
    }

    /// In each lane `x` if `self <= b`, else (NaN too) `y`.
    #[inline(always)]
    pub(crate) fn le(self, b: Self, x: Self, y: Self) -> Self {
        // SAFETY: a vector exists.
        Vector(unsafe { S::select_le(self.0, b.0, x.0, y.0) })
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident) => {
        impl<T: Copy, S: Simd<T>> $trait for Vector<T, S> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: a vector exists.
                Vector(unsafe { S::$method(self.0, other.0) })
            }
        }
    };
}

operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

//! Phases of an image: pixels that one set of taps reaches.
//!
//! Output `y` reads pixel `u = s y + d p - pad` through tap `p`. So pixel `u = s v + r` of phase `r` is reached through the taps with
//! `d p = r + pad (mod s)`, `p = p0 + j s / g` where `g = gcd(d, s)`, from output `v + (r + pad - d p0) / s - j d / g`.

use super::geometry::{Axis, Conv};
use super::patches::Window;
use crate::element::Element;
use crate::engine::kernels::Kernels;
use crate::engine::pack::{Pack, Strided};
use crate::view::{MatRef, View, ViewMut};

/// One phase of one axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AxisPhase {
    /// The first pixel; the others follow `stride` apart.
    start: usize,
    /// The first tap, and how far apart they are; `window.taps` of them.
    tap: usize,
    tap_step: usize,
    /// How its pixels read the errors.
    pub(crate) window: Window,
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl AxisPhase {
    fn new(axis: &Axis, start: usize) -> AxisPhase {
        let (s, d, k) = (axis.stride, axis.dilation, axis.kernel);
        let g = gcd(d, s);
        let tap_step = s / g;
        let target = (start + axis.padding[0]) as isize;
        let at = |tap: usize| target - (d * tap) as isize;
        let tap = (0..k.min(tap_step)).find(|&tap| at(tap).rem_euclid(s as isize) == 0);
        let taps = tap.map_or(0, |tap| (k - tap).div_ceil(tap_step));
        let window = Window {
            outputs: (axis.size - start).div_ceil(s),
            taps,
            size: axis.outputs(),
            step: 1,
            first: tap.map_or(0, |tap| at(tap).div_euclid(s as isize)),
            tap_step: -((d / g) as isize),
        };
        AxisPhase { start, tap: tap.unwrap_or(0), tap_step, window }
    }
}

/// One phase of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    pub(crate) axes: [AxisPhase; 3],
}

impl Phase {
    /// Pixels of an image.
    pub(crate) fn count(&self) -> usize {
        self.axes.iter().map(|axis| axis.window.outputs).product()
    }

    /// Taps that reach them.
    pub(crate) fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.window.taps).product()
    }

    /// Its pixels of images of the convolution's inputs.
    pub(crate) fn pixels<'a, T>(&self, images: ViewMut<'a, T, 5>, conv: &Conv) -> ViewMut<'a, T, 5> {
        let ([n, c, ..], [ns, cs, steps @ ..]) = (images.shape(), images.strides());
        let [z, y, x] = self.axes.map(|axis| axis.window.outputs);
        let [rz, ry, rx] = self.axes.map(|axis| axis.start);
        let axes = conv.axes3();
        let [zs, ys, xs] = core::array::from_fn(|axis| steps[axis].wrapping_mul(axes[axis].stride as isize));
        // SAFETY: every stride-th pixel from the first of the phase on, while there are any.
        unsafe { images.reshaped([0, 0, rz, ry, rx], [n, c, z, y, x], [ns, cs, zs, ys, xs]) }
    }
}

/// All phases; together they have each pixel once.
pub(crate) fn phases(conv: &Conv) -> impl Iterator<Item = Phase> {
    let axes = conv.axes3();
    let [z, y, x] = axes.map(|axis| axis.stride.min(axis.size));
    (0..z * y * x).map(move |phase| {
        let starts = [phase / (y * x), phase / x % y, phase % x];
        Phase { axes: core::array::from_fn(|axis| AxisPhase::new(&axes[axis], starts[axis])) }
    })
}

/// The weights of a phase's taps as a left operand: input channels are indices, taps and output channels depths.
pub(crate) struct TapRows<'a, T> {
    /// `[kz, ky, kx, o, c]`
    weights: View<'a, T, 5>,
}

impl<'a, T: Element> TapRows<'a, T> {
    /// `weights` are `[taps, o, c]` of all taps.
    pub(crate) fn new(weights: &'a [T], conv: &Conv, phase: &Phase, [o, c]: [usize; 2]) -> Self {
        assert_eq!(weights.len(), conv.taps() * o * c, "convolution: the weights by tap");
        let [_, ky, kx] = conv.axes3().map(|axis| axis.kernel);
        let each = [ky * kx * o * c, kx * o * c, o * c];
        let [z, y, x] = phase.axes.map(|axis| axis.window.taps);
        let start: usize = phase.axes.iter().zip(each).map(|(axis, step)| axis.tap * step).sum();
        let [zs, ys, xs] = core::array::from_fn(|axis| phase.axes[axis].tap_step.wrapping_mul(each[axis]) as isize);
        let ptr = weights.as_ptr().wrapping_add(start);
        // SAFETY: those taps of the kernel that the phase names.
        TapRows { weights: unsafe { View::from_raw(ptr, [z, y, x, o, c], [zs, ys, xs, c as isize, 1]) } }
    }

    /// `[o, c]` of a tap.
    fn tap(&self, tap: usize) -> MatRef<'a, T> {
        let ([_, y, x, o, c], [_, _, _, os, cs]) = (self.weights.shape(), self.weights.strides());
        let start = [tap / (y * x), tap / x % y, tap % x, 0, 0];
        // SAFETY: a part of the weights.
        unsafe { self.weights.reshaped(start, [o, c], [os, cs]) }
    }
}

impl<T: Element> Pack<T> for TapRows<'_, T> {
    fn extent(&self) -> usize {
        self.weights.shape()[4]
    }

    fn depth(&self) -> usize {
        let [z, y, x, o, _] = self.weights.shape();
        z * y * x * o
    }

    fn pack(&self, panel: &mut [T], first: usize, start: usize, kernels: &Kernels<T>) {
        let (o, nr) = (self.weights.shape()[3], kernels.nr);
        let (mut depth, mut rest) = (start, panel);
        while !rest.is_empty() {
            let count = (o - depth % o).min(rest.len() / nr);
            let (segment, tail) = rest.split_at_mut(count * nr);
            Strided::columns(self.tap(depth / o)).pack(segment, first, depth % o, kernels);
            depth += count;
            rest = tail;
        }
    }
}

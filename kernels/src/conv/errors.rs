//! The covariance of a convolution's errors: of the pixels of its outputs, by groups of output channels.

use super::covariance::{self, ConvSpec};
use super::geometry::Conv;
use super::groups::{self, SharedTensor};
use super::plan::Plan;
use super::sums;
use crate::covariance::{self as dense, Sharing, Spec};
use crate::element::{Element, Input};
use crate::engine::{Buffers, aligned};
use crate::par::Par;
use crate::view::{MatMut, View, ViewMut};
use dyn_stack::{MemStack, StackReq};

/// For each group `out[g] <- beta out[g] + alpha sum over images and outputs of e e^T`; reduced: of each image's sum over outputs. `out` is
/// `[groups, o, o]`, `o` the outputs of a group; `e` `[N, groups o, Z', Y', X']`, any strides. `N T o² / 2` multiply-adds a group; reduced
/// `N o² / 2`.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`scratch`].
pub fn error_covariance<E: Input>(
    out: ViewMut<'_, E::Acc, 3>,
    e: View<'_, E, 5>,
    conv: &Conv,
    spec: &ConvSpec<E::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    let (n, outputs) = (e.shape()[0], conv.outputs_only());
    let (groups, size) = (conv.groups(), outputs.features());
    assert_eq!(out.shape(), [groups, size, size], "error covariance: the output's shape");
    assert_eq!(e.shape(), conv.output_shape(n), "error covariance: the errors' shape");
    if spec.sharing == Sharing::Expand {
        return covariance::covariance(out, e, &Plan::pixels(&outputs), spec, par, stack);
    }
    let [group_step, row_step, column_step] = out.strides();
    // SAFETY: the same elements, groups as the second axis.
    let out = unsafe { out.reshaped([0; 3], [1, groups, 1, size, size], [0, group_step, 0, row_step, column_step]) };
    let out = SharedTensor::new(out);
    groups::for_each(groups, par, |par| reduced_scratch::<E::Acc>(n, &outputs, par), stack, &|g, par, stack| {
        // SAFETY: each group is borrowed once; it is a matrix.
        let out = unsafe { out.part(g..g + 1).reshaped([0; 5], [size, size], [row_step, column_step]) };
        reduced(out, e.channels(g * size..(g + 1) * size), &outputs, num_traits::One::one(), spec, par, stack);
    });
}

/// Scratch of [`error_covariance`] for `n` images.
pub fn scratch<T: Element>(n: usize, conv: &Conv, sharing: Sharing, par: Par) -> StackReq {
    let outputs = conv.outputs_only();
    match sharing {
        Sharing::Expand => covariance::scratch::<T>(n, &Plan::pixels(&outputs), sharing, par),
        Sharing::Reduce => groups::scratch(conv.groups(), par, |par| reduced_scratch::<T>(n, &outputs, par)),
    }
}

/// The longest chain of additions into one entry of an [`error_covariance`] of `n` images.
pub fn depth<T: Element>(n: usize, conv: &Conv, sharing: Sharing, par: Par) -> usize {
    covariance::depth::<T>(n, &Plan::pixels(&conv.outputs_only()), sharing, par)
}

/// The covariance of `scale` times the sum of each image's patches; of one group.
fn reduced<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 5>,
    conv: &Conv,
    scale: I::Acc,
    spec: &ConvSpec<I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    let (n, features) = (x.shape()[0], conv.features());
    let (rows, stack) = aligned::<I::Acc>(stack, n * features);
    let rows = Buffers::new(rows, n);
    {
        let degree = par.degree();
        let (lines, _) = aligned::<I::Acc>(stack, conv.axes3()[2].size * degree);
        let lines = Buffers::new(lines, degree);
        par.for_each(n, &|worker, image| {
            // SAFETY: one task has this image's row, and at a time this worker's line; both are filled before they are read.
            let (row, line) = unsafe { (rows.part(image), lines.part(worker)) };
            sums::image_sums(row, scale, x, image, conv, line);
        });
    }
    let ConvSpec { triangle, blend, .. } = *spec;
    // SAFETY: every row has been filled.
    let rows = unsafe { View::from_raw(rows.as_ptr(), [n, 1, features], [features as isize, 0, 1]) };
    let reduce_scale = num_traits::One::one();
    let spec = Spec { sharing: Sharing::Expand, reduce_scale, bias: conv.bias(), centre: None, triangle, blend };
    dense::covariance(out, rows, &spec, par, stack);
}

fn reduced_scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    let line = StackReq::new_aligned::<T>(conv.axes3()[2].size * par.degree(), crate::engine::ALIGN);
    let rows = StackReq::new_aligned::<T>(n * conv.features(), crate::engine::ALIGN);
    rows.and(line.or(dense::scratch::<T>([n, 1, conv.features()], conv.bias(), Sharing::Expand, par)))
}

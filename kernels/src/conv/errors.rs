//! The covariance of a convolution's errors: of the pixels of its outputs, by groups of output channels.

use super::covariance::{self, ConvSpec};
use super::geometry::Conv;
use super::groups::{self, SharedGroups};
use super::plan::Plan;
use super::reduced;
use crate::covariance::Sharing;
use crate::element::{Element, Input};
use crate::par::Par;
use crate::view::{View, ViewMut};
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
    let outs = SharedGroups::new(out);
    groups::for_each(groups, par, |par| reduced::scratch::<E::Acc>(n, &outputs, par), stack, &|g, par, stack| {
        // SAFETY: each group is borrowed once.
        let out = unsafe { outs.matrix(g) };
        let one = num_traits::One::one();
        reduced::covariance(out, e.channels(g * size..(g + 1) * size), &outputs, one, spec, par, stack);
    });
}

/// Scratch of [`error_covariance`] for `n` images.
pub fn scratch<T: Element>(n: usize, conv: &Conv, sharing: Sharing, par: Par) -> StackReq {
    let outputs = conv.outputs_only();
    match sharing {
        Sharing::Expand => covariance::scratch::<T>(n, &Plan::pixels(&outputs), sharing, par),
        Sharing::Reduce => groups::scratch(conv.groups(), par, |par| reduced::scratch::<T>(n, &outputs, par)),
    }
}

/// The longest chain of additions into one entry of an [`error_covariance`] of `n` images.
pub fn depth<T: Element>(n: usize, conv: &Conv, sharing: Sharing, par: Par) -> usize {
    covariance::depth::<T>(n, &Plan::pixels(&conv.outputs_only()), sharing, par)
}

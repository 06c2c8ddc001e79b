//! The *reduce* setting: the covariance of sums, or means, of each image's patches. `n` images with `f` features: `n f² / 2` multiply-adds, and
//! the additions of [`sums`].

use super::covariance::ConvSpec;
use super::geometry::Conv;
use super::sums;
use crate::covariance::{self as dense, Sharing, Spec};
use crate::element::{Element, Input};
use crate::engine::{ALIGN, Buffers, aligned};
use crate::par::Par;
use crate::view::{MatMut, View};
use dyn_stack::{MemStack, StackReq};

/// The covariance of `scale` times the sum of each image's patches; of one group.
pub(super) fn covariance<I: Input>(
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

/// Scratch of [`covariance`] for `n` images.
pub(super) fn scratch<T: Element>(n: usize, conv: &Conv, par: Par) -> StackReq {
    let line = StackReq::new_aligned::<T>(conv.axes3()[2].size * par.degree(), ALIGN);
    let rows = StackReq::new_aligned::<T>(n * conv.features(), ALIGN);
    rows.and(line.or(dense::scratch::<T>([n, 1, conv.features()], conv.bias(), Sharing::Expand, par)))
}

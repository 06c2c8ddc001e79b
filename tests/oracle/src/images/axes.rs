//! Axes and convolutions to test: all small axes, one of each kind, random ones; a convolution of each kind.

use super::{Request, padded};
use foof_kernels::Triangle;
use foof_kernels::conv::{Axis, Conv, FeatureOrder};
use foof_kernels::covariance::Sharing;
use proptest::prelude::*;

/// Every axis of up to five taps and nine samples, strides and dilations up to 3, and paddings up to one more than the kernel.
pub fn axes() -> Vec<Axis> {
    let mut axes = Vec::new();
    for (kernel, size) in (1..=5).flat_map(|kernel| (1..=9).map(move |size| (kernel, size))) {
        for (stride, dilation) in (1..=3).flat_map(|stride| (1..=3).map(move |dilation| (stride, dilation))) {
            for (before, after) in (0..=kernel + 1).flat_map(|low| (0..=kernel + 1).map(move |high| (low, high))) {
                // The taps fit.
                if dilation * (kernel - 1) < size + before + after {
                    let axis = Axis::new(size, kernel).stride(stride).dilation(dilation);
                    axes.push(axis.padding_each([before, after]));
                }
            }
        }
    }
    axes
}

/// One axis of each kind.
pub fn kinds() -> Vec<Axis> {
    let axis = Axis::new;
    vec![
        axis(1, 1),                        // one sample, one tap
        axis(5, 1).stride(2),              // one tap, every other sample
        axis(4, 1).padding(2),             // outputs that see padding only
        axis(6, 3),                        // windows inside
        axis(6, 3).padding(1),             // as many outputs as samples
        axis(5, 3).padding_each([0, 4]),   // one-sided, oversize
        axis(1, 3).padding(2),             // one sample
        axis(2, 5).padding(4),             // fewer samples than taps
        axis(7, 3).stride(2).padding(1),   // phases
        axis(6, 2).stride(2),              // kernel = stride
        axis(7, 2).stride(3),              // samples that no tap reads
        axis(8, 3).dilation(3).padding(3), // gaps between taps
        axis(3, 3).dilation(3).padding(3), // taps that never see two samples at once
        axis(9, 4).stride(3).dilation(2).padding_each([1, 5]),
    ]
}

/// Few and many channels, several tiles, phases, one tap, groups, depthwise.
pub fn convolutions() -> Vec<Conv> {
    let conv = |channels, axes: [Axis; 2]| Conv::new(channels, 36, axes).expect("a geometry");
    vec![
        conv(3, [padded(5, 3), padded(6, 3)]),
        conv(20, [padded(4, 3).stride(2), padded(5, 2)]).with_bias(),
        conv(50, [padded(3, 3), padded(3, 2)]).with_order(FeatureOrder::TapsChannel),
        conv(6, [Axis::new(4, 1), Axis::new(5, 1)]).with_bias(),
        conv(8, [Axis::new(4, 2).stride(2), padded(5, 3)]).with_groups(2).expect("groups"),
        conv(18, [padded(4, 3), padded(5, 2)]).with_groups(18).expect("groups").with_bias(),
        Conv::new(3, 1, [padded(3, 2), padded(2, 2), padded(4, 3)]).expect("a geometry"),
    ]
}

/// Up to five taps over up to twelve samples, stride, dilation and paddings.
fn axis() -> impl Strategy<Value = Axis> {
    (1usize..=5, 1usize..=12, 1usize..=3, 1usize..=3, 0usize..=4, 0usize..=4).prop_map(
        |(kernel, size, stride, dilation, before, after)| {
            // Zeros after the last sample until the taps fit.
            let missing = (dilation * (kernel - 1) + 1).saturating_sub(size + before + after);
            Axis::new(size, kernel).stride(stride).dilation(dilation).padding_each([before, after + missing])
        },
    )
}

/// A geometry of one to three axes, a number of images, and how their factor is asked for.
pub fn random_request() -> impl Strategy<Value = (Conv, usize, Request)> {
    let flags = prop::array::uniform4(any::<bool>());
    let blends = prop::sample::select(vec![[1.0, 0.0], [0.05, 0.95], [-0.3, 1.0]]);
    let sizes = (1usize..=12, 1usize..=2, 1usize..=5);
    (prop::array::uniform3(axis()), 1usize..=3, sizes, flags, blends).prop_map(
        |([z, y, x], rank, (channels, groups, n), [bias, taps_channel, reduce, lower], blend)| {
            let (channels, one) = (channels * groups, Axis::new(1, 1));
            // Three axes of five taps would be features by the thousand.
            let (z, y) = match rank {
                1 => (one, one),
                2 => (one, y),
                _ => (z, Axis { kernel: y.kernel.min(2), ..y }),
            };
            let channels = if rank == 3 { groups } else { channels };
            let conv = Conv::new(channels, groups, [z, y, x]).expect("a geometry").with_groups(groups).expect("groups");
            let conv = if bias { conv.with_bias() } else { conv };
            let conv = if taps_channel { conv.with_order(FeatureOrder::TapsChannel) } else { conv };
            let request = Request {
                sharing: if reduce { Sharing::Reduce } else { Sharing::Expand },
                triangle: if lower { Triangle::Lower } else { Triangle::Full },
                blend,
                ..Request::default()
            };
            (conv, n, request)
        },
    )
}

//! The kernels' parameters, as in `conv.cuh` and the `.cu` files beside it.

use super::tables::{Divisor, Fold, Item, PairEntry, SumEntry};
use crate::view::View;
use foof_kernels::Blend;
use foof_kernels::Element;
use foof_kernels::conv::{Conv, FeatureOrder};

/// Three spatial axes, outermost first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    size: [i32; 3],
    kernel: [i32; 3],
    stride: [i32; 3],
    dilation: [i32; 3],
    padding: [i32; 3],
    outputs: [i32; 3],
}

impl Geometry {
    /// Of a convolution whose sizes fit, which its plan has checked.
    pub(super) fn new(conv: &Conv) -> Geometry {
        let axes = conv.axes3();
        Geometry {
            size: axes.map(|axis| axis.size as i32),
            kernel: axes.map(|axis| axis.kernel as i32),
            stride: axes.map(|axis| axis.stride as i32),
            dilation: axes.map(|axis| axis.dilation as i32),
            padding: axes.map(|axis| axis.padding[0] as i32),
            outputs: axes.map(|axis| axis.outputs() as i32),
        }
    }
}

/// Images of any strides; the channels are those of a group.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Images {
    data: u64,
    image: i64,
    channel: i64,
    axis: [i64; 3],
    images: i32,
    channels: i32,
}

impl Images {
    pub(super) fn new<I>(x: View<'_, I, 5>, groups: usize) -> Images {
        let [image, channel, axis @ ..] = x.strides().map(|step| step as i64);
        let [images, channels, ..] = x.shape();
        Images { data: x.pointer(), image, channel, axis, images: images as i32, channels: (channels / groups) as i32 }
    }
}

/// `out <- beta out + alpha value`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    data: u64,
    group: i64,
    row: i64,
    column: i64,
    alpha: f64,
    beta: f64,
}

impl Output {
    pub(super) fn new<T: Element>(out: View<'_, T, 3>, blend: Blend<T>) -> Output {
        let [group, row, column] = out.strides().map(|step| step as i64);
        let (alpha, beta) = (blend.alpha.to_f64(), blend.beta.to_f64());
        Output { data: out.pointer(), group, row, column, alpha, beta }
    }
}

/// In which order features follow one another.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    channels: i32,
    taps: i32,
    taps_first: i32,
}

impl Features {
    pub(super) fn new(conv: &Conv) -> Features {
        let taps_first = i32::from(conv.order() == FeatureOrder::TapsChannel);
        Features { channels: (conv.in_channels() / conv.groups()) as i32, taps: conv.taps() as i32, taps_first }
    }
}

/// `conv_covariance_plain_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    pub(super) x: Images,
    pub(super) out: Output,
    pub(super) geometry: Geometry,
    pub(super) features: Features,
    pub(super) groups: i32,
    pub(super) size: i32,
    pub(super) full: i32,
}

/// `conv_unfold_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfold {
    pub(super) x: Images,
    pub(super) out: Output,
    pub(super) slots: u64,
    pub(super) rows: i64,
    pub(super) chunk: i64,
    pub(super) geometry: Geometry,
    pub(super) features: Features,
    pub(super) outputs: [Divisor; 3],
    pub(super) size: i32,
    pub(super) chunks: i32,
    pub(super) full: i32,
}

/// `conv_pack_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Pack {
    pub(super) x: Images,
    pub(super) packed: u64,
    pub(super) phases: u64,
    pub(super) geometry: Geometry,
    pub(super) pitch: [i32; 3],
    pub(super) width: i32,
    pub(super) phase_count: i32,
    pub(super) groups: i32,
}

/// `conv_correlate_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Correlate {
    pub(super) images: u64,
    pub(super) sums: u64,
    pub(super) items: u64,
    pub(super) partials: u64,
    pub(super) group_step: i64,
    pub(super) phase_step: i64,
    pub(super) partials_step: i64,
    pub(super) steps: [i32; 4],
    pub(super) width: i32,
    pub(super) batch: i32,
}

/// `conv_fold_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct FoldChunks {
    pub(super) folds: u64,
    pub(super) partials: u64,
    pub(super) group_step: i64,
    pub(super) elements: i32,
    pub(super) reserved: i32,
}

/// `conv_assemble_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Assemble {
    pub(super) out: Output,
    pub(super) sums: u64,
    pub(super) pairs: u64,
    pub(super) partials: u64,
    pub(super) group_step: i64,
    pub(super) features: Features,
    pub(super) side: i32,
}

/// `conv_window_sums_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) x: Images,
    pub(super) rows: u64,
    pub(super) scale: f64,
    pub(super) geometry: Geometry,
    pub(super) features: Features,
    pub(super) groups: i32,
}

/// `conv_bias_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct BiasRow {
    pub(super) out: Output,
    pub(super) rows: u64,
    pub(super) outputs: i64,
    pub(super) images: i32,
    pub(super) features: i32,
    pub(super) groups: i32,
    pub(super) reserved: i32,
}

/// `conv_mirror_*`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Mirror {
    pub(super) data: u64,
    pub(super) group: i64,
    pub(super) row: i64,
    pub(super) column: i64,
    pub(super) size: i32,
    pub(super) reserved: i32,
}

impl Mirror {
    pub(super) fn new<T>(out: View<'_, T, 3>) -> Mirror {
        let [group, row, column] = out.strides().map(|step| step as i64);
        Mirror { data: out.pointer(), group, row, column, size: out.shape()[1] as i32, reserved: 0 }
    }
}

// The same numbers stand in the sources.
const _: () = {
    assert!(size_of::<Geometry>() == 72 && size_of::<Images>() == 56 && size_of::<Output>() == 48);
    assert!(size_of::<SumEntry>() == 96 && size_of::<Item>() == 28 && size_of::<PairEntry>() == 36);
    assert!(size_of::<Fold>() == 8);
    assert!(size_of::<Plain>() == 200 && size_of::<Unfold>() == 264 && size_of::<Pack>() == 168);
    assert!(size_of::<Correlate>() == 80 && size_of::<FoldChunks>() == 32 && size_of::<Assemble>() == 96);
    assert!(size_of::<Windows>() == 160 && size_of::<BiasRow>() == 80 && size_of::<Mirror>() == 40);
};

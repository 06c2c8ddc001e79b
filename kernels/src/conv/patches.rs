//! Implicit unfolding: patches formed while packing, for products with a convolution's weights and where the correlation form gains nothing.
//!
//! ```text
//! element (image, output; feature (c, p, q))  =  X[image, c, s y + d p - pad, s x + d q - pad], zero in the padding
//! ```
//!
//! A panel is filled by blocks: some consecutive outputs of a row, which read consecutive samples (or every s-th), by the channels that read
//! them through one tap. So the row is found once for all channels.

use super::geometry::{Axis, Conv, FeatureOrder};
use crate::element::Input;
use crate::engine::kernels::Kernels;
use crate::engine::pack::Pack;
use crate::view::View;
use core::any::TypeId;
use core::ops::Range;

/// Along one axis: output `y` reads through tap `p` the sample `step y + first + tap_step p`, zero where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Window {
    pub(crate) outputs: usize,
    pub(crate) taps: usize,
    pub(crate) size: usize,
    pub(crate) step: usize,
    pub(crate) first: isize,
    pub(crate) tap_step: isize,
}

impl Window {
    /// What a convolution reads.
    pub(crate) fn of(axis: &Axis) -> Window {
        let (outputs, first) = (axis.outputs(), -(axis.padding[0] as isize));
        let Axis { size, kernel, stride, dilation, .. } = *axis;
        Window { outputs, taps: kernel, size, step: stride, first, tap_step: dilation as isize }
    }

    /// Each sample once.
    pub(crate) fn samples(size: usize) -> Window {
        Window { outputs: size, taps: 1, size, step: 1, first: 0, tap_step: 0 }
    }

    /// The sample that output 0 reads, or would read.
    fn start(&self, tap: usize) -> isize {
        self.first + self.tap_step * tap as isize
    }

    /// The sample read, if there is one.
    fn sample(&self, output: usize, tap: usize) -> Option<isize> {
        let at = (self.step * output) as isize + self.start(tap);
        (0..self.size as isize).contains(&at).then_some(at)
    }

    /// The outputs among `range` that read a sample through `tap`.
    fn inside(&self, tap: usize, range: Range<usize>) -> Range<usize> {
        let start = self.start(tap);
        let below = |end: isize| (end.max(0) as usize).div_ceil(self.step);
        let low = below(-start).clamp(range.start, range.end);
        low..below(self.size as isize - start).clamp(low, range.end)
    }
}

/// The patches of one group of channels as an operand: features are indices, outputs of all images depths, or the other way round.
pub struct Patches<'a, I> {
    /// `[N, C, Z, Y, X]` of the group's channels.
    x: View<'a, I, 5>,
    windows: [Window; 3],
    order: FeatureOrder,
    index: Index,
}

/// What the indices of an operand of patches are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Index {
    /// Features: a covariance, a gradient.
    Features,
    /// Outputs: the layer itself.
    Outputs,
}

/// Consecutive outputs of one row, counted from the first of an image.
struct Run {
    image: usize,
    outer: [usize; 2],
    x: Range<usize>,
}

/// Channels that read through one tap, `step` features apart from feature `first` on.
struct Segment {
    taps: [usize; 3],
    channels: Range<usize>,
    first: usize,
    step: usize,
}

impl<'a, I: Input> Patches<'a, I> {
    /// The patches of `x` `[N, C, Z, Y, X]`, the channels of one group of `conv`, features in its order.
    ///
    /// # Panics
    /// If the shape is not the geometry's.
    pub fn new(x: View<'a, I, 5>, conv: &Conv, index: Index) -> Self {
        let [n, _, z, y, w] = conv.input_shape(x.shape()[0]);
        assert_eq!(x.shape(), [n, conv.in_channels() / conv.groups(), z, y, w], "patches: the images' shape");
        Patches::windows(x, conv.axes3().each_ref().map(Window::of), conv.order(), index)
    }

    /// Every sample of `x` once: one tap.
    pub(crate) fn samples(x: View<'a, I, 5>, index: Index) -> Self {
        let [_, _, sizes @ ..] = x.shape();
        Patches::windows(x, sizes.map(Window::samples), FeatureOrder::ChannelTaps, index)
    }

    /// What `windows` read of `x`, whose sizes are theirs.
    pub(crate) fn windows(x: View<'a, I, 5>, windows: [Window; 3], order: FeatureOrder, index: Index) -> Self {
        let [_, _, sizes @ ..] = x.shape();
        assert_eq!(sizes, windows.map(|window| window.size), "patches: the windows' sizes");
        let (x, windows) = merged(x, windows);
        Patches { x, windows, order, index }
    }

    fn counts(&self) -> (usize, usize) {
        let taps: usize = self.windows.iter().map(|window| window.taps).product();
        let outputs: usize = self.windows.iter().map(|window| window.outputs).product();
        (self.x.shape()[1] * taps, self.x.shape()[0] * outputs)
    }

    /// The rows that outputs `range` of all images lie in.
    fn runs(&self, range: Range<usize>) -> impl Iterator<Item = Run> {
        let [oz, oy, ox] = self.windows.map(|window| window.outputs);
        let mut at = range.start;
        core::iter::from_fn(move || {
            (at < range.end).then(|| {
                let (row, x) = (at / ox, at % ox);
                let end = (x + range.end - at).min(ox);
                at += end - x;
                Run { image: row / (oy * oz), outer: [row / oy % oz, row % oy], x: x..end }
            })
        })
    }

    /// The taps and channels of features `range`.
    fn segments(&self, range: Range<usize>) -> impl Iterator<Item = Segment> {
        let [kz, ky, kx] = self.windows.map(|window| window.taps);
        let (channels, taps, order) = (self.x.shape()[1], kz * ky * kx, self.order);
        // All taps of some channels, or the taps that the range touches.
        let numbers = match order {
            FeatureOrder::ChannelTaps => 0..taps,
            FeatureOrder::TapsChannel => range.start / channels..range.end.div_ceil(channels),
        };
        numbers.map(move |tap| {
            let (channels, first, step) = match order {
                FeatureOrder::ChannelTaps => {
                    let place = |feature: usize| (feature + taps - 1 - tap) / taps;
                    (place(range.start)..place(range.end), place(range.start) * taps + tap, taps)
                }
                FeatureOrder::TapsChannel => {
                    let low = range.start.saturating_sub(tap * channels);
                    (low..channels.min(range.end - tap * channels), tap * channels + low, 1)
                }
            };
            Segment { taps: [tap / (ky * kx), tap / kx % ky, tap % kx], channels, first, step }
        })
    }

    /// Fills a panel of zeros: `outputs` by `features`, `steps` apart in the panel.
    fn fill(
        &self,
        panel: &mut [I::Acc],
        (outputs, output_step): (Range<usize>, usize),
        (features, feature_step): (Range<usize>, usize),
        kernels: &Kernels<I::Acc>,
    ) {
        let [wz, wy, wx] = &self.windows;
        let [image_step, channel_step, zs, ys, xs] = self.x.strides();
        let mut before = 0;
        for run in self.runs(outputs) {
            for segment in self.segments(features.clone()) {
                let [p, q, r] = segment.taps;
                let inside = wx.inside(r, run.x.clone());
                let (Some(z), Some(y)) = (wz.sample(run.outer[0], p), wy.sample(run.outer[1], q)) else { continue };
                if inside.is_empty() || segment.channels.is_empty() {
                    continue;
                }
                let x = (wx.step * inside.start) as isize + wx.start(r);
                let channel = segment.channels.start as isize * channel_step;
                let at = run.image as isize * image_step + channel + z * zs + y * ys + x * xs;
                let to = (before + inside.start - run.x.start) * output_step
                    + (segment.first - features.start) * feature_step;
                let block = Block {
                    from: self.x.as_ptr().wrapping_offset(at),
                    from_steps: [xs * wx.step as isize, channel_step],
                    to_steps: [output_step, segment.step * feature_step],
                    counts: [inside.len(), segment.channels.len()],
                };
                // SAFETY: the samples exist, as `sample` and `inside` say; the places are those of the panel's outputs and features.
                unsafe { block.copy(&mut panel[to..], kernels) };
            }
            before += run.x.len();
        }
    }
}

/// Spatial axes that are read whole and follow on one another, as one.
fn merged<I>(x: View<'_, I, 5>, windows: [Window; 3]) -> (View<'_, I, 5>, [Window; 3]) {
    let ([n, c, z, y, w], [ns, cs, zs, ys, xs]) = (x.shape(), x.strides());
    let whole = windows.iter().zip([z, y, w]).all(|(&window, size)| window == Window::samples(size));
    let follows = (y == 1 || ys == xs * w as isize) && (z == 1 || zs == xs * (w * y) as isize);
    if !whole || !follows {
        return (x, windows);
    }
    // SAFETY: the same samples, in the same order.
    let x = unsafe { x.reshaped([0; 5], [n, c, 1, 1, z * y * w], [ns, cs, 0, 0, xs]) };
    (x, [1, 1, z * y * w].map(Window::samples))
}

/// A block of samples, `[outputs, channels]` on both sides.
struct Block<I> {
    from: *const I,
    from_steps: [isize; 2],
    to_steps: [usize; 2],
    counts: [usize; 2],
}

impl<I: Input> Block<I> {
    /// `to[i to_steps[0] + j to_steps[1]] <- from[i from_steps[0] + j from_steps[1]]`
    ///
    /// # Safety
    /// All samples can be read.
    unsafe fn copy(&self, to: &mut [I::Acc], kernels: &Kernels<I::Acc>) {
        let ([a, b], [ta, tb], [sa, sb]) = (self.counts, self.to_steps, self.from_steps);
        assert!((a - 1) * ta + (b - 1) * tb < to.len(), "patches: a block outside its panel");
        let to = to.as_mut_ptr();
        // Lines of the panel are contiguous along one of the two.
        let ([inner, outer], step, [si, so]) = if ta == 1 { ([a, b], tb, [sa, sb]) } else { ([b, a], ta, [sb, sa]) };
        if TypeId::of::<I>() == TypeId::of::<I::Acc>() && (ta == 1 || tb == 1) {
            let from = self.from.cast::<I::Acc>();
            // SAFETY (all): the kernels belong to an ISA this CPU has; I is the accumulator type; the caller's contract, and the bound above.
            if si == 1 {
                // SAFETY: as above.
                return unsafe { (kernels.copy_block)(to, step, from, so, inner, outer) };
            }
            if si == 2 {
                // SAFETY: as above; every second sample of a line.
                return unsafe { (kernels.copy_even)(to, step, from, so, inner, outer) };
            }
            if so == 1 {
                // SAFETY: as above.
                return unsafe { (kernels.transpose)(to, step, from, si, inner, outer) };
            }
        }
        // Along what lies closer together in memory.
        let along = sa.unsigned_abs() <= sb.unsigned_abs();
        let ([a, b], [ta, tb], [sa, sb]) =
            if along { ([a, b], [ta, tb], [sa, sb]) } else { ([b, a], [tb, ta], [sb, sa]) };
        for j in 0..b {
            let (to, from) = (to.wrapping_add(j * tb), self.from.wrapping_offset(j as isize * sb));
            for i in 0..a {
                // SAFETY: as above.
                unsafe { *to.add(i * ta) = (*from.offset(i as isize * sa)).widen() };
            }
        }
    }
}

impl<I: Input> Pack<I::Acc> for Patches<'_, I> {
    fn extent(&self) -> usize {
        let (features, outputs) = self.counts();
        if self.index == Index::Features { features } else { outputs }
    }

    fn depth(&self) -> usize {
        let (features, outputs) = self.counts();
        if self.index == Index::Features { outputs } else { features }
    }

    fn pack(&self, panel: &mut [I::Acc], first: usize, start: usize, kernels: &Kernels<I::Acc>) {
        let nr = kernels.nr;
        let indices = first..self.extent().min(first + nr);
        let depths = start..start + panel.len() / nr;
        panel.fill(num_traits::Zero::zero());
        match self.index {
            Index::Features => self.fill(panel, (depths, nr), (indices, 1), kernels),
            Index::Outputs => self.fill(panel, (indices, 1), (depths, nr), kernels),
        }
    }
}

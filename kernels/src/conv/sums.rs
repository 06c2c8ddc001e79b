//! Sums over windows: what a bias, and the *reduce* setting, need of a convolution's patches.
//!
//! `sum over outputs of X[s y + d p - pad, s x + d q - pad]` for every tap, by rows first: for each outer tap the image's rows are added
//! to one line, then each tap of the last axis adds its samples of that line. Additions only. With kernel k, stride s and
//! `H x W` samples: `k H W / s + k² W / s` additions a channel.

use super::geometry::Conv;
use crate::element::Input;
use crate::view::View;

/// Calls `f(tap, sum)` with the sum of what each tap reads of one channel of one image; `line` has room for the last axis.
/// Chains of `outputs` additions along the outer axes together, and along the last.
fn channel<I: Input>(
    x: View<'_, I, 5>,
    (image, channel): (usize, usize),
    conv: &Conv,
    line: &mut [I::Acc],
    mut f: impl FnMut(usize, I::Acc),
) {
    let [az, ay, ax] = conv.axes3();
    let [image_step, channel_step, zs, ys, xs] = x.strides();
    let zero = <I::Acc as num_traits::Zero>::zero;
    let origin = image as isize * image_step + channel as isize * channel_step;
    let line = &mut line[..ax.size];
    for outer in 0..az.kernel * ay.kernel {
        let (p, q) = (outer / ay.kernel, outer % ay.kernel);
        line.fill(zero());
        let rows =
            |axis: super::geometry::Axis, tap: usize| (0..axis.outputs()).filter_map(move |at| axis.sample(at, tap));
        for z in rows(az, p) {
            for y in rows(ay, q) {
                let row = x.as_ptr().wrapping_offset(origin + z as isize * zs + y as isize * ys);
                for (at, sum) in line.iter_mut().enumerate() {
                    // SAFETY: sample (z, y, at) of an image and channel of the view.
                    *sum += unsafe { *row.offset(at as isize * xs) }.widen();
                }
            }
        }
        for r in 0..ax.kernel {
            let sum = rows(ax, r).fold(zero(), |sum, at| sum + line[at]);
            f(outer * ax.kernel + r, sum);
        }
    }
}

/// `out[feature] <- scale sum` over the outputs of one image, channels `0..C` of the view.
pub(crate) fn image_sums<I: Input>(
    out: &mut [I::Acc],
    scale: I::Acc,
    x: View<'_, I, 5>,
    image: usize,
    conv: &Conv,
    line: &mut [I::Acc],
) {
    for c in 0..x.shape()[1] {
        channel(x, (image, c), conv, line, |tap, sum| out[conv.feature(c, tap)] = scale * sum);
    }
}

/// `f(feature, sum)` over the outputs of all images, for the features of one channel; `sums` has room for the taps.
pub(crate) fn batch_sums<I: Input>(
    x: View<'_, I, 5>,
    c: usize,
    conv: &Conv,
    (line, sums): (&mut [I::Acc], &mut [I::Acc]),
    mut f: impl FnMut(usize, I::Acc),
) {
    let sums = &mut sums[..conv.taps()];
    sums.fill(num_traits::Zero::zero());
    for image in 0..x.shape()[0] {
        channel(x, (image, c), conv, line, |tap, sum| sums[tap] += sum);
    }
    sums.iter().enumerate().for_each(|(tap, &sum)| f(conv.feature(c, tap), sum));
}

/// The longest chain of additions into one window sum of an image.
pub fn depth(conv: &Conv) -> usize {
    let [z, y, x] = conv.axes3().map(|axis| axis.outputs());
    z * y + x
}

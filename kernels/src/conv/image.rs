//! Packing images for the correlation form: pixel-major, split into phases.

use super::correlation::Correlation;
use super::layout::Layout;
use crate::element::Input;
use crate::engine::kernels::Kernels;
use crate::view::View;
use core::any::TypeId;

/// Fills `packed` with one image's samples of one channel tile, all phases. `x` is `[N, C, Z, Y, X]` of the group's channels.
///
/// # Safety
/// `packed` is writable for `layout.packed_len()` elements; no other task packs this image's tile. Where `x` has fewer channels than
/// the tile, `packed` is zero.
pub(crate) unsafe fn pack<I: Input>(
    packed: *mut I::Acc,
    x: View<'_, I, 5>,
    (correlation, layout): (&Correlation, &Layout),
    (image, tile): (usize, usize),
    kernels: &Kernels<I::Acc>,
) {
    let block = layout.block_of(image);
    let steps = layout.steps(block.len());
    let (channel, width) = (tile * correlation.width, correlation.tile_width(tile));
    // A vector of groups may have more lanes than there are groups left: those stay as they are.
    let there_are = width.min(x.shape()[1] - channel);
    let [_, _, sizes @ ..] = x.shape();
    let [image_step, channel_step, axis_steps @ ..] = x.strides();
    let [az, ay, ax] = &correlation.axes;
    let base = image as isize * image_step + channel as isize * channel_step;
    let mut phase = 0;
    for &rz in &az.phases {
        for &ry in &ay.phases {
            for &rx in &ax.phases {
                let start = layout.start(&block, (channel, width), phase) + (image - block.start) * steps.image * width;
                phase += 1;
                let samples = [(0, az, rz), (1, ay, ry), (2, ax, rx)]
                    .map(|(axis, plan, r)| sizes[axis].saturating_sub(r).div_ceil(plan.stride));
                let [zs, ys, xs] =
                    [(0, az), (1, ay), (2, ax)].map(|(axis, plan)| axis_steps[axis] * plan.stride as isize);
                let origin =
                    base + rz as isize * axis_steps[0] + ry as isize * axis_steps[1] + rx as isize * axis_steps[2];
                let [pz, py, px] = steps.axes.map(|step| step * width);
                for z in 0..layout.pitch[0] {
                    // Rows that follow on one another on both sides are one line.
                    let merged = ys == xs * samples[2] as isize
                        && py == px * samples[2]
                        && samples[1] == layout.pitch[1]
                        && z < samples[0];
                    let (rows, length) =
                        if merged { (1, samples[1] * samples[2]) } else { (layout.pitch[1], samples[2]) };
                    for y in 0..rows {
                        let to = packed.wrapping_add(start + z * pz + y * py);
                        let there = z < samples[0] && (merged || y < samples[1]);
                        let length = if there { length } else { 0 };
                        let line = Line {
                            from: x.as_ptr().wrapping_offset(origin + z as isize * zs + y as isize * ys),
                            channel_step,
                            step: xs,
                            width: there_are,
                            length,
                        };
                        // SAFETY: the line's samples lie inside the image; its place inside this image's tile.
                        unsafe {
                            line.copy(to, px, kernels);
                            if !merged {
                                for x in length..layout.pitch[2] {
                                    core::slice::from_raw_parts_mut(to.add(x * px), width)
                                        .fill(num_traits::Zero::zero());
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Samples along the last axis, of several channels.
struct Line<I> {
    from: *const I,
    channel_step: isize,
    step: isize,
    width: usize,
    length: usize,
}

impl<I: Input> Line<I> {
    /// `to[x * to_step + channel] <- from[x * step + channel * channel_step]`
    ///
    /// # Safety
    /// Both sides are valid there.
    unsafe fn copy(&self, to: *mut I::Acc, to_step: usize, kernels: &Kernels<I::Acc>) {
        let same_type = TypeId::of::<I>() == TypeId::of::<I::Acc>();
        // SAFETY (all blocks): the caller's contract.
        if self.step == 1 && same_type {
            let from = self.from.cast::<I::Acc>();
            // SAFETY: as above; `width` lines of `length` contiguous samples. I is the accumulator type.
            return unsafe { (kernels.transpose)(to, to_step, from, self.channel_step, self.width, self.length) };
        }
        for x in 0..self.length {
            let (to, from) = (to.wrapping_add(x * to_step), self.from.wrapping_offset(x as isize * self.step));
            if self.channel_step == 1 && same_type {
                // SAFETY: as above; `width` contiguous channels.
                unsafe { core::ptr::copy_nonoverlapping(from.cast::<I::Acc>(), to, self.width) };
                continue;
            }
            for c in 0..self.width {
                // SAFETY: as above.
                unsafe { *to.add(c) = (*from.offset(c as isize * self.channel_step)).widen() };
            }
        }
    }
}

//! What is done with one group of lanes: read, factored, inverted or solved with, and written, in one function compiled for an instruction set.

use super::blocks::{B, Blocks};
use super::lanes::{Ahead, Lanes, Layout, MOST, Part, read, write};
use super::sweeps::{Pivots, lauum, potrf, solve_lower, solve_lower_transposed, trtri};
use crate::simd::Simd;
use num_traits::Float;

/// Right-hand sides that are solved for at a time.
pub(crate) const COLUMNS: usize = 32;

/// The matrices of a group.
pub(crate) struct Group<T> {
    /// Their order.
    pub(crate) n: usize,
    /// How many of the lanes are used.
    pub(crate) count: usize,
    pub(crate) a: Lanes<*const T>,
    /// Those of the group to come, to be fetched.
    pub(crate) next: Lanes<*const T>,
    pub(crate) scale: [T; MOST],
    pub(crate) damping: [T; MOST],
    /// What becomes of their factors.
    pub(crate) task: Task<T>,
}

/// What becomes of the factors. One value for each group, on its task's stack.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Task<T> {
    Invert { out: Lanes<*mut T>, part: Part },
    Solve { out: Lanes<*mut T>, b: Lanes<*const T>, cols: usize },
}

/// Elements of memory that a group takes: its triangle, and a stretch of right-hand sides.
pub(crate) const fn memory(n: usize, cols: usize, lanes: usize) -> usize {
    let cols = if cols < COLUMNS { cols } else { COLUMNS };
    (Blocks::len(n) + Panels::len(n, cols)) * lanes
}

/// Right-hand sides by panels of [`B`] columns, each of blocks one below the other.
#[derive(Clone, Copy)]
struct Panels {
    blocks: usize,
}

impl Panels {
    const fn len(n: usize, cols: usize) -> usize {
        n.next_multiple_of(B) * cols.next_multiple_of(B)
    }
}

impl Layout for Panels {
    #[inline(always)]
    fn at(self, i: usize, j: usize) -> (usize, [usize; 2]) {
        ((j / B * self.blocks + i / B) * B * B + j % B * B + i % B, [B, 1])
    }
}

/// Runs a group's task in `memory`, of [`memory`] elements, aligned to a vector. Outputs of lanes that fail are left as they were.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: the group's matrices have order `n`, its targets are writable by this
/// call alone.
#[inline(always)]
pub(crate) unsafe fn group<T: Float, S: Simd<T>, const M: usize>(group: &mut Group<T>, memory: *mut T) -> Pivots<T> {
    let Group { n, count, a, next, scale, damping, task } = group;
    let (n, used) = (*n, u32::MAX >> (32 - *count));
    let padded = n.next_multiple_of(B);
    // SAFETY: the caller's contract; the memory holds the triangle, then the panels.
    unsafe {
        read::<T, S, Blocks>(Blocks, [n, n], Part::Lower, scale, a, memory);
        let entry = |i: usize, j: usize| memory.add(Blocks.at(i, j).0 * S::LANES);
        let damping = S::load(damping.as_ptr());
        for i in 0..n {
            S::store(entry(i, i), S::add(S::load(entry(i, i)), damping));
        }
        // Up to the end of a block, the identity.
        for i in n..padded {
            for j in 0..padded {
                S::store(entry(i, j), S::splat(if i == j { T::one() } else { T::zero() }));
            }
        }
        let nowhere = Lanes::nowhere();
        let out = if let Task::Invert { out, .. } = task { &*out } else { &nowhere };
        let tiles = padded / B * (padded / B + 1) / 2;
        let mut ahead = Ahead::new(n, S::LANES, 3 * tiles - 2 * padded / B, out, next);
        let mut pivots = potrf::<T, S, M>(padded, memory, &mut ahead);
        pivots.failed &= used;
        let leave = |out: &mut Lanes<*mut T>| {
            for lane in 0..MOST {
                if pivots.failed & (1 << lane) != 0 {
                    out.leave(lane);
                }
            }
        };
        match task {
            _ if pivots.failed == used => {}
            Task::Invert { out, part } => {
                leave(out);
                trtri::<T, S, M>(padded, memory, &mut ahead);
                lauum::<T, S, M>(padded, memory, &mut ahead);
                write::<T, S, Blocks>(Blocks, [n, n], *part, memory, out);
            }
            Task::Solve { out, b, cols } => {
                leave(out);
                let panels = memory.add(Blocks::len(n) * S::LANES);
                let ones = [T::one(); MOST];
                let layout = Panels { blocks: padded / B };
                for start in (0..*cols).step_by(COLUMNS) {
                    let width = COLUMNS.min(*cols - start);
                    for at in 0..Panels::len(n, width) {
                        S::store(panels.add(at * S::LANES), S::splat(T::zero()));
                    }
                    read::<T, S, Panels>(layout, [n, width], Part::All, &ones, &b.columns_from(start), panels);
                    for panel in 0..width.div_ceil(B) {
                        let x = panels.add(panel * padded * B * S::LANES);
                        solve_lower::<T, S, M>(padded, memory, x);
                        solve_lower_transposed::<T, S, M>(padded, memory, x);
                    }
                    write::<T, S, Panels>(layout, [n, width], Part::All, panels, &out.columns_from(start));
                }
            }
        }
        pivots
    }
}

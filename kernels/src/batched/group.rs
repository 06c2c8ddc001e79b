//! What is done with groups of lanes: read, factored, inverted or solved with, and written, in one function compiled for an instruction set.

use super::blocks::{B, Blocks};
use super::lanes::{Ahead, Lanes, Layout, MOST, Part, Place, read, read_blocks, write, write_whole};
use super::sweeps::{Pivots, lauum, potrf, solve_lower, solve_lower_transposed, trtri};
use crate::simd::Simd;
use num_traits::Float;

/// Right-hand sides that are solved for at a time.
pub(crate) const COLUMNS: usize = 32;

/// The matrices of a group.
pub(crate) struct Group<T> {
    /// How many of the lanes are used.
    pub(crate) count: usize,
    pub(crate) a: Lanes<*const T>,
    /// Those of a group to come, to be fetched.
    pub(crate) next: Lanes<*const T>,
    pub(crate) out: Lanes<*mut T>,
    pub(crate) scale: [T; MOST],
    pub(crate) damping: [T; MOST],
    pub(crate) pivots: Pivots<T>,
}

impl<T: Float> Group<T> {
    /// Groups without matrices.
    pub(crate) fn pair() -> [Self; TOGETHER] {
        core::array::from_fn(|_| Group {
            count: 0,
            a: Lanes::<*const T>::nowhere(),
            next: Lanes::<*const T>::nowhere(),
            out: Lanes::<*mut T>::nowhere(),
            scale: [T::zero(); MOST],
            damping: [T::zero(); MOST],
            pivots: Pivots::none(),
        })
    }
}

/// What is wanted of inverses.
pub(crate) struct Inverse<'a> {
    /// The order.
    pub(crate) n: usize,
    pub(crate) part: Part,
    /// [`whole_places`](super::lanes::whole_places) of the order.
    pub(crate) places: &'a [Place],
}

/// [`invert`] for an instruction set.
pub(crate) type InvertFn<T> = unsafe fn(&Inverse<'_>, &mut [Group<T>], *mut T);

/// [`solve`] for an instruction set.
pub(crate) type SolveFn<T> = unsafe fn(usize, &mut Group<T>, &Lanes<*const T>, usize, *mut T);

/// How many groups are inverted together where each is short of work between a pivot and the next.
pub(crate) const TOGETHER: usize = 2;

/// Orders, in blocks, up to which they are.
pub(crate) const FEW: usize = 4;

/// How many groups of order `n` are inverted together.
pub(crate) fn together(n: usize) -> usize {
    if n.div_ceil(B) <= FEW { TOGETHER } else { 1 }
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

/// Reads a group and adds the damping; up to the end of a block, the identity.
///
/// # Safety
/// As [`invert`].
#[inline(always)]
unsafe fn load<T: Float, S: Simd<T>>(n: usize, padded: usize, group: &Group<T>, memory: *mut T) {
    // SAFETY: the caller's contract.
    unsafe {
        let entry = |i: usize, j: usize| memory.add(Blocks.at(i, j).0 * S::LANES);
        match group.a.rows_of_blocks(n) {
            Some(step) => read_blocks::<T, S>(n, &group.scale, &group.a, step, memory),
            None => read::<T, S, Blocks>(Blocks, [n, n], Part::Lower, &group.scale, &group.a, memory),
        }
        let damping = S::load(group.damping.as_ptr());
        for i in 0..n {
            S::store(entry(i, i), S::add(S::load(entry(i, i)), damping));
        }
        for i in n..padded {
            for j in 0..padded {
                S::store(entry(i, j), S::splat(if i == j { T::one() } else { T::zero() }));
            }
        }
    }
}

/// Inverts `G` groups, each in its share of `memory`, of [`memory`] elements, aligned to a vector. Outputs of lanes that fail are left as they were.
/// `K` is the order in blocks, if it is known beforehand.
///
/// # Safety
/// On a CPU with S's instruction set, inside a function compiled for it: there are `G` groups of matrices of the order, and their targets are
/// writable by this call alone.
#[inline(always)]
pub(crate) unsafe fn invert<T: Float, S: Simd<T>, const M: usize, const K: usize, const G: usize>(
    &Inverse { n, part, places }: &Inverse<'_>,
    groups: &mut [Group<T>],
    memory: *mut T,
) {
    let padded = if K == 0 { n.next_multiple_of(B) } else { K * B };
    let Ok(groups): Result<&mut [Group<T>; G], _> = groups.try_into() else { unreachable!("{G} groups") };
    let at: [*mut T; G] = core::array::from_fn(|g| memory.wrapping_add(g * Blocks::len(n) * S::LANES));
    let (blocks, tiles) = (padded / B, padded / B * (padded / B + 1) / 2);
    // SAFETY: the caller's contract.
    unsafe {
        for g in 0..G {
            load::<T, S>(n, padded, &groups[g], at[g]);
        }
        let mut ahead: [Ahead<T>; G] =
            core::array::from_fn(|g| Ahead::new(n, S::LANES, 3 * tiles - 2 * blocks, &groups[g].out, &groups[g].next));
        potrf::<T, S, M, G>(padded, at, &mut ahead, groups.each_mut().map(|group| &mut group.pivots));
        trtri::<T, S, M, G>(padded, at, &mut ahead);
        lauum::<T, S, M, G>(padded, at, &mut ahead);
        for g in 0..G {
            let Group { count, out, pivots, .. } = &mut groups[g];
            pivots.failed &= u32::MAX >> (32 - *count);
            out.leave(pivots.failed);
            match part == Part::All && n.is_multiple_of(B) && S::LANES >= B && out.whole(n) {
                true => write_whole::<T, S>(places, n * n, at[g], out),
                false => write::<T, S, Blocks>(Blocks, [n, n], part, at[g], out),
            }
        }
    }
}

/// Solves with the `cols` right-hand sides `b` of a group. Outputs of lanes that fail are left as they were.
///
/// # Safety
/// As [`invert`].
#[inline(always)]
pub(crate) unsafe fn solve<T: Float, S: Simd<T>, const M: usize>(
    n: usize,
    group: &mut Group<T>,
    b: &Lanes<*const T>,
    cols: usize,
    memory: *mut T,
) {
    let padded = n.next_multiple_of(B);
    // SAFETY: the caller's contract; the memory holds the triangle, then the panels.
    unsafe {
        load::<T, S>(n, padded, group, memory);
        potrf::<T, S, M, 1>(padded, [memory], &mut [Ahead::none()], [&mut group.pivots]);
        let Group { count, out, pivots, .. } = group;
        pivots.failed &= u32::MAX >> (32 - *count);
        out.leave(pivots.failed);
        let panels = memory.add(Blocks::len(n) * S::LANES);
        let ones = [T::one(); MOST];
        let layout = Panels { blocks: padded / B };
        for start in (0..cols).step_by(COLUMNS) {
            let width = COLUMNS.min(cols - start);
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

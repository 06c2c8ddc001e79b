//! The sweeps: factor, inverse of a triangle, inverse.

use super::Pivot;
use super::packed::{Packed, both_ways, by_rows_only};
use super::schedule::{Goal, Schedule, Task, pair, words};
use super::small;
use super::tiles::{Reciprocals, Tiles};
use crate::element::Element;
use crate::engine::epilogue::{Blend, Shared, StoreSymmetric, Triangle};
use crate::engine::kernels::Kernels;
use crate::engine::{Buffers, PARALLEL_WORK, aligned};
use crate::par::Par;
use crate::view::{MatMut, MatRef};
use dyn_stack::{MemStack, StackReq};

/// Sizes that follow from the shape and the instruction set, never from the number of threads.
#[derive(Clone, Copy)]
struct Plan {
    /// Rows padded to a multiple of mr.
    padded: usize,
    /// Side of a block.
    side: usize,
    blocks: usize,
    /// Columns packed at once, where a factor alone is wanted: a multiple of `side`, or all.
    strip: usize,
    /// Panels of rows.
    panels: usize,
    nr: usize,
}

impl Plan {
    /// Blocks along a side: enough to keep a few threads busy to the end (4 to 16 measured alike on two).
    const BLOCKS: usize = 8;
    /// Bytes of the largest macro-tile, which stays in L2 with its two slabs.
    const TILE: usize = 240 * 240 * 4;
    /// A factor is made by strips of at least this many columns, and about this many of them at most: between them threads wait for each other, and
    /// what is left of the matrix is read and written.
    const STRIP: usize = 512;
    const STRIPS: usize = 5;

    fn new<T>(n: usize, kernels: &Kernels<T>) -> Plan {
        let nr = kernels.nr;
        let padded = n.next_multiple_of(kernels.mr);
        let largest = (Self::TILE / size_of::<T>()).isqrt() / nr * nr;
        let side = padded.div_ceil(Self::BLOCKS).next_multiple_of(nr).clamp(nr, largest);
        let blocks = padded.div_ceil(side);
        let strips = padded.div_ceil(Self::STRIP.max(padded.div_ceil(Self::STRIPS)));
        let strip = (blocks.div_ceil(strips.max(1)) * side).min(padded);
        Plan { padded, side, blocks, strip, panels: padded.div_ceil(nr), nr }
    }

    /// Elements of one panel of `L`.
    fn panel(&self, goal: Goal) -> usize {
        match goal {
            Goal::Factor => by_rows_only(self.strip, self.nr),
            _ => both_ways(self.padded, self.nr),
        }
    }

    /// Elements of `L` and `Y`, packed.
    fn packed(&self, goal: Goal) -> [usize; 2] {
        [self.panels * self.panel(goal), if goal == Goal::Factor { 0 } else { self.panels * self.panel(goal) }]
    }

    fn par(&self, par: Par) -> Par {
        let work = self.padded.saturating_pow(3) / 2;
        par.at_most(if work < PARALLEL_WORK { 1 } else { self.blocks })
    }
}

fn scratch<T: Element>(n: usize, goal: Goal, par: Par) -> StackReq {
    let plan = Plan::new(n, T::kernels(par.isa()));
    let req = |len: usize| StackReq::new_aligned::<T>(len, crate::engine::ALIGN);
    let [l, y] = plan.packed(goal);
    StackReq::all_of(&[
        StackReq::new::<usize>(words(plan.blocks)),
        req(plan.padded),
        req(l),
        req(y),
        req(plan.side * plan.side * plan.par(par).degree()),
    ])
}

/// What is read, and where results go. A factor is made a strip of columns at a time, which is all of it that is packed: the strip, then what is left
/// of the matrix less its product, in place (right-looking over strips, left-looking within).
struct Sweep<'a, T> {
    goal: Goal,
    a: MatRef<'a, T>,
    scale: T,
    damping: T,
    triangle: Option<Shared<'a, T>>,
    product: Option<StoreSymmetric<'a, T>>,
}

impl<T: Element> Sweep<'_, T> {
    fn run(self, par: Par, stack: &mut MemStack) -> Result<(), Pivot<T>> {
        let (n, kernels) = (self.a.rows(), T::kernels(par.isa()));
        if n == 0 {
            return Ok(());
        }
        let plan = Plan::new(n, kernels);
        let par = plan.par(par);
        let (mut memory, stack) = stack.make_with(words(plan.blocks), |_| 0usize);
        let (reciprocals, stack) = aligned::<T>(stack, plan.padded);
        let [l, y] = plan.packed(self.goal);
        let (l, stack) = aligned::<T>(stack, l);
        let (y, stack) = aligned::<T>(stack, y);
        let (tiles, _) = aligned::<T>(stack, plan.side * plan.side * par.degree());
        let panel = plan.panel(self.goal);
        if !plan.padded.is_multiple_of(kernels.nr) {
            // Lanes beyond the last panel's columns are read, but never used.
            let last = (plan.panels - 1) * panel;
            for memory in [&mut *l, &mut *y] {
                memory.iter_mut().skip(last).for_each(|x| _ = x.write(T::zero()));
            }
        }
        let goal = self.goal;
        let mut shared = Tiles {
            kernels,
            n,
            padded: plan.padded,
            side: plan.side,
            a: self.a,
            scale: self.scale,
            damping: self.damping,
            l: Packed::new(l, plan.padded, kernels.nr, panel),
            y: (goal != Goal::Factor).then(|| Packed::new(y, plan.padded, kernels.nr, panel)),
            reciprocals: Reciprocals(reciprocals.as_mut_ptr().cast()),
            triangle: self.triangle,
            product: self.product,
        };
        if goal == Goal::Triangle {
            shared.take_factor();
        }
        let tiles = Buffers::new(tiles, par.degree());
        let strip = if goal == Goal::Factor { plan.strip } else { plan.padded };
        par.enter(|| {
            for first in (0..plan.padded).step_by(strip) {
                let blocks = shared.padded.div_ceil(plan.side);
                let columns = strip.min(shared.padded).div_ceil(plan.side);
                let schedule = Schedule::new(goal, blocks, columns, &mut memory[..words(blocks)]);
                let body = |worker: usize| {
                    // SAFETY: one tile for each worker; the schedule hands out each task once, when what it reads is finished.
                    schedule.work(&|task| unsafe {
                        let tile = tiles.part(worker).as_mut_ptr();
                        match task {
                            Task::Factor { j, i } => return shared.factor(j, i, tile),
                            Task::Invert { i } => shared.invert(i, tile),
                            Task::Multiply { i, j } => shared.multiply(i, j, tile),
                        }
                        Ok(())
                    });
                };
                par.workers(&body);
                let failed = |pivot: Pivot<T>| Pivot { index: first + pivot.index, ..pivot };
                schedule.outcome().map_err(failed)?;
                if columns == blocks {
                    break;
                }
                let rest = blocks - columns;
                par.for_each(rest * (rest + 1) / 2, &|worker, task| {
                    let (i, j) = pair(task);
                    // SAFETY: one tile for each worker; the strip is finished, and each block of the rest one task's.
                    unsafe { shared.update(columns, (columns + i, columns + j), tiles.part(worker).as_mut_ptr()) };
                });
                shared = shared.rest(strip);
            }
            Ok(())
        })
    }
}

/// `A = L L^T` in place: reads and writes the lower triangle only. `n³ / 6` multiply-adds.
///
/// # Errors
/// The first pivot that is not positive or not finite; the lower triangle then holds an unfinished factor.
///
/// # Panics
/// If `a` is not square, or `stack` holds less than [`potrf_scratch`].
pub fn potrf<T: Element>(mut a: MatMut<'_, T>, par: Par, stack: &mut MemStack) -> Result<(), Pivot<T>> {
    let ([m, n], strides) = (a.shape(), a.strides());
    assert_eq!(m, n, "potrf: the matrix is not square");
    let out = Shared::new(&mut a);
    // SAFETY: the memory of `a`, exclusively borrowed; each task reads its block before it writes it.
    let read = unsafe { MatRef::from_raw(out.at(0, 0), [n, n], strides) };
    factor(out, read, T::one(), T::zero(), par, stack)
}

fn factor<'a, T: Element>(
    out: Shared<'a, T>,
    a: MatRef<'a, T>,
    scale: T,
    damping: T,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Pivot<T>> {
    Sweep { goal: Goal::Factor, a, scale, damping, triangle: Some(out), product: None }.run(par, stack)
}

/// Scratch of [`potrf`] and [`damped_cholesky`].
pub fn potrf_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    scratch::<T>(n, Goal::Factor, par)
}

/// The lower triangle of `L` with `scale A + damping I = L L^T`; reads the lower triangle of `a`, writes that of `out`.
/// Scratch: [`potrf_scratch`].
///
/// # Errors
/// The first pivot that is not positive or not finite; `out` then holds an unfinished factor.
///
/// # Panics
/// If shapes disagree, or the scratch is too small.
pub fn damped_cholesky<T: Element>(
    mut out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Pivot<T>> {
    let [m, n] = a.shape();
    assert!(m == n && out.shape() == [n, n], "damped_cholesky: shapes disagree");
    factor(Shared::new(&mut out), a, scale, damping, par, stack)
}

/// `L <- L^-1` in place, lower triangle; the rest is not touched. The left residual `|Y L - I|` is small. `n³ / 6` multiply-adds.
///
/// # Panics
/// If `l` is not square, or `stack` holds less than [`trtri_scratch`].
pub fn trtri<T: Element>(mut l: MatMut<'_, T>, par: Par, stack: &mut MemStack) {
    let ([m, n], strides) = (l.shape(), l.strides());
    assert_eq!(m, n, "trtri: the triangle is not square");
    let out = Shared::new(&mut l);
    // SAFETY: the memory of `l`, exclusively borrowed; it is read whole before it is written.
    let a = unsafe { MatRef::from_raw(out.at(0, 0), [n, n], strides) };
    let sweep =
        Sweep { goal: Goal::Triangle, a, scale: T::one(), damping: T::zero(), triangle: Some(out), product: None };
    let outcome = sweep.run(par, stack);
    debug_assert!(outcome.is_ok(), "no pivot is tested");
}

/// Scratch of [`trtri`].
pub fn trtri_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    scratch::<T>(n, Goal::Triangle, par)
}

/// `(scale A + damping I)^-1` of a symmetric matrix, by `L^-T L^-1`; reads the lower triangle of `a`. `n³ / 2` multiply-adds.
///
/// # Errors
/// The first pivot that is not positive or not finite; `out` is then as it was.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`damped_inverse_scratch`].
pub fn damped_inverse<T: Element>(
    out: MatMut<'_, T>,
    a: MatRef<'_, T>,
    scale: T,
    damping: T,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Pivot<T>> {
    let [m, n] = a.shape();
    assert!(m == n && out.shape() == [n, n], "damped_inverse: shapes disagree");
    if n <= small::SMALL {
        return small::damped_inverse(out, a, scale, damping, triangle, par.isa());
    }
    // SAFETY: the output has the inverse's shape, and each block is multiplied once.
    let product = unsafe { StoreSymmetric::new(out, Blend::set(T::one()), triangle) };
    let sweep = Sweep { goal: Goal::Inverse, a, scale, damping, triangle: None, product: Some(product) };
    sweep.run(par, stack)
}

/// Scratch of [`damped_inverse`].
pub fn damped_inverse_scratch<T: Element>(n: usize, par: Par) -> StackReq {
    scratch::<T>(n, Goal::Inverse, par)
}

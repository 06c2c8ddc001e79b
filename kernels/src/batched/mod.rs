//! Many small positive definite matrices at once, one in each lane of a vector: damped inverses and solves.
//!
//! A group of LANES matrices is interleaved (`lanes`), so that every operation of the scalar algorithm is one on vectors; the algorithm is
//! blocked over registers (`blocks`, `sweeps`); groups are shared among the threads.

pub(crate) mod blocks;
pub mod eigen;
pub(crate) mod group;
pub(crate) mod lanes;
pub(crate) mod sweeps;

use crate::cholesky::{self, Pivot};
use crate::conv::groups::{self, SharedGroups};
use crate::element::Element;
use crate::engine::epilogue::Triangle;
use crate::engine::{ALIGN, Buffers, aligned};
use crate::par::Par;
use crate::view::{MatMut, MatRef, View, ViewMut};
use core::marker::PhantomData;
use core::ops::Range;
use dyn_stack::{MemStack, StackReq};
use group::{Group, Inverse};
use lanes::{Lanes, MOST, Part, Place, whole_places};
use std::sync::{Mutex, PoisonError};

/// Orders up to which matrices are interleaved; larger ones are factored one at a time.
pub const LARGEST: usize = 128;

/// Work, in multiply-adds at a large matrix's rate, below which a batch stays on the calling thread.
const PARALLEL_WORK: usize = 1 << 19;

const PAGE: usize = 4096;

/// What is added to the diagonals of a batch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Dampings<'a, T> {
    /// The same for every matrix.
    Same(T),
    /// One value for each matrix.
    Each(&'a [T]),
}

impl<T: Copy> Dampings<'_, T> {
    fn of(&self, index: usize) -> T {
        match self {
            Dampings::Same(damping) => *damping,
            Dampings::Each(dampings) => dampings[index],
        }
    }
}

/// A matrix of a batch that is not positive definite.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Failure<T> {
    /// Its place in the batch.
    pub index: usize,
    /// Its first pivot that is not positive, or not finite.
    pub pivot: Pivot<T>,
}

/// One matrix of a list: `out <- (scale a + damping I)^-1`.
#[derive(Debug)]
pub struct Item<'a, T> {
    /// Where the inverse goes.
    pub out: MatMut<'a, T>,
    /// The matrix, of which the lower triangle is read.
    pub a: MatRef<'a, T>,
    /// Its factor.
    pub scale: T,
    /// What is added to its diagonal.
    pub damping: T,
}

/// The matrices of a batch, wherever they are.
trait Matrices<T>: Sync {
    fn a(&self, index: usize) -> MatRef<'_, T>;
    /// Scale and damping.
    fn parameters(&self, index: usize) -> (T, T);
    /// # Safety
    /// No two live borrows of one index.
    unsafe fn out(&self, index: usize) -> MatMut<'_, T>;
    /// Fills a group's lanes with the matrices of `range`, and of `next` those to come. Lanes without a matrix repeat the last.
    ///
    /// # Safety
    /// As [`out`](Self::out).
    unsafe fn fill(&self, group: &mut Group<T>, range: Range<usize>, next: Range<usize>) {
        group.count = range.len();
        group.a.set(range.clone().map(|index| self.a(index)));
        group.next.set(next.map(|index| self.a(index)));
        // SAFETY: the caller's contract.
        group.out.set(range.clone().map(|index| unsafe { self.out(index) }));
        for lane in 0..MOST {
            let index = (range.start + lane).min(range.end - 1);
            (group.scale[lane], group.damping[lane]) = self.parameters(index);
        }
    }
}

struct Batch<'a, T> {
    out: SharedGroups<'a, T>,
    a: View<'a, T, 3>,
    scale: T,
    damping: Dampings<'a, T>,
}

impl<T: Element> Matrices<T> for Batch<'_, T> {
    fn a(&self, index: usize) -> MatRef<'_, T> {
        self.a.datapoint(index)
    }
    fn parameters(&self, index: usize) -> (T, T) {
        (self.scale, self.damping.of(index))
    }
    unsafe fn out(&self, index: usize) -> MatMut<'_, T> {
        // SAFETY: the caller's contract.
        unsafe { self.out.matrix(index) }
    }
    // All addresses are one and a multiple of a step: at small orders asking for one matrix after the other took a third of the time.
    #[inline]
    unsafe fn fill(&self, group: &mut Group<T>, range: Range<usize>, next: Range<usize>) {
        let step = self.a.strides()[0];
        group.count = range.len();
        group.a.set_even(self.a.datapoint(range.start), step, range.len());
        group.next.set_even(self.a.datapoint(next.start), step, next.len());
        // SAFETY: the caller's contract; pointers to the others are made of the batch's own.
        group.out.set_even(unsafe { self.out.matrix(range.start) }, self.out.step(), range.len());
        group.scale = [self.scale; MOST];
        match self.damping {
            Dampings::Same(damping) => group.damping = [damping; MOST],
            Dampings::Each(dampings) => {
                let dampings = &dampings[range];
                group.damping = core::array::from_fn(|lane| dampings[lane.min(dampings.len() - 1)]);
            }
        }
    }
}

struct List<'a, 'b, T> {
    items: *mut Item<'b, T>,
    len: usize,
    memory: PhantomData<&'a mut [Item<'b, T>]>,
}

// SAFETY: items are read by several tasks; their outputs are borrowed by one each, as `out` asks of its callers.
unsafe impl<T: Send + Sync> Sync for List<'_, '_, T> {}

impl<T: Element> Matrices<T> for List<'_, '_, T> {
    fn a(&self, index: usize) -> MatRef<'_, T> {
        assert!(index < self.len, "item {index} of {}", self.len);
        // SAFETY: an item of the list; this field is not written while the list is borrowed.
        unsafe { (*self.items.add(index)).a }
    }
    fn parameters(&self, index: usize) -> (T, T) {
        assert!(index < self.len, "item {index} of {}", self.len);
        // SAFETY: as above.
        unsafe { ((*self.items.add(index)).scale, (*self.items.add(index)).damping) }
    }
    unsafe fn out(&self, index: usize) -> MatMut<'_, T> {
        assert!(index < self.len, "item {index} of {}", self.len);
        // SAFETY: an item of the list, whose output the caller alone has.
        unsafe { (*self.items.add(index)).out.rb_mut() }
    }
}

fn threads<T: Element>(n: usize, cols: usize, count: usize, par: Par) -> Par {
    let lanes = T::kernels(par.isa()).lanes;
    // Interleaving costs as much as tens of columns.
    let work = (n * n * (n / 2 + cols + 32)).saturating_mul(count);
    par.at_most(if work < PARALLEL_WORK { 1 } else { count.div_ceil(lanes) })
}

/// Right-hand sides, or else the part of the inverse that is written.
#[derive(Clone, Copy)]
enum Wanted<'a, T> {
    Inverse(Part),
    Solution(View<'a, T, 3>),
}

impl<T: Copy> Wanted<'_, T> {
    fn cols(&self) -> usize {
        match self {
            Wanted::Inverse(_) => 0,
            Wanted::Solution(b) => b.shape()[2],
        }
    }
}

/// Runs every group.
///
/// Generic, so that the lanes of a group are filled in loops without calls, and each value where it stays: at small orders that takes a
/// good part of the time.
fn run<T: Element>(
    (n, count): (usize, usize),
    matrices: &impl Matrices<T>,
    wanted: Wanted<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure<T>>> {
    if n == 0 || count == 0 {
        return Ok(());
    }
    let (kernels, cols) = (T::kernels(par.isa()), wanted.cols());
    let par = threads::<T>(n, cols, count, par);
    let (places, stack) = stack.make_uninit::<Place>(places(n, cols));
    let places = whole_places(n, kernels.lanes * size_of::<T>(), places);
    let (memory, _) = aligned::<T>(stack, worker_memory::<T>(n, cols, par));
    let memory = Buffers::new(memory, par.degree());
    let failures = Failures::new();
    let (lanes, together) = (kernels.lanes, if cols == 0 { group::together(n) } else { 1 });
    let range = |index: usize| index * lanes..count.min((index + 1) * lanes);
    let groups = count.div_ceil(lanes);
    par.enter(|| {
        par.for_each_with(groups.div_ceil(together), Group::pair, |pair, worker, index| {
            // SAFETY: one task at a time has this worker's number.
            let memory = unsafe { memory.uninit(worker).as_mut_ptr().cast() };
            let first = index * together;
            let some = &mut pair[..together.min(groups - first)];
            for (g, group) in some.iter_mut().enumerate() {
                let next = if first + g + together < groups { first + g + together } else { first + g };
                // SAFETY: each matrix belongs to one group, and a group to one task.
                unsafe { matrices.fill(group, range(first + g), range(next)) };
            }
            match wanted {
                Wanted::Inverse(part) => {
                    let inverse = Inverse { n, part, places };
                    // SAFETY: the kernels belong to an ISA this CPU has.
                    unsafe { kernels.invert(n, some.len())(&inverse, some, memory) }
                }
                Wanted::Solution(b) => {
                    let b = Lanes::sources(range(first).map(|index| b.datapoint(index)));
                    // SAFETY: as above.
                    unsafe { (kernels.solve_group)(n, &mut some[0], &b, cols, memory) }
                }
            }
            for (g, group) in some.iter().enumerate().filter(|(_, group)| group.pivots.failed != 0) {
                let lanes = (0..MOST).filter(|lane| group.pivots.failed & (1 << lane) != 0);
                let start = range(first + g).start;
                failures.add(lanes.map(|lane| Failure { index: start + lane, pivot: group.pivots.pivots[lane] }));
            }
        });
    });
    failures.finish(|failure| failure.index)
}

/// Elements that all workers take together. A page lies between two: what the hardware fetches ahead of one, which stays within a page, must
/// not be another's.
fn worker_memory<T: Element>(n: usize, cols: usize, par: Par) -> usize {
    let groups = if cols == 0 { group::together(n) } else { 1 };
    let len = group::memory(n, cols, T::kernels(par.isa()).lanes) * groups;
    (len + PAGE / size_of::<T>()) * par.degree()
}

/// What failed, gathered from all tasks. Allocates only where something did.
pub(crate) struct Failures<F>(Mutex<Vec<F>>);

impl<F> Failures<F> {
    pub(crate) fn new() -> Self {
        Failures(Mutex::new(Vec::new()))
    }

    pub(crate) fn add(&self, found: impl IntoIterator<Item = F>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }

    /// All of them, in the order of their places.
    pub(crate) fn finish(self, place: impl Fn(&F) -> usize) -> Result<(), Vec<F>> {
        let mut failures = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        failures.sort_unstable_by_key(place);
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }
}

/// How many [`Place`]s a task takes.
fn places(n: usize, cols: usize) -> usize {
    if cols == 0 { lanes::places(n) } else { 0 }
}

fn lanes_scratch<T: Element>(n: usize, cols: usize, count: usize, par: Par) -> StackReq {
    let par = threads::<T>(n, cols, count, par);
    let places = StackReq::new::<Place>(places(n, cols));
    places.and(StackReq::new_aligned::<T>(worker_memory::<T>(n, cols, par), ALIGN))
}

fn invert<T: Element>(
    (n, count): (usize, usize),
    matrices: &impl Matrices<T>,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure<T>>> {
    if n > LARGEST {
        return invert_large((n, count), matrices, triangle, par, stack);
    }
    let part = if triangle == Triangle::Full { Part::All } else { Part::Lower };
    run((n, count), matrices, Wanted::Inverse(part), par, stack)
}

/// One matrix at a time, in scratch, so that a failure leaves its output as it was.
fn invert_large<T: Element>(
    (n, count): (usize, usize),
    matrices: &impl Matrices<T>,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure<T>>> {
    let failures = Failures::new();
    groups::for_each(count, par, |par| cholesky::damped_inverse_scratch::<T>(n, par), stack, &|index, par, stack| {
        let (a, (scale, damping)) = (matrices.a(index), matrices.parameters(index));
        // SAFETY: each matrix is one task's.
        let out = unsafe { matrices.out(index) };
        if let Err(pivot) = cholesky::damped_inverse(out, a, scale, damping, triangle, par, stack) {
            failures.add([Failure { index, pivot }]);
        }
    });
    failures.finish(|failure| failure.index)
}

fn inverse_scratch<T: Element>(n: usize, count: usize, par: Par) -> StackReq {
    match n > LARGEST {
        true => groups::scratch(count, par, |par| cholesky::damped_inverse_scratch::<T>(n, par)),
        false => lanes_scratch::<T>(n, 0, count, par),
    }
}

/// `out_b <- (scale A_b + damping_b I)^-1` for a batch `a` `[batch, n, n]` of symmetric matrices, of which the lower triangles are read; this
/// triangle of `out` is written. `batch n³ / 2` multiply-adds.
///
/// # Errors
/// The matrices with a pivot that is not positive or not finite, in order; their outputs are as they were, all others are written.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`damped_inverse_scratch`].
pub fn damped_inverse<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure<T>>> {
    let [count, n, cols] = a.shape();
    assert!(n == cols && out.shape() == [count, n, n], "batched damped_inverse: shapes disagree");
    assert_dampings(damping, count);
    invert((n, count), &Batch { out: SharedGroups::new(out), a, scale, damping }, triangle, par, stack)
}

fn assert_dampings<T>(damping: Dampings<'_, T>, count: usize) {
    if let Dampings::Each(dampings) = damping {
        assert_eq!(dampings.len(), count, "batched: one damping for each matrix");
    }
}

/// Scratch of [`damped_inverse`] of `[batch, n, n]`.
pub fn damped_inverse_scratch<T: Element>([batch, n]: [usize; 2], par: Par) -> StackReq {
    inverse_scratch::<T>(n, batch, par)
}

/// [`damped_inverse`] of matrices that are anywhere in memory, all of one order. Failures name places in the list.
///
/// # Errors
/// As [`damped_inverse`].
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`damped_inverse_scratch`] of `[items.len(), n]`.
pub fn damped_inverse_list<T: Element>(
    items: &mut [Item<'_, T>],
    triangle: Triangle,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure<T>>> {
    let Some(n) = items.first().map(|item| item.a.rows()) else { return Ok(()) };
    let fits = |item: &Item<'_, T>| item.a.shape() == [n, n] && item.out.shape() == [n, n];
    assert!(items.iter().all(fits), "damped_inverse_list: shapes disagree");
    let list = List { items: items.as_mut_ptr(), len: items.len(), memory: PhantomData };
    invert((n, list.len), &list, triangle, par, stack)
}

/// `X_b <- (scale A_b + damping_b I)^-1 B_b` for right-hand sides `b` `[batch, n, cols]`. `batch n² (n / 6 + cols)` multiply-adds.
///
/// # Errors
/// As [`damped_inverse`].
///
/// # Panics
/// As [`damped_inverse`].
#[allow(clippy::too_many_arguments)]
pub fn solve<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    b: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure<T>>> {
    let [count, n, cols] = b.shape();
    assert!(a.shape() == [count, n, n] && out.shape() == [count, n, cols], "batched solve: shapes disagree");
    assert_dampings(damping, count);
    if cols == 0 {
        return Ok(());
    }
    let batch = Batch { out: SharedGroups::new(out), a, scale, damping };
    if n > LARGEST {
        return solve_large((n, cols, count), &batch, b, par, stack);
    }
    run((n, count), &batch, Wanted::Solution(b), par, stack)
}

fn solve_large<T: Element>(
    (n, cols, count): (usize, usize, usize),
    batch: &Batch<'_, T>,
    b: View<'_, T, 3>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure<T>>> {
    let failures = Failures::new();
    groups::for_each(count, par, |par| large_solve_scratch::<T>(n, cols, par), stack, &|index, par, stack| {
        let (mut memory, stack) = stack.make_aligned_with::<T>(n * n, ALIGN, |_| T::zero());
        let Ok(mut l) = MatMut::new(&mut memory, [n, n]) else { unreachable!("n n elements") };
        let (a, (scale, damping)) = (batch.a(index), batch.parameters(index));
        match cholesky::damped_cholesky(l.rb_mut(), a, scale, damping, par, stack) {
            Err(pivot) => {
                failures.add([Failure { index, pivot }]);
            }
            Ok(()) => {
                // SAFETY: each matrix is one task's.
                let mut out = unsafe { batch.out(index) };
                out.copy_from(b.datapoint(index));
                cholesky::solve_left(l.as_ref(), out, par, stack);
            }
        }
    });
    failures.finish(|failure| failure.index)
}

fn large_solve_scratch<T: Element>(n: usize, cols: usize, par: Par) -> StackReq {
    let factor = cholesky::potrf_scratch::<T>(n, par);
    StackReq::new_aligned::<T>(n * n, ALIGN).and(factor.or(cholesky::solve_scratch::<T>(n, cols, par)))
}

/// Scratch of [`solve`] of `[batch, n, n]` with `cols` right-hand sides.
pub fn solve_scratch<T: Element>([batch, n, cols]: [usize; 3], par: Par) -> StackReq {
    match n > LARGEST {
        true => groups::scratch(batch, par, |par| large_solve_scratch::<T>(n, cols, par)),
        false => lanes_scratch::<T>(n, cols, batch, par),
    }
}

//! Eigendecompositions `A = Q diag(a) Q^T` of many small symmetric matrices, one in each SIMD lane.
//!
//! ```text
//! interleave   one matrix in each lane, scaled by a power of two to entries of order 1
//! reduce       A = H T H^T, Householder reflections          2/3 n³ multiply-adds
//! form         Z = H                                         2/3 n³
//! iterate      T = G diag(a) G^T, implicit QL, Z <- Z G      about 3 n³
//! write        eigenvalues ascending, eigenvectors in columns
//! ```
//!
//! Every lane does the same operations on its matrix, whatever its neighbours do: where a matrix has converged, its rotations are the identity.

#![allow(clippy::needless_range_loop, reason = "an index runs over several arrays of vectors")]

mod ql;
pub(crate) mod room;
mod tridiagonal;

use crate::batched::Failures;
use crate::batched::lanes::Lanes;
use crate::conv::groups::SharedGroups;
use crate::element::Element;
use crate::engine::kernels::Kernels;
use crate::engine::{Buffers, aligned};
use crate::par::Par;
use crate::view::{MatMut, MatRef, View, ViewMut};
use core::marker::PhantomData;
use dyn_stack::{MemStack, StackReq};
use room::Room;

/// Largest matrix.
pub const MAX: usize = 64;

/// Groups of lanes that are worked on side by side.
pub(crate) const GROUPS: usize = 4;

/// Sweeps after which a matrix of `n` rows is given up: LAPACK's `maxit`, several times what any matrix is known to need.
pub fn sweeps(n: usize) -> usize {
    30 * n
}

/// Why a matrix was not decomposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It holds NaN or infinity.
    NotFinite,
    /// An eigenvalue, the first named by its place among them, is larger than the largest number.
    Overflow(usize),
    /// Too many sweeps.
    NoConvergence,
}

/// A matrix of a batch that was not decomposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Its place in the batch.
    pub matrix: usize,
    /// Why.
    pub cause: Cause,
}

/// Groups of lanes of one task: a power of two. More hide the latency of a chase; fewer leave room in L2 and find work for all threads.
fn groups(batch: usize, n: usize, lanes: usize) -> usize {
    let most = if n <= SMALL { GROUPS } else { GROUPS / 2 };
    batch.div_ceil(lanes).next_power_of_two().clamp(1, most)
}

/// Largest matrix of which [`GROUPS`] groups are worked on.
const SMALL: usize = 32;

/// Eigenvalues (ascending, `values` `[batch, n]`) and eigenvectors (columns of `vectors` `[batch, n, n]`) of symmetric matrices `a`
/// `[batch, n, n]`, `n <= MAX`, of which the lower triangles are read, in at most `limit` sweeps (see [`sweeps`]). About `4.5 n³`
/// multiply-adds each.
///
/// # Errors
/// The matrices that are not finite or did not converge, in order. Their outputs are as they were, those of the others are the same as
/// without them.
///
/// # Panics
/// If shapes disagree, `n > MAX`, or `stack` holds less than [`symmetric_eigen_scratch`].
pub fn symmetric_eigen<T: Element>(
    values: ViewMut<'_, T, 2>,
    vectors: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    limit: usize,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure>> {
    let [batch, n, columns] = a.shape();
    assert!(n == columns && n <= MAX, "symmetric_eigen: {n} x {columns}");
    assert!(values.shape() == [batch, n] && vectors.shape() == [batch, n, n], "symmetric_eigen: shapes differ");
    if batch == 0 || n == 0 {
        return Ok(());
    }
    let [step, entry_step] = values.strides();
    // SAFETY: the same elements; row b becomes a matrix of one row.
    let rows = unsafe { values.reshaped([0, 0], [batch, 1, n], [step, 0, entry_step]) };
    let matrices = Batch { a, values: SharedGroups::new(rows), vectors: SharedGroups::new(vectors) };
    decompose([batch, n], &matrices, limit, par, stack)
}

/// One matrix of a list: where its eigenvalues and eigenvectors go, and the matrix.
#[derive(Debug)]
pub struct Item<'a, T> {
    /// Ascending.
    pub values: &'a mut [T],
    /// In columns.
    pub vectors: MatMut<'a, T>,
    /// Of which the lower triangle is read.
    pub a: MatRef<'a, T>,
}

/// [`symmetric_eigen`] of matrices that are anywhere in memory, all of one order, with the same bits. Failures name places in the list.
///
/// # Errors
/// As [`symmetric_eigen`].
///
/// # Panics
/// If shapes disagree, `n > MAX`, or `stack` holds less than [`symmetric_eigen_scratch`] of as many.
pub fn symmetric_eigen_list<T: Element>(
    items: &mut [Item<'_, T>],
    limit: usize,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure>> {
    let n = items.first().map_or(0, |item| item.a.rows());
    let fits = |item: &Item<'_, T>| {
        item.a.shape() == [n, n] && item.vectors.shape() == [n, n] && item.values.len() == n && n <= MAX
    };
    assert!(items.iter().all(fits), "symmetric_eigen_list: shapes disagree");
    if n == 0 {
        return Ok(());
    }
    let list = List { items: items.as_mut_ptr(), len: items.len(), memory: PhantomData };
    decompose([list.len, n], &list, limit, par, stack)
}

/// The matrices of a batch, wherever they are.
trait Matrices<T>: Sync {
    fn a(&self, index: usize) -> MatRef<'_, T>;
    /// Eigenvalues, a row, and eigenvectors.
    ///
    /// # Safety
    /// No two live borrows of one index.
    unsafe fn outputs(&self, index: usize) -> (MatMut<'_, T>, MatMut<'_, T>);
}

struct Batch<'a, T> {
    a: View<'a, T, 3>,
    values: SharedGroups<'a, T>,
    vectors: SharedGroups<'a, T>,
}

impl<T: Element> Matrices<T> for Batch<'_, T> {
    fn a(&self, index: usize) -> MatRef<'_, T> {
        self.a.datapoint(index)
    }
    unsafe fn outputs(&self, index: usize) -> (MatMut<'_, T>, MatMut<'_, T>) {
        // SAFETY: the caller's contract.
        unsafe { (self.values.matrix(index), self.vectors.matrix(index)) }
    }
}

struct List<'a, 'b, T> {
    items: *mut Item<'b, T>,
    len: usize,
    memory: PhantomData<&'a mut [Item<'b, T>]>,
}

// SAFETY: matrices are read by several tasks; outputs are borrowed by one each, as `outputs` asks of its callers.
unsafe impl<T: Send + Sync> Sync for List<'_, '_, T> {}

impl<T: Element> Matrices<T> for List<'_, '_, T> {
    fn a(&self, index: usize) -> MatRef<'_, T> {
        assert!(index < self.len, "item {index} of {}", self.len);
        // SAFETY: an item of the list; this field is not written while the list is borrowed.
        unsafe { (*self.items.add(index)).a }
    }
    unsafe fn outputs(&self, index: usize) -> (MatMut<'_, T>, MatMut<'_, T>) {
        assert!(index < self.len, "item {index} of {}", self.len);
        // SAFETY: an item of the list, whose outputs the caller alone has.
        let (values, vectors) =
            unsafe { (&mut *(*self.items.add(index)).values, (*self.items.add(index)).vectors.rb_mut()) };
        let shape = [1, values.len()];
        let Ok(values) = MatMut::new(values, shape) else { unreachable!("a row") };
        (values, vectors)
    }
}

/// Runs all tasks, each of several groups of lanes.
fn decompose<T: Element>(
    [batch, n]: [usize; 2],
    matrices: &dyn Matrices<T>,
    limit: usize,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Vec<Failure>> {
    let kernels = T::kernels(par.isa());
    let groups = groups(batch, n, kernels.lanes);
    let each = groups * kernels.lanes;
    let par = par.at_most(batch.div_ceil(each));
    let len = groups * Room::<T>::len(n, kernels.lanes);
    let (memory, _) = aligned::<T>(stack, len * par.degree());
    let memory = Buffers::new(memory, par.degree());
    let job = Job { shape: [batch, n], matrices, limit, kernels };
    let failures = Failures::new();
    par.enter(|| {
        par.for_each(batch.div_ceil(each), &|worker, task| {
            // SAFETY: one task at a time has this worker's number.
            let memory = unsafe { memory.part(worker) };
            job.run(task * each, groups, memory, &failures);
        });
    });
    failures.finish(|failure| failure.matrix)
}

/// Scratch of [`symmetric_eigen`].
pub fn symmetric_eigen_scratch<T: Element>(batch: usize, n: usize, par: Par) -> StackReq {
    let lanes = T::kernels(par.isa()).lanes;
    let groups = groups(batch, n, lanes);
    let degree = par.at_most(batch.div_ceil(groups * lanes)).degree();
    StackReq::new_aligned::<T>(groups * Room::<T>::len(n, lanes) * degree, crate::engine::ALIGN)
}

/// What all tasks share.
struct Job<'a, T: Element> {
    shape: [usize; 2],
    matrices: &'a dyn Matrices<T>,
    limit: usize,
    kernels: &'static Kernels<T>,
}

impl<T: Element> Job<'_, T> {
    /// Decomposes the matrices from `first` on that fit into `groups` groups.
    fn run(&self, first: usize, groups: usize, memory: &mut [T], failures: &Failures<Failure>) {
        let ([batch, n], lanes) = (self.shape, self.kernels.lanes);
        let mut parts = memory.chunks_exact_mut(Room::<T>::len(n, lanes));
        let used = (batch - first).div_ceil(lanes).next_power_of_two().min(groups);
        let Some(part) = parts.next() else { return };
        let mut rooms = [Room::<T>::new(n, lanes, part); GROUPS];
        for (room, part) in rooms.iter_mut().skip(1).zip(parts) {
            *room = Room::new(n, lanes, part);
        }
        let count = |group: usize| lanes.min(batch.saturating_sub(first + group * lanes));
        let sources = |group: usize| {
            let start = (first + group * lanes).min(batch - 1);
            Lanes::sources((start..batch.min(start + lanes)).map(|matrix| self.matrices.a(matrix)))
        };
        let matrices: [_; GROUPS] = core::array::from_fn(sources);
        // SAFETY: the kernels belong to an ISA this CPU has; the rooms are this task's.
        unsafe { (self.kernels.eigen[used.ilog2() as usize])(&rooms[..used], &matrices, self.limit) };
        for (group, room) in rooms.iter().enumerate().take(used) {
            self.write(room, first + group * lanes, count(group), failures);
        }
    }

    /// Writes the results of `count` lanes.
    fn write(&self, room: &Room<T>, first: usize, count: usize, failures: &Failures<Failure>) {
        let ([_, n], lanes) = (self.shape, self.kernels.lanes);
        let size = n * room.ld;
        // SAFETY: the kernel has written them, and the room is this task's.
        let (columns, d, ranks, status) = unsafe {
            (
                core::slice::from_raw_parts(room.a, size * lanes),
                core::slice::from_raw_parts(room.d, n * lanes),
                core::slice::from_raw_parts(room.ranks, n * lanes),
                core::slice::from_raw_parts(room.stage.add(2 * lanes), lanes),
            )
        };
        let finite = |j: usize, lane: usize| d[j * lanes + lane].is_finite();
        let rank = |j: usize, lane: usize| ranks[j * lanes + lane].to_usize().unwrap_or(0);
        for lane in 0..count {
            let matrix = first + lane;
            let cause = match status[lane] {
                left if left.is_nan() => Some(Cause::NotFinite),
                left if left > T::zero() => Some(Cause::NoConvergence),
                _ => (0..n).filter(|&j| !finite(j, lane)).map(|j| rank(j, lane)).min().map(Cause::Overflow),
            };
            if let Some(cause) = cause {
                failures.add([Failure { matrix, cause }]);
                continue;
            }
            // SAFETY: each matrix belongs to one task.
            let (mut values, vectors) = unsafe { self.matrices.outputs(matrix) };
            for j in 0..n {
                values.set([0, rank(j, lane)], d[j * lanes + lane]);
            }
            self.write_columns(vectors, &columns[lane * size..][..size], room.ld);
        }
    }

    /// `out[i, j] <- columns[j ld + i]`.
    fn write_columns(&self, mut out: MatMut<'_, T>, columns: &[T], ld: usize) {
        let (n, [row_step, column_step]) = (out.rows(), out.strides());
        if column_step == 1 && row_step > 0 {
            // SAFETY: the kernels belong to an ISA this CPU has; n contiguous columns become the rows of the output.
            unsafe {
                (self.kernels.transpose)(out.as_mut_ptr(), row_step as usize, columns.as_ptr(), ld as isize, n, n)
            };
        } else if row_step == 1 && column_step > 0 {
            // SAFETY: as above; columns on both sides.
            unsafe {
                (self.kernels.copy_block)(out.as_mut_ptr(), column_step as usize, columns.as_ptr(), ld as isize, n, n)
            };
        } else {
            (0..n).for_each(|j| (0..n).for_each(|i| out.set([i, j], columns[j * ld + i])));
        }
    }
}

//! Groups of channels, one after the other on all threads, or many at once on one thread each.

use crate::engine::Buffers;
use crate::par::Par;
use crate::view::{MatMut, ViewMut};
use core::marker::PhantomData;
use core::ops::Range;
use dyn_stack::{MemStack, StackReq};

/// Groups from which on each is computed by one thread.
const MANY: usize = 8;

fn at_once(groups: usize, par: Par) -> bool {
    groups >= MANY && par.degree() > 1
}

/// Scratch of [`for_each`], where one group takes `each` on that many threads.
pub(crate) fn scratch(groups: usize, par: Par, each: impl Fn(Par) -> StackReq) -> StackReq {
    match at_once(groups, par) {
        true => StackReq::new::<u8>(each(par.at_most(1)).unaligned_bytes_required() * par.degree()),
        false => each(par),
    }
}

/// Calls `f(group, par, stack)` for each group.
pub(crate) fn for_each(
    groups: usize,
    par: Par,
    each: impl Fn(Par) -> StackReq,
    stack: &mut MemStack,
    f: &(dyn Fn(usize, Par, &mut MemStack) + Sync),
) {
    if !at_once(groups, par) {
        return (0..groups).for_each(|group| f(group, par, stack));
    }
    let one = par.at_most(1);
    let (memory, _) = stack.make_aligned_uninit::<u8>(each(one).unaligned_bytes_required() * par.degree(), 1);
    let memory = Buffers::new(memory, par.degree());
    par.for_each(groups, &|worker, group| {
        // SAFETY: one task at a time has this worker's number.
        f(group, one, MemStack::new(unsafe { memory.uninit(worker) }));
    });
}

/// The matrices of all groups, `[groups, size, size]`, written by several tasks.
pub(crate) struct SharedGroups<'a, T> {
    ptr: *mut T,
    shape: [usize; 3],
    strides: [isize; 3],
    memory: PhantomData<&'a mut T>,
}

// SAFETY: tasks borrow disjoint matrices, which `matrix` asks of its callers.
unsafe impl<T: Send> Sync for SharedGroups<'_, T> {}

impl<'a, T> SharedGroups<'a, T> {
    /// From a matrix to the next.
    pub(crate) fn step(&self) -> isize {
        self.strides[0]
    }

    pub(crate) fn new(mut out: ViewMut<'a, T, 3>) -> Self {
        SharedGroups { ptr: out.as_mut_ptr(), shape: out.shape(), strides: out.strides(), memory: PhantomData }
    }

    /// The matrix of one group.
    ///
    /// # Safety
    /// No two live borrows of one group.
    pub(crate) unsafe fn matrix(&self, group: usize) -> MatMut<'_, T> {
        let ([groups, rows, columns], [step, row_step, column_step]) = (self.shape, self.strides);
        assert!(group < groups, "group {group} of {groups}");
        let ptr = self.ptr.wrapping_offset(group as isize * step);
        // SAFETY: groups are disjoint matrices of the output, and the caller takes each once.
        unsafe { MatMut::from_raw(ptr, [rows, columns], [row_step, column_step]) }
    }
}

/// An output whose groups several tasks write: parts of its second axis.
pub(crate) struct SharedTensor<'a, T> {
    ptr: *mut T,
    shape: [usize; 5],
    strides: [isize; 5],
    memory: PhantomData<&'a mut T>,
}

// SAFETY: tasks borrow disjoint parts, which `part` asks of its callers.
unsafe impl<T: Send> Sync for SharedTensor<'_, T> {}

impl<'a, T> SharedTensor<'a, T> {
    pub(crate) fn new(mut out: ViewMut<'a, T, 5>) -> Self {
        SharedTensor { ptr: out.as_mut_ptr(), shape: out.shape(), strides: out.strides(), memory: PhantomData }
    }

    /// Indices `range` of the second axis.
    ///
    /// # Safety
    /// No two live borrows of one index.
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> ViewMut<'_, T, 5> {
        let ([n, size, rest @ ..], strides) = (self.shape, self.strides);
        assert!(range.start <= range.end && range.end <= size, "part {range:?} of {size}");
        let ptr = self.ptr.wrapping_offset(range.start as isize * strides[1]);
        let [z, y, x] = rest;
        // SAFETY: a part of the elements, which the caller alone has.
        unsafe { ViewMut::from_raw(ptr, [n, range.len(), z, y, x], strides) }
    }
}

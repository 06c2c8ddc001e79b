//! A lower triangular matrix as the engine reads it, packed by rows and by columns.
//!
//! ```text
//! panel I, `step` elements:   rows I nr .. of depths (columns) 0 .. (I + 1) nr,   then columns I nr .. of depths (rows) I nr .. P nr
//!                             |<------- nr (I + 1) nr elements ------->|          |<------- nr (P - I) nr elements ------->|
//! ```
//!
//! A factorisation alone reads rows only: then a strip of columns is packed at a time, and a panel's part by rows is as many depths as the strip
//! has columns.
//!
//! Both parts of a panel together have `(P + 1) nr` depths for every I, so that panels are evenly spaced and no element is wasted but
//! above the diagonal. Sums over columns of L (the factorisation) read rows; sums over rows (inverse, product) read columns.

use crate::element::Element;
use crate::engine::kernels::Kernels;
use crate::engine::slab::Panels;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;

/// Elements of one of the panels of a matrix of `size` rows, by rows and by columns.
pub(super) fn both_ways(size: usize, nr: usize) -> usize {
    (size.div_ceil(nr) + 1) * nr * nr
}

/// Elements of a panel of a strip of `cols` columns, by rows alone.
pub(super) fn by_rows_only(cols: usize, nr: usize) -> usize {
    cols.next_multiple_of(nr) * nr
}

/// See the module's description. Tasks write disjoint parts and read only what has been written.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a, T> {
    ptr: *mut T,
    nr: usize,
    step: usize,
    memory: PhantomData<&'a mut [MaybeUninit<T>]>,
}

// SAFETY: the schedule hands out each block to one task, and reads of a block wait for its task.
unsafe impl<T: Send> Sync for Packed<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Packed<'_, T> {}

impl<'a, T: Element> Packed<'a, T> {
    /// `size` rows, of panels of `step` elements: [`both_ways`] or [`by_rows_only`].
    pub(super) fn new(memory: &'a mut [MaybeUninit<T>], size: usize, nr: usize, step: usize) -> Self {
        assert!(memory.len() >= size.div_ceil(nr) * step, "packed triangle: memory");
        Packed { ptr: memory.as_mut_ptr().cast(), nr, step, memory: PhantomData }
    }

    /// Lanes of row `row` at depth `col`, from the lane of `row` on.
    pub(super) fn by_rows(&self, row: usize, col: usize) -> *mut T {
        let nr = self.nr;
        debug_assert!(col < (row / nr + 1) * nr);
        self.ptr.wrapping_add(row / nr * self.step + col * nr + row % nr)
    }

    /// Lanes of column `col` at depth `row`, from the lane of `col` on.
    pub(super) fn by_cols(&self, col: usize, row: usize) -> *mut T {
        let nr = self.nr;
        debug_assert!(row >= col / nr * nr);
        self.ptr.wrapping_add(col / nr * self.step + (row + nr) * nr + col % nr)
    }

    /// Panels of rows from `row` on, read from depth `col` on.
    pub(super) fn row_panels(&self, row: usize, col: usize, continued: bool) -> Panels<T> {
        Panels { ptr: self.by_rows(row, col), step: self.step, continued }
    }

    /// Panels of columns from `col` on, read from depth `row` on.
    pub(super) fn col_panels(&self, col: usize, row: usize, continued: bool) -> Panels<T> {
        Panels { ptr: self.by_cols(col, row), step: self.step, continued }
    }

    /// Copies rows `rows` (whole panels' lanes) of columns `cols` from the part by rows to the part by columns.
    ///
    /// # Safety
    /// `kernels` belong to an ISA this CPU has; `rows` and `cols` begin at panels and lie in the matrix as padded to nr; the block has been
    /// written by rows, and belongs to the caller.
    pub(super) unsafe fn by_cols_too(&self, rows: Range<usize>, cols: Range<usize>, kernels: &Kernels<T>) {
        let nr = self.nr;
        for row in rows.clone().step_by(nr) {
            let lanes = nr.min(rows.end - row);
            for col in cols.clone().step_by(nr).take_while(|&col| col <= row) {
                let depths = nr.min(cols.end - col);
                // SAFETY: the caller's contract: `depths` lines of `lanes` become `lanes` lines of `depths`.
                unsafe {
                    (kernels.transpose)(self.by_cols(col, row), nr, self.by_rows(row, col), nr as isize, depths, lanes)
                }
            }
        }
    }
}

//! Epilogues: what happens to a finished tile while it is still in cache.

use super::kernels::Kernels;
use crate::element::Element;
use crate::simd::{line, prefetch};
use crate::view::{MatMut, MatRef};
use core::marker::PhantomData;
use core::ops::Range;

/// How a result meets the output: `out <- beta out + alpha result`. With `beta = 0` the output is not read: it may be NaN.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Blend<T> {
    /// Factor of the result.
    pub alpha: T,
    /// Factor of what the output holds.
    pub beta: T,
}

impl<T: Element> Blend<T> {
    /// `out <- alpha result`
    pub fn set(alpha: T) -> Self {
        Blend { alpha, beta: T::zero() }
    }

    /// `out <- out + alpha result`
    pub fn add(alpha: T) -> Self {
        Blend { alpha, beta: T::one() }
    }
}

/// Which part of a symmetric output is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Triangle {
    /// Entries on and below the diagonal; the rest is neither read nor written.
    Lower,
    /// All entries: the lower triangle, mirrored.
    #[default]
    Full,
}

/// A finished tile: row-major, leading dimension `ld`, of the output's rows from `row` and columns from `col`.
pub struct Tile<'a, T: 'static> {
    pub(crate) row: usize,
    pub(crate) col: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: &'a [T],
    pub(crate) ld: usize,
    pub(crate) kernels: &'static Kernels<T>,
}

/// Consumes finished tiles, several at once on different threads, each part of the output once.
pub trait Epilogue<T: Element>: Sync {
    /// Consumes one tile.
    fn apply(&self, tile: &Tile<'_, T>);
}

/// Rows of the output that are prefetched ahead: a tile's rows are short and far apart, so hardware prefetchers see no stream.
const ROWS_AHEAD: usize = 4;

/// An output matrix that several tasks write disjoint parts of.
pub(crate) struct Shared<'a, T> {
    ptr: *mut T,
    row_step: isize,
    col_step: isize,
    memory: PhantomData<&'a mut T>,
}

// SAFETY: tasks write disjoint entries, because each tile of the output is finished by one task.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T: Element> Shared<'a, T> {
    pub(crate) fn new(out: &mut MatMut<'a, T>) -> Self {
        let [row_step, col_step] = out.strides();
        Shared { ptr: out.as_mut_ptr(), row_step, col_step, memory: PhantomData }
    }

    /// Address of an entry.
    pub(crate) fn at(&self, i: usize, j: usize) -> *mut T {
        self.ptr.wrapping_offset(i as isize * self.row_step + j as isize * self.col_step)
    }

    /// The entries from (i, j) on.
    pub(crate) fn from(&self, i: usize, j: usize) -> Self {
        Shared { ptr: self.at(i, j), ..*self }
    }

    /// The output as it is.
    ///
    /// # Safety
    /// It has this shape; nobody writes an entry while it is read.
    pub(crate) unsafe fn read(&self, shape: [usize; 2]) -> MatRef<'a, T> {
        // SAFETY: the caller's contract.
        unsafe { MatRef::from_raw(self.ptr, shape, [self.row_step, self.col_step]) }
    }

    /// Elements from one row to the next, if the entries of a row are contiguous and rows ascend.
    pub(crate) fn contiguous_rows(&self) -> Option<usize> {
        (self.col_step == 1).then(|| usize::try_from(self.row_step).ok()).flatten()
    }

    /// Elements from one column to the next.
    pub(crate) fn column_step(&self) -> isize {
        self.col_step
    }

    /// Asks for `len` contiguous entries, from (i, j) on, before they are written: they need not exist.
    fn prefetch(&self, (i, j): (usize, usize), len: usize) {
        (0..=len).step_by(line::<T>()).for_each(|e| prefetch(self.at(i, j).wrapping_add(e)));
    }

    /// Blends `cols` entries of a tile row into row `i` from column `j`.
    ///
    /// # Safety
    /// The entries lie inside the output and belong to the calling task alone.
    pub(crate) unsafe fn blend(&self, (i, j): (usize, usize), row: &[T], blend: Blend<T>, kernels: &Kernels<T>) {
        // SAFETY: the caller's contract.
        unsafe { blend_line(self.at(i, j), self.col_step, row, blend, kernels) }
    }
}

/// Blends a line into entries `step` apart.
///
/// # Safety
/// The entries are writable and belong to the calling task alone.
pub(crate) unsafe fn blend_line<T: Element>(
    to: *mut T,
    step: isize,
    line: &[T],
    blend: Blend<T>,
    kernels: &Kernels<T>,
) {
    if step == 1 {
        // SAFETY: the caller's contract, contiguous.
        return unsafe { (kernels.blend)(to, line.as_ptr(), line.len(), blend.alpha, blend.beta) };
    }
    for (c, &x) in line.iter().enumerate() {
        let to = to.wrapping_offset(c as isize * step);
        // SAFETY: the caller's contract.
        unsafe {
            *to = if blend.beta == T::zero() { blend.alpha * x } else { blend.alpha * x + blend.beta * *to };
        }
    }
}

/// Blends tiles into a matrix.
pub struct Store<'a, T> {
    out: Shared<'a, T>,
    blend: Blend<T>,
}

impl<'a, T: Element> Store<'a, T> {
    /// # Safety
    /// The product this is the epilogue of must have the shape of `out`.
    pub(crate) unsafe fn new(mut out: MatMut<'a, T>, blend: Blend<T>) -> Self {
        Store { out: Shared::new(&mut out), blend }
    }
}

impl<T: Element> Epilogue<T> for Store<'_, T> {
    fn apply(&self, tile: &Tile<'_, T>) {
        for (i, row) in tile.data.chunks_exact(tile.ld).take(tile.rows).enumerate() {
            self.out.prefetch((tile.row + i + ROWS_AHEAD, tile.col), tile.cols);
            // SAFETY: the tile lies inside the product's shape, which is the output's.
            unsafe { self.out.blend((tile.row + i, tile.col), &row[..tile.cols], self.blend, tile.kernels) };
        }
    }
}

/// Blends the lower triangle of a symmetric product into a matrix, mirrored if asked.
pub struct StoreSymmetric<'a, T> {
    store: Store<'a, T>,
    triangle: Triangle,
}

impl<'a, T: Element> StoreSymmetric<'a, T> {
    /// # Safety
    /// As [`Store::new`], for a symmetric product.
    pub(crate) unsafe fn new(out: MatMut<'a, T>, blend: Blend<T>, triangle: Triangle) -> Self {
        // SAFETY: the caller's contract.
        StoreSymmetric { store: unsafe { Store::new(out, blend) }, triangle }
    }
}

/// Copies the entries of a block that lie below the diagonal to above it, in squares whose lines stay in L1.
///
/// # Safety
/// The block lies inside the output; its entries below the diagonal and their mirror images belong to the caller alone.
pub(crate) unsafe fn mirror<T: Element>(
    out: &Shared<'_, T>,
    rows: Range<usize>,
    cols: Range<usize>,
    kernels: &Kernels<T>,
) {
    const SIDE: usize = 16;
    const SQUARES_AHEAD: usize = 3;
    // Along the rows that are written, whose lines come from further away than those that are read.
    for j0 in cols.clone().step_by(SIDE) {
        for i0 in rows.clone().step_by(SIDE) {
            let (i1, j1) = (rows.end.min(i0 + SIDE), cols.end.min(j0 + SIDE));
            if j1 <= i0 && out.col_step == 1 && out.row_step >= 0 {
                let (to, step) = (out.at(j0, i0), out.row_step);
                (j0..j1).for_each(|j| prefetch(out.at(j, i0 + SQUARES_AHEAD * SIDE)));
                // SAFETY: the caller's contract; the two squares lie on different sides of the diagonal.
                unsafe { (kernels.transpose)(to, step as usize, out.at(i0, j0), step, i1 - i0, j1 - j0) };
                continue;
            }
            for j in j0..j1 {
                for i in i0.max(j + 1)..i1 {
                    // SAFETY: the caller's contract.
                    unsafe { *out.at(j, i) = *out.at(i, j) }
                }
            }
        }
    }
}

impl<T: Element> Epilogue<T> for StoreSymmetric<'_, T> {
    fn apply(&self, tile: &Tile<'_, T>) {
        for (i, row) in tile.data.chunks_exact(tile.ld).take(tile.rows).enumerate() {
            let cols = tile.cols.min((tile.row + i + 1).saturating_sub(tile.col));
            self.store.out.prefetch((tile.row + i + ROWS_AHEAD, tile.col), cols);
            // SAFETY: the tile lies inside the product's shape, which is the output's.
            unsafe {
                self.store.out.blend((tile.row + i, tile.col), &row[..cols], self.store.blend, tile.kernels);
            }
        }
        if self.triangle == Triangle::Full {
            let (rows, cols) = (tile.row..tile.row + tile.rows, tile.col..tile.col + tile.cols);
            // SAFETY: the tile lies inside the output, and no other task has it or its mirror image.
            unsafe { mirror(&self.store.out, rows, cols, tile.kernels) };
        }
    }
}

//! Epilogues: what happens to a finished tile while it is still in cache.

use super::kernels::Kernels;
use crate::element::Element;
use crate::view::MatMut;
use core::marker::PhantomData;
use num_traits::Zero;

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

/// An output matrix that several tasks write disjoint parts of.
struct Shared<'a, T> {
    ptr: *mut T,
    row_step: isize,
    col_step: isize,
    memory: PhantomData<&'a mut T>,
}

// SAFETY: tasks write disjoint entries, because each tile of the output is finished by one task.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<T: Element> Shared<'_, T> {
    fn at(&self, i: usize, j: usize) -> *mut T {
        self.ptr.wrapping_offset(i as isize * self.row_step + j as isize * self.col_step)
    }

    /// Blends `cols` entries of a tile row into row `i` from column `j`.
    ///
    /// # Safety
    /// The entries lie inside the output and belong to the calling task alone.
    unsafe fn blend(&self, (i, j): (usize, usize), row: &[T], blend: Blend<T>, kernels: &Kernels<T>) {
        if self.col_step == 1 {
            // SAFETY: the caller's contract, contiguous.
            return unsafe { (kernels.blend)(self.at(i, j), row.as_ptr(), row.len(), blend.alpha, blend.beta) };
        }
        for (c, &x) in row.iter().enumerate() {
            let to = self.at(i, j + c);
            // SAFETY: the caller's contract.
            unsafe {
                *to = if blend.beta.is_zero() { blend.alpha * x } else { blend.alpha * x + blend.beta * *to };
            }
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
        let [row_step, col_step] = out.strides();
        Store { out: Shared { ptr: out.as_mut_ptr(), row_step, col_step, memory: PhantomData }, blend }
    }
}

impl<T: Element> Epilogue<T> for Store<'_, T> {
    fn apply(&self, tile: &Tile<'_, T>) {
        for (i, row) in tile.data.chunks_exact(tile.ld).take(tile.rows).enumerate() {
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

    /// Copies the tile's entries below the diagonal to above it, in blocks whose lines stay in L1.
    fn mirror(&self, tile: &Tile<'_, T>) {
        const BLOCK: usize = 16;
        let out = &self.store.out;
        for i0 in (0..tile.rows).step_by(BLOCK) {
            for j0 in (0..tile.cols).step_by(BLOCK) {
                for j in tile.col + j0..tile.col + tile.cols.min(j0 + BLOCK) {
                    for i in (tile.row + i0).max(j + 1)..tile.row + tile.rows.min(i0 + BLOCK) {
                        // SAFETY: (i, j) is in this tile and below the diagonal; (j, i) is its mirror image, which no
                        // other task touches.
                        unsafe { *out.at(j, i) = *out.at(i, j) }
                    }
                }
            }
        }
    }
}

impl<T: Element> Epilogue<T> for StoreSymmetric<'_, T> {
    fn apply(&self, tile: &Tile<'_, T>) {
        for (i, row) in tile.data.chunks_exact(tile.ld).take(tile.rows).enumerate() {
            let cols = tile.cols.min((tile.row + i + 1).saturating_sub(tile.col));
            // SAFETY: the tile lies inside the product's shape, which is the output's.
            unsafe {
                self.store.out.blend((tile.row + i, tile.col), &row[..cols], self.store.blend, tile.kernels);
            }
        }
        if self.triangle == Triangle::Full {
            self.mirror(tile);
        }
    }
}

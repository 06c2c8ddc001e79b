//! The leaves: matrices of at most [`LEAF`](super::LEAF) rows, copied to a contiguous block, worked on by rows.

use super::{LEAF, Pivot};
use crate::element::Element;
use crate::view::{MatMut, MatRef};

/// A lower triangle in registers' reach: row-major, `LEAF` wide.
pub(super) struct Leaf<T> {
    rows: usize,
    data: [[T; LEAF]; LEAF],
}

impl<T: Element> Leaf<T> {
    /// Copies the lower triangle.
    pub(super) fn lower(a: MatRef<'_, T>) -> Self {
        let mut leaf = Leaf { rows: a.rows(), data: [[T::zero(); LEAF]; LEAF] };
        for i in 0..a.rows() {
            for j in 0..=i {
                leaf.data[i][j] = a.at([i, j]);
            }
        }
        leaf
    }

    /// Copies back the lower triangle.
    pub(super) fn write(&self, mut a: MatMut<'_, T>) {
        for i in 0..self.rows {
            for j in 0..=i {
                a.set([i, j], self.data[i][j]);
            }
        }
    }

    /// `A = L L^T`, right-looking by columns of the transpose: row `j` of `U = L^T` is scaled, then subtracted from the
    /// rows below it. Whole rows of `LEAF` entries, so that the compiler makes vectors of them.
    pub(super) fn potrf(&mut self) -> Result<(), Pivot<T>> {
        let mut u = [[T::zero(); LEAF]; LEAF];
        for i in 0..self.rows {
            for j in 0..=i {
                u[j][i] = self.data[i][j];
            }
        }
        for j in 0..self.rows {
            let value = u[j][j];
            if !(value > T::zero() && value.is_finite()) {
                return Err(Pivot { index: j, value });
            }
            let root = value.sqrt();
            // Divided, not multiplied by a reciprocal: one rounding an entry, as the bounds assume.
            u[j].iter_mut().for_each(|x| *x /= root);
            let row = u[j];
            for i in j + 1..self.rows {
                let factor = row[i];
                for (x, &y) in u[i].iter_mut().zip(&row) {
                    *x -= factor * y;
                }
            }
        }
        for i in 0..self.rows {
            for j in 0..=i {
                self.data[i][j] = u[j][i];
            }
        }
        Ok(())
    }

    /// `Y = L^-1` by rows: `y_i = (e_i - sum_{k<i} l_ik y_k) / l_ii`. Forward substitution on the identity.
    pub(super) fn trtri(&mut self) {
        let mut y = [[T::zero(); LEAF]; LEAF];
        for i in 0..self.rows {
            let mut row = [T::zero(); LEAF];
            row[i] = T::one();
            for (k, below) in y.iter().enumerate().take(i) {
                let factor = self.data[i][k];
                for (x, &v) in row.iter_mut().zip(below) {
                    *x -= factor * v;
                }
            }
            let pivot = self.data[i][i];
            row.iter_mut().for_each(|x| *x /= pivot);
            y[i] = row;
        }
        self.data = y;
    }

    /// `X = Y^T Y`, lower triangle: `X = sum_k y_k y_k^T` over the rows of Y.
    pub(super) fn lauum(&mut self) {
        let mut x = [[T::zero(); LEAF]; LEAF];
        for row in &self.data[..self.rows] {
            for (i, out) in x.iter_mut().enumerate().take(self.rows) {
                let factor = row[i];
                for (x, &v) in out.iter_mut().zip(row) {
                    *x += factor * v;
                }
            }
        }
        self.data = x;
    }

    pub(super) fn as_mat(&self) -> MatRef<'_, T> {
        let data = self.data.as_flattened();
        MatRef::strided(data, 0, [self.rows, self.rows], [LEAF as isize, 1]).unwrap_or_else(|_| unreachable!())
    }
}

/// `B <- L^-1 B` (or `L^-T B`) for a leaf `L`, by substitution on whole rows of `B`.
pub(super) fn substitute<T: Element>(l: MatRef<'_, T>, transposed: bool, b: MatMut<'_, T>) {
    // Columns at a time: LEAF rows of them stay in L1.
    const COLS: usize = 32;
    let leaf = Leaf::lower(l);
    let (n, cols) = (leaf.rows, b.cols());
    let mut b = b;
    for start in (0..cols).step_by(COLS) {
        let width = COLS.min(cols - start);
        let mut x = [[T::zero(); COLS]; LEAF];
        for (i, row) in x.iter_mut().enumerate().take(n) {
            row.iter_mut().take(width).enumerate().for_each(|(j, x)| *x = b.as_ref().at([i, start + j]));
        }
        for step in 0..n {
            let i = if transposed { n - 1 - step } else { step };
            let mut row = x[i];
            let others = if transposed { i + 1..n } else { 0..i };
            for k in others {
                let factor = if transposed { leaf.data[k][i] } else { leaf.data[i][k] };
                for (x, &v) in row.iter_mut().zip(&x[k]) {
                    *x -= factor * v;
                }
            }
            let pivot = leaf.data[i][i];
            row.iter_mut().for_each(|x| *x /= pivot);
            x[i] = row;
        }
        for (i, row) in x.iter().enumerate().take(n) {
            row.iter().take(width).enumerate().for_each(|(j, &x)| b.set([i, start + j], x));
        }
    }
}

//! Matrices: views of rank two.

use super::{View, ViewMut};
use core::ops::Range;

/// A read-only matrix view.
pub type MatRef<'a, T> = View<'a, T, 2>;
/// A mutable matrix view.
pub type MatMut<'a, T> = ViewMut<'a, T, 2>;

fn clip(range: Range<usize>, size: usize, what: &str) -> Range<usize> {
    assert!(range.start <= range.end && range.end <= size, "{what} {range:?} outside a matrix of {size}");
    range
}

macro_rules! matrix {
    ($view:ident) => {
        impl<'a, T> $view<'a, T, 2> {
            /// The number of rows.
            pub fn rows(&self) -> usize {
                self.shape()[0]
            }

            /// The number of columns.
            pub fn cols(&self) -> usize {
                self.shape()[1]
            }

            /// The transpose: the same memory, axes exchanged.
            pub fn transpose(self) -> Self {
                let ([m, n], [rs, cs]) = (self.shape(), self.strides());
                // SAFETY: the same elements under exchanged indices.
                unsafe { self.reshaped([0, 0], [n, m], [cs, rs]) }
            }

            /// Rows `rows` and columns `cols`.
            ///
            /// # Panics
            /// If a range reaches outside the matrix, as slicing does.
            #[track_caller]
            pub fn submatrix(self, rows: Range<usize>, cols: Range<usize>) -> Self {
                let rows = clip(rows, self.rows(), "rows");
                let cols = clip(cols, self.cols(), "columns");
                let strides = self.strides();
                // SAFETY: the ranges lie inside the shape.
                unsafe { self.reshaped([rows.start, cols.start], [rows.len(), cols.len()], strides) }
            }

            /// Rows `rows`, all columns.
            ///
            /// # Panics
            /// If the range reaches outside the matrix.
            #[track_caller]
            pub fn row_range(self, rows: Range<usize>) -> Self {
                let cols = 0..self.cols();
                self.submatrix(rows, cols)
            }
        }
    };
}

matrix!(View);
matrix!(ViewMut);

impl<'a, T> View<'a, T, 2> {
    /// Row `i` as a slice, if its entries are contiguous.
    pub fn row(&self, i: usize) -> Option<&'a [T]> {
        let ([m, n], [rs, cs]) = (self.shape(), self.strides());
        let contiguous = i < m && (cs == 1 || n <= 1);
        // SAFETY: row i lies inside the view, whose n entries follow one another.
        contiguous.then(|| unsafe { core::slice::from_raw_parts(self.as_ptr().wrapping_offset(i as isize * rs), n) })
    }

    /// `[N t, d]` as `[N, t, d]`: datapoints of `t` positions each.
    ///
    /// # Panics
    /// If `t` is zero or does not divide the number of rows.
    #[track_caller]
    pub fn positions(self, t: usize) -> View<'a, T, 3> {
        let ([m, n], [rs, cs]) = (self.shape(), self.strides());
        assert!(t > 0 && m % t == 0, "{t} positions in {m} rows");
        // SAFETY: the same entries; row a t + b becomes (a, b).
        unsafe { self.reshaped([0, 0], [m / t, t, n], [rs * t as isize, rs, cs]) }
    }
}

impl<'a, T> View<'a, T, 3> {
    /// `[N, t, d]` as `[N t, d]`, if the positions of a datapoint follow on those of the last.
    pub fn rows(self) -> Option<MatRef<'a, T>> {
        let ([n, t, d], [ns, ts, ds]) = (self.shape(), self.strides());
        let step = match (n, t) {
            (_, 1) => ns,
            (1, _) => ts,
            _ if ns == ts * t as isize => ts,
            _ => return None,
        };
        // SAFETY: the same elements; (a, b) becomes row a t + b.
        Some(unsafe { self.reshaped([0; 3], [n * t, d], [step, ds]) })
    }

    /// The matrix of positions and features of datapoint `n`.
    ///
    /// # Panics
    /// Outside the shape.
    #[track_caller]
    pub fn datapoint(self, n: usize) -> MatRef<'a, T> {
        let ([size, t, d], [_, ts, ds]) = (self.shape(), self.strides());
        assert!(n < size, "datapoint {n} of {size}");
        // SAFETY: the entries of one datapoint.
        unsafe { self.reshaped([n, 0, 0], [t, d], [ts, ds]) }
    }
}

impl<'a, T, const R: usize> View<'a, T, R> {
    /// `[N t, d]` or `[N, t, d]` as `[N, t, d]`; `None` for another rank, or positions that are not `t` each.
    pub fn as_positions(self, t: usize) -> Option<View<'a, T, 3>> {
        let (shape, strides) = (self.shape(), self.strides());
        let ([n, t, d], steps) = match R {
            2 if t > 0 && shape[0].is_multiple_of(t) => {
                ([shape[0] / t, t, shape[1]], [strides[0] * t as isize, strides[0], strides[1]])
            }
            3 if shape[1] == t => ([shape[0], t, shape[2]], [strides[0], strides[1], strides[2]]),
            _ => return None,
        };
        // SAFETY: the same entries; row a t + b becomes (a, b).
        Some(unsafe { self.reshaped([0; R], [n, t, d], steps) })
    }
}

impl<'a, T> ViewMut<'a, T, 2> {
    /// The four blocks around `(row, col)`: upper left, upper right, lower left, lower right.
    ///
    /// # Panics
    /// If the point lies outside the matrix.
    #[track_caller]
    pub fn split_at(self, row: usize, col: usize) -> [MatMut<'a, T>; 4] {
        let ([m, n], strides) = (self.shape(), self.strides());
        clip(0..row, m, "rows");
        clip(0..col, n, "columns");
        // SAFETY: the four blocks lie inside the shape and share no element.
        let block =
            |this: &Self, r: usize, c: usize, shape| unsafe { MatMut::from_raw(this.ptr_at([r, c]), shape, strides) };
        [
            block(&self, 0, 0, [row, col]),
            block(&self, 0, col, [row, n - col]),
            block(&self, row, 0, [m - row, col]),
            block(&self, row, col, [m - row, n - col]),
        ]
    }

    fn ptr_at(&self, [i, j]: [usize; 2]) -> *mut T {
        let [rs, cs] = self.strides();
        self.as_ref().as_ptr().wrapping_offset(i as isize * rs + j as isize * cs).cast_mut()
    }
}

impl<T: Copy> ViewMut<'_, T, 2> {
    /// Writes `value` everywhere.
    pub fn fill(&mut self, value: T) {
        for i in 0..self.rows() {
            for j in 0..self.cols() {
                self.set([i, j], value);
            }
        }
    }

    /// Copies `source` element by element.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn copy_from(&mut self, source: MatRef<'_, T>) {
        assert_eq!(self.shape(), source.shape(), "copy_from: shapes differ");
        for i in 0..self.rows() {
            if let (Some(row), [_, 1]) = (source.row(i), self.strides()) {
                let to = self.ptr_at([i, 0]);
                // SAFETY: row i of this view, contiguous, exclusively borrowed and so apart from `source`.
                unsafe { core::ptr::copy_nonoverlapping(row.as_ptr(), to, row.len()) };
                continue;
            }
            for j in 0..self.cols() {
                self.set([i, j], source.at([i, j]));
            }
        }
    }
}

//! A dense row-major `f64` matrix, written to be obvious rather than fast.

use num_traits::{NumCast, ToPrimitive};
use std::ops::{Index, IndexMut, Range};

/// A matrix `[rows, cols]` of `f64`, row-major. Indexed by `(row, column)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// The entries, row after row: `rows * cols` of them.
    pub data: Vec<f64>,
}

impl Index<(usize, usize)> for Dense {
    type Output = f64;
    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        assert!(i < self.rows && j < self.cols, "({i}, {j}) is outside");
        &self.data[i * self.cols + j]
    }
}

impl IndexMut<(usize, usize)> for Dense {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        assert!(i < self.rows && j < self.cols, "({i}, {j}) is outside");
        &mut self.data[i * self.cols + j]
    }
}

/// Construction and conversion.
impl Dense {
    /// The matrix with entries `f(i, j)`.
    pub fn from_fn(rows: usize, cols: usize, f: impl FnMut(usize, usize) -> f64) -> Self {
        let mut f = f;
        let data = (0..rows * cols).map(|k| f(k / cols, k % cols)).collect();
        Self { rows, cols, data }
    }

    /// The matrix `[rows, cols]` of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self::from_fn(rows, cols, |_, _| 0.0)
    }

    /// The identity of order `n`.
    pub fn identity(n: usize) -> Self {
        Self::diagonal(&vec![1.0; n])
    }

    /// The diagonal matrix of `entries`.
    pub fn diagonal(entries: &[f64]) -> Self {
        let n = entries.len();
        Self::from_fn(n, n, |i, j| if i == j { entries[i] } else { 0.0 })
    }

    /// The matrix whose rows are given literally.
    pub fn from_rows<const C: usize>(rows: &[[f64; C]]) -> Self {
        Self::from_fn(rows.len(), C, |i, j| rows[i][j])
    }

    /// The matrix held row-major in `data`, widened to `f64` (exactly, for every float of 64 bits or fewer).
    pub fn from_slice<T: ToPrimitive>(rows: usize, cols: usize, data: &[T]) -> Self {
        assert_eq!(data.len(), rows * cols, "length against [{rows}, {cols}]");
        let data = data.iter().map(|v| v.to_f64().expect("representable in f64")).collect();
        Self { rows, cols, data }
    }

    /// The entries row-major, each rounded to `T`.
    pub fn to_vec<T: NumCast>(&self) -> Vec<T> {
        self.data.iter().map(|&v| T::from(v).expect("representable")).collect()
    }

    /// The matrix with each entry rounded to `T` and widened again, so that a kernel and an oracle start from the same numbers.
    pub fn rounded<T: NumCast + ToPrimitive>(&self) -> Self {
        Self::from_slice(self.rows, self.cols, &self.to_vec::<T>())
    }

    /// `vec`, row-major, as a column: `[rows * cols, 1]`.
    pub fn vec(&self) -> Self {
        self.unvec(self.data.len(), 1)
    }

    /// The inverse of [`Dense::vec`]: the same entries in the same order as `[rows, cols]`.
    pub fn unvec(&self, rows: usize, cols: usize) -> Self {
        Self::from_slice(rows, cols, &self.data)
    }
}

/// Parts.
impl Dense {
    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// The block of the given rows and columns.
    pub fn block(&self, rows: Range<usize>, cols: Range<usize>) -> Self {
        Self::from_fn(rows.len(), cols.len(), |i, j| self[(rows.start + i, cols.start + j)])
    }

    /// The diagonal.
    pub fn diag(&self) -> Vec<f64> {
        (0..self.rows.min(self.cols)).map(|i| self[(i, i)]).collect()
    }

    /// The lower triangle (diagonal included), zeros above it.
    pub fn lower(&self) -> Self {
        Self::from_fn(self.rows, self.cols, |i, j| if j <= i { self[(i, j)] } else { 0.0 })
    }

    /// `[self, right]`.
    pub fn beside(&self, right: &Self) -> Self {
        assert_eq!(self.rows, right.rows, "rows side by side");
        Self::from_fn(self.rows, self.cols + right.cols, |i, j| {
            if j < self.cols { self[(i, j)] } else { right[(i, j - self.cols)] }
        })
    }
}

/// Algebra.
impl Dense {
    /// Transpose.
    pub fn transpose(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |i, j| self[(j, i)])
    }

    /// `self * rhs`; each entry is summed in ascending order of the inner index.
    pub fn matmul(&self, rhs: &Self) -> Self {
        assert_eq!(self.cols, rhs.rows, "inner dimensions");
        let mut out = Self::zeros(self.rows, rhs.cols);
        for i in 0..self.rows {
            let out_row = &mut out.data[i * rhs.cols..(i + 1) * rhs.cols];
            for (k, &a) in self.row(i).iter().enumerate() {
                for (o, &b) in out_row.iter_mut().zip(rhs.row(k)) {
                    *o += a * b;
                }
            }
        }
        out
    }

    /// Kronecker product: entry `(i p + r, j q + s)` is `self[i, j] * rhs[r, s]` with `rhs` of shape `[p, q]`.
    pub fn kron(&self, rhs: &Self) -> Self {
        let (p, q) = (rhs.rows, rhs.cols);
        Self::from_fn(self.rows * p, self.cols * q, |i, j| self[(i / p, j / q)] * rhs[(i % p, j % q)])
    }

    /// The matrix with `f` applied to each entry.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self::from_fn(self.rows, self.cols, |i, j| f(self[(i, j)]))
    }

    /// The matrix of `f(self[i, j], rhs[i, j])`.
    pub fn zip(&self, rhs: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        assert_eq!((self.rows, self.cols), (rhs.rows, rhs.cols), "shapes");
        Self::from_fn(self.rows, self.cols, |i, j| f(self[(i, j)], rhs[(i, j)]))
    }

    /// `self + rhs`.
    pub fn plus(&self, rhs: &Self) -> Self {
        self.zip(rhs, |a, b| a + b)
    }

    /// `self - rhs`.
    pub fn minus(&self, rhs: &Self) -> Self {
        self.zip(rhs, |a, b| a - b)
    }

    /// `factor * self`.
    pub fn scaled(&self, factor: f64) -> Self {
        self.map(|v| factor * v)
    }

    /// Entrywise product.
    pub fn hadamard(&self, rhs: &Self) -> Self {
        self.zip(rhs, |a, b| a * b)
    }

    /// `self + lambda I`.
    pub fn damped(&self, lambda: f64) -> Self {
        self.plus(&Self::diagonal(&vec![lambda; self.rows]))
    }
}

/// Measures.
impl Dense {
    /// Entrywise absolute value.
    pub fn abs(&self) -> Self {
        self.map(f64::abs)
    }

    /// Sum of the diagonal of a square matrix.
    pub fn trace(&self) -> f64 {
        assert_eq!(self.rows, self.cols, "square");
        self.diag().iter().sum()
    }

    /// Frobenius norm.
    pub fn frobenius(&self) -> f64 {
        self.data.iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    /// Largest absolute entry; NaN if there is one, so that no comparison against it succeeds.
    pub fn max_abs(&self) -> f64 {
        self.data.iter().fold(0.0, |max: f64, v| if max.is_nan() || v.abs() <= max { max } else { v.abs() })
    }

    /// Whether the matrix equals its transpose exactly.
    pub fn is_symmetric(&self) -> bool {
        *self == self.transpose()
    }
}

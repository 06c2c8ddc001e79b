//! Textbook decompositions: LU with partial pivoting, Cholesky, and the symmetric eigenproblem by cyclic Jacobi.

use crate::Dense;

/// `P A = L U` with partial pivoting: row `i` of `P A` is row `order[i]` of `A`.
pub struct Lu {
    /// Unit lower triangular.
    pub l: Dense,
    /// Upper triangular.
    pub u: Dense,
    /// The row of `A` that stands in each row of `P A`.
    pub order: Vec<usize>,
}

/// A pivot that is not positive: Cholesky's only way to fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotPositive {
    /// Row of the pivot.
    pub index: usize,
    /// Its value.
    pub pivot: f64,
}

/// Eigenvalues in ascending order and, as the columns of `vectors`, eigenvectors: `A = Q diag(values) Q^T`.
pub struct Eigen {
    /// Eigenvalues, ascending.
    pub values: Vec<f64>,
    /// Orthogonal `Q`, one eigenvector per column.
    pub vectors: Dense,
}

impl Dense {
    /// LU with partial pivoting; panics on an exactly singular matrix.
    pub fn lu(&self) -> Lu {
        assert_eq!(self.rows, self.cols, "square");
        let n = self.rows;
        let (mut u, mut l) = (self.clone(), Dense::identity(n));
        let mut order: Vec<usize> = (0..n).collect();
        for k in 0..n {
            let pivot = (k..n).max_by(|&i, &j| u[(i, k)].abs().total_cmp(&u[(j, k)].abs())).expect("k < n");
            order.swap(k, pivot);
            for j in 0..n {
                u.data.swap(k * n + j, pivot * n + j);
                if j < k {
                    l.data.swap(k * n + j, pivot * n + j);
                }
            }
            assert!(u[(k, k)] != 0.0, "singular matrix: column {k}");
            let top = u.row(k).to_vec();
            for i in k + 1..n {
                let factor = u[(i, k)] / top[k];
                l[(i, k)] = factor;
                let row = &mut u.data[i * n..(i + 1) * n];
                row[k] = 0.0;
                for j in k + 1..n {
                    row[j] -= factor * top[j];
                }
            }
        }
        Lu { l, u, order }
    }

    /// `A^-1 rhs` by LU with partial pivoting.
    pub fn solve(&self, rhs: &Dense) -> Dense {
        self.lu().solve(rhs)
    }

    /// `A^-1` by LU with partial pivoting.
    pub fn inverse(&self) -> Dense {
        self.solve(&Dense::identity(self.rows))
    }

    /// The lower Cholesky factor of a symmetric matrix, of which only the lower triangle is read.
    pub fn cholesky(&self) -> Result<Dense, NotPositive> {
        let n = self.rows;
        let mut l = Dense::zeros(n, n);
        for i in 0..n {
            for j in 0..=i {
                let sum: f64 = (0..j).map(|k| l[(i, k)] * l[(j, k)]).sum();
                let rest = self[(i, j)] - sum;
                if i != j {
                    l[(i, j)] = rest / l[(j, j)];
                } else if rest > 0.0 {
                    l[(i, i)] = rest.sqrt();
                } else {
                    return Err(NotPositive { index: i, pivot: rest });
                }
            }
        }
        Ok(l)
    }

    /// Eigenvalues and eigenvectors of a symmetric matrix by cyclic Jacobi rotations (Golub and Van Loan, 8.5),
    /// repeated until a sweep finds every off-diagonal entry negligible against the largest entry.
    pub fn symmetric_eigen(&self) -> Eigen {
        assert!(self.is_symmetric(), "symmetric");
        let n = self.rows;
        let (mut a, mut q) = (self.clone(), Dense::identity(n));
        let negligible = f64::EPSILON * self.max_abs() / (n.max(1) as f64);
        // Convergence is quadratic: a handful of sweeps in practice.
        let converged = (0..60).any(|_| {
            let mut quiet = true;
            for p in 0..n {
                for r in p + 1..n {
                    if a[(p, r)].abs() > negligible {
                        quiet = false;
                        rotate(&mut a, &mut q, p, r);
                    }
                }
            }
            quiet
        });
        assert!(converged, "Jacobi converges on any finite symmetric matrix");
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| a[(i, i)].total_cmp(&a[(j, j)]));
        Eigen {
            values: order.iter().map(|&i| a[(i, i)]).collect(),
            vectors: Dense::from_fn(n, n, |i, j| q[(i, order[j])]),
        }
    }
}

impl Lu {
    /// `A^-1 rhs`: permute, then forward and back substitution on whole rows of right-hand sides.
    pub fn solve(&self, rhs: &Dense) -> Dense {
        let n = self.l.rows;
        assert_eq!(rhs.rows, n, "rows of the right-hand side");
        let mut x = Dense::from_fn(n, rhs.cols, |i, j| rhs[(self.order[i], j)]);
        for i in 0..n {
            for k in 0..i {
                subtract_row(&mut x, i, k, self.l[(i, k)]);
            }
        }
        for i in (0..n).rev() {
            for k in i + 1..n {
                subtract_row(&mut x, i, k, self.u[(i, k)]);
            }
            for j in 0..x.cols {
                x[(i, j)] /= self.u[(i, i)];
            }
        }
        x
    }
}

/// Row `i` of `x` less `factor` times row `k`.
fn subtract_row(x: &mut Dense, i: usize, k: usize, factor: f64) {
    let source = x.row(k).to_vec();
    let cols = x.cols;
    for (v, s) in x.data[i * cols..(i + 1) * cols].iter_mut().zip(source) {
        *v -= factor * s;
    }
}

/// The rotation of columns and rows `p`, `r` that annihilates `a[p, r]`, accumulated into `q`.
fn rotate(a: &mut Dense, q: &mut Dense, p: usize, r: usize) {
    let tau = (a[(r, r)] - a[(p, p)]) / (2.0 * a[(p, r)]);
    // The smaller root of t^2 + 2 tau t - 1: a rotation by at most 45 degrees, which is what makes Jacobi converge.
    let t = tau.signum() / (tau.abs() + tau.hypot(1.0));
    let c = t.hypot(1.0).recip();
    let s = t * c;
    let turn = |x: f64, y: f64| (c * x - s * y, s * x + c * y);
    let n = a.rows;
    for k in 0..n {
        (a[(k, p)], a[(k, r)]) = turn(a[(k, p)], a[(k, r)]);
        (q[(k, p)], q[(k, r)]) = turn(q[(k, p)], q[(k, r)]);
    }
    for k in 0..n {
        (a[(p, k)], a[(r, k)]) = turn(a[(p, k)], a[(r, k)]);
    }
    (a[(p, r)], a[(r, p)]) = (0.0, 0.0);
}

//! faer on the same work, where it has it: its fastest way with the same inputs and outputs.

use super::data::{DAMPING, RATE, covariance_matrices, covariance_matrix, uniform};
use super::jobs::{Images, Job};
use super::ours::Work;
use dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::reborrow::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef};
use foof_kernels::{Par, Triangle};
use rayon::prelude::*;

/// Orders up to here run on one thread, as ours do: starting threads would only slow faer down.
const SMALL: usize = 32;

const POSITIVE: &str = "a damped covariance is positive definite";

fn mat(data: &[f32], [rows, cols]: [usize; 2]) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(data, rows, cols)
}

fn mat_mut(data: &mut [f32], [rows, cols]: [usize; 2]) -> MatMut<'_, f32> {
    MatMut::from_row_major_slice_mut(data, rows, cols)
}

fn threads(par: Par, n: usize) -> faer::Par {
    if n <= SMALL || par.degree() == 1 { faer::Par::Seq } else { faer::Par::rayon(par.degree()) }
}

/// faer's side of the job; `None` where it has no such operation.
pub fn work(job: Job, ours: Par) -> Option<Work> {
    let work: Work = match job {
        Job::Covariance { n, d, triangle } => covariance(n, d, triangle, ours),
        Job::ConvCovariance { images, triangle } => conv_covariance(images, triangle, ours),
        Job::Inverse { n, triangle } => inverse(n, triangle, ours),
        Job::Batched { batch, n } => batched(batch, n, ours),
        Job::Eigen { batch, n } => eigen(batch, n, ours),
        Job::Cholesky { n } => {
            let (a, mut out, par) = (square(n, ours), Mat::zeros(n, n), threads(ours, n));
            let mut memory = MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f32>(n, par, Default::default()));
            Box::new(move || damped_factor(a.as_ref(), out.as_mut(), par, MemStack::new(&mut memory)))
        }
        Job::Solve { n, cols } => {
            let (a, mut l, par) = (square(n, ours), Mat::zeros(n, n), threads(ours, n));
            let mut memory = MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f32>(n, par, Default::default()));
            damped_factor(a.as_ref(), l.as_mut(), par, MemStack::new(&mut memory));
            let b = uniform(n * cols, 2);
            let b = mat(&b, [n, cols]).to_owned();
            let mut out = Mat::zeros(n, cols);
            let mut memory = MemBuffer::new(llt::solve::solve_in_place_scratch::<f32>(n, cols, par));
            Box::new(move || {
                out.copy_from(&b);
                llt::solve::solve_in_place(l.as_ref(), out.as_mut(), par, MemStack::new(&mut memory));
            })
        }
        Job::Product { n } => {
            let (a, b, mut out, par) = (uniform(n * n, 1), uniform(n * n, 2), vec![0.0; n * n], threads(ours, n));
            Box::new(move || {
                matmul(mat_mut(&mut out, [n, n]), Accum::Replace, mat(&a, [n, n]), mat(&b, [n, n]), 1.0, par);
            })
        }
        Job::Foof { o, i } => {
            let (u, p, mut w) = (uniform(o * i, 1), covariance_matrix(i, 2, ours), vec![0.0; o * i]);
            let par = threads(ours, i);
            Box::new(move || {
                matmul(mat_mut(&mut w, [o, i]), Accum::Add, mat(&u, [o, i]), mat(&p, [i, i]), -RATE, par);
            })
        }
        Job::FoofLowRank { m, o, i } => {
            let (x, e, p) = (uniform(m * i, 1), uniform(m * o, 2), covariance_matrix(i, 3, ours));
            let (mut xp, mut w, par) = (vec![0.0; m * i], vec![0.0; o * i], threads(ours, i));
            Box::new(move || {
                matmul(mat_mut(&mut xp, [m, i]), Accum::Replace, mat(&x, [m, i]), mat(&p, [i, i]), 1.0, par);
                let e = mat(&e, [m, o]).transpose();
                matmul(mat_mut(&mut w, [o, i]), Accum::Add, e, mat(&xp, [m, i]), -RATE, par);
            })
        }
        Job::Kfac { o, i } => {
            let (u, p, q) = (uniform(o * i, 1), covariance_matrix(i, 2, ours), covariance_matrix(o, 3, ours));
            let (mut up, mut w, par) = (vec![0.0; o * i], vec![0.0; o * i], threads(ours, i));
            Box::new(move || {
                matmul(mat_mut(&mut up, [o, i]), Accum::Replace, mat(&u, [o, i]), mat(&p, [i, i]), 1.0, par);
                matmul(mat_mut(&mut w, [o, i]), Accum::Add, mat(&q, [o, o]), mat(&up, [o, i]), -RATE, par);
            })
        }
        Job::CovarianceBf16 { .. } | Job::CovarianceReduce { .. } | Job::Moments { .. } => return None,
        Job::Woodbury { .. } | Job::ConvWoodbury { .. } => return None,
    };
    Some(work)
}

/// A covariance in faer's own column-major storage.
fn square(n: usize, par: Par) -> Mat<f32> {
    mat(&covariance_matrix(n, 1, par), [n, n]).to_owned()
}

fn covariance(n: usize, d: usize, triangle: Triangle, ours: Par) -> Work {
    let (x, mut out, par) = (uniform(n * d, 1), Mat::<f32>::zeros(d, d), threads(ours, d));
    Box::new(move || symmetric_update(out.as_mut(), mat(&x, [n, d]), 1.0 / n as f32, triangle, par))
}

/// `out <- alpha X^T X`
fn symmetric_update(mut out: MatMut<'_, f32>, x: MatRef<'_, f32>, alpha: f32, triangle: Triangle, par: faer::Par) {
    triangular::matmul(
        out.rb_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        x.transpose(),
        BlockStructure::Rectangular,
        x,
        BlockStructure::Rectangular,
        alpha,
        par,
    );
    if triangle == Triangle::Full {
        mirror(out);
    }
}

/// Unfolds, as everyone does, a group at a time, and updates.
fn conv_covariance(images: Images, triangle: Triangle, ours: Par) -> Work {
    let (conv, n) = (images.conv(), images.n);
    let (groups, d, rows) = (conv.groups(), conv.features(), n * conv.positions());
    let channels = images.c / groups;
    let x = uniform(conv.input_shape(n).iter().product(), 1);
    let mut unfolded = vec![0.0; rows * d];
    let (mut out, par) = (Mat::<f32>::zeros(d, d), threads(ours, d));
    let alpha = 1.0 / n as f32;
    Box::new(move || {
        for group in 0..groups {
            unfold(&mut unfolded, &x, images, group * channels..(group + 1) * channels);
            // Features are rows, as they are written.
            let patches = MatRef::from_row_major_slice(&unfolded, d, rows);
            symmetric_update(out.as_mut(), patches.transpose(), alpha, triangle, par);
        }
    })
}

/// `[features, images and outputs]`, a feature on each thread of the pool.
fn unfold(out: &mut [f32], x: &[f32], images: Images, channels: std::ops::Range<usize>) {
    let Images { n, c, h, k, .. } = images;
    let axis = images.conv().axes3()[2];
    let side = axis.outputs();
    let rows = n * side * side;
    out.par_chunks_exact_mut(rows).enumerate().for_each(|(feature, out)| {
        let (channel, p, q) = (channels.start + feature / (k * k), feature / k % k, feature % k);
        for (line, out) in out.chunks_exact_mut(side).enumerate() {
            let (image, y) = (line / side, line % side);
            let Some(y) = axis.sample(y, p) else {
                out.fill(0.0);
                continue;
            };
            let row = &x[((image * c + channel) * h + y) * h..][..h];
            // Outputs inside the padding, then those whose sample lies in the row.
            let low = (0..side).find(|&at| axis.sample(at, q).is_some()).unwrap_or(side);
            let high = (low..side).rev().find(|&at| axis.sample(at, q).is_some()).map_or(low, |at| at + 1);
            out[..low].fill(0.0);
            out[high..].fill(0.0);
            let samples = row.get(axis.sample(low, q).unwrap_or(0)..).unwrap_or(&[]);
            match images.s {
                1 => out[low..high].copy_from_slice(&samples[..high - low]),
                s => out[low..high].iter_mut().zip(samples.iter().step_by(s)).for_each(|(out, &x)| *out = x),
            }
        }
    });
}

fn inverse(n: usize, triangle: Triangle, ours: Par) -> Work {
    let (a, par) = (square(n, ours), threads(ours, n));
    let (mut l, mut out) = (Mat::zeros(n, n), Mat::<f32>::zeros(n, n));
    let factor = llt::factor::cholesky_in_place_scratch::<f32>(n, par, Default::default());
    let mut memory = MemBuffer::new(factor.or(llt::inverse::inverse_scratch::<f32>(n, par)));
    Box::new(move || {
        damped_factor(a.as_ref(), l.as_mut(), par, MemStack::new(&mut memory));
        llt::inverse::inverse(out.as_mut(), l.as_ref(), par, MemStack::new(&mut memory));
        if triangle == Triangle::Full {
            mirror(out.as_mut());
        }
    })
}

/// A loop over the batch, on all threads of the pool.
fn batched(batch: usize, n: usize, ours: Par) -> Work {
    let (a, mut out) = (covariance_matrices(batch, n, ours), vec![0.0; batch * n * n]);
    let factor = llt::factor::cholesky_in_place_scratch::<f32>(n, faer::Par::Seq, Default::default());
    let scratch = factor.or(llt::inverse::inverse_scratch::<f32>(n, faer::Par::Seq));
    let stretch = batch.div_ceil(ours.degree());
    Box::new(move || {
        out.par_chunks_mut(stretch * n * n).zip(a.par_chunks(stretch * n * n)).for_each(|(out, a)| {
            let (mut memory, mut l) = (MemBuffer::new(scratch), Mat::zeros(n, n));
            for (out, a) in out.chunks_exact_mut(n * n).zip(a.chunks_exact(n * n)) {
                // Symmetric: column-major is row-major.
                damped_factor(
                    MatRef::from_column_major_slice(a, n, n),
                    l.as_mut(),
                    faer::Par::Seq,
                    MemStack::new(&mut memory),
                );
                let mut out = MatMut::from_column_major_slice_mut(out, n, n);
                llt::inverse::inverse(out.rb_mut(), l.as_ref(), faer::Par::Seq, MemStack::new(&mut memory));
                mirror(out);
            }
        });
    })
}

/// As [`batched`].
fn eigen(batch: usize, n: usize, ours: Par) -> Work {
    let (a, mut q) = (covariance_matrices(batch, n, ours), vec![0.0; batch * n * n]);
    let mut values = vec![0.0; batch * n];
    let scratch = self_adjoint_evd_scratch::<f32>(n, ComputeEigenvectors::Yes, faer::Par::Seq, Default::default());
    let stretch = batch.div_ceil(ours.degree());
    Box::new(move || {
        let outputs = values.par_chunks_mut(stretch * n).zip(q.par_chunks_mut(stretch * n * n));
        outputs.zip(a.par_chunks(stretch * n * n)).for_each(|((values, q), a)| {
            let mut memory = MemBuffer::new(scratch);
            let outputs = values.chunks_exact_mut(n).zip(q.chunks_exact_mut(n * n));
            for ((values, q), a) in outputs.zip(a.chunks_exact(n * n)) {
                self_adjoint_evd(
                    MatRef::from_column_major_slice(a, n, n),
                    faer::ColMut::from_slice_mut(values).as_diagonal_mut(),
                    Some(MatMut::from_column_major_slice_mut(q, n, n)),
                    faer::Par::Seq,
                    MemStack::new(&mut memory),
                    Default::default(),
                )
                .expect("converges");
            }
        });
    })
}

fn damped_factor(a: MatRef<'_, f32>, mut out: MatMut<'_, f32>, par: faer::Par, stack: &mut MemStack) {
    out.copy_from_triangular_lower(a);
    for i in 0..out.nrows() {
        out[(i, i)] += DAMPING;
    }
    llt::factor::cholesky_in_place(out, Default::default(), par, stack, Default::default()).expect(POSITIVE);
}

/// Copies the lower triangle to the upper in blocks that stay in the L1 cache: halves until small.
fn mirror(a: MatMut<'_, f32>) {
    let n = a.nrows();
    if n <= SMALL {
        let mut a = a;
        for j in 0..n {
            for i in 0..j {
                a[(i, j)] = a[(j, i)];
            }
        }
        return;
    }
    let (a11, a12, a21, a22) = a.split_at_mut(n / 2, n / 2);
    mirror(a11);
    transpose(a12, a21.as_ref());
    mirror(a22);
}

fn transpose(mut to: MatMut<'_, f32>, from: MatRef<'_, f32>) {
    let (rows, cols) = (to.nrows(), to.ncols());
    if rows.max(cols) <= SMALL {
        to.copy_from(from.transpose());
    } else if rows >= cols {
        let (top, bottom) = to.split_at_row_mut(rows / 2);
        let (left, right) = from.split_at_col(rows / 2);
        transpose(top, left);
        transpose(bottom, right);
    } else {
        let (left, right) = to.split_at_col_mut(cols / 2);
        let (top, bottom) = from.split_at_row(cols / 2);
        transpose(left, top);
        transpose(right, bottom);
    }
}

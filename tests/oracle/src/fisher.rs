//! The Fisher matrix from per-datapoint gradients, and the Kronecker factors, term by term as they are defined.
//!
//! A batch is a slice of matrices, one per datapoint: `x[n]` is `[T, i]` and `e[n]` is `[T, o]`, a row per position
//! (`T = 1` for a dense layer). `vec` is row-major, so a layer's curvature is approximated by `B ⊗ A`.

use crate::Dense;

/// How a factor treats the positions of a weight-shared layer (Eschenhagen et al. 2023).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Every position counts as a datapoint.
    Expand,
    /// Inputs are averaged and errors summed over positions first.
    Reduce,
}

/// Splits `[N T, d]`, datapoint after datapoint, into `N` matrices `[T, d]`.
pub fn datapoints(rows: &Dense, positions: usize) -> Vec<Dense> {
    assert_eq!(rows.rows % positions, 0, "whole datapoints");
    (0..rows.rows / positions).map(|n| rows.block(n * positions..(n + 1) * positions, 0..rows.cols)).collect()
}

/// Stacks the datapoints' rows into `[N T, d]`: the inverse of [`datapoints`].
pub fn stacked(batch: &[Dense]) -> Dense {
    let data: Vec<f64> = batch.iter().flat_map(|x| x.data.clone()).collect();
    let cols = batch.first().map_or(0, |x| x.cols);
    let rows = batch.iter().map(|x| x.rows).sum();
    Dense::from_slice(rows, cols, &data)
}

/// Every row with a constant 1 appended: the input of a layer with bias.
pub fn with_one(batch: &[Dense]) -> Vec<Dense> {
    batch.iter().map(|x| x.beside(&Dense::from_fn(x.rows, 1, |_, _| 1.0))).collect()
}

/// Every row less the mean of all rows (over datapoints and positions).
pub fn centred(batch: &[Dense]) -> Vec<Dense> {
    let rows = stacked(batch);
    let mean = |j| (0..rows.rows).map(|r| rows[(r, j)]).sum::<f64>() / rows.rows as f64;
    let means: Vec<f64> = (0..rows.cols).map(mean).collect();
    batch.iter().map(|x| Dense::from_fn(x.rows, x.cols, |t, j| x[(t, j)] - means[j])).collect()
}

/// The sum of each column, as one row.
pub fn summed_over_rows(x: &Dense) -> Dense {
    Dense::from_fn(1, x.cols, |_, j| (0..x.rows).map(|t| x[(t, j)]).sum())
}

/// One datapoint's gradient as a matrix, `sum_t e_t x_t^T`, `[o, i]`.
pub fn gradient(x: &Dense, e: &Dense) -> Dense {
    e.transpose().matmul(x)
}

/// `[N, o i]`: row `n` is `g_n = vec(sum_t e_nt x_nt^T)`.
pub fn gradients(x: &[Dense], e: &[Dense]) -> Dense {
    assert_eq!(x.len(), e.len(), "datapoints");
    let rows: Vec<Dense> = x.iter().zip(e).map(|(x, e)| gradient(x, e).vec().transpose()).collect();
    stacked(&rows)
}

/// Several layers' gradients side by side, in order: `[N, P]`.
pub fn concatenated(layers: &[Dense]) -> Dense {
    let (first, rest) = layers.split_first().expect("at least one layer");
    rest.iter().fold(first.clone(), |all, g| all.beside(g))
}

/// The mean gradient `U = (1/N) sum_n sum_t e_nt x_nt^T`, `[o, i]`.
pub fn mean_gradient(x: &[Dense], e: &[Dense]) -> Dense {
    mean(x.iter().zip(e).map(|(x, e)| gradient(x, e)))
}

/// `F = (1/N) sum_r g_r g_r^T` over the rows of `g`, `[P, P]`. There may be more rows than datapoints `N`: the full
/// Fisher has one for each datapoint and label.
pub fn fisher(g: &Dense, datapoints: usize) -> Dense {
    g.transpose().matmul(g).scaled(1.0 / datapoints as f64)
}

/// `G^T G` with `G = [g_1 .. g_N] / sqrt N`, `[N, N]`: entry `(n, m)` is `g_n . g_m / N`.
pub fn gram(g: &Dense) -> Dense {
    g.matmul(&g.transpose()).scaled(1.0 / g.rows as f64)
}

/// `A`, `[i, i]`. Expand: `(1/N) sum_{n,t} x_nt x_nt^T`. Reduce: `(1/N) sum_n xbar_n xbar_n^T`, the mean over `t`.
pub fn input_factor(x: &[Dense], sharing: Sharing) -> Dense {
    mean(x.iter().map(|x| match sharing {
        Sharing::Expand => gradient(x, x),
        Sharing::Reduce => {
            let xbar = summed_over_rows(x).scaled(1.0 / x.rows as f64);
            gradient(&xbar, &xbar)
        }
    }))
}

/// `B`, `[o, o]`. Expand: `(1/(N T)) sum_{n,t} e_nt e_nt^T`. Reduce: `(1/N) sum_n ebar_n ebar_n^T`, the sum over `t`.
pub fn error_factor(e: &[Dense], sharing: Sharing) -> Dense {
    mean(e.iter().map(|e| match sharing {
        Sharing::Expand => gradient(e, e).scaled(1.0 / e.rows as f64),
        Sharing::Reduce => {
            let ebar = summed_over_rows(e);
            gradient(&ebar, &ebar)
        }
    }))
}

/// EK-FAC's second moments `(1/N) sum_n (Q_B^T G_n Q_A)^2`, the square entrywise, `[o, i]`.
pub fn eigenbasis_moments(x: &[Dense], e: &[Dense], q_a: &Dense, q_b: &Dense) -> Dense {
    mean(x.iter().zip(e).map(|(x, e)| {
        let projected = q_b.transpose().matmul(&gradient(x, e)).matmul(q_a);
        projected.hadamard(&projected)
    }))
}

/// The mean of equally shaped matrices.
fn mean(terms: impl Iterator<Item = Dense>) -> Dense {
    let terms: Vec<Dense> = terms.collect();
    let (first, rest) = terms.split_first().expect("at least one datapoint");
    rest.iter().fold(first.clone(), |sum, term| sum.plus(term)).scaled(1.0 / terms.len() as f64)
}

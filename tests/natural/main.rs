//! What is made of the exact Fisher matrix: the optimiser `NaturalGradient`, Fisher-vector products, Laplace's posterior; against PyTorch's
//! vectors and dense oracles.

mod adaptive;
#[path = "../optimizers/batch.rs"]
#[expect(dead_code, reason = "shared with the tests of the other optimisers")]
mod batch;
mod fisher;
mod golden;
mod laplace;
#[path = "../woodbury/network.rs"]
#[expect(dead_code, reason = "shared with the tests of the sums")]
mod network;
mod optimizer;
mod sizes;

use foof::{Error, MatMut, MemBuffer, MemStack, StackReq};
use foof_oracle::Dense;
use foof_oracle::approx::Approx;

/// `(F + lambda I)^-1 u` for `F = (1/N) sum_r g_r g_r^T` as it is computed: `(u - G w) / lambda`, `w = (lambda I + G^T G)^-1 G^T u`. `gram_error` is
/// what the entries of `G^T G` are off by beyond products of the rows of `g`.
fn woodbury(g: &Approx, n: usize, u: &Approx, lambda: f64, gram_error: f64) -> Approx {
    let root = 1.0 / (n as f64).sqrt();
    let gram = g.matmul(&g.transpose()).scaled(1.0 / n as f64);
    let error = gram.error + gram_error;
    let w = gram.with_error(error).damped_inverse(lambda).matmul(&g.matmul(u).scaled(root));
    u.plus(&g.transpose().matmul(&w).scaled(-root)).scaled(1.0 / lambda)
}

/// Whether `f` gives `expected` with scratch of `req`, and refuses one byte less.
#[track_caller]
fn asks_for_enough<R: PartialEq + core::fmt::Debug>(
    req: StackReq,
    expected: &R,
    mut f: impl FnMut(&mut MemStack) -> Result<R, Error>,
) {
    let mut memory = MemBuffer::new(req);
    let stack = MemStack::new(&mut memory);
    assert_eq!(f(stack).as_ref(), Ok(expected));
    let bytes = req.size_bytes();
    let less = StackReq::new_aligned::<u8>(bytes - 1, req.align_bytes());
    let mut memory = MemBuffer::new(less);
    let error = f(MemStack::new(&mut memory)).expect_err("one byte less");
    assert!(matches!(error, Error::Scratch { .. }), "{error}");
}

/// The matrices one after the other, each row-major, as a column.
fn flat(parts: &[Dense]) -> Dense {
    let values: Vec<f64> = parts.iter().flat_map(|part| part.data.clone()).collect();
    Dense::from_slice(values.len(), 1, &values)
}

/// Matrices of these shapes in `memory`.
fn split<'a>(mut memory: &'a mut [f64], shapes: &[[usize; 2]]) -> Vec<MatMut<'a, f64>> {
    let part = |&shape: &[usize; 2]| {
        let (part, rest) = core::mem::take(&mut memory).split_at_mut(shape[0] * shape[1]);
        memory = rest;
        MatMut::new(part, shape).expect("a view")
    };
    shapes.iter().map(part).collect()
}

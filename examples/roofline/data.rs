//! Inputs of the measurements: seeded, so that every side works on the same numbers.

use dyn_stack::{MemBuffer, MemStack};
use foof_kernels::covariance::{Bias, Sharing, Spec, covariance, scratch};
use foof_kernels::{Blend, MatMut, Par, Triangle, View};

/// Added to every diagonal before it is factored.
pub const DAMPING: f32 = 0.1;

/// The learning rate that products are accumulated with: `W <- W - RATE dW`.
pub const RATE: f32 = 1e-3;

/// `len` numbers in `[-1, 1)` by xorshift64.
pub fn uniform(len: usize, seed: u64) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ seed.wrapping_mul(0xD134_2543_DE82_EF95);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The covariance of `n` random rows of length `n`, full: positive semidefinite, well conditioned once damped.
pub fn covariance_matrix(n: usize, seed: u64, par: Par) -> Vec<f32> {
    let x = uniform(n * n, seed);
    let mut out = vec![0.0; n * n];
    let spec = dense(n, Triangle::Full);
    let mut memory = MemBuffer::new(scratch::<f32>([n, 1, n], Bias::Without, Sharing::Expand, par));
    let rows = View::new(&x, [n, 1, n]).expect("n rows of n");
    covariance(MatMut::new(&mut out, [n, n]).expect("n x n"), rows, &spec, par, MemStack::new(&mut memory));
    out
}

/// `batch` different ones, one after the other.
pub fn covariance_matrices(batch: usize, n: usize, par: Par) -> Vec<f32> {
    (0..batch).flat_map(|index| covariance_matrix(n, 1 + index as u64, par)).collect()
}

/// `X^T X / n` of dense activations.
pub fn dense(n: usize, triangle: Triangle) -> Spec<'static, f32> {
    Spec {
        sharing: Sharing::Expand,
        reduce_scale: 1.0,
        bias: Bias::Without,
        centre: None,
        triangle,
        blend: Blend::set(1.0 / n as f32),
    }
}

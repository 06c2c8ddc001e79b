//! Seeded random data: normals, small integers, matrices of prescribed spectrum.

use crate::Dense;

/// SplitMix64 (Steele, Lea and Flood 2014): small, seedable by any number, good enough for test data.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform on `(0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Uniform on `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// An integer in `-bound..=bound`.
    pub fn integer(&mut self, bound: usize) -> f64 {
        self.below(2 * bound + 1) as f64 - bound as f64
    }

    /// A matrix of standard normals.
    pub fn normals(&mut self, rows: usize, cols: usize) -> Dense {
        Dense::from_fn(rows, cols, |_, _| self.normal())
    }

    /// A matrix of integers in `-bound..=bound`.
    pub fn integers(&mut self, rows: usize, cols: usize, bound: usize) -> Dense {
        Dense::from_fn(rows, cols, |_, _| self.integer(bound))
    }

    /// A permutation of `0..n` (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// `Q diag(spectrum) Q^T` with a random orthogonal `Q`, exactly symmetric: the identity's columns are reflected by `n`
    /// Householder reflections `H = I - 2 v v^T / v^T v` from both sides.
    pub fn symmetric(&mut self, spectrum: &[f64]) -> Dense {
        let n = spectrum.len();
        let q = self.orthogonal(n);
        let product = q.matmul(&Dense::diagonal(spectrum)).matmul(&q.transpose());
        Dense::from_fn(n, n, |i, j| product[(i.max(j), i.min(j))])
    }

    /// A random orthogonal matrix: a product of `n` Householder reflections of random normal vectors.
    pub fn orthogonal(&mut self, n: usize) -> Dense {
        let mut q = Dense::identity(n);
        for _ in 0..n {
            let v = self.normals(n, 1);
            let scale = 2.0 / v.frobenius().powi(2);
            q = q.minus(&v.matmul(&v.transpose().matmul(&q)).scaled(scale));
        }
        q
    }
}

/// `n` numbers from 1 down to `1 / condition`, evenly spaced in their logarithm.
pub fn log_spectrum(n: usize, condition: f64) -> Vec<f64> {
    let steps = n.saturating_sub(1).max(1) as f64;
    (0..n).map(|k| condition.powf(-(k as f64) / steps)).collect()
}

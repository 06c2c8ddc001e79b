//! What a layer's outputs go through before the next layer reads them, on the rows of a mini-batch.

use rayon::prelude::*;

/// Chunks of rows with fewer numbers than this are not worth another thread.
const GRAIN: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Linear,
    Relu,
    Tanh,
}

impl Activation {
    /// Replaces the first `width` numbers of each row (of `stride` numbers) by their activations.
    pub fn apply(self, rows: &mut [f32], stride: usize, width: usize) {
        match self {
            Activation::Linear => {}
            Activation::Relu => map_rows(rows, stride, width, |s| s.max(0.0)),
            Activation::Tanh => map_rows(rows, stride, width, tanh),
        }
    }

    /// Multiplies errors (`width` a row) by the derivative, which each activation knows from its own result
    /// (rows of `stride` numbers, of which the first `width` count).
    pub fn backpropagate(self, errors: &mut [f32], width: usize, results: &[f32], stride: usize) {
        let relu = |error, x| if x > 0.0 { error } else { 0.0 };
        match self {
            Activation::Linear => {}
            Activation::Relu => zip_rows(errors, width, results, stride, relu),
            Activation::Tanh => zip_rows(errors, width, results, stride, |error, x| error * (1.0 - x * x)),
        }
    }

    /// The variance that a weight should start with, times the number of a layer's inputs, to keep the scale of what
    /// flows through the layer that follows this activation (Kaiming He et al. 2015 for ReLU).
    pub fn gain_squared(self) -> f32 {
        match self {
            Activation::Linear | Activation::Tanh => 1.0,
            Activation::Relu => 2.0,
        }
    }
}

fn map_rows(rows: &mut [f32], stride: usize, width: usize, f: impl Fn(f32) -> f32 + Sync) {
    let rows = rows.par_chunks_mut(stride).with_min_len(GRAIN.div_ceil(stride));
    rows.for_each(|row| row[..width].iter_mut().for_each(|s| *s = f(*s)));
}

fn zip_rows(errors: &mut [f32], width: usize, results: &[f32], stride: usize, f: impl Fn(f32, f32) -> f32 + Sync) {
    let rows = errors.par_chunks_mut(width).zip(results.par_chunks(stride));
    rows.with_min_len(GRAIN.div_ceil(width)).for_each(|(row, result)| {
        for (error, &x) in row.iter_mut().zip(result) {
            *error = f(*error, x);
        }
    });
}

/// tanh to an absolute error of a few units roundoff, as `1 - 2 / (exp(2|x|) + 1)` with the sign put back. Unlike the
/// library's it has no branch and no call, so a loop over it becomes vector instructions; hundreds of thousands a step
/// would otherwise cost as much as a matrix product.
fn tanh(x: f32) -> f32 {
    // From 10 on, tanh rounds to 1. (Not `min`, which would turn NaN into 10.)
    let size = if x.abs() > 10.0 { 10.0 } else { x.abs() };
    let y = size * (2.0 * std::f32::consts::LOG2_E);
    // exp(2|x|) = 2^y = 2^whole 2^part, |part| <= 1/2. Adding 1.5 2^23 rounds y to a whole number, which is then
    // found in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = y + ROUND;
    let part = (y - (shifted - ROUND)) * std::f32::consts::LN_2;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    // Taylor's series of exp: the next term is below 2^-27 of the sum.
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let exp = power * series.iter().fold(0.0, |sum, term| sum * part + term);
    (1.0 - 2.0 / (exp + 1.0)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_is_right_to_a_few_units_roundoff() {
        for step in -120_000..=120_000 {
            let x = step as f32 * 1e-4;
            // The rounded y costs |x| exp(2|x|) / (exp(2|x|) + 1)^2 <= 1/8 times a few units; the series, the quotient
            // and the subtraction a unit or so each.
            let error = f64::from(tanh(x)) - f64::from(x).tanh();
            assert!(error.abs() <= 8.0 * f64::from(f32::EPSILON) / 2.0, "tanh({x}): {error:e}");
        }
        assert!(tanh(f32::NAN).is_nan());
        assert_eq!([tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)], [1.0, -1.0]);
    }

    #[test]
    fn the_padding_of_a_row_is_left_alone() {
        let mut rows = vec![-1.0, 2.0, 1.0, 3.0, -4.0, 1.0];
        Activation::Relu.apply(&mut rows, 3, 2);
        assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 0.0, 1.0]);
        let mut errors = vec![5.0, 6.0, 7.0, 8.0];
        Activation::Relu.backpropagate(&mut errors, 2, &rows, 3);
        assert_eq!(errors, [0.0, 6.0, 7.0, 0.0]);
    }
}

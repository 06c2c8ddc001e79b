//! One datapoint's probabilities, computed in `f64` from whatever is given.

use super::{Loss, Outputs};
use crate::dense::check_finite;
use crate::error::check_parameter;
use crate::{Element, Error, MatRef};

/// Which rows of numbers are probabilities.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Rows {
    /// Each in `[0, 1]`.
    Separate,
    /// They also sum to one.
    Distribution,
}

/// How far a sum of `classes` probabilities in `T` may be from one: the quotients of a softmax by its own sum are off by `gamma_(C+1)`
/// together, and so is a softmax that takes logarithms, whose further roundings are few; twice that is allowed.
fn allowed<T: Element>(classes: usize) -> f64 {
    2.0 * (classes + 8) as f64 * T::UNIT_ROUNDOFF.to_f64()
}

/// The first row that is not what it should be is an error.
pub(super) fn check_rows<T: Element>(argument: &'static str, p: MatRef<'_, T>, rows: Rows) -> Result<(), Error> {
    let [n, classes] = p.shape();
    for row in 0..n {
        let mut sum = 0.0;
        for c in 0..classes {
            let value = p.at([row, c]).to_f64();
            // Comparisons with NaN fail.
            if !(0.0..=1.0 + allowed::<T>(classes)).contains(&value) {
                return Err(Error::Row { argument, row, value, expected: "numbers in [0, 1]" });
            }
            sum += value;
        }
        if rows == Rows::Distribution && (sum - 1.0).abs() > allowed::<T>(classes) {
            return Err(Error::Row { argument, row, value: sum, expected: "probabilities that sum to one" });
        }
    }
    Ok(())
}

/// Whether the outputs are a batch that the loss can be taken of; returns `[N, C]`.
pub(super) fn check_outputs<T: Element>(loss: Loss, outputs: Outputs<'_, T>) -> Result<[usize; 2], Error> {
    let (view, argument) = (outputs.view(), outputs.argument());
    let shape @ [n, classes] = view.shape();
    if n == 0 || classes == 0 {
        return Err(Error::EmptyBatch { argument, shape: shape.to_vec() });
    }
    match (outputs, loss) {
        (Outputs::Logits(_), _) => check_finite(argument, view)?,
        (Outputs::Probabilities(p), Loss::SoftmaxCrossEntropy) => check_rows(argument, p, Rows::Distribution)?,
        (Outputs::Probabilities(p), Loss::SigmoidCrossEntropy) => check_rows(argument, p, Rows::Separate)?,
        (Outputs::Probabilities(_), Loss::SquaredError) => {
            check_parameter(argument, classes as f64, false, "logits: squared error has no probabilities")?;
        }
    }
    Ok(shape)
}

/// A datapoint's outputs.
#[derive(Clone, Copy)]
pub(super) struct Row<'a, T> {
    outputs: Outputs<'a, T>,
    n: usize,
    /// Of a softmax of logits: the largest, and the sum of `exp(s - largest)`.
    softmax: Option<(f64, f64)>,
}

impl<'a, T: Element> Row<'a, T> {
    /// Row `n` of checked outputs.
    pub(super) fn new(loss: Loss, outputs: Outputs<'a, T>, n: usize) -> Self {
        let softmax = match (loss, outputs) {
            (Loss::SoftmaxCrossEntropy, Outputs::Logits(s)) => {
                let logits = (0..s.cols()).map(|c| s.at([n, c]).to_f64());
                let largest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
                Some((largest, logits.map(|s| (s - largest).exp()).sum()))
            }
            _ => None,
        };
        Row { outputs, n, softmax }
    }

    /// `s_c`, or `p_c`, as given.
    pub(super) fn given(&self, c: usize) -> f64 {
        self.outputs.view().at([self.n, c]).to_f64()
    }

    /// `p_c`.
    pub(super) fn probability(&self, c: usize) -> f64 {
        match (self.outputs, self.softmax) {
            (Outputs::Probabilities(_), _) => self.given(c),
            (Outputs::Logits(_), Some((largest, sum))) => (self.given(c) - largest).exp() / sum,
            (Outputs::Logits(_), None) => (1.0 + (-self.given(c)).exp()).recip(),
        }
    }

    /// `1 - p_c`, of a sigmoid without cancellation.
    pub(super) fn complement(&self, c: usize) -> f64 {
        match (self.outputs, self.softmax) {
            (Outputs::Logits(_), None) => (1.0 + self.given(c).exp()).recip(),
            _ => 1.0 - self.probability(c),
        }
    }
}

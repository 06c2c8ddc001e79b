//! Errors of given labels, and of all labels.

use super::row::{Row, Rows, check_outputs, check_rows};
use super::{Labels, Loss, Outputs};
use crate::dense::check_finite;
use crate::error::{check_parameter, check_shape};
use crate::{Element, Error, MatMut, MatRef};

/// The errors `dL_n/ds_n` of given labels, `out` `[N, C]`: `s - y` for squared error; `p - onehot(y)`, or `p - y`, for softmax cross-entropy;
/// `p - y` for sigmoid cross-entropy. With the data's labels they give the gradient, and the empirical Fisher.
///
/// # Errors
/// [`Error::Shape`]; [`Error::EmptyBatch`]; [`Error::NotFinite`] logits or targets; [`Error::Row`] for probabilities that are not in `[0, 1]`
/// or do not sum to one, and for labels out of range; [`Error::Parameter`] for probabilities of squared error, or classes of another loss
/// than softmax cross-entropy; `out` as it was.
pub fn label_errors<T: Element>(
    mut out: MatMut<'_, T>,
    loss: Loss,
    outputs: Outputs<'_, T>,
    labels: Labels<'_, T>,
) -> Result<(), Error> {
    let shape @ [n, classes] = check_outputs(loss, outputs)?;
    check_shape("out", &shape, &out.shape())?;
    match labels {
        Labels::Classes(labels) => check_classes(loss, labels, shape)?,
        Labels::Targets(targets) => check_targets(loss, targets, shape)?,
    }
    for row in 0..n {
        let of = Row::new(loss, outputs, row);
        for c in 0..classes {
            let target = match labels {
                Labels::Classes(labels) => f64::from(u8::from(labels[row] == c)),
                Labels::Targets(targets) => targets.at([row, c]).to_f64(),
            };
            out.set([row, c], T::from_f64(error(loss, &of, c, target)));
        }
    }
    Ok(())
}

/// `dL/ds_c` for the target `y_c`.
pub(super) fn error<T: Element>(loss: Loss, row: &Row<'_, T>, c: usize, target: f64) -> f64 {
    match loss {
        Loss::SquaredError => row.given(c) - target,
        _ if target == 1.0 => -row.complement(c),
        _ => row.probability(c) - target,
    }
}

fn check_classes(loss: Loss, labels: &[usize], [n, classes]: [usize; 2]) -> Result<(), Error> {
    let fits = loss == Loss::SoftmaxCrossEntropy;
    check_parameter("labels", classes as f64, fits, "targets: classes are labels of softmax cross-entropy")?;
    check_shape("labels", &[n], &[labels.len()])?;
    match labels.iter().position(|&label| label >= classes) {
        None => Ok(()),
        Some(row) => {
            let value = labels[row] as f64;
            Err(Error::Row { argument: "labels", row, value, expected: "a class less than the number of outputs" })
        }
    }
}

fn check_targets<T: Element>(loss: Loss, targets: MatRef<'_, T>, shape: [usize; 2]) -> Result<(), Error> {
    check_shape("targets", &shape, &targets.shape())?;
    match loss {
        Loss::SquaredError => check_finite("targets", targets),
        Loss::SoftmaxCrossEntropy => check_rows("targets", targets, Rows::Distribution),
        Loss::SigmoidCrossEntropy => check_rows("targets", targets, Rows::Separate),
    }
}

/// The errors of all labels, `out` `[N C, C]`: `C` rows `r_c` for each datapoint, next to each other, with `sum_c r_c r_c^T` the loss's Hessian
/// in the output. For softmax cross-entropy `r_c = sqrt(p_c) (p - onehot(c))`, the errors of all labels weighted by `sqrt(p_c)`; for
/// sigmoid cross-entropy `sqrt(p_c (1 - p_c)) onehot(c)`; for squared error `onehot(c)`. Backpropagated, they give the full Fisher, which is
/// the generalised Gauss-Newton matrix, as a mean over the `N` datapoints.
///
/// # Errors
/// As [`label_errors`].
pub fn full_errors<T: Element>(mut out: MatMut<'_, T>, loss: Loss, outputs: Outputs<'_, T>) -> Result<(), Error> {
    let [n, classes] = check_outputs(loss, outputs)?;
    check_shape("out", &[n.saturating_mul(classes), classes], &out.shape())?;
    for row in 0..n {
        let of = Row::new(loss, outputs, row);
        for label in 0..classes {
            let weight = match loss {
                Loss::SquaredError => 1.0,
                Loss::SoftmaxCrossEntropy => of.probability(label).sqrt(),
                Loss::SigmoidCrossEntropy => (of.probability(label) * of.complement(label)).sqrt(),
            };
            for c in 0..classes {
                let target = f64::from(u8::from(c == label));
                let value = match loss {
                    Loss::SoftmaxCrossEntropy => error(loss, &of, c, target),
                    _ => target,
                };
                out.set([row * classes + label, c], T::from_f64(weight * value));
            }
        }
    }
    Ok(())
}

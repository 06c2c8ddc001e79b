//! Labels that the model itself would give.

use super::errors::error;
use super::row::{Row, check_outputs};
use super::{Loss, Outputs};
use crate::error::check_shape;
use crate::{Element, Error, MatMut, Sampler};

/// A class from each row's distribution, by inversion: one uniform number for each row, so that equal samplers give equal classes. The classes
/// whose errors [`sampled_errors`] takes.
///
/// # Errors
/// As [`label_errors`](super::label_errors); `classes` and the sampler as they were.
pub fn sample_classes<T: Element>(
    classes: &mut [usize],
    outputs: Outputs<'_, T>,
    sampler: &mut Sampler,
) -> Result<(), Error> {
    let [n, count] = check_outputs(Loss::SoftmaxCrossEntropy, outputs)?;
    check_shape("classes", &[n], &[classes.len()])?;
    for (n, class) in classes.iter_mut().enumerate() {
        *class = draw(&Row::new(Loss::SoftmaxCrossEntropy, outputs, n), count, sampler);
    }
    Ok(())
}

/// A class from the distribution of a row.
fn draw<T: Element>(row: &Row<'_, T>, classes: usize, sampler: &mut Sampler) -> usize {
    let (mut left, mut last) = (sampler.uniform(), 0);
    for c in 0..classes {
        let p = row.probability(c);
        if p > 0.0 {
            if left < p {
                return c;
            }
            last = c;
        }
        left -= p;
    }
    // Probabilities may sum to a little less than one: then the last class that is possible.
    last
}

/// The errors `dL_n/ds_n` of one label for each datapoint sampled from the model, `out` `[N, C]`: a class of `softmax(s)`; a bit for each output
/// of sigmoid cross-entropy; a target from `N(s, I)`, so that the errors are standard normals. They give the Monte Carlo Fisher.
///
/// Numbers are drawn in the order of rows, whatever the threads.
///
/// # Errors
/// As [`label_errors`](super::label_errors); `out` and the sampler as they were.
pub fn sampled_errors<T: Element>(
    mut out: MatMut<'_, T>,
    loss: Loss,
    outputs: Outputs<'_, T>,
    sampler: &mut Sampler,
) -> Result<(), Error> {
    let shape @ [n, classes] = check_outputs(loss, outputs)?;
    check_shape("out", &shape, &out.shape())?;
    for row in 0..n {
        let of = Row::new(loss, outputs, row);
        let class = if loss == Loss::SoftmaxCrossEntropy { draw(&of, classes, sampler) } else { classes };
        for c in 0..classes {
            let value = match loss {
                Loss::SquaredError => sampler.normal(),
                Loss::SoftmaxCrossEntropy => T::from_f64(error(loss, &of, c, f64::from(u8::from(c == class)))),
                Loss::SigmoidCrossEntropy => {
                    let bit = sampler.uniform() < of.probability(c);
                    T::from_f64(error(loss, &of, c, f64::from(u8::from(bit))))
                }
            };
            out.set([row, c], value);
        }
    }
    Ok(())
}

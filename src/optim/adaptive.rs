//! Step, momentum and damping from the exact quadratic model of the loss (Martens & Grosse 2015, sections 6.4 to 7).

use crate::dense::{temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch};
use crate::woodbury::batch::{check_batch, check_each};
use crate::woodbury::steps::{dots_of, matrix_dots_scratch};
use crate::woodbury::{Direction, LayerBatch};
use crate::{Element, Error, MatRef, MemStack, Par, StackReq};

/// The model `M(delta) - M(0) = grad . delta + delta^T (F + c I) delta / 2` of a loss `h`, for changes `delta = alpha D + mu D_prev` of the
/// weights in two directions; `c = lambda + r`, damping and the coefficient of an l2 penalty `r |W|²/2` that `h` contains (whose gradient is
/// then part of `grad`). `F` enters by `G^T D` and `G^T D_prev` only: step (1) of [`woodbury`](crate::woodbury), twice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct QuadraticModel {
    /// `[D . F D, D . F D_prev, D_prev . F D_prev]`
    pub curvatures: [f64; 3],
    /// `[D . D, D . D_prev, D_prev . D_prev]`
    pub products: [f64; 3],
    /// `[grad . D, grad . D_prev]`
    pub slopes: [f64; 2],
}

/// Where a model is least.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ModelStep {
    /// The step along `D`: negative where `D` is a preconditioned gradient.
    pub alpha: f64,
    /// The momentum.
    pub mu: f64,
    /// `M(delta) - M(0)`, never positive.
    pub change: f64,
}

impl QuadraticModel {
    /// The model of the Fisher matrix of `batch` and the gradient `gradient`, along `direction` (`D`) and, if there is one, `previous` (`D_prev`):
    /// one matrix of the weights' shape for each layer. Sums over weights and rows in `f64`.
    ///
    /// # Errors
    /// As [`gradient_dots`](crate::woodbury::gradient_dots), and [`Error::Shape`] for gradients or directions of other shapes.
    pub fn new<T: Element>(
        batch: &[LayerBatch<'_, T>],
        gradient: &[Direction<'_, T>],
        direction: &[MatRef<'_, T>],
        previous: Option<&[MatRef<'_, T>]>,
        par: Par,
        stack: &mut MemStack,
    ) -> Result<Self, Error> {
        let [rows, _] = check_batch(batch)?;
        check_each("gradient", batch, gradient.iter().map(Direction::shape))?;
        check_scratch(stack, Self::scratch(batch, gradient, par))?;
        let (mut one, stack) = temporary::<T>(stack, rows);
        let (mut two, stack) = temporary::<T>(stack, rows);
        dots_of(&mut one, batch, matrices(direction), par, stack)?;
        if let Some(previous) = previous {
            dots_of(&mut two, batch, matrices(previous), par, stack)?;
        }
        let previous = previous.unwrap_or_default();
        let form = |a: &[T], b: &[T]| a.iter().zip(b).map(|(&a, &b)| Element::to_f64(a) * Element::to_f64(b)).sum();
        Ok(QuadraticModel {
            curvatures: [form(&one, &one), form(&one, &two), form(&two, &two)],
            products: [product(direction, direction), product(direction, previous), product(previous, previous)],
            slopes: [slope(gradient, direction, par, stack)?, slope(gradient, previous, par, stack)?],
        })
    }

    /// Scratch of [`QuadraticModel::new`].
    pub fn scratch<T: Element>(batch: &[LayerBatch<'_, T>], gradient: &[Direction<'_, T>], par: Par) -> StackReq {
        model_scratch(batch, gradient.iter().copied(), par)
    }

    /// [`QuadraticModel::new`] with scratch of its own.
    ///
    /// # Errors
    /// As [`QuadraticModel::new`].
    pub fn new_alloc<T: Element>(
        batch: &[LayerBatch<'_, T>],
        gradient: &[Direction<'_, T>],
        direction: &[MatRef<'_, T>],
        previous: Option<&[MatRef<'_, T>]>,
        par: Par,
    ) -> Result<Self, Error> {
        let req = Self::scratch(batch, gradient, par);
        with_scratch(req, |stack| Self::new(batch, gradient, direction, previous, par, stack))
    }

    /// `[a, b; b, d]` of `alpha` and `mu`.
    fn matrix(&self, c: f64) -> [f64; 3] {
        core::array::from_fn(|k| self.curvatures[k] + c * self.products[k])
    }

    /// `M(delta) - M(0)` for `delta = alpha D + mu D_prev` and `c = lambda + r`.
    pub fn change(&self, alpha: f64, mu: f64, c: f64) -> f64 {
        let ([a, b, d], [g, h]) = (self.matrix(c), self.slopes);
        alpha * g + mu * h + (alpha * alpha * a + 2.0 * alpha * mu * b + mu * mu * d) / 2.0
    }

    /// The least of the model along `D` alone: `alpha = -(grad . D) / (D . F D + c D . D)`; nothing where `D` is zero.
    ///
    /// # Errors
    /// [`Error::Parameter`] for `c` that is not positive and finite; [`Error::NotFinite`] for a model that is not.
    pub fn step(&self, c: f64) -> Result<ModelStep, Error> {
        let [a, ..] = self.checked(c)?;
        let alpha = if a > 0.0 { -self.slopes[0] / a } else { 0.0 };
        Ok(ModelStep { alpha, mu: 0.0, change: self.change(alpha, 0.0, c) })
    }

    /// The least of the model in both directions, by elimination:
    /// ```text
    /// [alpha; mu] = -[D.FD + c |D|², D.F D_prev + c D.D_prev; (sym.), D_prev.F D_prev + c |D_prev|²]^-1 [grad.D; grad.D_prev]
    /// ```
    /// Where `D_prev` is zero, or parallel to `D` up to rounding, as [`step`](Self::step).
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_with_momentum(&self, c: f64) -> Result<ModelStep, Error> {
        let [a, b, d] = self.checked(c)?;
        let [g, h] = self.slopes;
        let ratio = b / a;
        let pivot = d - ratio * b;
        // The pivot is off by a few roundings of `d`; it is NaN where D is zero.
        if pivot.is_nan() || pivot <= 8.0 * f64::EPSILON * d {
            return self.step(c);
        }
        let mu = -(h - ratio * g) / pivot;
        let alpha = -(g + b * mu) / a;
        Ok(ModelStep { alpha, mu, change: self.change(alpha, mu, c) })
    }

    fn checked(&self, c: f64) -> Result<[f64; 3], Error> {
        check_parameter("c", c, c > 0.0 && c.is_finite(), "a positive finite number")?;
        let matrix = self.matrix(c);
        match matrix.iter().chain(&self.slopes).position(|x| !x.is_finite()) {
            None => Ok(matrix),
            Some(index) => Err(Error::NotFinite { argument: "the model", index: vec![index] }),
        }
    }
}

/// Scratch of [`QuadraticModel::new`], of gradients in no list.
pub(super) fn model_scratch<'u, T: Element>(
    batch: &[LayerBatch<'_, T>],
    gradient: impl Iterator<Item = Direction<'u, T>>,
    par: Par,
) -> StackReq {
    let rows = batch.first().map_or(0, LayerBatch::rows);
    let dots = batch.iter().map(|layer| matrix_dots_scratch(layer, par)).fold(StackReq::EMPTY, StackReq::or);
    let slopes = gradient.map(|gradient| match gradient {
        Direction::Matrix(_) => StackReq::EMPTY,
        Direction::LowRank { batch, .. } => temporary_scratch::<T>(batch.rows()).and(matrix_dots_scratch(&batch, par)),
    });
    StackReq::all_of(&[temporary_scratch::<T>(rows); 2]).and(slopes.fold(dots, StackReq::or))
}

fn matrices<'s, 'a, T: Element>(
    of: &'s [MatRef<'a, T>],
) -> impl ExactSizeIterator<Item = Direction<'a, T>> + Clone + use<'s, 'a, T> {
    of.iter().map(|&m| Direction::Matrix(m))
}

/// `sum_l <A_l, B_l>`
fn product<T: Element>(a: &[MatRef<'_, T>], b: &[MatRef<'_, T>]) -> f64 {
    a.iter().zip(b).map(|(a, b)| entries(*a).zip(entries(*b)).map(|(a, b)| a * b).sum::<f64>()).sum()
}

fn entries<T: Element>(a: MatRef<'_, T>) -> impl Iterator<Item = f64> {
    (0..a.rows()).flat_map(move |i| (0..a.cols()).map(move |j| Element::to_f64(a.at([i, j]))))
}

/// `grad . D`, with checked gradients and as many directions or none; of a low-rank gradient by step (1) of its own rows.
fn slope<T: Element>(
    gradient: &[Direction<'_, T>],
    direction: &[MatRef<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<f64, Error> {
    let mut sum = 0.0;
    for (gradient, direction) in gradient.iter().zip(direction) {
        sum += match gradient {
            Direction::Matrix(u) => product(&[*u], &[*direction]),
            Direction::LowRank { batch, scale } => {
                let (mut dots, stack) = temporary::<T>(stack, batch.rows());
                dots_of(&mut dots, &[*batch], matrices(&[*direction]), par, stack)?;
                let root = (batch.datapoints() as f64).sqrt();
                Element::to_f64(*scale) * root * dots.iter().map(|&dot| Element::to_f64(dot)).sum::<f64>()
            }
        };
    }
    Ok(sum)
}

/// `rho = (h(W + delta) - h(W)) / (M(delta) - M(0))`: how much of the predicted decrease came true; the caller supplies the losses of one mini-batch.
///
/// # Errors
/// [`Error::Parameter`] for a loss that is not finite, or a prediction that is not negative.
pub fn reduction_ratio(before: f64, after: f64, predicted: f64) -> Result<f64, Error> {
    for (name, loss) in [("before", before), ("after", after)] {
        check_parameter(name, loss, loss.is_finite(), "a finite loss")?;
    }
    check_parameter("predicted", predicted, predicted < 0.0 && predicted.is_finite(), "a negative finite number")?;
    Ok((after - before) / predicted)
}

/// Levenberg and Marquardt's rule for the damping, every `T1` steps: smaller where the model is trusted, larger where it is not.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LevenbergMarquardt {
    /// `T1`, at least 1.
    pub period: u64,
    /// `omega = base^T1`: in `(0, 1)`.
    pub base: f64,
    /// The damping never leaves these.
    pub range: [f64; 2],
}

impl Default for LevenbergMarquardt {
    /// `T1 = 5`, `omega = (19/20)^T1`, between `1e-12` and `1e12`.
    fn default() -> Self {
        LevenbergMarquardt { period: 5, base: 19.0 / 20.0, range: [1e-12, 1e12] }
    }
}

impl LevenbergMarquardt {
    /// Whether the damping is adjusted after `steps` steps.
    pub fn is_due(&self, steps: u64) -> bool {
        steps > 0 && steps.is_multiple_of(self.period.max(1))
    }

    /// The next damping: `omega lambda` if `rho > 3/4`, `lambda / omega` if `rho < 1/4`, else `lambda`. For
    /// [`Optimizer::set_damping`](super::Optimizer::set_damping) of any method.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a damping that is not positive and finite, a ratio that is NaN, or fields outside their range.
    pub fn adjusted(&self, damping: f64, ratio: f64) -> Result<f64, Error> {
        check_parameter("period", self.period as f64, self.period > 0, "a positive number")?;
        check_parameter("base", self.base, self.base > 0.0 && self.base < 1.0, "a number in (0, 1)")?;
        let [least, most] = self.range;
        let ordered = least > 0.0 && least <= most && most.is_finite();
        check_parameter("range", least, ordered, "positive finite numbers in order")?;
        check_parameter("damping", damping, damping > 0.0 && damping.is_finite(), "a positive finite number")?;
        check_parameter("ratio", ratio, !ratio.is_nan(), "a number")?;
        let omega = self.base.powf(self.period as f64);
        let next = match ratio {
            ratio if ratio > 0.75 => omega * damping,
            ratio if ratio < 0.25 => damping / omega,
            _ => damping,
        };
        Ok(next.clamp(least, most))
    }
}

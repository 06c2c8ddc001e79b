//! FOOF, K-FAC and the natural gradient on their schedule, one step at a time, for a network without biases.
//!
//! ```text
//! before training:          observe `initial` mini-batches, refresh
//! step t:                   V <- mu V + D;   W <- (1 - eta w) W - eta V
//! if t mod T >= T - S:      observe: A <- m A + (1-m) (1/N) X^T X, B likewise of E
//! if (t+1) mod T == 0:      refresh: the inverses of the damped, bias-corrected factors
//! ```

use crate::Dense;
use crate::approx::Approx;
use crate::network::{Bias, Pass};
use crate::{fisher, rounded, steps};

/// How `D` is made of the mean gradient `U`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `D = U (c A + lambda I)^-1`.
    Foof,
    /// `D = (c B + lambda_B I)^-1 U (c A + lambda_A I)^-1` with heuristic damping; `B` of the empirical errors.
    Kfac,
    /// `D = (F + lambda I)^-1 u` with `F` of the previous mini-batch's empirical gradients.
    NaturalGradient,
}

/// The constants of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Mini-batches observed before training.
    pub initial: usize,
    /// `T`, steps between refreshes.
    pub period: usize,
    /// `S`, the steps before a refresh that are observed.
    pub observed: usize,
    /// `m`, decay of the factors' moving averages.
    pub factor_decay: f64,
    /// `mu`.
    pub momentum: f64,
    /// `w`, decoupled from the gradient.
    pub weight_decay: f64,
    /// `lambda`.
    pub damping: f64,
    /// `eta`.
    pub learning_rate: f64,
}

/// The state of an optimiser between steps.
pub struct Optimizer {
    method: Method,
    settings: Settings,
    updates: u32,
    input_factors: Vec<Approx>,
    error_factors: Vec<Approx>,
    /// `(P_B, P_A)` of each layer; FOOF has no `P_B`.
    inverses: Vec<(Option<Approx>, Approx)>,
    velocities: Vec<Approx>,
    /// The last mini-batch's gradients, `[N, P]`.
    previous: Option<Approx>,
}

impl Optimizer {
    /// The state before anything is observed: all averages and velocities zero.
    pub fn new(method: Method, settings: Settings, weights: &[Approx]) -> Self {
        let zeros = |shape: fn(&Dense) -> (usize, usize)| {
            let zero = |w: &Approx| {
                let (rows, cols) = shape(&w.value);
                Approx::exact(Dense::zeros(rows, cols), w.format)
            };
            weights.iter().map(zero).collect()
        };
        Self {
            method,
            settings,
            updates: 0,
            input_factors: zeros(|w| (w.cols, w.cols)),
            error_factors: zeros(|w| (w.rows, w.rows)),
            inverses: Vec::new(),
            velocities: zeros(|w| (w.rows, w.cols)),
            previous: None,
        }
    }

    /// Averages a mini-batch into the factors.
    pub fn observe(&mut self, pass: &Pass) {
        self.updates += 1;
        let m = self.settings.factor_decay;
        let average = |factor: &mut Approx, rows: &Approx| {
            let new = rounded::second_moment(rows, rows.value.rows);
            *factor = rounded::moving_average(factor, &new, m);
        };
        for (a, x) in self.input_factors.iter_mut().zip(&pass.inputs) {
            average(a, x);
        }
        for (b, e) in self.error_factors.iter_mut().zip(&pass.errors) {
            average(b, e);
        }
        self.previous = Some(pass.gradients());
    }

    /// Inverts the damped, bias-corrected factors.
    pub fn refresh(&mut self) {
        let c = steps::bias_correction(self.settings.factor_decay, self.updates);
        let damping = self.settings.damping;
        let factors = self.input_factors.iter().zip(&self.error_factors);
        self.inverses = factors
            .map(|(a, b)| {
                let (a, b) = (a.scaled(c), b.scaled(c));
                if self.method != Method::Kfac {
                    return (None, a.damped_inverse(damping));
                }
                let (lambda_a, lambda_b) = rounded::heuristic_damping(&a, &b, damping);
                (Some(b.damped_inverse(lambda_b)), a.damped_inverse(lambda_a))
            })
            .collect();
    }

    /// Step `t` (from 0), with the pass at `weights`: the new weights. Observes and refreshes when the schedule says so.
    pub fn step(&mut self, t: usize, weights: &[Approx], pass: &Pass) -> Vec<Approx> {
        let s = self.settings;
        let directions = self.directions(weights, pass);
        for (v, d) in self.velocities.iter_mut().zip(&directions) {
            *v = v.scaled(s.momentum).plus(d);
        }
        let kept = 1.0 - s.learning_rate * s.weight_decay;
        let moved = |(w, v): (&Approx, &Approx)| w.scaled(kept).plus(&v.scaled(-s.learning_rate));
        let weights = weights.iter().zip(&self.velocities).map(moved).collect();
        if t % s.period >= s.period - s.observed {
            self.observe(pass);
        }
        if (t + 1).is_multiple_of(s.period) {
            self.refresh();
        }
        self.previous = Some(pass.gradients());
        weights
    }

    /// `D` of each layer.
    fn directions(&self, weights: &[Approx], pass: &Pass) -> Vec<Approx> {
        let gradients = (0..weights.len()).map(|l| pass.mean_gradient(l, Bias::Without));
        if self.method != Method::NaturalGradient {
            return gradients
                .zip(&self.inverses)
                .map(|(u, (p_b, p_a))| {
                    let right = u.matmul(p_a);
                    p_b.as_ref().map_or(right.clone(), |p_b| p_b.matmul(&right))
                })
                .collect();
        }
        let previous = self.previous.as_ref().expect("a mini-batch before");
        let curvature = rounded::second_moment(previous, previous.value.rows);
        let flat: Vec<Approx> = gradients.collect();
        let error = flat.iter().map(|u| u.error).sum();
        let rows: Vec<Dense> = flat.iter().map(|u| u.value.vec().transpose()).collect();
        let u = fisher::concatenated(&rows).transpose();
        let u = Approx::exact(u, previous.format).with_error(error);
        let d = rounded::natural_gradient(&curvature, &u, self.settings.damping);
        let mut start = 0;
        weights
            .iter()
            .map(|w| {
                let (rows, cols) = (w.value.rows, w.value.cols);
                let part = d.value.block(start..start + rows * cols, 0..1);
                start += rows * cols;
                Approx::exact(part.unvec(rows, cols), d.format).with_error(d.error)
            })
            .collect()
    }
}

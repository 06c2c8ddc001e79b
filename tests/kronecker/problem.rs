//! A gradient in each of its forms, factors as they are given, and a step with them.

use crate::with_one;
use foof::kronecker::{Factor, Gradient, foof_step_alloc, kfac_step_alloc};
use foof::{Blend, Element, MatRef, Par};
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random, fisher};

/// `[o, i, M]`: below and above each other, so that each side of a low-rank gradient takes either order.
pub const SHAPES: [[usize; 3]; 6] = [[1, 1, 1], [2, 3, 1], [5, 4, 7], [17, 9, 6], [33, 20, 40], [12, 65, 30]];

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Form {
    Matrix,
    LowRank,
    LowRankWithBias,
}

pub const FORMS: [Form; 3] = [Form::Matrix, Form::LowRank, Form::LowRankWithBias];

/// A gradient in one of its forms, with what it is equal to.
pub struct Problem {
    pub form: Form,
    pub x: Dense,
    pub e: Dense,
    /// `U`.
    pub u: Dense,
    /// `|scale| |E|^T |X|`, or `|U|`.
    pub magnitude: Dense,
}

/// Exact, and not one.
pub const SCALE: f64 = 2.0;

impl Problem {
    pub fn new<T: Element>([o, i, m]: [usize; 3], form: Form, mut draw: impl FnMut(usize, usize) -> Dense) -> Self {
        let one = usize::from(form == Form::LowRankWithBias);
        let (x, e) = (draw(m, i - one).rounded::<T>(), draw(m, o).rounded::<T>());
        let u = match form {
            Form::Matrix => draw(o, i).rounded::<T>(),
            _ => fisher::gradient(&with_one(&x, one), &e).scaled(SCALE),
        };
        let magnitude = match form {
            Form::Matrix => u.abs(),
            _ => fisher::gradient(&with_one(&x, one).abs(), &e.abs()).scaled(SCALE),
        };
        Problem { form, x, e, u, magnitude }
    }

    /// Calls `f` with the gradient in buffers of a layout.
    pub fn with<T: Element, R>(&self, layout: Layout, f: impl FnOnce(Gradient<'_, T>) -> R) -> R {
        let [u, x, e] = [&self.u, &self.x, &self.e].map(|matrix| Buffer::<T, 2>::matrix(matrix, layout));
        let (inputs, errors, scale) = (x.view(), e.view(), T::from_f64(SCALE));
        f(match self.form {
            Form::Matrix => Gradient::Matrix(u.view()),
            Form::LowRank => Gradient::LowRank { inputs, errors, scale },
            Form::LowRankWithBias => Gradient::LowRankWithBias { inputs, errors, scale },
        })
    }

    /// The longest chain of roundings that forms `U`: a term of each row, the scale, and its product with alpha.
    pub fn depth(&self) -> usize {
        if self.form == Form::Matrix { 0 } else { self.x.rows + 2 }
    }
}

/// A factor as it is given to a step.
#[derive(Clone)]
pub enum Given {
    Inverse(Dense),
    /// What lies above the diagonal is not to be read.
    Cholesky(Dense),
}

impl Given {
    fn buffer<T: Element>(&self, layout: Layout) -> Buffer<T, 2> {
        match self {
            Given::Inverse(p) => Buffer::matrix(p, layout),
            Given::Cholesky(l) => {
                let poisoned = Dense::from_fn(l.rows, l.rows, |i, j| if j > i { f64::NAN } else { l[(i, j)] });
                Buffer::matrix(&poisoned, layout)
            }
        }
    }

    fn factor<'a, T>(&self, view: MatRef<'a, T>) -> Factor<'a, T> {
        match self {
            Given::Inverse(_) => Factor::Inverse(view),
            Given::Cholesky(_) => Factor::Cholesky(view),
        }
    }
}

/// One step into `old`, or into poison where `beta = 0`.
pub fn step<T: Element>(
    problem: &Problem,
    (p, q): (&Given, Option<&Given>),
    old: &Dense,
    (alpha, beta): (f64, f64),
    [operand, output]: [Layout; 2],
    par: Par,
) -> Buffer<T, 2> {
    let mut out = match beta == 0.0 {
        true => Buffer::poisoned([old.rows, old.cols], output),
        false => Buffer::matrix(old, output),
    };
    let blend = Blend { alpha: T::from_f64(alpha), beta: T::from_f64(beta) };
    let p_buffer = p.buffer::<T>(operand);
    let input = p.factor(p_buffer.view());
    problem.with(operand, |gradient| match q {
        None => foof_step_alloc(out.view_mut(), blend, gradient, input, par).expect("shapes agree"),
        Some(q) => {
            let buffer = q.buffer::<T>(operand);
            let error = q.factor(buffer.view());
            kfac_step_alloc(out.view_mut(), blend, gradient, input, error, par).expect("shapes agree");
        }
    });
    out.assert_margins_intact("step");
    out
}

/// A symmetric matrix of small integers, as an inverse; and the Cholesky factor `L = 2 [I 0; C I]`, whose
/// `(L L^T)^-1 = [I + C^T C, -C^T; -C, I] / 4` every substitution finds exactly.
pub fn integer_factors(random: &mut Random, n: usize) -> [(Given, Dense); 2] {
    let half = random.integers(n, n, 2).lower();
    let p = Dense::from_fn(n, n, |i, j| half[(i.max(j), i.min(j))]);
    let c = random.integers(n, n, 1);
    let below = |i: usize, j: usize| if i >= n / 2 && j < n / 2 { c[(i, j)] } else { 0.0 };
    let identity = Dense::identity(n);
    let l = Dense::from_fn(n, n, |i, j| 2.0 * (identity[(i, j)] + below(i, j)));
    let y = Dense::from_fn(n, n, |i, j| 0.5 * (identity[(i, j)] - below(i, j)));
    [(Given::Inverse(p.clone()), p), (Given::Cholesky(l), y.transpose().matmul(&y))]
}

/// `alpha Q U P + beta C`.
pub fn expected(u: &Dense, p: &Dense, q: Option<&Dense>, old: &Dense, (alpha, beta): (f64, f64)) -> Dense {
    let up = u.matmul(p);
    let qup = q.map_or(up.clone(), |q| q.matmul(&up));
    qup.scaled(alpha).plus(&old.scaled(beta))
}

//! FOOF's and K-FAC's steps with explicit inverses or Cholesky factors.

use super::plan::{Place, Plan};
use crate::dense::{blend_into, temporary, temporary_scratch, with_scratch};
use crate::error::{check_scratch, check_shape};
use crate::{Bias, Blend, Element, Error, Input, MatMut, MatRef, MemStack, Par, StackReq};
use core::ops::Range;
use foof_kernels::cholesky::{solve_left, solve_scratch};
use foof_kernels::product::{product, product_scratch};

/// A symmetric damped factor's inverse, `[n, n]`.
#[derive(Clone, Copy, Debug)]
pub enum Factor<'a, T> {
    /// The inverse itself, both triangles.
    Inverse(MatRef<'a, T>),
    /// `L` with `L L^T` the damped factor; the lower triangle is read.
    Cholesky(MatRef<'a, T>),
}

impl<'a, T> Factor<'a, T> {
    fn view(&self) -> MatRef<'a, T> {
        match *self {
            Factor::Inverse(view) | Factor::Cholesky(view) => view,
        }
    }
}

/// A gradient `U`, `[o, i]`, to be preconditioned.
#[derive(Clone, Copy, Debug)]
pub enum Gradient<'a, T> {
    /// The matrix.
    Matrix(MatRef<'a, T>),
    /// `U = scale E'^T X'`, which need not be formed.
    LowRank {
        /// `X'`, `[M, i]`.
        inputs: MatRef<'a, T>,
        /// `E'`, `[M, o]`.
        errors: MatRef<'a, T>,
        /// `1/M` for the mean over M datapoints.
        scale: T,
    },
    /// `U = scale E'^T [X' 1]`: as above for a layer with bias, whose constant 1 is not stored.
    LowRankWithBias {
        /// `X'`, `[M, i - 1]`.
        inputs: MatRef<'a, T>,
        /// `E'`, `[M, o]`.
        errors: MatRef<'a, T>,
        /// `1/M` for the mean over M datapoints.
        scale: T,
    },
}

/// The operands of a low-rank gradient.
#[derive(Clone, Copy)]
struct LowRank<'a, T> {
    x: MatRef<'a, T>,
    e: MatRef<'a, T>,
    bias: Bias,
    scale: T,
}

impl<'a, T: Element> Gradient<'a, T> {
    fn low_rank(&self) -> Option<LowRank<'a, T>> {
        match *self {
            Gradient::Matrix(_) => None,
            Gradient::LowRank { inputs: x, errors: e, scale } => Some(LowRank { x, e, bias: Bias::Without, scale }),
            Gradient::LowRankWithBias { inputs: x, errors: e, scale } => {
                Some(LowRank { x, e, bias: Bias::With, scale })
            }
        }
    }

    /// The number of rows of a low-rank gradient.
    pub fn rows(&self) -> Option<usize> {
        self.low_rank().map(|g| g.x.rows())
    }

    /// Whether it is a gradient of shape `[o, i]`.
    pub(crate) fn check(&self, [o, i]: [usize; 2]) -> Result<(), Error> {
        match (*self, self.low_rank()) {
            (Gradient::Matrix(u), _) => check_shape("gradient", &[o, i], &u.shape()),
            (_, Some(g)) => {
                let m = g.x.rows();
                check_shape("gradient.inputs", &[m, i.saturating_sub(g.bias.columns())], &g.x.shape())?;
                check_shape("gradient.errors", &[m, o], &g.e.shape())
            }
            (_, None) => Ok(()),
        }
    }

    /// Rows `range` of the gradient.
    pub(crate) fn row_range(self, range: Range<usize>) -> Self {
        let columns = |errors: MatRef<'a, T>| errors.submatrix(0..errors.rows(), range.clone());
        match self {
            Gradient::Matrix(u) => Gradient::Matrix(u.row_range(range)),
            Gradient::LowRank { inputs, errors, scale } => Gradient::LowRank { inputs, errors: columns(errors), scale },
            Gradient::LowRankWithBias { inputs, errors, scale } => {
                Gradient::LowRankWithBias { inputs, errors: columns(errors), scale }
            }
        }
    }

    /// A low-rank gradient whose inputs lack the constant 1 of a layer with `i` columns of weights.
    pub(crate) fn with_constant(self, i: usize) -> Self {
        match self {
            Gradient::LowRank { inputs, errors, scale } if inputs.cols() + 1 == i => {
                Gradient::LowRankWithBias { inputs, errors, scale }
            }
            other => other,
        }
    }
}

/// `out <- beta out + alpha U P`.
fn times_factor<T: Element>(
    mut out: MatMut<'_, T>,
    blend: Blend<T>,
    u: MatRef<'_, T>,
    factor: Factor<'_, T>,
    par: Par,
    stack: &mut MemStack,
) {
    match factor {
        Factor::Inverse(p) => product(out, blend, u, p, par, stack),
        Factor::Cholesky(l) if blend == Blend::set(T::one()) => {
            out.copy_from(u);
            solve_left(l, out.transpose(), par, stack);
        }
        Factor::Cholesky(l) => {
            let [m, n] = u.shape();
            let (mut solved, stack) = temporary::<T>(stack, m * n);
            let mut solved = view_mut(&mut solved, [m, n]);
            solved.copy_from(u);
            solve_left(l, solved.rb_mut().transpose(), par, stack);
            blend_into(out, blend, solved.as_ref(), par);
        }
    }
}

/// `out <- [X 1] Q`, or `X Q`, for `x` `[m, d]` of any type.
pub(crate) fn rows_times<I: Input>(
    mut out: MatMut<'_, I::Acc>,
    x: MatRef<'_, I>,
    bias: Bias,
    q: MatRef<'_, I::Acc>,
    par: Par,
    stack: &mut MemStack,
) {
    let one = num_traits::One::one();
    let d = x.cols();
    let mut blend = Blend::set(one);
    if bias == Bias::With {
        for row in 0..x.rows() {
            out.rb_mut().row_range(row..row + 1).copy_from(q.row_range(d..d + 1));
        }
        blend = Blend::add(one);
    }
    product(out, blend, x, q.row_range(0..d), par, stack);
}

/// Scratch of [`rows_times`].
pub(crate) fn rows_times_scratch<T: Element>(m: usize, d: usize, bias: Bias, par: Par) -> StackReq {
    product_scratch::<T>(m, d + bias.columns(), d, par)
}

/// `out <- [X 1] P`, or `X P`.
fn rows_times_factor<T: Element>(
    mut out: MatMut<'_, T>,
    x: MatRef<'_, T>,
    bias: Bias,
    factor: Factor<'_, T>,
    par: Par,
    stack: &mut MemStack,
) {
    let (m, i) = (x.rows(), x.cols());
    match factor {
        Factor::Inverse(p) => rows_times(out, x, bias, p, par, stack),
        Factor::Cholesky(l) => {
            out.rb_mut().submatrix(0..m, 0..i).copy_from(x);
            out.rb_mut().submatrix(0..m, i..i + bias.columns()).fill(T::one());
            solve_left(l, out.transpose(), par, stack);
        }
    }
}

/// `out <- beta out + alpha E^T [X 1]`, or `E^T X`.
fn outer<T: Element>(
    mut out: MatMut<'_, T>,
    blend: Blend<T>,
    e: MatRef<'_, T>,
    x: MatRef<'_, T>,
    bias: Bias,
    par: Par,
    stack: &mut MemStack,
) {
    let ([o, _], i) = (out.shape(), x.cols());
    if bias == Bias::With {
        let mut last = out.rb_mut().submatrix(0..o, i..i + 1);
        for row in 0..o {
            let sum: T = (0..e.rows()).map(|m| e.at([m, row])).sum();
            let old = if blend.beta == T::zero() { T::zero() } else { blend.beta * last.as_ref().at([row, 0]) };
            last.set([row, 0], old + blend.alpha * sum);
        }
    }
    product(out.submatrix(0..o, 0..i), blend, e.transpose(), x, par, stack);
}

/// A matrix in a temporary that was made for it.
fn view_mut<T>(slice: &mut [T], shape: [usize; 2]) -> MatMut<'_, T> {
    MatMut::new(slice, shape).unwrap_or_else(|error| unreachable!("a temporary of the right size: {error}"))
}

/// `out <- beta out + alpha Q U P`, shapes and scratch already checked. `error` is applied as `P_B U` with the transpose to rows, so that an
/// explicit `Q` need not be symmetric.
pub(super) fn apply<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: Factor<'_, T>,
    error: Option<Factor<'_, T>>,
    par: Par,
    stack: &mut MemStack,
) {
    let [o, i] = out.shape();
    let plan = Plan::new(o, i, gradient.rows(), error.is_some());
    let Some(LowRank { x, e, bias, scale }) = gradient.low_rank() else {
        if let Gradient::Matrix(u) = gradient {
            apply_to_matrix(out, blend, u, Some(input), error, par, stack);
        }
        return;
    };
    let m = x.rows();
    let rows_i = if plan.input == Place::Rows { m * i } else { 0 };
    let rows_o = if plan.error == Some(Place::Rows) { m * o } else { 0 };
    let (mut x_rows, stack) = temporary::<T>(stack, rows_i);
    let (mut e_rows, stack) = temporary::<T>(stack, rows_o);
    let (mut xp, mut ep);
    let (x, bias, input) = match plan.input {
        Place::Gradient => (x, bias, Some(input)),
        Place::Rows => {
            xp = view_mut(&mut x_rows, [m, i]);
            rows_times_factor(xp.rb_mut(), x, bias, input, par, stack);
            (xp.as_ref(), Bias::Without, None)
        }
    };
    let (e, error) = match (plan.error, error) {
        (Some(Place::Rows), Some(factor)) => {
            ep = view_mut(&mut e_rows, [m, o]);
            let transposed = match factor {
                Factor::Inverse(q) => Factor::Inverse(q.transpose()),
                cholesky => cholesky,
            };
            rows_times_factor(ep.rb_mut(), e, Bias::Without, transposed, par, stack);
            (ep.as_ref(), None)
        }
        (_, error) => (e, error),
    };
    if input.is_none() && error.is_none() {
        let blend = Blend { alpha: blend.alpha * scale, ..blend };
        return outer(out, blend, e, x, bias, par, stack);
    }
    let (mut u, stack) = temporary::<T>(stack, o * i);
    let mut u = view_mut(&mut u, [o, i]);
    outer(u.rb_mut(), Blend::set(scale), e, x, bias, par, stack);
    apply_to_matrix(out, blend, u.as_ref(), input, error, par, stack);
}

/// The factors that are left, applied to a gradient matrix.
fn apply_to_matrix<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    u: MatRef<'_, T>,
    input: Option<Factor<'_, T>>,
    error: Option<Factor<'_, T>>,
    par: Par,
    stack: &mut MemStack,
) {
    let left = |out: MatMut<'_, T>, u: MatRef<'_, T>, factor: Factor<'_, T>, stack: &mut MemStack| match factor {
        Factor::Inverse(q) => product(out, blend, q, u, par, stack),
        Factor::Cholesky(_) => times_factor(out.transpose(), blend, u.transpose(), factor, par, stack),
    };
    match (input, error) {
        (Some(p), None) => times_factor(out, blend, u, p, par, stack),
        (None, Some(q)) => left(out, u, q, stack),
        (Some(p), Some(q)) => {
            let (mut up, stack) = temporary::<T>(stack, u.len());
            let mut up = view_mut(&mut up, u.shape());
            times_factor(up.rb_mut(), Blend::set(T::one()), u, p, par, stack);
            left(out, up.as_ref(), q, stack);
        }
        (None, None) => blend_into(out, blend, u, par),
    }
}

fn check_step<T: Element>(
    out: [usize; 2],
    gradient: &Gradient<'_, T>,
    input: Factor<'_, T>,
    error: Option<Factor<'_, T>>,
    stack: &MemStack,
    par: Par,
) -> Result<(), Error> {
    let [o, i] = out;
    check_shape("input factor", &[i, i], &input.view().shape())?;
    if let Some(error) = error {
        check_shape("error factor", &[o, o], &error.view().shape())?;
    }
    gradient.check(out)?;
    check_scratch(stack, step_scratch::<T>(out, gradient.rows(), par))
}

/// FOOF's step: `out <- beta out + alpha U (A + lambda I)^-1` (Benzing 2022, equations 5 and 6), for `out` `[o, i]` and the damped input
/// factor's inverse or Cholesky factor `[i, i]`. Operations: see [`Plan`].
///
/// # Errors
/// [`Error::Shape`] or [`Error::Scratch`], `out` as it was.
pub fn foof_step<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: Factor<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    check_step(out.shape(), &gradient, input, None, stack, par)?;
    apply(out, blend, gradient, input, None, par, stack);
    Ok(())
}

/// K-FAC's step: `out <- beta out + alpha (B + lambda_B I)^-1 U (A + lambda_A I)^-1` (Martens & Grosse 2015; Benzing 2022, equation 2), for
/// `out` `[o, i]`, the input factor `[i, i]` and the error factor `[o, o]`. Operations: see [`Plan`].
///
/// # Errors
/// [`Error::Shape`] or [`Error::Scratch`], `out` as it was.
pub fn kfac_step<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: Factor<'_, T>,
    error: Factor<'_, T>,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    check_step(out.shape(), &gradient, input, Some(error), stack, par)?;
    apply(out, blend, gradient, input, Some(error), par, stack);
    Ok(())
}

/// Scratch of [`foof_step`] and [`kfac_step`] for an output of `shape` `[o, i]` and a low-rank gradient of `rows` rows, or a matrix.
pub fn step_scratch<T: Element>([o, i]: [usize; 2], rows: Option<usize>, par: Par) -> StackReq {
    let m = rows.unwrap_or(0);
    let temporaries = [m * i, m * o, o * i, o * i, o * i].map(temporary_scratch::<T>);
    let products = [
        product_scratch::<T>(m, i, i, par),
        product_scratch::<T>(m, o, o, par),
        product_scratch::<T>(o, i, m, par),
        product_scratch::<T>(o, i, i, par),
        product_scratch::<T>(o, i, o, par),
        solve_scratch::<T>(i, m, par),
        solve_scratch::<T>(o, m, par),
        solve_scratch::<T>(i, o, par),
        solve_scratch::<T>(o, i, par),
    ];
    // The product with a bias's inputs has one column, or one row of the factor, fewer.
    let narrow = i.saturating_sub(1);
    let narrow = product_scratch::<T>(m, i, narrow, par).or(product_scratch::<T>(o, narrow, m, par));
    StackReq::all_of(&temporaries).and(StackReq::any_of(&products)).or(StackReq::all_of(&temporaries).and(narrow))
}

/// [`foof_step`] with scratch of its own.
///
/// # Errors
/// [`Error::Shape`], `out` as it was.
pub fn foof_step_alloc<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: Factor<'_, T>,
    par: Par,
) -> Result<(), Error> {
    let req = step_scratch::<T>(out.shape(), gradient.rows(), par);
    with_scratch(req, |stack| foof_step(out, blend, gradient, input, par, stack))
}

/// [`kfac_step`] with scratch of its own.
///
/// # Errors
/// [`Error::Shape`], `out` as it was.
pub fn kfac_step_alloc<T: Element>(
    out: MatMut<'_, T>,
    blend: Blend<T>,
    gradient: Gradient<'_, T>,
    input: Factor<'_, T>,
    error: Factor<'_, T>,
    par: Par,
) -> Result<(), Error> {
    let req = step_scratch::<T>(out.shape(), gradient.rows(), par);
    with_scratch(req, |stack| kfac_step(out, blend, gradient, input, error, par, stack))
}

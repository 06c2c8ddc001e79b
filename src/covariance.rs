//! The Kronecker factors `A <- m A + (1-m) s X^T X` and `B <- m B + (1-m) s E^T E`.

use crate::dense::{check_finite, temporary, temporary_scratch, with_scratch};
use crate::error::{check_parameter, check_scratch, check_shape};
use crate::scaling::Scaling;
use crate::{Bias, Blend, Element, Error, Input, MatMut, MemStack, Par, Sharing, StackReq, Triangle, View};
use foof_kernels::covariance::{self as kernel, Spec};

/// Whether the mean over datapoints (and positions) is subtracted first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Centring {
    /// No.
    #[default]
    Raw,
    /// Yes: the covariance of `x - xbar`, as in natural neural networks (Desjardins et al. 2015).
    Centred,
}

/// How a factor is formed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FactorOptions {
    /// What the positions of a datapoint contribute. Reduced inputs are means over positions, reduced errors sums.
    pub sharing: Sharing,
    /// Whether a constant 1 follows each row (input factors).
    pub bias: Bias,
    /// Whether the mean is subtracted; the bias's constant never is.
    pub centring: Centring,
    /// Which part of the factor is read and written.
    pub triangle: Triangle,
    /// `m` in `[0, 1)`; 0 does not read the old factor.
    pub decay: f64,
    /// The scale `s`.
    pub scaling: Scaling,
    /// Rows of errors for each datapoint, at least 1: all labels of a full Fisher information, scaled by `sqrt(p_c)`. The mean is
    /// over datapoints, not rows.
    pub rows_per_datapoint: usize,
}

impl Default for FactorOptions {
    /// Expand, no bias, not centred, whole matrix, `m = 0`, `1/N`, one row for each datapoint.
    fn default() -> Self {
        FactorOptions {
            sharing: Sharing::Expand,
            bias: Bias::Without,
            centring: Centring::Raw,
            triangle: Triangle::Full,
            decay: 0.0,
            scaling: Scaling::Foof,
            rows_per_datapoint: 1,
        }
    }
}

impl FactorOptions {
    /// Whether the options hold for a batch of that many rows.
    pub(crate) fn check(&self, rows: usize) -> Result<(), Error> {
        let (m, each) = (self.decay, self.rows_per_datapoint);
        check_parameter("decay", m, (0.0..1.0).contains(&m), "a number in [0, 1)")?;
        self.scaling.check()?;
        let divides = each > 0 && rows.is_multiple_of(each);
        check_parameter("rows_per_datapoint", each as f64, divides, "a divisor of the number of rows")
    }

    /// `out <- m out + (1-m) scale sum`
    pub(crate) fn blend<T: Element>(&self, scale: f64) -> Blend<T> {
        let decay = T::from_f64(self.decay);
        Blend { alpha: (T::one() - decay) * T::from_f64(scale), beta: decay }
    }
}

/// Which factor of a layer. What follows from it is the same on every device.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Input,
    Error,
}

/// The numbers that a factor is formed with.
pub(crate) struct Scales<T> {
    /// Of the sum over rows, and of the old factor.
    pub(crate) blend: Blend<T>,
    /// Of a sum over positions.
    pub(crate) reduce: T,
    /// Of a sum over datapoints and positions, to be subtracted.
    pub(crate) mean: T,
}

impl Side {
    /// The argument's name in errors.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Side::Input => "inputs",
            Side::Error => "errors",
        }
    }

    /// Everything that can be wrong with a batch but its values and the scratch.
    pub(crate) fn check(self, out: [usize; 2], x: [usize; 3], options: &FactorOptions) -> Result<(), Error> {
        let [n, t, d] = x;
        let size = d + options.bias.columns();
        check_shape("out", &[size, size], &out)?;
        options.check(n)?;
        match n * t {
            0 => Err(Error::EmptyBatch { argument: self.argument(), shape: x.to_vec() }),
            _ => Ok(()),
        }
    }

    /// For rows of shape `[N, T, d]`.
    pub(crate) fn scales<T: Element>(self, [rows, t, _]: [usize; 3], options: &FactorOptions) -> Scales<T> {
        let n = rows / options.rows_per_datapoint;
        let (scale, reduce) = match self {
            Side::Input => (options.scaling.input(options.sharing, n, t), 1.0 / t as f64),
            Side::Error => (options.scaling.error(options.sharing, n, t), 1.0),
        };
        let mean = match options.sharing {
            Sharing::Expand => 1.0 / (rows * t) as f64,
            Sharing::Reduce => reduce / rows as f64,
        };
        Scales { blend: options.blend(scale), reduce: T::from_f64(reduce), mean: T::from_f64(mean) }
    }
}

/// `A <- m A + (1-m) s sum_nt x_nt x_nt^T` (or of reduced rows), for `x` `[N, T, i]` (dense layers: `T = 1`) and `out` `[i, i]`, with
/// bias `[i+1, i+1]`. Computes one triangle: `i² N T / 2` multiply-adds. Martens & Grosse 2015; shared weights: Eschenhagen et al. 2023.
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::EmptyBatch`], [`Error::NotFinite`], [`Error::Scratch`]; `out` as it was.
pub fn input_factor<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 3>,
    options: &FactorOptions,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    factor(Side::Input, out, x, options, par, stack)
}

/// `B <- m B + (1-m) s sum_nt e_nt e_nt^T` (or of reduced rows), for errors `e` `[N, T, o]`, or `[N C, T, o]` with `C` rows for each
/// datapoint, and `out` `[o, o]`. As [`input_factor`].
///
/// # Errors
/// As [`input_factor`].
pub fn error_factor<I: Input>(
    out: MatMut<'_, I::Acc>,
    e: View<'_, I, 3>,
    options: &FactorOptions,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    factor(Side::Error, out, e, options, par, stack)
}

/// Scratch of [`input_factor`] and [`error_factor`] for rows of `shape` `[N, T, d]`.
pub fn factor_scratch<T: Element>(shape: [usize; 3], options: &FactorOptions, par: Par) -> StackReq {
    let kernel = kernel::scratch::<T>(shape, options.bias, options.sharing, par);
    match options.centring {
        Centring::Raw => kernel,
        Centring::Centred => temporary_scratch::<T>(shape[2]).and(kernel),
    }
}

/// [`input_factor`] with scratch of its own.
///
/// # Errors
/// As [`input_factor`].
pub fn input_factor_alloc<I: Input>(
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 3>,
    options: &FactorOptions,
    par: Par,
) -> Result<(), Error> {
    let req = factor_scratch::<I::Acc>(x.shape(), options, par);
    with_scratch(req, |stack| input_factor(out, x, options, par, stack))
}

/// [`error_factor`] with scratch of its own.
///
/// # Errors
/// As [`input_factor`].
pub fn error_factor_alloc<I: Input>(
    out: MatMut<'_, I::Acc>,
    e: View<'_, I, 3>,
    options: &FactorOptions,
    par: Par,
) -> Result<(), Error> {
    let req = factor_scratch::<I::Acc>(e.shape(), options, par);
    with_scratch(req, |stack| error_factor(out, e, options, par, stack))
}

fn factor<I: Input>(
    side: Side,
    out: MatMut<'_, I::Acc>,
    x: View<'_, I, 3>,
    options: &FactorOptions,
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    side.check(out.shape(), x.shape(), options)?;
    check_finite(side.argument(), x)?;
    check_scratch(stack, factor_scratch::<I::Acc>(x.shape(), options, par))?;
    let scales = side.scales(x.shape(), options);
    let spec = Spec {
        sharing: options.sharing,
        reduce_scale: scales.reduce,
        bias: options.bias,
        centre: None,
        triangle: options.triangle,
        blend: scales.blend,
    };
    match options.centring {
        Centring::Raw => kernel::covariance(out, x, &spec, par, stack),
        Centring::Centred => {
            let (mut centre, stack) = temporary::<I::Acc>(stack, x.shape()[2]);
            kernel::column_sums(&mut centre, x, scales.mean);
            kernel::covariance(out, x, &Spec { centre: Some(&centre), ..spec }, par, stack);
        }
    }
    Ok(())
}

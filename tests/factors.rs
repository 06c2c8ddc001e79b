//! The Kronecker factors through the safe functions, every option at once: against the definition within the derived bound.

#[path = "factors/options.rs"]
mod options;

use foof::covariance::{Centring, FactorOptions, error_factor_alloc, input_factor_alloc};
use foof::{Bias, Element, Sharing, Triangle};
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::{assert_positive_semidefinite, assert_same_bits, assert_within};
use foof_oracle::fisher::{centred, datapoints, stacked, summed_over_rows, with_one};
use foof_oracle::kernels::for_every_par;
use foof_oracle::layout::{Buffer, Layout, poison};
use foof_oracle::{Dense, Random};
use proptest::prelude::*;

/// The rows whose second moment is taken, a matrix for each datapoint.
fn rows_of(batch: &[Dense], inputs: bool, options: &FactorOptions, centre: impl Fn(&[Dense]) -> Vec<Dense>) -> Dense {
    let reduced = |x: &Dense| match (options.sharing, inputs) {
        (Sharing::Expand, _) => x.clone(),
        (Sharing::Reduce, true) => summed_over_rows(x).scaled(1.0 / x.rows as f64),
        (Sharing::Reduce, false) => summed_over_rows(x),
    };
    let rows: Vec<Dense> = batch.iter().map(reduced).collect();
    let rows = if options.centring == Centring::Centred { centre(&rows) } else { rows };
    stacked(&if options.bias == Bias::With { with_one(&rows) } else { rows })
}

/// Every row plus the mean of all: what bounds a row of absolute values less its mean.
fn spread(batch: &[Dense]) -> Vec<Dense> {
    centred(batch).iter().zip(batch).map(|(c, x)| x.scaled(2.0).minus(c)).collect()
}

fn within_bound<T: Element>(
    [n, t, d]: [usize; 3],
    inputs: bool,
    options: &FactorOptions,
    [from, to]: [Layout; 2],
    seed: u64,
) {
    let mut random = Random::new(seed);
    let format = Format::of::<T>();
    let x = random.normals(n * t, d).rounded::<T>();
    let batch = datapoints(&x, t);
    let absolute: Vec<Dense> = batch.iter().map(Dense::abs).collect();
    let rows = rows_of(&batch, inputs, options, centred);
    // A row is off by one rounding a term of its mean over positions and datapoints, their scales, and the subtraction.
    let row_depth = n * t + t + 5;
    let sizes = rows_of(&absolute, inputs, options, spread);
    let size = rows.cols;
    let old = random.normals(size, size);
    let old = old.plus(&old.transpose()).rounded::<T>();
    let scale = match inputs {
        true => options.scaling.input(options.sharing, n, t),
        false => options.scaling.error(options.sharing, n, t),
    };
    let m = T::from_f64(options.decay).to_f64();
    let expected = old.scaled(m).plus(&rows.transpose().matmul(&rows).scaled((1.0 - m) * scale));
    let magnitude = sizes.transpose().matmul(&sizes);
    // Any order of the rows' products, each of two rows; the scale is rounded once more than the average's bound has it.
    let depth = rows.rows + 2 * row_depth + 2;
    let bound = bounds::ema_covariance(format, &magnitude, (m, scale), &old, depth, depth);
    let x = Buffer::<T, 3>::embed(&x.data, [n, t, d], from);
    let what = format!("[{n}, {t}, {d}] inputs {inputs} {options:?} {from:?} {to:?}");
    for (isa, got) in for_every_par(&what, |par| {
        let mut out = match m == 0.0 {
            true => Buffer::<T, 2>::poisoned([size, size], to),
            false => Buffer::matrix(&old, to),
        };
        let done = match inputs {
            true => input_factor_alloc(out.view_mut(), x.view(), options, par),
            false => error_factor_alloc(out.view_mut(), x.view(), options, par),
        };
        done.expect("finite");
        out.assert_margins_intact(&what);
        out.elements()
    }) {
        let what = format!("{isa}: {what}");
        let above = |k: usize| k % size > k / size;
        if options.triangle == Triangle::Lower {
            let kept: Vec<T> =
                if m == 0.0 { vec![poison(); size * size] } else { old.data.iter().map(|&v| T::from_f64(v)).collect() };
            let upper = |all: &[T]| (0..size * size).filter(|&k| above(k)).map(|k| all[k]).collect::<Vec<T>>();
            assert_same_bits(&upper(&got), &upper(&kept), &format!("{what}: above the diagonal"));
        }
        let lower: Vec<f64> = got.iter().map(|&v| v.to_f64()).collect();
        let got = Dense::from_fn(size, size, |i, j| match options.triangle {
            Triangle::Full => lower[i * size + j],
            Triangle::Lower => lower[i.max(j) * size + i.min(j)],
        });
        assert_within(&got, &expected, &bound, &what);
        assert!(got.is_symmetric(), "{what}: symmetric to the bit");
        if m == 0.0 {
            assert_positive_semidefinite(&got, bound.frobenius(), &what);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn factors_are_within_the_bound(
        shape in [1usize..40, 1..5, 1..40],
        inputs: bool,
        options in options::options(),
        layouts in [prop::sample::select(Layout::ALL.to_vec()), prop::sample::select(Layout::ALL.to_vec())],
        seed: u64,
    ) {
        within_bound::<f32>(shape, inputs, &options, layouts, seed);
        within_bound::<f64>(shape, inputs, &options, layouts, seed);
    }
}

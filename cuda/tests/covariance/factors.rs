//! The Kronecker factors through the safe functions, every option at once: against the CPU's definition within the derived bound.

#[path = "../../../tests/factors/options.rs"]
mod options;

use crate::run::{Number, embedded, stream_in_order, upload, view};
use foof::covariance::{Centring, FactorOptions};
use foof::cuda::covariance::{error_factor_alloc, input_factor_alloc};
use foof::{Bias, Element, Sharing, Triangle};
use foof_cuda::Precision;
use foof_cuda::covariance::{Rung, Spec, depth};
use foof_cuda::tile::Kind;
use foof_kernels::Blend;
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::{assert_same_bits, assert_within};
use foof_oracle::fisher::{centred, datapoints, stacked, summed_over_rows, with_one};
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

fn within_bound<T: Number + Element>(
    [n, t, d]: [usize; 3],
    inputs: bool,
    options: &FactorOptions,
    precision: Precision,
    to: Layout,
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
    let Some(stream) = stream_in_order(seed as usize % 4) else { return };
    let stream = stream.with_precision(precision);
    let spec = Spec {
        sharing: options.sharing,
        bias: options.bias,
        reduce_scale: T::one(),
        centre_scale: None,
        triangle: options.triangle,
        blend: Blend::set(T::one()),
    };
    let rung = Rung::of(Kind::of::<T>(), size, rows.rows, &stream);
    let depth = depth::<T>(rung, [n, t, d], &spec) + 2 * row_depth + 2;
    let bound = bounds::ema_covariance(format, &magnitude, (m, scale), &old, depth, depth);
    let x = embedded::<T>(&x, [n, t, d], seed as usize % 64);
    let what = format!("[{n}, {t}, {d}] inputs {inputs} {options:?} {precision:?} {to:?}");
    let mut out = match m == 0.0 {
        true => Buffer::<T, 2>::poisoned([size, size], to),
        false => Buffer::matrix(&old, to),
    };
    let (from, mut memory) = (upload(&stream, &x), upload(&stream, &out));
    let target = memory.strided_mut(out.offset, out.shape, out.strides).expect("inside the buffer");
    match inputs {
        true => input_factor_alloc(target, view(&from, &x), options, &stream),
        false => error_factor_alloc(target, view(&from, &x), options, &stream),
    }
    .expect("enqueued");
    out.data = memory.to_host(&stream).expect("copied");
    out.assert_margins_intact(&what);
    let got = out.elements();
    if options.triangle == Triangle::Lower {
        let kept: Vec<T> =
            if m == 0.0 { vec![poison(); size * size] } else { old.data.iter().map(|&v| T::from_f64(v)).collect() };
        let upper = |all: &[T]| (0..size * size).filter(|k| k % size > k / size).map(|k| all[k]).collect::<Vec<T>>();
        assert_same_bits(&upper(&got), &upper(&kept), &format!("{what}: above the diagonal"));
    }
    let lower: Vec<f64> = got.iter().map(|&v| v.to_f64()).collect();
    let got = Dense::from_fn(size, size, |i, j| match options.triangle {
        Triangle::Full => lower[i * size + j],
        Triangle::Lower => lower[i.max(j) * size + i.min(j)],
    });
    assert_within(&got, &expected, &bound, &what);
    assert!(got.is_symmetric(), "{what}: symmetric to the bit");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn factors_are_within_the_bound(
        shape in [1usize..40, 1..5, 1..40],
        inputs: bool,
        options in options::options(),
        precision in prop::sample::select(vec![Precision::Full, Precision::Full, Precision::Tf32, Precision::Bf16]),
        to in prop::sample::select(Layout::ALL.to_vec()),
        seed: u64,
    ) {
        within_bound::<f32>(shape, inputs, &options, precision, to, seed);
        within_bound::<f64>(shape, inputs, &options, precision, to, seed);
    }
}

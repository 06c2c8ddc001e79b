//! Labels: errors against PyTorch's and the dense oracle's, the identities between them, sampled frequencies, and what is refused.

use foof::labels::{Labels, Loss, Outputs, full_errors, label_errors, sample_classes, sampled_errors};
use foof::{Element, Error, MatMut, MatRef, Sampler};
use foof_oracle::approx::Approx;
use foof_oracle::bounds::{F64, Format};
use foof_oracle::case::Case;
use foof_oracle::compare::{assert_same_bits, assert_within};
use foof_oracle::{Dense, Random, network};

const LOSSES: [Loss; 3] = [Loss::SquaredError, Loss::SoftmaxCrossEntropy, Loss::SigmoidCrossEntropy];

/// The result of `f` on an output of NaN.
fn filled<T: Element>(
    [rows, cols]: [usize; 2],
    f: impl FnOnce(MatMut<'_, T>) -> Result<(), Error>,
) -> Result<Vec<T>, Error> {
    let mut out = vec![T::nan(); rows * cols];
    let result = f(MatMut::new(&mut out, [rows, cols]).expect("a view"));
    assert!(result.is_ok() || out.iter().all(|x| x.is_nan()), "an error leaves the output as it was");
    result.map(|()| out)
}

fn view<T>(values: &[T], shape: [usize; 2]) -> MatRef<'_, T> {
    MatRef::new(values, shape).expect("a view")
}

/// Of logits on a network that PyTorch ran: errors of the sampled labels and of all labels.
#[test]
fn golden_errors() {
    let case = Case::load("logistic");
    let (x, w) = (case.golden.matrix("input.0"), case.weight(0));
    let labels = case.golden.labels("labels_mc");
    let logits = x.matmul(&w.transpose());
    let (n, classes) = (logits.rows, logits.cols);
    let outputs = Outputs::Logits(view(&logits.data, [n, classes]));
    let exact = Approx::exact_f64;
    let pass = network::pass(&[exact(w)], network::Bias::Without, &exact(x), &labels);
    let loss = Loss::SoftmaxCrossEntropy;
    let ours = filled([n, classes], |out| label_errors(out, loss, outputs, Labels::Classes(&labels))).expect("valid");
    let dense = |values: &[f64]| Dense::from_slice(values.len() / classes, classes, values);
    pass.errors[0].assert_matches(&dense(&ours), "errors of the labels");
    pass.errors[0].assert_matches(&case.golden.matrix("error_mc.0"), "PyTorch's");
    let targets: Vec<f64> = labels.iter().flat_map(|&y| (0..classes).map(move |c| f64::from(c == y))).collect();
    let targets = Labels::Targets(view(&targets, [n, classes]));
    let same = filled([n, classes], |out| label_errors(out, loss, outputs, targets)).expect("valid");
    assert_same_bits(&same, &ours, "labels as distributions");

    // A probability off by `d` moves its root by at most `d / sqrt(p - d)`, and an error by `d`; three roundings.
    let p = &pass.probabilities;
    let expected = Dense::from_fn(n * classes, classes, |r, c| {
        let (n, label) = (r / classes, r % classes);
        p.value[(n, label)].sqrt() * (p.value[(n, c)] - f64::from(c == label))
    });
    let d = 2.0 * p.error;
    let bound = expected.map(|_| 0.0).zip(&expected, |_, e| F64.gamma(3) * e.abs());
    let bound = Dense::from_fn(n * classes, classes, |r, c| {
        bound[(r, c)] + d + d / (p.value[(r / classes, r % classes)] - d).sqrt()
    });
    assert!(bound.max_abs() < Format::of::<f32>().unit, "tolerance {:e}", bound.max_abs());
    let ours = filled([n * classes, classes], |out| full_errors(out, loss, outputs)).expect("valid");
    assert_within(&dense(&ours), &expected, &bound, "all labels");
    assert_within(&case.golden.matrix("error_full.0"), &expected, &bound, "all labels, PyTorch's");
    let stored = case.golden.matrix("probabilities");
    let outputs = Outputs::Probabilities(view(&stored.data, [n, classes]));
    let ours = filled([n * classes, classes], |out| full_errors(out, loss, outputs)).expect("valid");
    assert_within(&dense(&ours), &expected, &bound, "all labels, of probabilities");
}

/// `sum_c r_c r_c^T` is the loss's Hessian, which is the mean of `e e^T` over the model's labels: the full Fisher is the Gauss-Newton matrix.
///
/// A row's entries come from `f64` and are rounded once to `T`; in `f64` the probability (`C + 4` roundings), its root, the difference and the
/// product: `gamma_(C+8)` of the magnitudes `|p| + 1`, at most `2`, and the sum over `C` labels.
#[test]
fn all_labels_give_the_hessian_of_the_loss() {
    fn check<T: Element>(loss: Loss, classes: usize, random: &mut Random) {
        let n = 3;
        let logits = random.normals(n, classes).scaled(2.0).rounded::<T>();
        let values: Vec<T> = logits.data.iter().map(|&v| T::from_f64(v)).collect();
        let outputs = Outputs::Logits(view(&values, [n, classes]));
        let rows = filled([n * classes, classes], |out| full_errors(out, loss, outputs)).expect("valid");
        let rows = Dense::from_slice(n * classes, classes, &rows);
        for row in 0..n {
            let r = rows.block(row * classes..(row + 1) * classes, 0..classes);
            let s = logits.row(row);
            let total: f64 = s.iter().map(|s| s.exp()).sum();
            let hessian = Dense::from_fn(classes, classes, |i, j| {
                let diagonal = f64::from(i == j);
                match loss {
                    Loss::SquaredError => diagonal,
                    Loss::SoftmaxCrossEntropy => s[i].exp() / total * (diagonal - s[j].exp() / total),
                    Loss::SigmoidCrossEntropy => diagonal / (1.0 + s[i].exp()) / (1.0 + (-s[i]).exp()),
                }
            });
            let format = Format::of::<T>();
            let relative = 2.0 * format.gamma(1) + F64.gamma(3 * classes + 16);
            let magnitude = r.abs().transpose().matmul(&r.abs());
            let bound = magnitude.map(|m| relative * m + F64.gamma(classes + 8) * 2.0);
            assert_within(&r.transpose().matmul(&r), &hessian, &bound, &format!("{loss:?}, {classes} classes"));
        }
    }
    let mut random = Random::new(51);
    for loss in LOSSES {
        for classes in [1, 2, 5, 10] {
            check::<f32>(loss, classes, &mut random);
            check::<f64>(loss, classes, &mut random);
        }
    }
}

/// What is sampled is what its label's error is, the same for logits and for equal samplers.
#[test]
fn sampled_errors_are_those_of_the_sampled_labels() {
    let (n, classes) = (50, 7);
    let logits = Random::new(52).normals(n, classes);
    let outputs = Outputs::Logits(view(&logits.data, [n, classes]));
    let loss = Loss::SoftmaxCrossEntropy;
    let mut labels = vec![0; n];
    let mut sampler = Sampler::of_stream(9, 3);
    sample_classes(&mut labels, outputs, &mut sampler).expect("valid");
    let position = sampler.position();
    let of = filled([n, classes], |out| label_errors(out, loss, outputs, Labels::Classes(&labels))).expect("valid");
    let mut again = Sampler::of_stream(9, 3);
    let errors = filled([n, classes], |out| sampled_errors(out, loss, outputs, &mut again)).expect("valid");
    assert_same_bits(&errors, &of, "errors");
    assert_eq!(again.position(), position);
    let next = filled([n, classes], |out| sampled_errors(out, loss, outputs, &mut again)).expect("valid");
    again.set_position(position);
    let resumed = filled([n, classes], |out| sampled_errors(out, loss, outputs, &mut again)).expect("valid");
    assert_same_bits(&next, &resumed, "resumed");
    assert_ne!(next, errors, "the next labels are others");
    let other = filled([n, classes], |out| sampled_errors(out, loss, outputs, &mut Sampler::of_stream(9, 4)));
    assert_ne!(other.expect("valid"), errors, "another stream");
}

/// Draws of one distribution, and the chance that all of them together raise a false alarm.
const DRAWS: usize = 200_000;
const FALSE_ALARM: f64 = 1e-9;

/// Hoeffding: of `k` frequencies over `n` independent draws none is off by more than `sqrt(ln(2 k / alpha) / 2 n)`, but with probability `alpha`.
fn hoeffding(k: usize) -> f64 {
    ((2 * k) as f64 / FALSE_ALARM).ln().sqrt() / (2.0 * DRAWS as f64).sqrt()
}

#[test]
fn classes_come_as_often_as_they_are_probable() {
    let p = [0.0, 0.5, 0.125, 0.0, 0.25, 0.125, 0.0];
    let rows = p.repeat(DRAWS);
    let outputs = Outputs::Probabilities(view(&rows, [DRAWS, p.len()]));
    let mut classes = vec![0; DRAWS];
    sample_classes(&mut classes, outputs, &mut Sampler::new(53)).expect("valid");
    for (c, &p) in p.iter().enumerate() {
        let count = classes.iter().filter(|&&class| class == c).count();
        let frequency = count as f64 / DRAWS as f64;
        assert!((frequency - p).abs() <= hoeffding(7), "class {c}: {frequency}, not {p}");
        assert!(p > 0.0 || count == 0, "class {c} is impossible");
    }
}

#[test]
fn bits_come_as_often_as_they_are_probable() {
    let s = [-2.0f32, 0.0, 1.0];
    let rows = s.repeat(DRAWS);
    let outputs = Outputs::Logits(view(&rows, [DRAWS, 3]));
    let loss = Loss::SigmoidCrossEntropy;
    let mut sampler = Sampler::new(54);
    let errors = filled([DRAWS, 3], |out| sampled_errors(out, loss, outputs, &mut sampler)).expect("valid");
    for (c, &s) in s.iter().enumerate() {
        let p = 1.0 / (1.0 + (-f64::from(s)).exp());
        let ones = errors.iter().skip(c).step_by(3).filter(|&&e| e < 0.0).count();
        let frequency = ones as f64 / DRAWS as f64;
        assert!((frequency - p).abs() <= hoeffding(3), "output {c}: {frequency}, not {p}");
        let values = errors.iter().skip(c).step_by(3);
        assert!(values.clone().all(|&e| e == p as f32 || e == (p - 1.0) as f32), "an error is p or p - 1");
    }
}

/// The mean of `n` standard normals is within `sqrt(2 ln(2/alpha) / n)` of zero; their mean square within `t = sqrt(8 ln(2/alpha) / n) < 1` of one
/// (Laurent and Massart 2000, lemma 1: `P(|chi²/n - 1| >= t) <= 2 exp(-n t²/8)`); products of neighbours, as half the difference of two such
/// mean squares of `n/2` normals each, within `2 t`.
#[test]
fn errors_of_squared_error_are_standard_normals() {
    let s = vec![3.0f64; DRAWS];
    let outputs = Outputs::Logits(view(&s, [DRAWS / 2, 2]));
    let mut sampler = Sampler::new(55);
    let e = filled([DRAWS / 2, 2], |out| sampled_errors(out, Loss::SquaredError, outputs, &mut sampler));
    let e = e.expect("valid");
    let (n, log) = (DRAWS as f64, (6.0 / FALSE_ALARM).ln());
    let t = (8.0 * log / n).sqrt();
    let mean = e.iter().sum::<f64>() / n;
    assert!(mean.abs() <= (2.0 * log / n).sqrt(), "mean {mean}");
    let square = e.iter().map(|e| e * e).sum::<f64>() / n;
    assert!((square - 1.0).abs() <= t, "variance {square}");
    let product = e.chunks(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / (n / 2.0);
    assert!(product.abs() <= 2.0 * t, "covariance {product}");
}

#[test]
fn large_logits_do_not_overflow() {
    let logits = [1e30f32, -1e30, 0.0, -1e30, -1e30, -1e30];
    let outputs = Outputs::Logits(view(&logits, [2, 3]));
    let labels = Labels::Classes(&[0, 2]);
    let softmax = Loss::SoftmaxCrossEntropy;
    let errors = filled([2, 3], |out| label_errors(out, softmax, outputs, labels)).expect("valid");
    assert_eq!(errors[..3], [0.0, 0.0, 0.0], "certain and right");
    let third = (1.0f64 / 3.0) as f32;
    assert_eq!(errors[3..], [third, third, (-2.0f64 / 3.0) as f32]);
    let bits = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0];
    let labels = Labels::Targets(view(&bits, [2, 3]));
    let errors = filled([2, 3], |out| label_errors(out, Loss::SigmoidCrossEntropy, outputs, labels)).expect("valid");
    assert_eq!(errors, [0.0, 0.0, -0.5, -1.0, 0.0, 0.0]);
}

/// Every refusal names the argument and the row.
#[test]
fn bad_labels_are_refused() {
    let (n, classes) = (3, 2);
    let shape = [n, classes];
    let softmax = Loss::SoftmaxCrossEntropy;
    let logits = [0.5f64, 1.0, 2.0, 0.0, 1.0, 1.0];
    let good = Outputs::Logits(view(&logits, shape));
    let labels = [0, 1, 1];
    let row = |error: Error| match error {
        Error::Row { argument, row, value, .. } => (argument, row, value),
        other => panic!("{other}"),
    };
    fn refuse(loss: Loss, outputs: Outputs<'_, f64>, labels: Labels<'_, f64>) -> Error {
        filled([3, 2], |out| label_errors(out, loss, outputs, labels)).unwrap_err()
    }

    for (bad, value) in [([0.5, 0.75], 1.25), ([0.25, 0.25], 0.5)] {
        let mut p = [0.5; 6];
        p[2..4].copy_from_slice(&bad);
        let outputs = Outputs::Probabilities(view(&p, shape));
        assert_eq!(row(refuse(softmax, outputs, Labels::Classes(&labels))), ("probabilities", 1, value));
        let mut sampler = Sampler::new(1);
        let error = filled(shape, |out| sampled_errors(out, softmax, outputs, &mut sampler)).unwrap_err();
        assert_eq!((row(error), sampler.position()), (("probabilities", 1, value), 0));
        let error = sample_classes(&mut [7; 3], outputs, &mut sampler).unwrap_err();
        assert_eq!(row(error), ("probabilities", 1, value));
        let error = filled([n * classes, classes], |out| full_errors(out, softmax, outputs)).unwrap_err();
        assert_eq!(row(error), ("probabilities", 1, value));
        let targets = Labels::Targets(view(&p, shape));
        assert_eq!(row(refuse(softmax, good, targets)), ("targets", 1, value));
    }
    for bad in [-0.5, 1.5, f64::NAN, f64::INFINITY] {
        let mut p = [0.5; 6];
        p[5] = bad;
        let outputs = Outputs::Probabilities(view(&p, shape));
        for loss in [softmax, Loss::SigmoidCrossEntropy] {
            let targets = Labels::Targets(view(&[0.5; 6], shape));
            let (argument, row, value) = row(refuse(loss, outputs, targets));
            assert!(argument == "probabilities" && row == 2 && (value == bad || bad.is_nan()), "{value}");
        }
    }
    assert_eq!(row(refuse(softmax, good, Labels::Classes(&[0, 1, 2]))), ("labels", 2, 2.0));
    let not_finite = |error: Error, argument, index: [usize; 2]| {
        assert_eq!(error, Error::NotFinite { argument, index: index.to_vec() });
    };
    let mut bad = logits;
    bad[3] = f64::NAN;
    let nan = Outputs::Logits(view(&bad, shape));
    not_finite(refuse(softmax, nan, Labels::Classes(&labels)), "logits", [1, 1]);
    not_finite(refuse(Loss::SquaredError, good, Labels::Targets(view(&bad, shape))), "targets", [1, 1]);
    let parameter = |error: Error| assert!(matches!(error, Error::Parameter { .. }), "{error}");
    parameter(refuse(Loss::SquaredError, Outputs::Probabilities(view(&[0.5; 6], shape)), Labels::Classes(&labels)));
    parameter(refuse(Loss::SquaredError, good, Labels::Classes(&labels)));
    let shapes = |error: Error| assert!(matches!(error, Error::Shape { .. }), "{error}");
    shapes(refuse(softmax, good, Labels::Classes(&labels[..2])));
    shapes(refuse(softmax, good, Labels::Targets(view(&logits, [2, 3]))));
    shapes(filled([n, classes], |out| full_errors(out, softmax, good)).unwrap_err());
    let none = Outputs::Logits(view(&logits[..0], [0, 2]));
    let error = filled([0, 2], |out| label_errors(out, softmax, none, Labels::Classes(&[]))).unwrap_err();
    assert_eq!(error, Error::EmptyBatch { argument: "logits", shape: vec![0, 2] });
}

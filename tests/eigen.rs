//! Batches of symmetric eigendecompositions against their backward error, and matrix by matrix against themselves.

use dyn_stack::{MemBuffer, MemStack};
use foof::eigen::{
    BATCHED_MAX, batched_symmetric_eigen, batched_symmetric_eigen_alloc, batched_symmetric_eigen_scratch,
};
use foof::{Element, Error, Par, View, ViewMut};
use foof_kernels::batched::eigen::{self as kernel, Cause, Failure};
use foof_oracle::bounds::{self, F64, Format};
use foof_oracle::compare::assert_same_bits;
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::{for_every_par, isas};
use foof_oracle::layout::{Buffer, Layout, poison};
use foof_oracle::{Dense, Random};

/// A batch, rounded, NaN above the diagonals.
fn embed<T: Element>(matrices: &[Dense], n: usize, layout: Layout) -> Buffer<T, 3> {
    let values: Vec<f64> = matrices
        .iter()
        .flat_map(|a| (0..n * n).map(move |k| if k % n > k / n { f64::NAN } else { a[(k / n, k % n)] }))
        .collect();
    Buffer::embed(&values, [matrices.len(), n, n], layout)
}

/// Eigenvalues and eigenvectors of a batch, and what the function said.
struct Decomposed<T> {
    values: Vec<T>,
    vectors: Vec<T>,
    result: Result<(), Error>,
}

impl<T: Element> Decomposed<T> {
    fn of(a: &Buffer<T, 3>, layout: Layout, par: Par) -> Self {
        let [batch, n, _] = a.shape;
        let mut values = Buffer::<T, 2>::poisoned([batch, n], layout);
        let mut vectors = Buffer::<T, 3>::poisoned(a.shape, layout);
        let mut memory = MemBuffer::new(batched_symmetric_eigen_scratch::<T>(batch, n, par));
        let stack = MemStack::new(&mut memory);
        let result = batched_symmetric_eigen(values.view_mut(), vectors.view_mut(), a.view(), par, stack);
        values.assert_margins_intact("values");
        vectors.assert_margins_intact("vectors");
        Decomposed { values: values.elements(), vectors: vectors.elements(), result }
    }

    /// Those of one matrix, values first.
    fn matrix(&self, matrix: usize, n: usize) -> Vec<T> {
        [&self.values[matrix * n..][..n], &self.vectors[matrix * n * n..][..n * n]].concat()
    }
}

/// Matrices of many kinds, and scales.
fn kinds<T: Element>(n: usize, random: &mut Random) -> Vec<Dense> {
    let (unit, least, most) = (T::UNIT_ROUNDOFF.to_f64(), T::min_positive_value().to_f64(), T::max_value().to_f64());
    let normals = |random: &mut Random| random.normals(n, n);
    let symmetric = |m: Dense| Dense::from_fn(n, n, |i, j| m[(i.max(j), i.min(j))]);
    let general = symmetric(normals(random));
    let grades = log_spectrum(n, unit.recip());
    let v = normals(random);
    let near = |i: usize, j: usize| i.abs_diff(j) == 1;
    let mut clustered = vec![1.0; n];
    clustered[n / 2..].fill(-2.0);
    vec![
        general.clone(),
        random.symmetric(&grades),
        random.symmetric(&clustered),
        Dense::zeros(n, n),
        Dense::identity(n),
        Dense::from_fn(n, n, |i, j| if i == j { (n - i) as f64 - 3.0 } else { 0.0 }),
        Dense::from_fn(n, n, |i, j| if i == j { -2.0 } else { f64::from(near(i, j)) }),
        // Wilkinson's: pairs of eigenvalues that agree to many digits.
        Dense::from_fn(n, n, |i, j| if i == j { (i as f64 - n as f64 / 2.0).abs() } else { f64::from(near(i, j)) }),
        symmetric(Dense::from_fn(n, n, |i, j| v[(i, 0)] * v[(j, 0)])),
        // Graded downwards and upwards.
        symmetric(Dense::from_fn(n, n, |i, j| general[(i, j)] * grades[i] * grades[j])),
        symmetric(Dense::from_fn(n, n, |i, j| general[(i, j)] * grades[n - 1 - i] * grades[n - 1 - j])),
        general.scaled(most / (8.0 * n as f64)),
        general.scaled(least),
        general.scaled(8.0 * least * unit),
        random.symmetric(&grades).scaled(least / unit),
    ]
}

/// A matrix of order 1, by a power of two in two factors, which keeps the oracle's squares in range; and its eigenvalues.
struct Expected {
    exponent: i32,
    a: Dense,
    values: Vec<f64>,
}

impl Expected {
    fn of(a: &Dense) -> Self {
        let exponent = if a.max_abs() > 0.0 { -a.max_abs().log2() as i32 } else { 0 };
        let a = a.map(|x| order_one(x, exponent));
        let values = a.symmetric_eigen().values;
        Expected { exponent, a, values }
    }
}

fn order_one(x: f64, exponent: i32) -> f64 {
    x * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2)
}

fn within_bound<T: Element>(n: usize, matrices: &[Expected], found: &Decomposed<T>, what: &str) {
    let format = Format::of::<T>();
    let relative = bounds::batched_eigen(format, n);
    let dq = (n as f64).sqrt() * relative;
    assert!(relative < 0.02, "a bound that says something");
    // The checks' own rounding.
    let check = n as f64 * F64.gamma(2 * n);
    for (b, Expected { exponent, a, values: expected }) in matrices.iter().enumerate() {
        let what = format!("{what}, matrix {b}");
        let norm = a.frobenius();
        let values = found.values[b * n..][..n].iter().map(|&v| order_one(Element::to_f64(v), *exponent));
        let values: Vec<f64> = values.collect();
        assert!(values.is_sorted(), "{what}: ascending");
        let q = Dense::from_slice(n, n, &found.vectors[b * n * n..][..n * n]);
        let orthogonality = q.transpose().matmul(&q).minus(&Dense::identity(n)).frobenius();
        assert!(orthogonality <= 2.0 * dq + dq * dq + check, "{what}: {orthogonality:e} from orthogonal");
        // An eigenvalue that is subnormal is rounded twice.
        let tiny = order_one(2.0 * n as f64 * format.tiny, *exponent);
        let residual = a.matmul(&q).minus(&q.matmul(&Dense::diagonal(&values))).frobenius();
        assert!(residual <= (relative + 2.0 * dq + check) * norm + tiny, "{what}: residual {residual:e} of {norm:e}");
        // Weyl: no eigenvalue moves by more than the norm of the perturbation.
        let allowed = relative * norm + bounds::eigenvalue_error(a) + tiny;
        for (got, want) in values.iter().zip(expected) {
            assert!((got - want).abs() <= allowed, "{what}: {got:e}, not {want:e}, bound {allowed:e}");
        }
    }
}

fn every_size<T: Element>() {
    let mut random = Random::new(21);
    for n in 1..=BATCHED_MAX {
        let matrices: Vec<Dense> = kinds::<T>(n, &mut random).iter().map(Dense::rounded::<T>).collect();
        let a = embed::<T>(&matrices, n, Layout::RowMajor);
        let expected: Vec<Expected> = matrices.iter().map(Expected::of).collect();
        for par in isas() {
            let found = Decomposed::of(&a, Layout::RowMajor, par);
            assert_eq!(found.result, Ok(()), "{par:?} n = {n}");
            within_bound(n, &expected, &found, &format!("{par:?} n = {n}"));
        }
    }
}

#[test]
fn every_size_and_kind_is_within_the_bound_f32() {
    every_size::<f32>();
}

#[test]
fn every_size_and_kind_is_within_the_bound_f64() {
    every_size::<f64>();
}

/// `n` rows, `batch` matrices of which some converge much sooner than others.
fn batch_of<T: Element>(n: usize, batch: usize, random: &mut Random) -> Vec<Dense> {
    let kinds: Vec<Dense> = (0..batch.div_ceil(10)).flat_map(|_| kinds::<T>(n, random)).collect();
    kinds[..batch].iter().map(Dense::rounded::<T>).collect()
}

/// A decomposition depends on its matrix alone: not on its lane, group or neighbours, nor on threads.
fn every_batch<T: Element>() {
    let mut random = Random::new(22);
    for n in [1, 2, 7, 16, 33] {
        let matrices = batch_of::<T>(n, 40, &mut random);
        let alone: Vec<_> = isas()
            .into_iter()
            .map(|par| {
                let one = |a: &Dense| {
                    let a = embed::<T>(std::slice::from_ref(a), n, Layout::RowMajor);
                    Decomposed::of(&a, Layout::RowMajor, par).matrix(0, n)
                };
                (par.isa(), matrices.iter().map(one).collect::<Vec<_>>())
            })
            .collect();
        for batch in (0..=40).chain([131]) {
            let repeated: Vec<Dense> = matrices.iter().cycle().take(batch).cloned().collect();
            let a = embed::<T>(&repeated, n, Layout::RowMajor);
            let found = for_every_par("batch", |par| {
                let found = Decomposed::of(&a, Layout::RowMajor, par);
                assert_eq!(found.result, Ok(()));
                (0..batch).flat_map(|b| found.matrix(b, n)).collect()
            });
            for ((isa, found), (_, alone)) in found.iter().zip(&alone) {
                let expected: Vec<T> = alone.iter().cycle().take(batch).flatten().copied().collect();
                assert_same_bits(found, &expected, &format!("{isa} n = {n}, {batch} matrices"));
            }
        }
    }
}

#[test]
fn a_decomposition_depends_on_its_matrix_alone() {
    every_batch::<f32>();
    every_batch::<f64>();
}

fn every_layout<T: Element>() {
    let mut random = Random::new(23);
    for (n, batch) in [(1, 3), (5, 9), (16, 17), (19, 33), (40, 5)] {
        let matrices = batch_of::<T>(n, batch, &mut random);
        for par in isas() {
            let expected = Decomposed::of(&embed::<T>(&matrices, n, Layout::RowMajor), Layout::RowMajor, par);
            let same = |found: &Decomposed<T>, what: &str| {
                assert_same_bits(&found.values, &expected.values, what);
                assert_same_bits(&found.vectors, &expected.vectors, what);
            };
            for from in Layout::ALL {
                let a = embed::<T>(&matrices, n, from);
                for to in Layout::ALL {
                    same(&Decomposed::of(&a, to, par), &format!("{par:?} n = {n}, {from:?} to {to:?}"));
                }
            }
            // Each matrix column-major.
            let transposed = |values: &[T]| {
                let one = |m: &[T]| (0..n * n).map(|k| m[k % n * n + k / n]).collect::<Vec<T>>();
                values.chunks(n * n).flat_map(one).collect::<Vec<T>>()
            };
            let a = transposed(&embed::<T>(&matrices, n, Layout::RowMajor).elements());
            let (shape, strides) = ([batch, n, n], [(n * n) as isize, 1, n as isize]);
            let (mut values, mut vectors) = (vec![poison(); batch * n], vec![poison(); batch * n * n]);
            let out = ViewMut::strided(&mut vectors, 0, shape, strides).expect("distinct");
            let a = View::strided(&a, 0, shape, strides).expect("inside");
            let into = ViewMut::new(&mut values, [batch, n]).expect("inside");
            batched_symmetric_eigen_alloc(into, out, a, par).expect("converges");
            same(&Decomposed { values, vectors: transposed(&vectors), result: Ok(()) }, "columns");
        }
    }
}

#[test]
fn every_layout_gives_the_same_bits() {
    every_layout::<f32>();
    every_layout::<f64>();
}

/// A power of two changes the exponents of the eigenvalues and nothing else.
fn scales<T: Element>() {
    let mut random = Random::new(24);
    for n in [2, 9, 24] {
        let matrices: Vec<Dense> = kinds::<T>(n, &mut random)[..9].iter().map(Dense::rounded::<T>).collect();
        for par in isas() {
            let expected = Decomposed::of(&embed::<T>(&matrices, n, Layout::RowMajor), Layout::RowMajor, par);
            for exponent in [-21, -1, 1, 21] {
                let factor = 2f64.powi(exponent);
                let scaled: Vec<Dense> = matrices.iter().map(|a| a.scaled(factor)).collect();
                let found = Decomposed::of(&embed::<T>(&scaled, n, Layout::RowMajor), Layout::RowMajor, par);
                let values: Vec<T> = expected.values.iter().map(|&v| v * T::from_f64(factor)).collect();
                assert_same_bits(&found.values, &values, &format!("{par:?} n = {n}, values times 2^{exponent}"));
                assert_same_bits(&found.vectors, &expected.vectors, &format!("{par:?} n = {n}, 2^{exponent}"));
            }
        }
    }
}

#[test]
fn powers_of_two_scale_exactly() {
    scales::<f32>();
    scales::<f64>();
}

/// Diagonal matrices need no arithmetic: sorted values, a permutation, whatever the sizes of the entries.
#[test]
fn diagonal_matrices_are_sorted_exactly() {
    let mut random = Random::new(25);
    for n in [1, 3, 8, 30, 64] {
        for par in isas() {
            let order = random.permutation(n);
            let a = Dense::from_fn(n, n, |i, j| if i == j { 2f64.powi(order[i] as i32 - 40) } else { 0.0 });
            let found = Decomposed::<f32>::of(&embed(&[a], n, Layout::RowMajor), Layout::RowMajor, par);
            let values: Vec<f32> = (0..n).map(|j| 2f32.powi(j as i32 - 40)).collect();
            assert_same_bits(&found.values, &values, "values");
            let one = |k: usize| f32::from(u8::from(order[k / n] == k % n));
            assert_same_bits(&found.vectors, &(0..n * n).map(one).collect::<Vec<_>>(), "vectors");
        }
    }
}

/// Matrices that fail leave their outputs as they were and change no bit of the others; the first is named.
fn failures<T: Element>() {
    let mut random = Random::new(26);
    for (n, batch) in [(1, 20), (6, 37), (17, 70)] {
        let matrices = batch_of::<T>(n, batch, &mut random);
        let a = embed::<T>(&matrices, n, Layout::RowMajor);
        for bad in [T::nan(), T::infinity(), T::neg_infinity()] {
            let spoiled = [3, 4, batch - 1];
            let mut with = a.clone();
            let (i, j) = (n - 1, n / 2);
            for b in spoiled {
                let place = with.places()[(b * n + i) * n + j];
                with.data[place] = bad;
            }
            let expected = for_every_par("expected", |par| {
                let mut found = Decomposed::of(&a, Layout::RowMajor, par);
                for b in spoiled {
                    found.values[b * n..][..n].fill(poison());
                    found.vectors[b * n * n..][..n * n].fill(poison());
                }
                [found.values, found.vectors].concat()
            });
            let found = for_every_par("failures", |par| {
                let found = Decomposed::of(&with, Layout::RowMajor, par);
                let failures = spoiled.map(|b| (b, Error::NotFinite { argument: "a", index: vec![i, j] })).to_vec();
                assert_eq!(found.result, Err(Error::Items { failures }));
                [found.values, found.vectors].concat()
            });
            for ((isa, found), (_, expected)) in found.iter().zip(&expected) {
                assert_same_bits(found, expected, &format!("{isa} n = {n}, {bad}"));
            }
        }
    }
}

#[test]
fn a_matrix_that_is_not_finite_disturbs_no_other() {
    failures::<f32>();
    failures::<f64>();
}

/// With fewer sweeps than they need, matrices are given up, beside others that need none.
#[test]
fn a_matrix_that_does_not_converge_disturbs_no_other() {
    let mut random = Random::new(27);
    let (n, batch) = (12, 50);
    let easy = |b: usize| b % 5 != 2;
    let matrices: Vec<Dense> = (0..batch)
        .map(|b| {
            let spectrum = random.normals(n, 1).data;
            if easy(b) { Dense::diagonal(&spectrum) } else { random.symmetric(&spectrum) }
        })
        .collect();
    let a = embed::<f32>(&matrices, n, Layout::RowMajor);
    let expected = for_every_par("all sweeps", |par| {
        let mut found = Decomposed::of(&a, Layout::RowMajor, par);
        for b in (0..batch).filter(|&b| !easy(b)) {
            found.values[b * n..][..n].fill(poison());
            found.vectors[b * n * n..][..n * n].fill(poison());
        }
        [found.values, found.vectors].concat()
    });
    let found = for_every_par("few sweeps", |par| {
        let mut values = Buffer::<f32, 2>::poisoned([batch, n], Layout::RowMajor);
        let mut vectors = Buffer::<f32, 3>::poisoned([batch, n, n], Layout::RowMajor);
        let mut memory = MemBuffer::new(kernel::symmetric_eigen_scratch::<f32>(batch, n, par));
        let (stack, limit) = (MemStack::new(&mut memory), 4);
        let result = kernel::symmetric_eigen(values.view_mut(), vectors.view_mut(), a.view(), limit, par, stack);
        let cause = Cause::NoConvergence;
        assert_eq!(result, Err((0..batch).filter(|&b| !easy(b)).map(|matrix| Failure { matrix, cause }).collect()));
        [values.elements(), vectors.elements()].concat()
    });
    for ((isa, found), (_, expected)) in found.iter().zip(&expected) {
        assert_same_bits(found, expected, &format!("{isa}"));
    }
}

#[test]
fn an_eigenvalue_that_overflows_is_an_error() {
    let a = [1.0, 0.0, 0.0, 1.0, f32::MAX, f32::MAX, f32::MAX, f32::MAX];
    for par in isas() {
        let (mut values, mut vectors) = ([7.0f32; 4], [7.0f32; 8]);
        let into = ViewMut::new(&mut values, [2, 2]).expect("fits");
        let out = ViewMut::new(&mut vectors, [2, 2, 2]).expect("fits");
        let result = batched_symmetric_eigen_alloc(into, out, View::new(&a, [2, 2, 2]).expect("fits"), par);
        let failures = vec![(1, Error::NotFinite { argument: "values", index: vec![1] })];
        assert_eq!(result, Err(Error::Items { failures }));
        assert_eq!(values, [1.0, 1.0, 7.0, 7.0]);
        assert_eq!(vectors, [1.0, 0.0, 0.0, 1.0, 7.0, 7.0, 7.0, 7.0]);
    }
}

/// Calls with shapes of values, vectors and matrices; outputs must be as before.
fn refused(values: [usize; 2], vectors: [usize; 3], a: [usize; 3], scratch: Option<usize>) -> Error {
    let par = Par::threads(2);
    let (mut v, mut q, m) = (vec![7.0f64; 9000], vec![7.0f64; 9000], vec![1.0f64; 9000]);
    let into = ViewMut::new(&mut v, values).expect("fits");
    let out = ViewMut::new(&mut q, vectors).expect("fits");
    let a = View::new(&m, a).expect("fits");
    let result = match scratch {
        None => batched_symmetric_eigen_alloc(into, out, a, par),
        Some(bytes) => {
            batched_symmetric_eigen(into, out, a, par, MemStack::new(&mut vec![core::mem::MaybeUninit::new(0); bytes]))
        }
    };
    assert!(v.iter().chain(&q).all(|&x| x == 7.0), "outputs as they were");
    result.expect_err("refused")
}

#[test]
fn bad_arguments_are_errors() {
    let shape = |argument, expected: &[usize], got: &[usize]| Error::Shape {
        argument,
        expected: expected.to_vec(),
        got: got.to_vec(),
    };
    assert_eq!(refused([2, 3], [2, 3, 3], [2, 3, 4], None), shape("a", &[2, 3, 3], &[2, 3, 4]));
    assert_eq!(refused([2, 3], [2, 3, 3], [4, 3, 3], None), shape("values", &[4, 3], &[2, 3]));
    assert_eq!(refused([4, 3], [2, 3, 3], [4, 3, 3], None), shape("vectors", &[4, 3, 3], &[2, 3, 3]));
    for n in [65, 66] {
        let expected = Error::Parameter { name: "n", value: n as f64, expected: "at most 64 rows" };
        assert_eq!(refused([2, n], [2, n, n], [2, n, n], None), expected);
    }
    let needed = batched_symmetric_eigen_scratch::<f64>(4, 3, Par::threads(2)).unaligned_bytes_required();
    assert_eq!(refused([4, 3], [4, 3, 3], [4, 3, 3], Some(16)), Error::Scratch { needed, given: 16 });
}

#[test]
fn empty_batches_and_matrices_are_nothing() {
    for (batch, n) in [(0, 0), (0, 5), (7, 0)] {
        let a = Buffer::<f32, 3>::poisoned([batch, n, n], Layout::RowMajor);
        for par in isas() {
            assert_eq!(Decomposed::of(&a, Layout::RowMajor, par).result, Ok(()));
        }
    }
}

//! Lists of mixed sizes: each inverse has the bits of a call of its own, whatever is beside it. Those of interleaved matrices are held against
//! the single kernel's by the residual's bound.

use foof::inverse::{DampedInverse, Damping, damped_inverse_alloc, damped_inverses_alloc};
use foof::{Element, Error, Par, Triangle};
use foof_oracle::bounds::{self, Format};
use foof_oracle::compare::assert_same_bits;
use foof_oracle::generate::log_spectrum;
use foof_oracle::kernels::isas;
use foof_oracle::layout::{Buffer, Layout};
use foof_oracle::{Dense, Random};

/// A matrix of a list.
struct Case {
    a: Dense,
    scale: f64,
    damping: Damping<f64>,
    triangle: Triangle,
    layout: Layout,
}

impl Case {
    fn random(random: &mut Random, n: usize) -> Case {
        let rows = random.normals(n + 3, n).scaled(1.0 / (n as f64 + 3.0).sqrt());
        let layouts = Layout::ALL;
        Case {
            a: rows.transpose().matmul(&rows),
            scale: [1.0, 0.5, 3.0][random.below(3)],
            damping: Damping::from([1.0, 0.25][random.below(2)]),
            triangle: [Triangle::Full, Triangle::Lower][random.below(2)],
            layout: layouts.into_iter().nth(random.below(Layout::ALL.len())).expect("a layout"),
        }
    }

    fn damping<T: Element>(&self) -> Damping<T> {
        Damping { lambda: T::from_f64(self.damping.lambda), indefinite: self.damping.indefinite }
    }

    fn buffers<T: Element>(&self) -> (Buffer<T, 2>, Buffer<T, 2>) {
        let n = self.a.rows;
        (Buffer::matrix(&self.a, self.layout), Buffer::poisoned([n, n], self.layout))
    }

    /// By itself: the output's bits, or what happened.
    fn alone<T: Element>(&self, lane: bool, par: Par) -> (Vec<T>, Result<T, Error>) {
        let (a, mut out) = self.buffers::<T>();
        let (scale, damping) = (T::from_f64(self.scale), self.damping::<T>());
        if !lane {
            let result = damped_inverse_alloc(out.view_mut(), a.view(), scale, damping, self.triangle, par);
            return (out.elements(), result);
        }
        // Four of the same in a list: each in a lane.
        let mut outs = [(); 4].map(|()| self.buffers::<T>().1);
        let item = |out| DampedInverse::new(out, a.view(), scale, damping, self.triangle);
        let mut items: Vec<_> = outs.iter_mut().map(|out| item(out.view_mut())).collect();
        let result = damped_inverses_alloc(&mut items, par);
        let used = items[0].damped_by();
        let result = match result {
            Err(Error::Items { failures }) => Err(failures[0].1.clone()),
            other => other.map(|()| used.expect("it succeeded")),
        };
        (outs[0].elements(), result)
    }
}

/// Runs a list and compares each of its items with a call of its own.
fn compare<T: Element>(cases: &[Case], par: Par, what: &str) -> Result<(), Error> {
    let mut buffers: Vec<_> = cases.iter().map(Case::buffers::<T>).collect();
    let items = buffers.iter_mut().zip(cases).map(|((a, out), case)| {
        DampedInverse::new(out.view_mut(), a.view(), T::from_f64(case.scale), case.damping::<T>(), case.triangle)
    });
    let mut items: Vec<_> = items.collect();
    let result = damped_inverses_alloc(&mut items, par);
    let dampings: Vec<_> = items.iter().map(DampedInverse::damped_by).collect();
    let mut failures = Vec::new();
    // Of each size, sixteen at a time in the order of the list; fewer than four are inverted one by one.
    let in_lane = |place: usize| {
        let n = cases[place].a.rows;
        let equal = |cases: &[Case]| cases.iter().filter(|case| case.a.rows == n).count();
        let group = equal(&cases[..place]) / 16;
        n <= 128 && (equal(cases) - 16 * group).min(16) >= 4
    };
    for (place, (case, (_, out))) in cases.iter().zip(&buffers).enumerate() {
        let what = format!("{what}: number {place}, n = {}", case.a.rows);
        let (expected, alone) = case.alone::<T>(in_lane(place), Par::seq().with_isa(par.isa()));
        out.assert_margins_intact(&what);
        assert_eq!(dampings[place], alone.as_ref().ok().copied(), "{what}");
        match alone {
            Ok(_) => assert_same_bits(&out.elements(), &expected, &what),
            Err(error) => failures.push((place, error)),
        }
    }
    match &result {
        Ok(()) => assert!(failures.is_empty(), "{what}: {failures:?} not reported"),
        Err(error) => assert_eq!(*error, Error::Items { failures }, "{what}"),
    }
    result
}

fn every_par() -> Vec<Par> {
    let threads = |par: Par| [1, 2, 3, 5].map(|threads| Par::threads(threads).with_isa(par.isa()));
    isas().into_iter().flat_map(threads).collect()
}

/// 0 to 20 items of sizes from 0 to 300, many of them equal, one in some lists far larger than the others.
#[test]
fn lists_have_the_bits_of_single_calls() {
    let mut random = Random::new(61);
    let sizes = [0, 1, 2, 5, 8, 8, 8, 10, 16, 16, 17, 32, 33, 64, 65, 100, 128, 129];
    for count in 0..=20 {
        let drawn: Vec<_> = (0..count).map(|_| sizes[random.below(sizes.len())]).collect();
        let mut cases: Vec<_> = drawn.into_iter().map(|n| Case::random(&mut random, n)).collect();
        if count % 4 == 3 {
            cases[count / 2] = Case::random(&mut random, 300);
        }
        for par in every_par() {
            compare::<f32>(&cases, par, &format!("{par:?}, {count} items")).expect("definite");
        }
        compare::<f64>(&cases, Par::threads(2), &format!("f64, {count} items")).expect("definite");
    }
}

/// One that all threads work on, beside those that one thread each does.
#[test]
fn a_large_one_among_small_ones() {
    let mut random = Random::new(62);
    let cases = [9, 700, 40, 12].map(|n| Case::random(&mut random, n));
    for threads in [1, 2, 3] {
        compare::<f32>(&cases, Par::threads(threads), &format!("{threads} threads")).expect("definite");
    }
}

/// Indefinite, singular and not finite ones are reported each with its place; the others are as without them.
#[test]
fn failures_leave_the_others_alone() {
    let mut random = Random::new(63);
    for round in 0..6 {
        let count = 6 + 3 * round;
        let mut cases: Vec<_> = (0..count).map(|k| Case::random(&mut random, [8, 20, 64, 8, 130][k % 5])).collect();
        let mut bad = 0;
        for case in cases.iter_mut().step_by(2 + round % 3) {
            let n = case.a.rows;
            match bad % 4 {
                0 => case.a[(n - 1, n - 1)] = -50.0,
                1 => case.a[(n / 2, 0)] = f64::NAN,
                2 => case.a[(n - 1, n / 3)] = f64::INFINITY,
                _ => {
                    // Indefinite, and inverted with more damping.
                    case.a = random.symmetric(&log_spectrum(n, 2.0)).scaled(-20.0);
                    case.damping = Damping::raised_from(0.25);
                }
            }
            bad += 1;
        }
        for par in every_par() {
            let error = compare::<f32>(&cases, par, &format!("{par:?}, round {round}")).expect_err("some fail");
            let Error::Items { failures } = error else { panic!("{error}") };
            assert!(failures.len() + bad / 4 == bad && failures[0].0 == 0, "{failures:?}");
        }
    }
}

/// Interleaved matrices and single ones are both within the residual's bound.
#[test]
fn lanes_are_as_good_as_single_inverses() {
    let mut random = Random::new(64);
    let format = Format::of::<f64>();
    for n in [1, 7, 32, 64, 100, 128] {
        let cases: Vec<_> = (0..21).map(|_| Case::random(&mut random, n)).collect();
        for par in isas() {
            let mut buffers: Vec<_> = cases.iter().map(Case::buffers::<f64>).collect();
            let items = buffers.iter_mut().zip(&cases).map(|((a, out), case)| {
                DampedInverse::new(out.view_mut(), a.view(), case.scale, case.damping, Triangle::Full)
            });
            damped_inverses_alloc(&mut items.collect::<Vec<_>>(), par).expect("definite");
            for (case, (_, out)) in cases.iter().zip(&buffers) {
                let damped = case.a.scaled(case.scale).damped(case.damping.lambda);
                let (trace, trace_inverse) = (damped.trace(), damped.inverse().trace());
                let bound = bounds::inverse_residual(format, trace, trace_inverse, bounds::sweep(n));
                let residual = damped.matmul(&out.dense()).minus(&Dense::identity(n)).frobenius();
                assert!(bound < 1.0 && residual <= bound, "{par:?} n = {n}: residual {residual:e}, bound {bound:e}");
            }
        }
    }
}

//! Eigendecompositions of a list of matrices of mixed sizes, as one job.

use super::{check_finite_lower, self_adjoint_eigen, self_adjoint_eigen_scratch};
use crate::inverse::failures;
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq};
use foof_kernels::batched::eigen::{self as kernel, Cause, Item};
use foof_kernels::schedule::{self, Group, Job, Threads};

/// One decomposition of a list: eigenvalues of `scale A`, ascending, and eigenvectors in columns.
pub(crate) struct Eigen<'a, T> {
    values: &'a mut [T],
    vectors: MatMut<'a, T>,
    a: MatRef<'a, T>,
    scale: T,
    error: Option<Error>,
}

impl<'a, T: Element> Eigen<'a, T> {
    /// All of `n` rows, symmetric, `scale` positive and finite.
    pub(crate) fn new(values: &'a mut [T], vectors: MatMut<'a, T>, a: MatRef<'a, T>, scale: T) -> Self {
        Eigen { values, vectors, a, scale, error: None }
    }

    /// The eigenvalues.
    pub(crate) fn values_mut(&mut self) -> &mut [T] {
        self.values
    }

    fn size(&self) -> usize {
        self.a.rows()
    }

    fn decompose(&mut self, stack: &mut MemStack) {
        self.error = self_adjoint_eigen(self.values, self.vectors.rb_mut(), self.a, self.scale, stack).err();
    }

    /// From the eigenvalues of A to those of `scale A`.
    fn finish(&mut self, cause: Option<Cause>) {
        if cause.is_none() {
            self.values.iter_mut().for_each(|value| *value = self.scale * *value);
        }
        let place = match cause {
            Some(Cause::NoConvergence) => return self.error = Some(Error::NoConvergence { size: self.size() }),
            Some(Cause::Overflow(place)) => Some(place),
            Some(Cause::NotFinite) => Some(0),
            None => self.values.iter().position(|value| !value.is_finite()),
        };
        self.error = place.map(|place| match check_finite_lower("a", self.a, self.scale) {
            Err(error) => error,
            Ok(()) => Error::NotFinite { argument: "values", index: vec![place] },
        });
    }
}

/// Matrices that a thread takes at a time where they are interleaved: as many as the widest vector has lanes, and a multiple for others.
const TOGETHER: usize = 16;

/// Matrices of one size from which on interleaving them pays, with idle lanes: one by itself is faster by faer.
const WORTHWHILE: usize = 2;

/// Matrices of a size that are decomposed at a time by one thread.
fn together(size: usize) -> usize {
    if size <= kernel::MAX { TOGETHER } else { 1 }
}

/// Decomposes matrices of one size.
fn decompose_group<T: Element>(mut group: Group<'_, Eigen<'_, T>>, par: Par, stack: &mut MemStack) {
    if group.len() < WORTHWHILE {
        return group.iter_mut().for_each(|item| item.decompose(stack));
    }
    let failed = {
        let members = group.iter_mut().map(|item| {
            let Eigen { values, vectors, a, .. } = item;
            Item { values, vectors: vectors.rb_mut(), a: *a }
        });
        let (mut members, stack) = stack.collect(members);
        let limit = kernel::sweeps(members[0].a.rows());
        kernel::symmetric_eigen_list(&mut members, limit, par, stack).err().unwrap_or_default()
    };
    let mut failed = failed.into_iter().peekable();
    for (place, item) in group.iter_mut().enumerate() {
        item.finish(failed.next_if(|failure| failure.matrix == place).map(|failure| failure.cause));
    }
}

/// Scratch of a matrix of a size, and of those that are decomposed with it.
fn scratch_of<T: Element>(n: usize, par: Par) -> StackReq {
    let alone = self_adjoint_eigen_scratch::<T>(n);
    match together(n) {
        1 => alone,
        count => {
            let items = StackReq::new::<Item<'_, T>>(count);
            alone.or(items.and(kernel::symmetric_eigen_scratch::<T>(count, n, par)))
        }
    }
}

/// Rows, cubed and summed, below which all decompositions run on the calling thread: about 2 ms.
const PARALLEL_CUBES: usize = 1 << 21;

fn threads(sizes: impl Iterator<Item = usize>, par: Par) -> Par {
    let cubes = sizes.map(|n| n.saturating_pow(3)).fold(0, usize::saturating_add);
    if cubes < PARALLEL_CUBES { Par::seq().with_isa(par.isa()) } else { par }
}

/// Decomposes every item, of any sizes, from the largest to the smallest, each on one thread; of up to [`BATCHED_MAX`](super::BATCHED_MAX) rows
/// sixteen of one size at a time, one in each lane of a vector, where the list has at least two. Which way a matrix goes follows from the list's sizes and
/// their order alone, so that its bits do not depend on the number of threads.
///
/// # Errors
/// [`Error::Items`] with the place of each item that failed: [`Error::NotFinite`] of `a`, or of `values` where an eigenvalue overflows;
/// [`Error::NoConvergence`]. The other items are decomposed.
///
/// # Panics
/// If `stack` holds less than [`self_adjoint_eigens_scratch`].
pub(crate) fn self_adjoint_eigens<T: Element>(
    items: &mut [Eigen<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    let par = threads(items.iter().map(Eigen::size), par);
    let job = Job {
        size: &|item: &Eigen<'_, T>| item.size(),
        together: &together,
        scratch: &scratch_of::<T>,
        threads: Threads::One,
        run: &|group, par, stack| decompose_group(group, par, stack),
    };
    schedule::run(items, &job, par, stack);
    failures(items.iter().map(|item| item.error.clone()))
}

/// Scratch of [`self_adjoint_eigens`] of a list with these numbers of rows.
pub(crate) fn self_adjoint_eigens_scratch<T: Element, S: Iterator<Item = usize>>(
    sizes: impl Fn() -> S,
    par: Par,
) -> StackReq {
    let par = threads(sizes(), par);
    schedule::scratch(sizes, &scratch_of::<T>, Threads::One, par)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dense::with_scratch;
    use crate::eigen::{batched_symmetric_eigen_alloc, self_adjoint_eigen_alloc};
    use crate::{View, ViewMut};

    /// Sizes of which all, some by themselves, and more than one group are interleaved; on several threads together.
    const SIZES: [usize; 27] =
        [64, 20, 70, 64, 3, 20, 64, 100, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 0, 3, 20, 65];

    fn matrices() -> Vec<Vec<f64>> {
        let entry = |at: usize, i: usize, j: usize| ((at * 31 + i.max(j) * 17 + i.min(j) * 5) % 23) as f64 - 11.0;
        let matrix = |(at, &n): (usize, &usize)| (0..n * n).map(|e| entry(at, e / n, e % n)).collect();
        SIZES.iter().enumerate().map(matrix).collect()
    }

    /// Eigenvalues and eigenvectors of all, and what failed.
    fn decompose(a: &[Vec<f64>], scale: f64, degree: usize) -> (Vec<[Vec<f64>; 2]>, Result<(), Error>) {
        let mut found: Vec<_> = SIZES.iter().map(|&n| [vec![f64::NAN; n], vec![f64::NAN; n * n]]).collect();
        let par = Par::threads(degree);
        let list = found.iter_mut().zip(a).zip(SIZES).map(|(([values, vectors], a), n)| {
            let (vectors, a) = (MatMut::new(vectors, [n, n]), MatRef::new(a, [n, n]));
            Eigen::new(values, vectors.expect("n n"), a.expect("n n"), scale)
        });
        let mut items: Vec<_> = list.collect();
        let req = self_adjoint_eigens_scratch::<f64, _>(|| SIZES.into_iter(), par);
        let result = with_scratch(req, |stack| self_adjoint_eigens(&mut items, par, stack));
        drop(items);
        (found, result)
    }

    #[test]
    fn every_matrix_has_the_bits_of_its_kernel() {
        let (a, scale) = (matrices(), 0.5);
        let one = decompose(&a, scale, 1);
        assert_eq!(one.1, Ok(()));
        for ((&n, a), [values, vectors]) in SIZES.iter().zip(&a).zip(&one.0) {
            let (mut expected, mut q) = (vec![0.0; n], vec![0.0; n * n]);
            // The list has one group of each size that is interleaved.
            if n <= 64 {
                let (values, vectors) = (ViewMut::new(&mut expected, [1, n]), ViewMut::new(&mut q, [1, n, n]));
                let (values, vectors, a) = (values.expect("n"), vectors.expect("n n"), View::new(a, [1, n, n]));
                batched_symmetric_eigen_alloc(values, vectors, a.expect("n n"), Par::seq()).expect("converges");
                expected.iter_mut().for_each(|value| *value *= scale);
            } else {
                let (q, a) = (MatMut::new(&mut q, [n, n]), MatRef::new(a, [n, n]));
                self_adjoint_eigen_alloc(&mut expected, q.expect("n n"), a.expect("n n"), scale).expect("converges");
            }
            if n != 0 {
                assert_eq!((values, vectors), (&expected, &q), "n = {n}");
            }
        }
        for degree in [2, 3, 8] {
            assert_eq!(decompose(&a, scale, degree), one, "{degree} threads");
        }
    }

    #[test]
    fn failures_are_named_and_leave_the_others() {
        let good = decompose(&matrices(), 1.0, 2).0;
        let mut a = matrices();
        // Among others in a group, in a group of two, and by itself.
        for (place, entry) in [(9, 3 * 64 + 1), (4, 3), (7, 99 * 100)] {
            a[place][entry] = f64::NAN;
        }
        let (found, result) = decompose(&a, 1.0, 2);
        let named = |i, j| Error::NotFinite { argument: "a", index: vec![i, j] };
        let failures = vec![(4, named(1, 0)), (7, named(99, 0)), (9, named(3, 1))];
        assert_eq!(result, Err(Error::Items { failures }));
        for (place, (found, good)) in
            found.iter().zip(&good).enumerate().filter(|(place, _)| ![4, 7, 9].contains(place))
        {
            assert_eq!(found, good, "{place}");
        }
        // Finite matrices of which `scale A` is not.
        let (_, result) = decompose(&matrices(), f64::MAX, 1);
        let Err(Error::Items { failures }) = result else { panic!("{result:?}") };
        assert_eq!(failures.len(), SIZES.len() - 1);
        assert!(
            failures.iter().all(|(_, error)| matches!(error, Error::NotFinite { argument: "a", .. })),
            "{failures:?}"
        );
    }
}

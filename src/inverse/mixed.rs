//! Damped inverses of a list of matrices of mixed sizes, as one job.

use super::{Damping, check, damped_inverse_scratch};
use crate::dense::with_scratch;
use crate::error::check_scratch;
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle};
use foof_kernels::batched::{self, Item};
use foof_kernels::cholesky as kernel;
use foof_kernels::schedule::{self, Group, Job, Threads};

/// One inverse `out <- (scale A + damping I)^-1` of a list.
pub struct DampedInverse<'a, T> {
    out: MatMut<'a, T>,
    a: MatRef<'a, T>,
    scale: T,
    damping: Damping<T>,
    triangle: Triangle,
    outcome: Option<Result<T, Error>>,
}

impl<'a, T: Element> DampedInverse<'a, T> {
    /// The arguments are those of [`damped_inverse`](super::damped_inverse), and are checked by [`damped_inverses`].
    pub fn new(
        out: MatMut<'a, T>,
        a: MatRef<'a, T>,
        scale: T,
        damping: impl Into<Damping<T>>,
        triangle: Triangle,
    ) -> Self {
        DampedInverse { out, a, scale, damping: damping.into(), triangle, outcome: None }
    }

    /// The damping with which the inverse was made, larger than the one given only under
    /// [`Indefinite::RaiseDamping`](super::Indefinite); `None` before, and where it failed.
    pub fn damped_by(&self) -> Option<T> {
        self.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok().copied())
    }

    fn check(&self) -> Result<(), Error> {
        check(self.out.shape(), self.a, self.scale, self.damping)
    }

    fn size(&self) -> usize {
        self.a.rows()
    }

    /// As [`damped_inverse`](super::damped_inverse), of checked arguments.
    fn invert(&mut self, par: Par, stack: &mut MemStack) {
        let DampedInverse { out, a, scale, damping, triangle, outcome } = self;
        let inverse = |lambda| kernel::damped_inverse(out.rb_mut(), *a, *scale, lambda, *triangle, par, stack);
        *outcome = Some(damping.attempt(*a, *scale, inverse));
    }

    /// The same by the batched kernel, one lane of it: the bits that the matrix has beside others.
    fn invert_in_lane(&mut self, par: Par, stack: &mut MemStack) {
        let DampedInverse { out, a, scale, damping, triangle, outcome } = self;
        let inverse = |lambda| {
            let item = Item { out: out.rb_mut(), a: *a, scale: *scale, damping: lambda };
            let result = batched::damped_inverse_list(&mut [item], *triangle, par, stack);
            result.map_err(|failures| failures[0].pivot)
        };
        *outcome = Some(damping.attempt(*a, *scale, inverse));
    }
}

/// Matrices that a thread takes at a time where they are interleaved: as many as the widest vector has lanes, and a multiple for others.
const TOGETHER: usize = 16;

/// Matrices of one size from which on interleaving them pays, with idle lanes.
const WORTHWHILE: usize = 4;

/// Matrices of a size that are inverted at a time by one thread.
fn together(size: usize) -> usize {
    if size <= batched::LARGEST { TOGETHER } else { 1 }
}

/// Inverts matrices of one size.
fn invert_group<T: Element>(mut group: Group<'_, DampedInverse<'_, T>>, par: Par, stack: &mut MemStack) {
    if group.len() < WORTHWHILE {
        return group.iter_mut().for_each(|item| item.invert(par, stack));
    }
    for triangle in [Triangle::Lower, Triangle::Full] {
        let failures = {
            let members = group.iter_mut().filter(|item| item.triangle == triangle).map(|item| {
                item.outcome = Some(Ok(item.damping.lambda));
                Item { out: item.out.rb_mut(), a: item.a, scale: item.scale, damping: item.damping.lambda }
            });
            let (mut members, stack) = stack.collect(members);
            batched::damped_inverse_list(&mut members, triangle, par, stack).err().unwrap_or_default()
        };
        for failure in failures {
            let mut members = group.iter_mut().filter(|item| item.triangle == triangle);
            // Once more by itself, to be named or damped more.
            members.nth(failure.index).into_iter().for_each(|item| item.invert_in_lane(par, stack));
        }
    }
}

/// Scratch of a matrix of a size, and of those that are inverted with it.
fn scratch_of<T: Element>(n: usize, par: Par) -> StackReq {
    let alone = damped_inverse_scratch::<T>(n, par);
    match together(n) {
        1 => alone,
        count => {
            let items = StackReq::new::<Item<'_, T>>(count);
            alone.or(items.and(batched::damped_inverse_scratch::<T>([count, n], par)))
        }
    }
}

/// [`damped_inverse`](super::damped_inverse) of every item, of any sizes, with all threads busy until the end: matrices that would outlast all
/// others are inverted first, each by all threads; the others from the largest to the smallest, each by one; of up to 128 rows, sixteen of
/// one size at a time, one in each lane of a vector, where the list has at least four. Every inverse has the bits that
/// [`damped_inverse`](super::damped_inverse) gives it, or, where matrices of its size are interleaved, those of the batched kernel, which
/// depend neither on the matrices beside it nor on the number of threads.
///
/// # Errors
/// [`Error::Items`] with the place of each item that failed: for [`Error::Shape`] and [`Error::Parameter`] all outputs are as they were. For
/// [`Error::NotFinite`] and [`Error::NotPositiveDefinite`] the other items are inverted, and the output of one that failed may hold an
/// unfinished factor. [`Error::Scratch`], outputs as they were.
pub fn damped_inverses<T: Element>(
    items: &mut [DampedInverse<'_, T>],
    par: Par,
    stack: &mut MemStack,
) -> Result<(), Error> {
    items.iter_mut().for_each(|item| item.outcome = None);
    failures(items.iter().map(|item| item.check().err()))?;
    check_scratch(stack, damped_inverses_scratch::<T, _>(|| items.iter().map(DampedInverse::size), par))?;
    let job = Job {
        size: &|item: &DampedInverse<'_, T>| item.size(),
        together: &together,
        scratch: &scratch_of::<T>,
        threads: Threads::All,
        run: &|group, par, stack| invert_group(group, par, stack),
    };
    schedule::run(items, &job, par, stack);
    failures(items.iter().map(|item| item.outcome.as_ref().and_then(|outcome| outcome.as_ref().err().cloned())))
}

/// The errors of a list, if there are any.
pub(crate) fn failures(errors: impl Iterator<Item = Option<Error>>) -> Result<(), Error> {
    let failures: Vec<_> = errors.enumerate().filter_map(|(place, error)| Some((place, error?))).collect();
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::Items { failures }),
    }
}

/// Scratch of [`damped_inverses`] of a list with these numbers of rows.
pub fn damped_inverses_scratch<T: Element, S: Iterator<Item = usize>>(sizes: impl Fn() -> S, par: Par) -> StackReq {
    schedule::scratch(sizes, &scratch_of::<T>, Threads::All, par)
}

/// [`damped_inverses`] with scratch of its own.
///
/// # Errors
/// As [`damped_inverses`].
pub fn damped_inverses_alloc<T: Element>(items: &mut [DampedInverse<'_, T>], par: Par) -> Result<(), Error> {
    let req = damped_inverses_scratch::<T, _>(|| items.iter().map(DampedInverse::size), par);
    with_scratch(req, |stack| damped_inverses(items, par, stack))
}

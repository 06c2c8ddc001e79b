//! A list of matrices of very different sizes, worked on by all threads.
//!
//! Work on a matrix costs the cube of its size. Threads are best used with a matrix each; but one that takes longer than all others together
//! would leave them idle. So the largest are worked on first, one after the other, by all threads; the others are taken from the largest
//! to the smallest by whichever thread is free (longest processing time first: Graham 1969, within a third of the best schedule). Which
//! matrices go first is a matter of speed only: a kernel's bits do not depend on its threads.

use crate::par::Par;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};
use dyn_stack::{MemStack, StackReq};

/// The size at which all threads together take as long as half of them would at their best: measured on inverses, which gain 1.5 from a
/// second thread at n = 512, 1.9 at 1024 and 2.0 from 2048 on.
const HALF: f64 = 100.0;

/// Matrices a thread above which an end without work for some threads is too short to look for something better.
const FEW: usize = 4;

/// How much faster all threads are on one matrix than one thread is.
fn speedup(n: usize, par: Par) -> f64 {
    let others = par.degree() as f64 - 1.0;
    (others + 1.0) / (1.0 + others * HALF / n.max(1) as f64)
}

fn cost(n: usize) -> f64 {
    (n as f64).powi(3)
}

/// Matrices of equal size that one thread works on at a time.
pub struct Group<'a, I> {
    items: *mut I,
    members: &'a [usize],
    exclusive: PhantomData<&'a mut I>,
}

impl<I> Group<'_, I> {
    /// The number of them.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none; there always is.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Each of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut I> {
        let Group { items, members, .. } = self;
        // SAFETY: the members are distinct indices of a slice that `run` borrows exclusively, and in no other group (see `run`).
        members.iter().map(|&at| unsafe { &mut *items.add(at) })
    }
}

/// The items, by pointer, so that each thread can take others of them.
struct Items<I>(*mut I);

// SAFETY: each item is reached by the one thread that took it; items may be sent to it.
unsafe impl<I: Send> Sync for Items<I> {}

impl<I> Items<I> {
    /// # Safety
    /// `members` must be distinct indices of the slice, in no other group that is alive.
    unsafe fn group<'a>(&self, members: &'a [usize]) -> Group<'a, I> {
        Group { items: self.0, members, exclusive: PhantomData }
    }
}

/// Whether threads can share a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threads {
    /// All may work on one, of those that would outlast all others.
    All,
    /// Each matrix is worked on by one.
    One,
}

/// What is done to the items of a list.
pub struct Job<'f, I> {
    /// The size of an item's matrix.
    pub size: &'f (dyn Fn(&I) -> usize + Sync),
    /// How many matrices of a size, at most, one thread takes at a time. More than one only for sizes below 256.
    pub together: &'f (dyn Fn(usize) -> usize + Sync),
    /// Scratch that a matrix of a size needs.
    pub scratch: &'f (dyn Fn(usize, Par) -> StackReq + Sync),
    /// Whether threads can share a matrix.
    pub threads: Threads,
    /// Works on a group with these threads.
    pub run: &'f (dyn Fn(Group<'_, I>, Par, &mut MemStack) + Sync),
}

/// Calls `job.run` with every item, once. Which items are in one group depends on their sizes and order alone.
///
/// # Panics
/// If `stack` holds less than [`scratch`].
pub fn run<I: Send>(items: &mut [I], job: &Job<'_, I>, par: Par, stack: &mut MemStack) {
    let sizes = || items.iter().map(job.size);
    let alone = job.threads.alone(sizes, par);
    let (mut order, stack) = stack.make_with(items.len(), |at| at);
    let size = |at: usize| (job.size)(&items[at]);
    order.sort_unstable_by(|&a, &b| size(b).cmp(&size(a)).then(a.cmp(&b)));
    let first = if job.threads == Threads::One { 0 } else { shared(&order, &size, alone, par) };
    let (first, rest) = order.split_at(first);
    // Groups: as many of a size as may be taken together, from the first of that size on.
    let group = |from: usize| {
        let n = size(rest[from]);
        let most = (job.together)(n).max(1);
        rest[from..].iter().take(most).take_while(|&&at| size(at) == n).count()
    };
    let (mut groups, stack) = stack.make_with(rest.len(), |_| 0);
    let mut from = 0;
    while from < rest.len() {
        groups[from] = group(from);
        from += groups[from];
    }
    let one = par.at_most(1);
    let req = largest(rest.iter().map(|&at| size(at)), job.scratch, one).unaligned_bytes_required();
    let items = &Items(items.as_mut_ptr());
    par.enter(|| {
        for at in first.chunks(1) {
            // SAFETY: an index of the slice, which is borrowed exclusively; each occurs in `order` once.
            (job.run)(unsafe { items.group(at) }, par, stack);
        }
        let degree = par.degree().min(rest.len()).max(1);
        let (memory, _) = stack.make_uninit::<u8>(req * degree);
        let next = AtomicUsize::new(0);
        workers(degree, memory, &|stack| {
            let take = |from: usize| (from < rest.len()).then(|| from + groups[from]);
            while let Ok(from) = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
                // SAFETY: as above; the counter hands out each stretch of `rest` once, and no index of `first` is in it.
                (job.run)(unsafe { items.group(&rest[from..from + groups[from]]) }, one, stack);
            }
        });
    });
}

/// Scratch of [`run`] for a list with these sizes, each matrix needing `each`.
pub fn scratch<S: Iterator<Item = usize>>(
    sizes: impl Fn() -> S,
    each: &dyn Fn(usize, Par) -> StackReq,
    threads: Threads,
    par: Par,
) -> StackReq {
    let (count, alone) = (sizes().count(), threads.alone(&sizes, par));
    let one = largest(sizes().filter(|&n| n <= alone), each, par.at_most(1)).unaligned_bytes_required();
    let lists = StackReq::new::<usize>(count).and(StackReq::new::<usize>(count));
    lists.and(largest(sizes(), each, par).or(StackReq::new::<u8>(one * par.degree().min(count).max(1))))
}

/// The largest scratch of matrices of these sizes.
fn largest(sizes: impl Iterator<Item = usize>, each: &dyn Fn(usize, Par) -> StackReq, par: Par) -> StackReq {
    let mut last = None;
    sizes.fold(StackReq::empty(), |req, n| if last.replace(n) == Some(n) { req } else { req.or(each(n, par)) })
}

/// Calls `body` on `degree` threads, each with its share of the memory. By `rayon::join`, which allocates nothing.
fn workers(degree: usize, memory: &mut [MaybeUninit<u8>], body: &(dyn Fn(&mut MemStack) + Sync)) {
    if degree == 1 {
        return body(MemStack::new(memory));
    }
    let half = degree / 2;
    let (left, right) = memory.split_at_mut(memory.len() / degree * half);
    rayon::join(|| workers(half, left, body), || workers(degree - half, right, body));
}

impl Threads {
    /// The largest size that one thread works on.
    fn alone<S: Iterator<Item = usize>>(self, sizes: impl Fn() -> S, par: Par) -> usize {
        match self {
            Threads::All => largest_alone(sizes, par),
            Threads::One => usize::MAX,
        }
    }
}

/// The largest size that one thread works on: all larger ones are worked on by all threads, as long as that is estimated to end sooner.
fn largest_alone<S: Iterator<Item = usize>>(sizes: impl Fn() -> S, par: Par) -> usize {
    let (mut limit, mut before, mut best) = (usize::MAX, 0.0, (f64::INFINITY, 0));
    loop {
        let rest = sizes().filter(|&n| n <= limit);
        let (total, most, equal) = rest.fold((0.0, 0, 0), |(total, most, equal), n| match n.cmp(&most) {
            core::cmp::Ordering::Less => (total + cost(n), most, equal),
            core::cmp::Ordering::Equal => (total + cost(n), most, equal + 1),
            core::cmp::Ordering::Greater => (total + cost(n), n, 1),
        });
        let even = total / par.degree() as f64;
        let time = before + even.max(cost(most));
        if time < best.0 {
            best = (time, most);
        }
        if most == 0 || cost(most) <= even || speedup(most, par) <= 1.0 {
            return best.1;
        }
        before += f64::from(equal) * cost(most) / speedup(most, par);
        limit = most - 1;
    }
}

/// How many of the first in the order all threads work on: those larger than `alone`, and of few matrices as many more as make the end even.
fn shared(order: &[usize], size: &dyn Fn(usize) -> usize, alone: usize, par: Par) -> usize {
    const THREADS: usize = 64;
    let least = order.iter().take_while(|&&at| size(at) > alone).count();
    let degree = par.degree().min(THREADS);
    if degree == 1 || order.len() - least > FEW * degree {
        return least;
    }
    let time = |shared: usize| {
        let (first, rest) = order.split_at(shared);
        let mut loads = [0.0f64; THREADS];
        for &at in rest {
            let idle = (1..degree).fold(0, |least, thread| if loads[thread] < loads[least] { thread } else { least });
            loads[idle] += cost(size(at));
        }
        let together = first.iter().map(|&at| cost(size(at)) / speedup(size(at), par)).sum::<f64>();
        together + loads.iter().fold(0.0, |most: f64, &load| most.max(load))
    };
    let candidates = least..=order.len().min(least + degree);
    candidates.map(|shared| (time(shared), shared)).fold((f64::INFINITY, least), |a, b| if b.0 < a.0 { b } else { a }).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use dyn_stack::MemBuffer;
    use std::sync::Mutex;

    /// Every item once, groups of one size, and the same groups for any number of threads.
    fn groups(sizes: &[usize], threads: Threads, degree: usize) -> Vec<Vec<usize>> {
        let par = Par::threads(degree);
        let seen = Mutex::new(Vec::new());
        let mut items: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
        let each = |n: usize, par: Par| StackReq::new::<u8>(n * par.degree());
        let job = Job::<(usize, usize)> {
            size: &|item| item.1,
            together: &|n| if n <= 20 { 4 } else { 1 },
            scratch: &each,
            threads,
            run: &|mut group, par, stack| {
                let members: Vec<_> = group.iter_mut().map(|item| *item).collect();
                assert!(members.iter().all(|item| item.1 == members[0].1), "one size");
                assert!(stack.can_hold(each(members[0].1, par)), "its scratch");
                assert!(threads == Threads::All || par.degree() == 1, "one thread");
                seen.lock().expect("no panic").push(members.into_iter().map(|item| item.0).collect());
            },
        };
        let mut memory = MemBuffer::new(scratch(|| sizes.iter().copied(), &each, threads, par));
        run(&mut items, &job, par, MemStack::new(&mut memory));
        let mut seen = seen.into_inner().expect("no panic");
        seen.sort();
        seen
    }

    #[test]
    fn every_item_is_worked_on_once() {
        let lists: [&[usize]; 7] = [
            &[],
            &[0, 0],
            &[5],
            &[3000],
            &[10, 4608, 10, 17, 17, 17, 17, 17, 64, 64],
            &[785, 1001, 1001, 1001, 1000, 1000, 1000, 10],
            &[20; 13],
        ];
        for sizes in lists {
            let one = groups(sizes, Threads::All, 1);
            let mut all: Vec<usize> = one.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
            for degree in [2, 3, 8] {
                for threads in [Threads::All, Threads::One] {
                    assert_eq!(groups(sizes, threads, degree), one, "{sizes:?} on {degree}");
                }
            }
        }
    }

    #[test]
    fn the_largest_are_shared_where_they_would_be_last() {
        let alone = |sizes: &[usize], degree| largest_alone(|| sizes.iter().copied(), Par::threads(degree));
        assert_eq!(alone(&[4608, 10, 10], 2), 10, "one that outweighs the others");
        assert_eq!(alone(&[1000; 6], 2), 1000, "as many as share evenly");
        assert_eq!(alone(&[4608, 10, 10], 1), 4608, "one thread");
        assert_eq!(alone(&[64], 2), 64, "too small for two");
        let order: Vec<usize> = (0..7).collect();
        assert_eq!(shared(&order, &|_| 1000, 1000, Par::threads(2)), 1, "seven: one shared, three each");
    }
}

//! How an operation runs: on how many threads, with which instruction set.

use crate::isa::Isa;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How an operation runs. Results are bitwise equal for any number of threads; they may differ in rounding between instruction sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Par {
    degree: usize,
    isa: Isa,
}

impl Par {
    /// On the calling thread, with [`Isa::selected`].
    pub fn seq() -> Par {
        Par::threads(1)
    }

    /// On up to `n` threads of the current rayon pool (0 is taken as 1), with [`Isa::selected`].
    pub fn threads(n: usize) -> Par {
        Par { degree: n.max(1), isa: Isa::selected() }
    }

    /// On every thread of the current rayon pool.
    pub fn all() -> Par {
        Par::threads(rayon::current_num_threads())
    }

    /// The same number of threads with another instruction set.
    pub fn with_isa(self, isa: Isa) -> Par {
        Par { isa, ..self }
    }

    /// The number of threads, at least 1.
    pub fn degree(self) -> usize {
        self.degree
    }

    /// The instruction set.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// At most `n` threads, where the work does not feed more.
    pub(crate) fn at_most(self, n: usize) -> Par {
        Par { degree: self.degree.min(n.max(1)), ..self }
    }

    /// Runs `task(worker, index)` for every index below `count`: each worker takes the next index when it is free, so put costly tasks first.
    /// Which worker runs a task is not determined; the task must not let its result depend on it.
    pub(crate) fn for_each(self, count: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let next = AtomicUsize::new(0);
        self.at_most(count).workers(&|worker| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                task(worker, index);
            }
        });
    }

    /// Runs `f` on a thread of the pool, where the forks inside it wake other threads cheaply: entering from outside, at
    /// every fork, would cost more than a small product.
    pub(crate) fn enter<R: Send>(self, f: impl FnOnce() -> R + Send) -> R {
        match self.degree > 1 && rayon::current_thread_index().is_none() {
            true => rayon::join(f, || ()).0,
            false => f(),
        }
    }

    /// Calls `body(worker)` once for each worker. Forks by `rayon::join`, which, unlike a scope, allocates nothing.
    pub(crate) fn workers(self, body: &(dyn Fn(usize) + Sync)) {
        fn fork(first: usize, count: usize, body: &(dyn Fn(usize) + Sync)) {
            if count == 1 {
                return body(first);
            }
            let half = count / 2;
            rayon::join(|| fork(first, half, body), || fork(first + half, count - half, body));
        }
        fork(0, self.degree, body);
    }
}

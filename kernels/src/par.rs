//! How an operation runs: on how many threads, with which instruction set.

use crate::isa::Isa;
use core::sync::atomic::{AtomicUsize, Ordering};
use dyn_stack::{MemStack, StackReq};

/// How an operation runs. Results are bitwise equal for any number of threads; they may differ in rounding between instruction sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Par {
    degree: usize,
    isa: Isa,
}

/// The next task of a queue, in lines of its own: a worker that counts its tasks does not take the line from another.
#[repr(align(128))]
struct Next(AtomicUsize);

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
    #[inline]
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// At most `n` threads, where the work does not feed more.
    pub(crate) fn at_most(self, n: usize) -> Par {
        Par { degree: self.degree.min(n.max(1)), ..self }
    }

    /// Runs `task(worker, index)` for every index below `count`. Each worker begins with its own stretch of the indices, so that calls
    /// with the same count find a task's data in the cache of the core that last had it; who is done helps the others.
    /// Which worker runs a task is not determined; the task must not let its result depend on it.
    pub(crate) fn for_each(self, count: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        self.for_each_with(count, || (), |(), worker, index| task(worker, index));
    }

    /// The same, with something that a worker makes once and lends to its tasks.
    pub(crate) fn for_each_with<W>(
        self,
        count: usize,
        make: impl Fn() -> W + Sync,
        task: impl Fn(&mut W, usize, usize) + Sync,
    ) {
        const QUEUES: usize = 64;
        let par = self.at_most(count);
        let queues = par.degree.min(QUEUES);
        let next = [const { Next(AtomicUsize::new(0)) }; QUEUES];
        let cut = |queue: usize| count * queue / queues;
        par.workers(&|worker| {
            let mut own = make();
            for queue in (0..queues).map(|other| (worker + other) % queues) {
                let (start, length) = (cut(queue), cut(queue + 1) - cut(queue));
                loop {
                    let index = next[queue].0.fetch_add(1, Ordering::Relaxed);
                    if index >= length {
                        break;
                    }
                    task(&mut own, worker, start + index);
                }
            }
        });
    }

    /// This many threads in two halves; `None` for one thread.
    fn halves(self) -> Option<[Par; 2]> {
        let left = self.degree / 2;
        (left > 0).then_some([Par { degree: left, ..self }, Par { degree: self.degree - left, ..self }])
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

/// Runs two tasks, each on half of the threads with scratch of its own; on one thread one after the other with the same. Allocates nothing.
pub(crate) fn fork(
    par: Par,
    stack: &mut MemStack,
    req: &dyn Fn(Par) -> StackReq,
    left: impl FnOnce(Par, &mut MemStack) + Send,
    right: impl FnOnce(Par, &mut MemStack) + Send,
) {
    let Some([left_par, right_par]) = par.halves() else {
        left(par, stack);
        return right(par, stack);
    };
    let (memory, rest) = stack.make_aligned_uninit::<u8>(req(left_par).unaligned_bytes_required(), 1);
    rayon::join(|| left(left_par, MemStack::new(memory)), || right(right_par, rest));
}

/// Scratch of [`fork`] for two tasks that take at most `req`.
pub(crate) fn fork_scratch(par: Par, req: &dyn Fn(Par) -> StackReq) -> StackReq {
    match par.halves() {
        None => req(par),
        Some([left, right]) => StackReq::new::<u8>(req(left).unaligned_bytes_required()).and(req(right)),
    }
}

//! Which block comes next: tasks of all three sweeps, each claimed as soon as what it reads is finished.
//!
//! Workers take, in this order: the next diagonal block to factor (the critical path, ahead of the rest of its column), the next block
//! below the diagonal, rows of the inverse triangle whose factor is there, blocks of the product. So a sweep's tail is filled with the next
//! sweep's work, and nobody waits at a barrier. Every task computes the same whoever runs it: bits do not depend on threads.

use super::Pivot;
use std::sync::{Mutex, PoisonError};

/// What is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// L, or a strip of its first columns.
    Factor,
    /// Y, from an L that is there.
    Triangle,
    /// `Y^T Y`.
    Inverse,
}

/// See [`super::tiles`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Task {
    Factor { j: usize, i: usize },
    Invert { i: usize },
    Multiply { i: usize, j: usize },
}

/// What a worker does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    Run(Task),
    /// Nothing is ready, but something will be.
    Wait,
    Done,
}

/// Words of memory for a matrix of this many blocks a side.
pub(super) fn words(blocks: usize) -> usize {
    2 * blocks
}

/// What has been claimed and what has been finished.
struct Progress<'a, T> {
    goal: Goal,
    blocks: usize,
    /// Block columns of L that are wanted: all, but of a strip.
    columns: usize,
    /// For each block row of L, its finished blocks: always the first ones.
    factored: &'a mut [usize],
    diagonals_claimed: usize,
    diagonals: usize,
    /// The next block below the diagonal.
    column: usize,
    row: usize,
    /// Rows of Y not yet claimed: those below `low` were claimed while L was unfinished, those from `high` on since.
    low: usize,
    high: usize,
    inverted: &'a mut [usize],
    inverted_count: usize,
    /// All rows of Y from here on are finished.
    top: usize,
    /// Blocks of the product not yet claimed, in order of rows.
    front: usize,
    back: usize,
    failed: Option<Pivot<T>>,
}

impl<T> Progress<'_, T> {
    fn claim(&mut self) -> Claim {
        if self.failed.is_some() {
            return Claim::Done;
        }
        let task = self.factor().or_else(|| self.invert()).or_else(|| self.multiply());
        match task {
            Some(task) => Claim::Run(task),
            None if self.exhausted() => Claim::Done,
            None => Claim::Wait,
        }
    }

    fn exhausted(&self) -> bool {
        match self.goal {
            Goal::Factor => self.diagonals_claimed == self.columns && self.column >= self.columns,
            Goal::Triangle => self.low >= self.high,
            Goal::Inverse => self.front >= self.back,
        }
    }

    fn factor(&mut self) -> Option<Task> {
        let next = self.diagonals_claimed;
        if next < self.columns && self.factored[next] == next {
            self.diagonals_claimed += 1;
            return Some(Task::Factor { j: next, i: next });
        }
        while self.row >= self.blocks && self.column < self.columns {
            self.column += 1;
            self.row = self.column + 1;
        }
        let (j, i) = (self.column, self.row);
        let ready = i < self.blocks && j < self.columns && j < self.diagonals && self.factored[i] == j;
        ready.then(|| {
            self.row += 1;
            Task::Factor { j, i }
        })
    }

    fn invert(&mut self) -> Option<Task> {
        if self.goal == Goal::Factor || self.low >= self.high {
            return None;
        }
        if self.diagonals == self.blocks {
            // The longest first.
            self.high -= 1;
            return Some(Task::Invert { i: self.high });
        }
        (self.low < self.diagonals).then(|| {
            self.low += 1;
            Task::Invert { i: self.low - 1 }
        })
    }

    fn multiply(&mut self) -> Option<Task> {
        if self.goal != Goal::Inverse || self.front >= self.back {
            return None;
        }
        let index = if self.inverted_count == self.blocks {
            // The longest sums first.
            self.front += 1;
            self.front - 1
        } else {
            while self.top > 0 && self.inverted[self.top - 1] > 0 {
                self.top -= 1;
            }
            if pair(self.back - 1).0 < self.top {
                return None;
            }
            self.back -= 1;
            self.back
        };
        let (i, j) = pair(index);
        Some(Task::Multiply { i, j })
    }

    fn finish(&mut self, task: Task, result: Result<(), Pivot<T>>) {
        if let Err(pivot) = result {
            self.failed = Some(pivot);
            return;
        }
        match task {
            Task::Factor { j, i } => {
                self.factored[i] += 1;
                self.diagonals += usize::from(i == j);
            }
            Task::Invert { i } => {
                self.inverted[i] = 1;
                self.inverted_count += 1;
            }
            Task::Multiply { .. } => {}
        }
    }
}

/// Row and column of entry `index` of a lower triangle, row by row.
pub(super) fn pair(index: usize) -> (usize, usize) {
    let mut i = ((2 * index) as f64).sqrt() as usize;
    while i * (i + 1) / 2 > index {
        i -= 1;
    }
    while (i + 1) * (i + 2) / 2 <= index {
        i += 1;
    }
    (i, index - i * (i + 1) / 2)
}

/// The schedule of one matrix.
pub(super) struct Schedule<'a, T>(Mutex<Progress<'a, T>>);

impl<'a, T: Copy> Schedule<'a, T> {
    /// `words` as many as [`words`] says; `columns` fewer than `blocks` of a strip of a factor only.
    pub(super) fn new(goal: Goal, blocks: usize, columns: usize, words: &'a mut [usize]) -> Self {
        debug_assert!(columns == blocks || columns < blocks && goal == Goal::Factor);
        words.fill(0);
        let (factored, inverted) = words.split_at_mut(blocks);
        let there = if goal == Goal::Triangle { blocks } else { 0 };
        Schedule(Mutex::new(Progress {
            goal,
            blocks,
            columns,
            factored,
            diagonals_claimed: there,
            diagonals: there,
            column: there,
            row: there + 1,
            low: 0,
            high: blocks,
            inverted,
            inverted_count: 0,
            top: blocks,
            front: 0,
            back: blocks * (blocks + 1) / 2,
            failed: None,
        }))
    }

    /// Runs tasks until none is left. To be called by every worker; a worker that finds nothing ready yields its processor.
    pub(super) fn work(&self, run: &dyn Fn(Task) -> Result<(), Pivot<T>>) {
        /// Turns of waiting before the processor is given to others: some microseconds, as long as a small block takes.
        const SPINS: usize = 1 << 12;
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spins = 0;
        let mut claim = lock().claim();
        loop {
            match claim {
                Claim::Run(task) => {
                    let result = run(task);
                    let mut progress = lock();
                    progress.finish(task, result);
                    claim = progress.claim();
                    spins = 0;
                }
                Claim::Wait => {
                    spins += 1;
                    for _ in 0..16 {
                        core::hint::spin_loop();
                    }
                    if spins > SPINS {
                        std::thread::yield_now();
                    }
                    claim = lock().claim();
                }
                Claim::Done => return,
            }
        }
    }

    /// The pivot at which the factorisation failed, if it did.
    pub(super) fn outcome(self) -> Result<(), Pivot<T>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything is run once, after what it reads, whatever order workers finish in.
    #[test]
    fn tasks_wait_for_what_they_read() {
        for (goal, [blocks, columns], workers) in [1, 2, 3, 7].into_iter().flat_map(|blocks| {
            let strips = (1..blocks).map(move |columns| (Goal::Factor, [blocks, columns]));
            let whole = [Goal::Factor, Goal::Triangle, Goal::Inverse].map(|goal| (goal, [blocks; 2]));
            strips.chain(whole).flat_map(|(goal, sizes)| (1..5).map(move |workers| (goal, sizes, workers)))
        }) {
            let mut memory = vec![0; words(blocks)];
            let schedule = Schedule::<f32>::new(goal, blocks, columns, &mut memory);
            let mut progress = schedule.0.into_inner().expect("not poisoned");
            let mut running: Vec<Task> = vec![];
            let mut done: Vec<Task> = vec![];
            let mut turn = 0;
            loop {
                let claim = if running.len() < workers { progress.claim() } else { Claim::Wait };
                match claim {
                    Claim::Run(task) => {
                        let factored =
                            |j: usize, i: usize| goal == Goal::Triangle || done.contains(&Task::Factor { j, i });
                        let reads = match task {
                            Task::Factor { j, i } => {
                                (0..j).all(|k| factored(k, i) && factored(k, j)) && (i == j || factored(j, j))
                            }
                            Task::Invert { i } => (0..=i).all(|r| (0..=r).all(|k| factored(k, r))),
                            Task::Multiply { i, .. } => (i..blocks).all(|i| done.contains(&Task::Invert { i })),
                        };
                        assert!(reads, "{goal:?}, {blocks} blocks, {workers} workers: {task:?} too early");
                        assert!(!running.contains(&task) && !done.contains(&task), "{task:?} twice");
                        running.push(task);
                    }
                    Claim::Done if running.is_empty() => break,
                    _ => {
                        assert!(!running.is_empty(), "{goal:?}, {blocks} blocks: stuck");
                        turn = (turn * 5 + 3) % 64;
                        let task = running.remove(turn % running.len());
                        progress.finish(task, Ok(()));
                        done.push(task);
                    }
                }
            }
            let triangle = blocks * (blocks + 1) / 2;
            let count = match goal {
                Goal::Factor => triangle - (blocks - columns) * (blocks - columns + 1) / 2,
                Goal::Triangle => blocks,
                Goal::Inverse => 2 * triangle + blocks,
            };
            assert_eq!(done.len(), count, "{goal:?}, {blocks} blocks, {workers} workers");
        }
    }
}

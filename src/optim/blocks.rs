//! The factors of all layers side by side: one for each block of weights that is preconditioned by itself.

use super::preconditioner::Entry;
use crate::eigen::{Eigen, check_finite_lower, self_adjoint_eigens, self_adjoint_eigens_scratch};
use crate::inverse::{DampedInverse, damped_inverses, damped_inverses_scratch};
use crate::layer::Layer;
use crate::{Element, Error, MatMut, MatRef, MemStack, Par, StackReq, Triangle, damping};
use core::ops::Range;

/// What a refresh makes of a factor.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Inverse,
    Eigenbasis,
}

/// One factor, `[size, size]`, and where it lies among the others.
struct Block {
    layer: usize,
    /// The group of a layer with several.
    group: Option<usize>,
    size: usize,
    /// The first of its entries.
    at: usize,
    /// The first of its eigenvalues, in an eigenbasis.
    line: usize,
}

impl Block {
    fn entries(&self) -> Range<usize> {
        self.at..self.at + self.size * self.size
    }
}

/// Running factors of one side of all layers after the other's, in each the groups of a layer next to each other. What is in use and what is
/// prepared are two buffers, exchanged when a refresh has succeeded everywhere.
pub(super) struct Blocks<T> {
    list: Vec<Block>,
    /// Blocks of each side.
    count: usize,
    kind: Kind,
    /// Of each factor, for a refresh.
    dampings: Vec<T>,
    running: Vec<T>,
    backup: Vec<T>,
    used: Vec<T>,
    prepared: Vec<T>,
    /// Eigenvalues; empty for inverses.
    values: Vec<T>,
    prepared_values: Vec<T>,
}

/// A side of a layer.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Side {
    Input,
    Error,
}

impl<T: Element> Blocks<T> {
    pub(super) fn new(layers: &[Layer], kind: Kind, with_errors: bool) -> Self {
        let (mut list, mut at, mut line) = (Vec::new(), 0, 0);
        let sides: &[fn(&Layer) -> usize] = &[Layer::factor_input, Layer::factor_error];
        for size in &sides[..1 + usize::from(with_errors)] {
            for (layer, of) in layers.iter().enumerate() {
                for group in 0..of.groups() {
                    let (size, group) = (size(of), (of.groups() > 1).then_some(group));
                    list.push(Block { layer, group, size, at, line });
                    at += size * size;
                    line += size;
                }
            }
        }
        let count = layers.iter().map(Layer::groups).sum();
        let square = || vec![T::zero(); at];
        let values = || vec![T::zero(); if kind == Kind::Eigenbasis { line } else { 0 }];
        let (running, backup, used, prepared) = (square(), square(), square(), square());
        let dampings = vec![T::zero(); list.len()];
        Blocks {
            list,
            count,
            kind,
            dampings,
            running,
            backup,
            used,
            prepared,
            values: values(),
            prepared_values: values(),
        }
    }

    /// Blocks of one side.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether there are error factors.
    pub(super) fn has_errors(&self) -> bool {
        self.list.len() > self.count
    }

    /// The place of a block in the list.
    fn place(&self, side: Side, block: usize) -> usize {
        block + if side == Side::Error { self.count } else { 0 }
    }

    fn block(&self, side: Side, block: usize) -> &Block {
        &self.list[self.place(side, block)]
    }

    /// The layer of a block.
    pub(super) fn layer(&self, block: usize) -> usize {
        self.list[block].layer
    }

    /// The running factors `[G, n, n]` of consecutive blocks, all of a layer.
    pub(super) fn running_mut(&mut self, side: Side, blocks: Range<usize>) -> &mut [T] {
        let blocks = self.place(side, blocks.start)..self.place(side, blocks.end);
        match &self.list[blocks] {
            [] => &mut [],
            [first, .., last] => &mut self.running[first.at..last.entries().end],
            [only] => &mut self.running[only.entries()],
        }
    }

    /// The running factor.
    pub(super) fn running(&self, side: Side, block: usize) -> MatRef<'_, T> {
        let block = self.block(side, block);
        square(&self.running[block.entries()], block.size)
    }

    /// What is in use: an inverse or eigenvectors.
    pub(super) fn used(&self, side: Side, block: usize) -> MatRef<'_, T> {
        let block = self.block(side, block);
        square(&self.used[block.entries()], block.size)
    }

    /// The eigenvalues in use.
    pub(super) fn values(&self, side: Side, block: usize) -> &[T] {
        let block = self.block(side, block);
        &self.values[block.line..block.line + block.size]
    }

    /// The eigenvalues that were prepared.
    pub(super) fn prepared_values(&self, side: Side, block: usize) -> &[T] {
        let block = self.block(side, block);
        &self.prepared_values[block.line..block.line + block.size]
    }

    /// The mean of the eigenvalues, `tr A / n`, corrected by `c`.
    pub(super) fn mean(&self, side: Side, block: usize, c: T) -> T {
        let running = self.running(side, block);
        c * damping::trace(running) / T::from_f64(running.rows() as f64)
    }

    /// The first factor of which `c A` is not finite is an error. Inverses need not be asked before: a pivot that fails tells.
    pub(super) fn check_finite(&self, c: T) -> Result<(), Error> {
        for (number, block) in self.list.iter().enumerate() {
            check_finite_lower(self.argument(number), square(&self.running[block.entries()], block.size), c)
                .map_err(|error| error.in_layer(block.layer))?;
        }
        Ok(())
    }

    /// How the factors of a block are to be damped: the input factor, the error factor.
    pub(super) fn set_dampings(&mut self, block: usize, (input, error): (T, T)) {
        self.dampings[block] = input;
        if self.has_errors() {
            self.dampings[self.count + block] = error;
        }
    }

    /// The split of `damping` by [`damping::heuristic`]; a factor `c A` that is not finite is named.
    pub(super) fn heuristic(&self, block: usize, c: T, damping: T) -> Result<(T, T), Error> {
        let [a, b] = [Side::Input, Side::Error].map(|side| self.mean(side, block, c));
        damping::heuristic(a, b, damping).map_err(|error| match self.check_finite(c) {
            Ok(()) => error.in_layer(self.layer(block)),
            Err(error) => error,
        })
    }

    /// Damped inverses of all input factors, and with [`Side::Error`] of the error factors too, as one list.
    pub(super) fn prepare_inverses(&mut self, last: Side, c: T, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let list = &self.list[..if last == Side::Error { self.list.len() } else { self.count }];
        let (running, dampings, mut prepared) = (&self.running[..], &self.dampings, &mut self.prepared[..]);
        let (mut items, stack) = stack.make_with(list.len(), |place| {
            let (n, entries) = (list[place].size, list[place].entries());
            let out = square_mut(cut(&mut prepared, n * n), n);
            DampedInverse::new(out, square(&running[entries], n), c, dampings[place], Triangle::Full)
        });
        let result = damped_inverses(&mut items, par, stack);
        drop(items);
        result.map_err(|error| match error {
            Error::Items { failures } => self.named(failures),
            error => error,
        })
    }

    /// The first failure, with its layer and side.
    fn named(&self, failures: Vec<(usize, Error)>) -> Error {
        let (place, error) = failures.into_iter().next().unwrap_or_else(|| unreachable!("a list that failed"));
        let error = match error {
            Error::NotFinite { argument: "a", index } => Error::NotFinite { argument: self.argument(place), index },
            error => error,
        };
        error.in_layer(self.list[place].layer)
    }

    /// What a factor is called in errors.
    fn argument(&self, place: usize) -> &'static str {
        if place < self.count { "input factor" } else { "error factor" }
    }

    /// Eigenbases of all factors, as one list. Eigenvalues below zero are rounding errors of a positive semidefinite matrix: they are set to zero.
    pub(super) fn prepare_eigenbases(&mut self, c: T, par: Par, stack: &mut MemStack) -> Result<(), Error> {
        let (list, running) = (&self.list, &self.running[..]);
        let (mut prepared, mut values) = (&mut self.prepared[..], &mut self.prepared_values[..]);
        let (mut items, stack) = stack.make_with(list.len(), |place| {
            let (n, entries) = (list[place].size, list[place].entries());
            let (vectors, values) = (square_mut(cut(&mut prepared, n * n), n), cut(&mut values, n));
            Eigen::new(values, vectors, square(&running[entries], n), c)
        });
        let result = self_adjoint_eigens(&mut items, par, stack);
        items.iter_mut().flat_map(Eigen::values_mut).for_each(|value| *value = value.max(T::zero()));
        drop(items);
        result.map_err(|error| match error {
            Error::Items { failures } => self.named(failures),
            error => error,
        })
    }

    /// Scratch of a refresh.
    pub(super) fn prepare_scratch(&self, par: Par) -> StackReq {
        match self.kind {
            Kind::Inverse => {
                let of = |list: &[Block]| {
                    let items = StackReq::new::<DampedInverse<'_, T>>(list.len());
                    items.and(damped_inverses_scratch::<T, _>(|| list.iter().map(|block| block.size), par))
                };
                of(&self.list[..self.count]).or(of(&self.list))
            }
            Kind::Eigenbasis => {
                let sizes = || self.list.iter().map(|block| block.size);
                StackReq::new::<Eigen<'_, T>>(self.list.len()).and(self_adjoint_eigens_scratch::<T, _>(sizes, par))
            }
        }
    }

    pub(super) fn backup(&mut self) {
        self.backup.copy_from_slice(&self.running);
    }

    pub(super) fn restore(&mut self) {
        self.running.copy_from_slice(&self.backup);
    }

    pub(super) fn commit(&mut self) {
        core::mem::swap(&mut self.used, &mut self.prepared);
        core::mem::swap(&mut self.values, &mut self.prepared_values);
    }

    pub(super) fn entries(&self) -> Vec<Entry<'_, T>> {
        let mut entries = Vec::new();
        for (number, block) in self.list.iter().enumerate() {
            let side = if number < self.count { "input" } else { "error" };
            let group = block.group.map(|group| format!("group.{group}.")).unwrap_or_default();
            let name = |what: &str| format!("layer.{}.{group}{side}.{what}", block.layer);
            let (n, values) = (block.size, self.lines(block));
            entries.push((name("running"), vec![n, n], &self.running[block.entries()]));
            entries.push((name("used"), vec![n, n], &self.used[block.entries()]));
            entries.push((name("values"), vec![values.len()], &self.values[values]));
        }
        entries
    }

    /// Where a block's eigenvalues lie, if there are any.
    fn lines(&self, block: &Block) -> Range<usize> {
        match self.kind {
            Kind::Inverse => 0..0,
            Kind::Eigenbasis => block.line..block.line + block.size,
        }
    }

    /// The same entries, to be overwritten.
    pub(super) fn entries_mut(&mut self) -> Vec<&mut [T]> {
        let lines: Vec<usize> = self.list.iter().map(|block| self.lines(block).len()).collect();
        let [mut running, mut used, mut values] =
            [&mut self.running, &mut self.used, &mut self.values].map(|v| &mut v[..]);
        let mut entries = Vec::new();
        for (block, line) in self.list.iter().zip(lines) {
            entries.push(cut(&mut running, block.size * block.size));
            entries.push(cut(&mut used, block.size * block.size));
            entries.push(cut(&mut values, line));
        }
        entries
    }
}

/// Takes the first `n` values.
pub(super) fn cut<'a, T>(rest: &mut &'a mut [T], n: usize) -> &'a mut [T] {
    let (first, last) = core::mem::take(rest).split_at_mut(n);
    *rest = last;
    first
}

/// A square in a buffer that was made for it.
fn square<T>(values: &[T], size: usize) -> MatRef<'_, T> {
    matrix(values, [size, size])
}

fn square_mut<T>(values: &mut [T], size: usize) -> MatMut<'_, T> {
    matrix_mut(values, [size, size])
}

/// A matrix in a buffer that was made for it.
pub(super) fn matrix<T>(values: &[T], shape: [usize; 2]) -> MatRef<'_, T> {
    MatRef::new(values, shape).unwrap_or_else(|error| unreachable!("a buffer of the right size: {error}"))
}

pub(super) fn matrix_mut<T>(values: &mut [T], shape: [usize; 2]) -> MatMut<'_, T> {
    MatMut::new(values, shape).unwrap_or_else(|error| unreachable!("a buffer of the right size: {error}"))
}

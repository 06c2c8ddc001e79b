//! Inner products of all datapoints' gradients with one matrix or with a low-rank one: `G^T u`.

use super::layer::{Block, Layer};
use super::pairs::{self, Half, Sink};
use crate::conv::patches::Index;
use crate::element::Element;
use crate::engine::epilogue::{Epilogue, Tile};
use crate::engine::kernels::Kernels;
use crate::engine::pack::{PIECE, Pack, Strided};
use crate::engine::{self, Buffers, Engine, WIDEST, aligned};
use crate::par::Par;
use crate::view::MatRef;
use dyn_stack::{MemStack, StackReq};

/// `out_r <- out_r + scale <g_r, U>` with `g_r = sum_t e_rt x_nt^T`, for `u` of the weights' shape: a tile of `U X^T` is multiplied with that of
/// the errors and summed along the weights' rows while it is in cache. `N T o i` multiply-adds, and `R T o`.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`scratch`].
pub fn dots<T: Element>(
    out: &mut [T],
    scale: T,
    layer: &Layer<'_, T>,
    u: MatRef<'_, T>,
    par: Par,
    stack: &mut MemStack,
) {
    assert!(out.len() == layer.rows() && u.shape() == layer.weight_shape(), "dots: shapes disagree");
    for block in layer.blocks() {
        let shape = Shape::new::<T>(&block, par);
        let (sums, stack) = aligned::<T>(stack, shape.sums());
        let sums = Buffers::new(sums, 1);
        let (left, right) = (Strided::rows(u.row_range(block.outputs())), block.inputs(Index::Outputs));
        let epilogue = ColumnDots { block, shape, sums: &sums };
        match block.streamed() {
            true => Engine::streamed(&left, &right, &epilogue, par).run(stack),
            false => Engine::product(&left, &right, &epilogue, par).run(stack),
        }
        // SAFETY: every sum has been written, and the product is done.
        let sums = unsafe { sums.part(0) };
        for (r, out) in out.iter_mut().enumerate() {
            let (n, label) = (r / block.labels, r % block.labels);
            let mut sum = T::zero();
            for bands in 0..shape.bands {
                let line = &sums[shape.at(bands, label) + n * block.positions..][..block.positions];
                sum += line.iter().copied().sum();
            }
            *out += scale * sum;
        }
    }
}

/// Scratch of [`dots`].
pub fn scratch<T: Element>(layer: &Layer<'_, T>, par: Par) -> StackReq {
    let block = layer.block(0);
    let (m, n, k) = (block.o, block.datapoints * block.positions, block.i);
    let product = match block.streamed() {
        true => engine::streamed_scratch::<T>(m, n, k, par),
        false => engine::scratch::<T>(m, n, k, false, par),
    };
    StackReq::new_aligned::<T>(Shape::new::<T>(&block, par).sums(), engine::ALIGN).and(product)
}

/// The roundings that a term `e x u` passes in [`dots`]: those of the product, of sums over a tile's rows, over tiles, positions and groups, a
/// product each, and the scale.
pub fn depth<T: Element>(layer: &Layer<'_, T>, par: Par) -> usize {
    let block = layer.block(0);
    let (m, n, k) = (block.o, block.datapoints * block.positions, block.i);
    let product = match block.streamed() {
        true => engine::streamed_depth::<T>(m, n, k, par),
        false => engine::depth::<T>(m, n, k, false, par),
    };
    let shape = Shape::new::<T>(&block, par);
    product + shape.band.min(m) + shape.bands + block.positions + layer.groups() + 3
}

/// How sums are kept until all tiles are done: `[bands of the weights' rows, labels, N T]`.
#[derive(Clone, Copy)]
struct Shape {
    band: usize,
    bands: usize,
    labels: usize,
    columns: usize,
}

impl Shape {
    fn new<T: Element>(block: &Block<'_, T>, par: Par) -> Shape {
        let columns = block.datapoints * block.positions;
        let band = engine::tile_rows::<T>(block.o, columns, block.i, block.streamed(), par);
        Shape { band, bands: block.o.div_ceil(band), labels: block.labels, columns }
    }

    fn at(&self, band: usize, label: usize) -> usize {
        (band * self.labels + label) * self.columns
    }

    fn sums(&self) -> usize {
        self.bands * self.labels * self.columns
    }
}

/// Sums `U X^T` along its rows, multiplied with the errors.
struct ColumnDots<'a, T: Element> {
    block: Block<'a, T>,
    shape: Shape,
    sums: &'a Buffers<T>,
}

impl<T: Element> Epilogue<T> for ColumnDots<'_, T> {
    fn apply(&self, tile: &Tile<'_, T>) {
        let (nr, lanes) = (tile.kernels.nr, tile.kernels.lanes);
        let mut piece = [T::zero(); PIECE];
        for label in 0..self.block.labels {
            let errors = self.block.errors_of(label, Index::Outputs);
            let to = self.shape.at(tile.row / self.shape.band, label) + tile.col;
            for j in (0..tile.cols).step_by(nr) {
                let width = nr.min(tile.cols - j);
                let mut sums = [T::zero(); WIDEST];
                for p in (0..tile.rows).step_by(PIECE / nr) {
                    let rows = (PIECE / nr).min(tile.rows - p);
                    errors.pack(&mut piece[..rows * nr], tile.col + j, tile.row + p, tile.kernels);
                    let products = (tile.data[p * tile.ld + j..].as_ptr(), tile.ld);
                    let width = width.next_multiple_of(lanes);
                    // SAFETY: the kernels belong to an ISA this CPU has; a tile has room for whole panels, as the piece has.
                    unsafe {
                        (tile.kernels.add_products)(sums.as_mut_ptr(), products, (piece.as_ptr(), nr), width, rows);
                    }
                }
                // SAFETY: the columns and the band of this tile, which no other task has.
                let to = unsafe { core::slice::from_raw_parts_mut(self.sums.as_mut_ptr().add(to + j), width) };
                to.copy_from_slice(&sums[..width]);
            }
        }
    }
}

/// `out_r <- out_r + scale sum_m <g_r, g'_m>`, for the gradients `g'_m` of another batch of the same layer: `U = scale sum_m g'_m` is not formed.
/// Tiles of `X X'^T` and `E E'^T` are multiplied entrywise and summed along rows. `(N N' i + R R' o) T²` multiply-adds.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`low_rank_scratch`].
pub fn low_rank<T: Element>(
    out: &mut [T],
    scale: T,
    layer: &Layer<'_, T>,
    other: &Layer<'_, T>,
    par: Par,
    stack: &mut MemStack,
) {
    assert!(out.len() == layer.rows() && layer.weight_shape() == other.weight_shape(), "dots: shapes disagree");
    for (left, right) in layer.blocks().zip(other.blocks()) {
        let operands = [&left, &right].map(|block| block.both(Index::Outputs, par.isa()));
        let (left, right) = (Half::new(&left, &operands[0]), Half::new(&right, &operands[1]));
        let columns = pairs::columns::<T>(&left, &right, par);
        let (sums, stack) = stack.make_with(left.rows * columns, |_| T::zero());
        let mut sums = sums;
        let sink = RowSums { sums: sums.as_mut_ptr(), columns };
        pairs::run(&left, Some(&right), &sink, par, stack);
        for (out, sums) in out.iter_mut().zip(sums.chunks_exact(columns)) {
            *out += scale * sums.iter().copied().sum();
        }
    }
}

/// Scratch of [`low_rank`].
pub fn low_rank_scratch<T: Element>(layer: &Layer<'_, T>, other: &Layer<'_, T>, par: Par) -> StackReq {
    let blocks = [layer.block(0), other.block(0)];
    let operands = blocks.each_ref().map(|block| block.both(Index::Outputs, par.isa()));
    let (left, right) = (Half::<T>::new(&blocks[0], &operands[0]), Half::new(&blocks[1], &operands[1]));
    let sums = StackReq::new::<T>(left.rows * pairs::columns::<T>(&left, &right, par));
    sums.and(pairs::scratch::<T>(&left, Some(&right), par))
}

/// The roundings that a term `e e' x x'` passes in [`low_rank`].
pub fn low_rank_depth<T: Element>(layer: &Layer<'_, T>, other: &Layer<'_, T>, par: Par) -> usize {
    let blocks = [layer.block(0), other.block(0)];
    let operands = blocks.each_ref().map(|block| block.both(Index::Outputs, par.isa()));
    let (left, right) = (Half::<T>::new(&blocks[0], &operands[0]), Half::new(&blocks[1], &operands[1]));
    pairs::depth::<T>(&left, Some(&right), par) + right.rows + layer.groups() + 2
}

/// Sums lines of pairs along a row: `[rows, columns of tiles]`.
struct RowSums<T> {
    sums: *mut T,
    columns: usize,
}

// SAFETY: a row of a tile is added by the one task that has the tile, to a sum of its own.
unsafe impl<T: Send> Sync for RowSums<T> {}

impl<T: Element> Sink<T> for RowSums<T> {
    unsafe fn add(&self, row: usize, _: usize, column: usize, line: &[T], _: &Kernels<T>) {
        let mut lanes = [T::zero(); 16];
        let (whole, rest) = line.as_chunks::<16>();
        for chunk in whole {
            lanes.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += x);
        }
        let sum: T = lanes.into_iter().chain(rest.iter().copied()).sum();
        // SAFETY: the caller's contract; each sum belongs to one tile.
        unsafe { *self.sums.add(row * self.columns + column) += sum }
    }
}

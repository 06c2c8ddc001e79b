//! Inner products of all pairs of datapoints' gradients: `G^T G`.

use super::gradients;
use super::layer::{Block, Layer};
use super::pairs::{self, Half, Sink};
use crate::conv::patches::Index;
use crate::element::Element;
use crate::engine::epilogue::{Blend, Epilogue, Shared, Tile, Triangle, mirror};
use crate::engine::kernels::Kernels;
use crate::par::Par;
use crate::view::MatMut;
use dyn_stack::{MemStack, StackReq};

/// How inner products of a layer's gradients are formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// From inner products of rows, `sum_tu (x_nt . x_mu) (e_nt . e_mu)`: `N² T² (i + o) / 2` multiply-adds.
    Pairs,
    /// From gradients `sum_t e_nt x_nt^T`, a block of weights at a time: `N T i o + N² i o / 2`.
    Gradients,
}

impl Form {
    /// The form of fewer multiply-adds.
    pub fn of<T: Element>(layer: &Layer<'_, T>) -> Form {
        let block = layer.block(0);
        let [r, n, t, o, i] = [block.rows(), block.datapoints, block.positions, block.o, block.i].map(|x| x as f64);
        let pairs = t * t * (n * n * i + r * r * o) / 2.0;
        let gradients = r * t * i * o + r * r * i * o / 2.0;
        if pairs <= gradients { Form::Pairs } else { Form::Gradients }
    }

    /// Multiply-adds of all groups.
    pub fn multiply_adds<T: Element>(self, layer: &Layer<'_, T>) -> f64 {
        let block = layer.block(0);
        let [r, n, t, o, i] = [block.rows(), block.datapoints, block.positions, block.o, block.i].map(|x| x as f64);
        let each = match self {
            Form::Pairs => t * t * (n * n * i + r * r * o) / 2.0,
            Form::Gradients => r * t * i * o + r * r * i * o / 2.0,
        };
        each * layer.groups() as f64
    }
}

/// `out_rs <- out_rs + <g_r, g_s>` for `s <= r`, `out` `[R, R]`; the rest is neither read nor written. Rows of `T` are
/// widened to `S` while packing, and all is summed in `S`.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`scratch`].
pub fn gram<T: Element, S: Element>(
    mut out: MatMut<'_, S>,
    layer: &Layer<'_, T>,
    form: Form,
    par: Par,
    stack: &mut MemStack,
) {
    assert_eq!(out.shape(), [layer.rows(); 2], "gram: shapes disagree");
    let out = Lower { out: Shared::new(&mut out) };
    // The order of features plays no part in their inner products.
    for block in layer.blocks().map(Block::by_tap) {
        match form {
            Form::Pairs => {
                let operands = block.both(Index::Outputs, par.isa());
                pairs::run(&Half::new(&block, &operands), None, &out, par, stack);
            }
            Form::Gradients => gradients::run(&block, &out, par, stack),
        }
    }
}

/// Scratch of [`gram`].
pub fn scratch<T: Element, S: Element>(layer: &Layer<'_, T>, form: Form, par: Par) -> StackReq {
    let block = layer.block(0);
    let operands = block.both(Index::Outputs, par.isa());
    match form {
        Form::Pairs => pairs::scratch::<S>(&Half::new(&block, &operands), None, par),
        Form::Gradients => gradients::scratch::<T, S>(&block, par),
    }
}

/// The roundings that a term `e x e' x'` passes in [`gram`]; one more for each further layer.
pub fn depth<T: Element, S: Element>(layer: &Layer<'_, T>, form: Form, par: Par) -> usize {
    let block: Block<'_, T> = layer.block(0);
    let operands = block.both(Index::Outputs, par.isa());
    let each = match form {
        Form::Pairs => pairs::depth::<S>(&Half::new(&block, &operands), None, par) + stretches(block.positions),
        Form::Gradients => gradients::depth::<T, S>(&block, par),
    };
    each + layer.groups()
}

/// Additions to an entry where a row's positions are cut into stretches.
fn stretches(positions: usize) -> usize {
    positions.div_ceil(pairs::LEAST).pow(2)
}

/// Scales the lower triangle, adds to the diagonal, and copies it to above the diagonal if asked.
pub fn finish<S: Element>(mut out: MatMut<'_, S>, scale: S, damping: S, triangle: Triangle, par: Par) {
    let n = out.rows();
    let out = Shared::new(&mut out);
    let kernels = S::kernels(par.isa());
    let par = par.at_most(n * n / (1 << 15));
    let blocks = n.div_ceil(BAND);
    par.for_each(blocks, &|_, block| {
        for i in block * BAND..n.min((block + 1) * BAND) {
            for j in 0..=i {
                let at = out.at(i, j);
                // SAFETY: an entry of the lower triangle, in a band that this task alone has.
                unsafe { *at = scale * *at + if i == j { damping } else { S::zero() } };
            }
        }
    });
    if triangle == Triangle::Full {
        par.for_each(blocks, &|_, block| {
            let rows = block * BAND..n.min((block + 1) * BAND);
            // SAFETY: the entries below the diagonal of these rows, and their mirror images, belong to this task.
            unsafe { mirror(&out, rows.clone(), 0..rows.end, kernels) };
        });
    }
}

/// Rows of a task of [`finish`].
const BAND: usize = 64;

/// Writes zeros to the lower triangle.
pub fn clear<S: Element>(mut out: MatMut<'_, S>, par: Par) {
    let n = out.rows();
    let out = Shared::new(&mut out);
    let contiguous = out.contiguous_rows().is_some();
    par.at_most(n * n / (1 << 15)).for_each(n.div_ceil(BAND), &|_, block| {
        for i in block * BAND..n.min((block + 1) * BAND) {
            if contiguous {
                // SAFETY: a line of the lower triangle, in a band that this task alone has.
                unsafe { core::slice::from_raw_parts_mut(out.at(i, 0), i + 1) }.fill(S::zero());
                continue;
            }
            // SAFETY: as above, entry by entry.
            (0..=i).for_each(|j| unsafe { *out.at(i, j) = S::zero() });
        }
    });
}

/// Adds to the lower triangle of a matrix.
pub(crate) struct Lower<'a, T> {
    out: Shared<'a, T>,
}

impl<T: Element> Sink<T> for Lower<'_, T> {
    unsafe fn add(&self, row: usize, first: usize, _: usize, line: &[T], kernels: &Kernels<T>) {
        // SAFETY: the caller's contract; lines of a diagonal tile end at the diagonal.
        unsafe { self.out.blend((row, first), line, Blend::add(T::one()), kernels) }
    }
}

impl<T: Element> Epilogue<T> for Lower<'_, T> {
    fn apply(&self, tile: &Tile<'_, T>) {
        for (i, row) in tile.data.chunks_exact(tile.ld).take(tile.rows).enumerate() {
            let cols = tile.cols.min((tile.row + i + 1).saturating_sub(tile.col));
            // SAFETY: the tile lies inside the product's shape, which is the output's; each is finished by one task.
            unsafe { self.out.blend((tile.row + i, tile.col), &row[..cols], Blend::add(T::one()), tile.kernels) };
        }
    }
}

//! Weighted sums of datapoints' gradients: `G v`.

use super::layer::{Layer, Stacked, Weighted, Weights};
use crate::conv::patches::Index;
use crate::conv::product::by_tap;
use crate::conv::store::StoreTensor;
use crate::element::Element;
use crate::elementwise;
use crate::engine::epilogue::{Blend, Epilogue, Shared, Store, Tile, blend_line};
use crate::engine::pack::Pack;
use crate::engine::{self, Engine};
use crate::par::Par;
use crate::view::{MatMut, MatRef};
use dyn_stack::{MemStack, StackReq};

/// Rows of a layer, each gradient with a weight.
pub type Term<'a, T> = (Layer<'a, T>, Weights<'a, T>);

/// `out <- beta base + alpha sum_r v_r g_r`, where without `base` that is `out` itself, for `out` of the weights' shape; with a second term, rows
/// of another batch of the same layer, as one product `[diag(v) E; diag(v') E']^T [X; X']`. `N T o i` multiply-adds for each term;
/// `beta = 0` reads neither.
///
/// # Panics
/// If shapes disagree, or `stack` holds less than [`scratch`].
pub fn sum<T: Element>(
    out: MatMut<'_, T>,
    base: Option<MatRef<'_, T>>,
    blend: Blend<T>,
    term: &Term<'_, T>,
    second: Option<&Term<'_, T>>,
    par: Par,
    stack: &mut MemStack,
) {
    let shape = term.0.weight_shape();
    assert!(out.shape() == shape && base.is_none_or(|base| base.shape() == shape), "sum: shapes disagree");
    assert!(second.is_none_or(|second| second.0.weight_shape() == shape), "sum: shapes of the terms disagree");
    let [row_step, col_step] = out.strides().map(isize::unsigned_abs);
    // Rows of a tile are contiguous: a column-major output is computed as its transpose.
    let transposed = row_step < col_step;
    let mut out = out;
    for (g, block) in term.0.blocks().enumerate() {
        let rows = block.outputs();
        let out = out.rb_mut().row_range(rows.clone());
        let base = base.map(|base| base.row_range(rows));
        let features = block.by_tap();
        let other = second.map(|second| (second.0.block(g).by_tap(), second.1));
        let (e, x) = (Weighted { block, weights: term.1 }, features.inputs(Index::Features));
        let more = other.map(|(block, weights)| (Weighted { block, weights }, block.inputs(Index::Features)));
        let run = |e: &dyn Pack<T>, x: &dyn Pack<T>| match block.conv() {
            Some(conv) => {
                let (out, blend) = based(out, base, blend, par);
                let (out, last) = by_tap(out, conv);
                // SAFETY: the product is the group's rows by the features, and one where there is a bias.
                let epilogue = unsafe { StoreTensor::new(out, last, blend) };
                Engine::streamed(e, x, &epilogue, par).run(stack);
            }
            None => {
                let (left, right, out, base) = match transposed {
                    true => (x, e, out.transpose(), base.map(MatRef::transpose)),
                    false => (e, x, out, base),
                };
                // SAFETY: shapes were checked.
                let epilogue = unsafe { StoreFrom::new(out, base, blend) };
                Engine::windowed(left, right, &epilogue, par).run(stack);
            }
        };
        match &more {
            None => run(&e, &x),
            Some((e2, x2)) => run(&Stacked(&[&e, e2]), &Stacked(&[&x, x2])),
        }
    }
}

/// `out` with `beta base` in it, and how a product is then blended.
fn based<'a, T: Element>(
    mut out: MatMut<'a, T>,
    base: Option<MatRef<'_, T>>,
    blend: Blend<T>,
    par: Par,
) -> (MatMut<'a, T>, Blend<T>) {
    match base.filter(|_| blend.beta != T::zero()) {
        None => (out, blend),
        Some(base) => {
            elementwise::blend(out.rb_mut(), Blend::set(blend.beta), base, par);
            (out, Blend::add(blend.alpha))
        }
    }
}

fn sizes<T: Element>(layer: &Layer<'_, T>, second: Option<&Layer<'_, T>>) -> ([usize; 3], bool) {
    let rows = |layer: &Layer<'_, T>| layer.datapoints() * layer.positions();
    let block = layer.block(0);
    ([block.o, block.i, rows(layer) + second.map_or(0, rows)], block.streamed())
}

/// Scratch of [`sum`], whatever the strides.
pub fn scratch<T: Element>(layer: &Layer<'_, T>, second: Option<&Layer<'_, T>>, par: Par) -> StackReq {
    let ([o, i, k], streamed) = sizes(layer, second);
    let each = |m, n| match streamed {
        true => engine::streamed_scratch::<T>(m, n, k, par),
        false => engine::windowed_scratch::<T>(m, n, k, par),
    };
    each(o, i).or(each(i, o))
}

/// The roundings that a term `v e x` passes in [`sum`]: the product's, its weight, and the sum over labels.
pub fn depth<T: Element>(layer: &Layer<'_, T>, second: Option<&Layer<'_, T>>, par: Par) -> usize {
    let ([o, i, k], streamed) = sizes(layer, second);
    let each = |m, n| match streamed {
        true => engine::streamed_depth::<T>(m, n, k, par),
        false => engine::windowed_depth::<T>(m, n, k, par),
    };
    each(o, i).max(each(i, o)) + 1 + layer.labels().max(second.map_or(0, Layer::labels))
}

/// Blends tiles with another matrix than the one they are stored to.
struct StoreFrom<'a, T> {
    store: Store<'a, T>,
    from: Option<(Shared<'a, T>, MatRef<'a, T>)>,
    blend: Blend<T>,
}

impl<'a, T: Element> StoreFrom<'a, T> {
    /// # Safety
    /// The product has the shape of `out` and `base`.
    unsafe fn new(mut out: MatMut<'a, T>, base: Option<MatRef<'a, T>>, blend: Blend<T>) -> Self {
        let from = base.filter(|_| blend.beta != T::zero()).map(|base| (Shared::new(&mut out), base));
        // SAFETY: the caller's contract.
        StoreFrom { store: unsafe { Store::new(out, blend) }, from, blend }
    }
}

impl<T: Element> Epilogue<T> for StoreFrom<'_, T> {
    fn apply(&self, tile: &Tile<'_, T>) {
        let Some((out, base)) = &self.from else { return self.store.apply(tile) };
        let step = out.column_step();
        for (i, row) in tile.data.chunks_exact(tile.ld).take(tile.rows).enumerate() {
            let (i, to) = (tile.row + i, out.at(tile.row + i, tile.col));
            let line = base.row(i).map(|line| &line[tile.col..tile.col + tile.cols]);
            match line.filter(|_| step == 1) {
                // SAFETY: the tile lies inside the output, which no other view of the base meets; the kernels belong to an ISA this CPU has.
                Some(line) => unsafe {
                    (tile.kernels.copy_block)(to, 0, line.as_ptr(), 0, line.len(), 1);
                },
                None => {
                    for j in 0..tile.cols {
                        // SAFETY: as above.
                        unsafe { *to.wrapping_offset(j as isize * step) = base.at([i, tile.col + j]) }
                    }
                }
            }
            // SAFETY: as above.
            unsafe { blend_line(to, step, &row[..tile.cols], self.blend, tile.kernels) };
        }
    }
}

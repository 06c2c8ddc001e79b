//! Where the tiles of a convolution's products go: tensors whose columns run over several axes.

use crate::element::Element;
use crate::engine::epilogue::{Blend, Epilogue, Tile, blend_line};
use crate::view::ViewMut;
use core::marker::PhantomData;

/// Blends tiles into a tensor `[A, rows, B, C, D]`: columns are the other four axes, row-major, and perhaps one more.
pub(crate) struct StoreTensor<'a, T> {
    ptr: *mut T,
    row_step: isize,
    /// Sizes and steps, outermost first; axes that follow on one another are one.
    axes: [(usize, isize); 4],
    /// Where the column after those starts.
    last: Option<isize>,
    blend: Blend<T>,
    memory: PhantomData<&'a mut T>,
}

// SAFETY: tasks write disjoint entries, because each tile of the output is finished by one task.
unsafe impl<T: Send> Sync for StoreTensor<'_, T> {}

impl<'a, T: Element> StoreTensor<'a, T> {
    /// # Safety
    /// The product this is the epilogue of has as many rows as `out`'s second axis, and as many columns as its others. With `last` it has one
    /// column more: entries that far from the first column's, writable and not among the others.
    pub(crate) unsafe fn new(mut out: ViewMut<'a, T, 5>, last: Option<isize>, blend: Blend<T>) -> Self {
        let ([a, _, b, c, d], [sa, row_step, sb, sc, sd]) = (out.shape(), out.strides());
        let mut axes = [(1, 0); 4];
        let mut place = 4;
        for (size, step) in [(d, sd), (c, sc), (b, sb), (a, sa)] {
            match axes.get_mut(place) {
                _ if size == 1 => {}
                Some((inner, inner_step)) if step == *inner_step * *inner as isize => *inner *= size,
                _ => {
                    place -= 1;
                    axes[place] = (size, step);
                }
            }
        }
        StoreTensor { ptr: out.as_mut_ptr(), row_step, axes, last, blend, memory: PhantomData }
    }

    /// Where a column starts, how many follow it, and how far apart.
    fn run(&self, column: usize) -> (isize, usize, isize) {
        let (mut rest, mut at) = (column, 0);
        for &(size, step) in self.axes.iter().rev() {
            at += (rest % size) as isize * step;
            rest /= size;
        }
        let (size, step) = self.axes[3];
        match (rest, self.last) {
            (1.., Some(last)) => (last, 1, 1),
            _ => (at, size - column % size, step),
        }
    }
}

impl<T: Element> Epilogue<T> for StoreTensor<'_, T> {
    fn apply(&self, tile: &Tile<'_, T>) {
        let mut column = 0;
        while column < tile.cols {
            let (at, length, step) = self.run(tile.col + column);
            let end = tile.cols.min(column + length);
            for (i, row) in tile.data.chunks_exact(tile.ld).take(tile.rows).enumerate() {
                let to = self.ptr.wrapping_offset((tile.row + i) as isize * self.row_step + at);
                // SAFETY: the tile lies inside the product's shape, which is the output's.
                unsafe { blend_line(to, step, &row[column..end], self.blend, tile.kernels) };
            }
            column = end;
        }
    }
}

//! The one matrix product that everything here is made of, on foof's engine, with its memory taken once.

use dyn_stack::{MemBuffer, MemStack, StackReq};
use foof::product::{product, product_scratch};
use foof::{Blend, MatMut, MatRef, Par};

use crate::Result;

/// How products run and the memory that they need.
pub struct Workspace {
    par: Par,
    memory: MemBuffer,
}

impl Workspace {
    /// Memory for products of the given sizes `[m, n, k]`: `[m, k]` times `[k, n]`.
    pub fn new(par: Par, sizes: &[[usize; 3]]) -> Self {
        let scratch = |&[m, n, k]: &[usize; 3]| product_scratch::<f32>(m, n, k, par);
        let largest = sizes.iter().map(scratch).fold(StackReq::EMPTY, StackReq::or);
        Self { par, memory: MemBuffer::new(largest) }
    }

    /// `out <- beta out + alpha lhs rhs`; with `beta = 0`, `out` is not read.
    pub fn matmul(
        &mut self,
        out: MatMut<'_, f32>,
        alpha: f32,
        lhs: MatRef<'_, f32>,
        rhs: MatRef<'_, f32>,
        beta: f32,
    ) -> Result {
        let stack = MemStack::new(&mut self.memory);
        product(out, Blend { alpha, beta }, lhs, rhs, self.par, stack)?;
        Ok(())
    }
}

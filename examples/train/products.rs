//! The products that everything here is made of, on foof's engine, in memory that is taken once.

use dyn_stack::{MemBuffer, MemStack, StackReq};
use foof::convolution::{
    Conv, conv_forward, conv_forward_scratch, conv_input_gradient, conv_input_gradient_scratch, conv_weight_gradient,
    conv_weight_gradient_scratch,
};
use foof::product::{product, product_scratch};
use foof::{Blend, MatMut, MatRef, Par, View, ViewMut};

use crate::Result;

/// Images with two spatial axes, `[N, C, H, W]`.
pub type Images<'a> = View<'a, f32, 4>;
pub type ImagesMut<'a> = ViewMut<'a, f32, 4>;

/// How products run, and the memory that they need: as much as the largest of them so far.
pub struct Workspace {
    par: Par,
    memory: MemBuffer,
}

impl Workspace {
    pub fn new(par: Par) -> Self {
        Self { par, memory: MemBuffer::new(StackReq::EMPTY) }
    }

    fn stack(&mut self, needed: StackReq) -> &mut MemStack {
        if !MemStack::new(&mut self.memory).can_hold(needed) {
            self.memory = MemBuffer::new(needed);
        }
        MemStack::new(&mut self.memory)
    }

    /// `out <- beta out + alpha lhs rhs`; with `beta = 0`, `out` is not read.
    pub fn matmul(
        &mut self,
        out: MatMut<'_, f32>,
        blend: Blend<f32>,
        lhs: MatRef<'_, f32>,
        rhs: MatRef<'_, f32>,
    ) -> Result {
        let par = self.par;
        let stack = self.stack(product_scratch::<f32>(lhs.rows(), rhs.cols(), lhs.cols(), par));
        Ok(product(out, blend, lhs, rhs, par, stack)?)
    }

    /// A convolution's outputs.
    pub fn convolve(&mut self, out: ImagesMut<'_>, x: Images<'_>, weight: MatRef<'_, f32>, conv: &Conv) -> Result {
        let par = self.par;
        let stack = self.stack(conv_forward_scratch::<f32>(x.shape()[0], conv, par));
        Ok(conv_forward(out, Blend::set(1.0), x, weight, conv, par, stack)?)
    }

    /// From errors of a convolution's outputs, those of its inputs.
    pub fn convolve_back(
        &mut self,
        out: ImagesMut<'_>,
        errors: Images<'_>,
        weight: MatRef<'_, f32>,
        conv: &Conv,
    ) -> Result {
        let par = self.par;
        let stack = self.stack(conv_input_gradient_scratch::<f32>(errors.shape()[0], conv, par));
        Ok(conv_input_gradient(out, Blend::set(1.0), errors, weight, conv, par, stack)?)
    }

    /// `out <- beta out + alpha U`, `U` the sum of a convolution's weight gradients.
    pub fn convolution_gradient(
        &mut self,
        out: MatMut<'_, f32>,
        blend: Blend<f32>,
        errors: Images<'_>,
        x: Images<'_>,
        conv: &Conv,
    ) -> Result {
        let par = self.par;
        let stack = self.stack(conv_weight_gradient_scratch::<f32>(x.shape()[0], conv, par));
        Ok(conv_weight_gradient(out, blend, errors, x, conv, par, stack)?)
    }
}

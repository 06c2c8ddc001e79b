//! Ways to run a kernel: every instruction set, several thread counts, buffers as views.

use crate::layout::Buffer;
use foof_kernels::{Isa, Par, View, ViewMut};

/// Every instruction set of this CPU, each on one thread.
pub fn isas() -> Vec<Par> {
    Isa::available().iter().map(|&isa| Par::seq().with_isa(isa)).collect()
}

/// Runs `f` on 1, 2 and 3 threads of every instruction set, asserts that the thread count changes no bit, and returns the
/// result of each instruction set.
#[track_caller]
pub fn for_every_par<T: bytemuck::Pod + num_traits::ToPrimitive>(
    what: &str,
    f: impl Fn(Par) -> Vec<T>,
) -> Vec<(Isa, Vec<T>)> {
    let on = |isa: Isa| {
        let one = f(Par::seq().with_isa(isa));
        for threads in [2, 3] {
            let more = f(Par::threads(threads).with_isa(isa));
            crate::compare::assert_same_bits(&more, &one, &format!("{what}: {isa}, {threads} threads against one"));
        }
        (isa, one)
    };
    Isa::available().iter().map(|&isa| on(isa)).collect()
}

impl<T, const R: usize> Buffer<T, R> {
    /// The tensor as a view.
    pub fn view(&self) -> View<'_, T, R> {
        View::strided(&self.data, self.offset, self.shape, self.strides).expect("inside the buffer")
    }

    /// The tensor as a mutable view.
    pub fn view_mut(&mut self) -> ViewMut<'_, T, R> {
        ViewMut::strided(&mut self.data, self.offset, self.shape, self.strides).expect("inside the buffer")
    }
}

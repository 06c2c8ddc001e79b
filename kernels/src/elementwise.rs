//! Entry by entry: what is bound by memory, not by FMAs.

use crate::element::Element;
use crate::engine::epilogue::Blend;
use crate::par::Par;
use crate::view::{MatMut, MatRef};

/// Entries that are worth a thread of their own: 128 kB of f32, a few microseconds.
const PARALLEL_ENTRIES: usize = 1 << 15;

/// `out <- beta out + alpha x`, entry by entry; `beta = 0` does not read `out`. Two reads and a write an entry.
///
/// # Panics
/// If the shapes differ.
pub fn blend<T: Element>(mut out: MatMut<'_, T>, blend: Blend<T>, x: MatRef<'_, T>, par: Par) {
    assert_eq!(out.shape(), x.shape(), "blend: shapes differ");
    let [m, n] = out.shape();
    let ([rs, cs], [xrs, xcs]) = (out.strides(), x.strides());
    if (rs == 1 && xrs == 1) && !(cs == 1 && xcs == 1) {
        return self::blend(out.transpose(), blend, x.transpose(), par);
    }
    let kernels = T::kernels(par.isa());
    let contiguous = cs == 1 && xcs == 1;
    let parts = par.at_most((m * n).div_ceil(PARALLEL_ENTRIES)).at_most(m);
    let at = SendPtr(out.as_mut_ptr());
    parts.workers(&|part| {
        let at = &at;
        for i in m * part / parts.degree()..m * (part + 1) / parts.degree() {
            let to = at.0.wrapping_offset(i as isize * rs);
            if contiguous {
                let from = x.as_ptr().wrapping_offset(i as isize * xrs);
                // SAFETY: the kernels belong to an ISA this CPU has; row i of both, n entries, this worker's alone.
                unsafe { (kernels.blend)(to, from, n, blend.alpha, blend.beta) };
            } else {
                for j in 0..n {
                    let to = to.wrapping_offset(j as isize * cs);
                    let value = blend.alpha * x.at([i, j]);
                    // SAFETY: entry (i, j) of the output, in a row that is this worker's alone.
                    unsafe { *to = if blend.beta == T::zero() { value } else { value + blend.beta * *to } }
                }
            }
        }
    });
}

/// Where rows start that workers share out.
struct SendPtr<T>(*mut T);

// SAFETY: each worker writes rows of its own.
unsafe impl<T: Send> Sync for SendPtr<T> {}

//! Cholesky factors of symmetric matrices and what follows from them: damped inverses and solves.
//!
//! Every sweep halves its matrix until a leaf of [`LEAF`] rows is left, so that all but the leaves is products on the
//! engine, whatever the cache sizes:
//!
//! ```text
//! potrf   A = L L^T      [A11    ]   L11 = potrf(A11),  L21 = A21 L11^-T (trsm),  A22 <- A22 - L21 L21^T,  L22 = potrf(A22)
//!                        [A21 A22]
//! trtri   Y = L^-1       Y22 = trtri(L22),  Y21 = -(Y22 L21) L11^-1 (trmm, trsm),  Y11 = trtri(L11)
//! lauum   Y^T Y          X11 = lauum(Y11) + Y21^T Y21,  X21 = Y22^T Y21,  X22 = lauum(Y22)
//! trsm    B <- L^-1 B    B1 <- L11^-1 B1,  B2 <- B2 - L21 B1,  B2 <- L22^-1 B2
//! ```

mod inverse;
pub(crate) mod leaf;
mod potrf;
pub(crate) mod small;
mod triangular;

pub use inverse::{damped_cholesky, damped_inverse, damped_inverse_scratch};
pub use potrf::{potrf, potrf_scratch};
pub use triangular::{
    lauum, lauum_scratch, solve_left, solve_lower, solve_lower_transposed, solve_scratch, trtri, trtri_scratch,
};

/// Rows of a leaf: small enough that its row operations, which run at a fraction of the engine's rate, hardly count
/// (`LEAF / n` of the work), large enough that products are worth their packing.
pub const LEAF: usize = 32;

/// Where the first half ends: a multiple of the leaf, so that every block is whole but the last.
fn half(n: usize) -> usize {
    (n / 2).next_multiple_of(LEAF).min(n)
}

/// A pivot that is not positive, or not finite.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pivot<T> {
    /// Row of the pivot.
    pub index: usize,
    /// Its value, the diagonal of what is left to factor.
    pub value: T,
}

impl<T> Pivot<T> {
    fn after(self, rows: usize) -> Self {
        Pivot { index: self.index + rows, ..self }
    }
}

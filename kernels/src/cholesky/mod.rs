//! Cholesky factors of symmetric matrices and what follows from them: damped inverses and solves.
//!
//! ```text
//! potrf   A = L L^T        L_IJ = (A_IJ - sum_(K<J) L_IK L_JK^T) L_JJ^-T
//! trtri   Y = L^-1         Y_IJ = (I_IJ - sum_(K>J) Y_IK L_KJ) L_JJ^-1,    J descending
//! lauum   X = Y^T Y        X_IJ = sum_(K>=I) Y_KI^T Y_KJ
//! ```
//!
//! Every block is one sum over finished blocks, taken at once on panels that are packed already, both ways (`packed`), then
//! substituted by strips of mr columns (`strips`), so that nothing but the microkernel and the strips' small triangles does arithmetic.
//! All three sweeps are one list of tasks (`schedule`). Of the orders of Bientinesi, Gunter & van de Geijn (2008) these are the ones that sum
//! (left-looking): the one-sweep order, which updates the whole matrix once a panel, substitutes `L Y = I` instead and would leave
//! `|Y L - I|`, on which the inverse's residual rests, unbounded.

pub(crate) mod leaf;
mod packed;
mod schedule;
pub(crate) mod small;
pub(crate) mod strips;
mod sweeps;
mod tiles;
mod triangular;

pub use sweeps::{damped_cholesky, damped_inverse, damped_inverse_scratch, potrf, potrf_scratch, trtri, trtri_scratch};
pub use triangular::{solve_left, solve_lower, solve_lower_transposed, solve_scratch};

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

//! The table of compiled kernels: thin shims that carry `#[target_feature]`, chosen once per operation.

use super::microkernel::{Depths, TileFn, kind, tile};
use super::rows;
use super::small::{self, SmallFn};
use crate::batched::blocks::B;
use crate::batched::eigen::room::{EigenFn, Room, eigen};
use crate::batched::group::{self, Group, Inverse, InvertFn, SolveFn as SolveGroupFn};
use crate::batched::lanes::Lanes;
use crate::cholesky::Pivot;
use crate::cholesky::leaf::{self, Block, LeafOp};
use crate::cholesky::small::{self as small_inverse, InverseFn, WIDTHS};
use crate::cholesky::strips::{self, FactorFn, SolveFn, Strip};
use crate::conv::assemble::{AssembleFn, Assembly, Scratch};
use crate::conv::depthwise;
use crate::isa::{Isa, Level};

/// Row counts a register tile is compiled for: powers of two up to the ISA's.
const ROW_STEPS: usize = 4;
const MAX_VECTORS: usize = 3;
/// Row counts a tile of a small product is compiled for.
const SMALL_ROW_STEPS: usize = 5;

/// Everything that depends on the instruction set, for one element type.
pub struct Kernels<T: 'static> {
    /// Elements in a vector register.
    pub(crate) lanes: usize,
    /// Rows of the largest register tile.
    pub(crate) mr: usize,
    /// Width of a packed panel.
    pub(crate) nr: usize,
    /// `tiles[kind][v - 1][log2 rows]`.
    tiles: [[[TileFn<T>; ROW_STEPS]; MAX_VECTORS]; 3],
    /// See [`rows::blend`]. Callable because the table is reached only through an [`Isa`].
    pub(crate) blend: unsafe fn(*mut T, *const T, usize, T, T),
    /// See [`rows::add_squares`].
    pub(crate) add_squares: unsafe fn(*mut T, *const T, usize),
    /// See [`rows::multiply`].
    pub(crate) multiply: unsafe fn(*mut T, *const T, usize),
    /// See [`rows::add_products`].
    pub(crate) add_products: rows::AddProductsFn<T>,
    /// See [`rows::dot`].
    pub(crate) dot: unsafe fn(*const T, *const T, usize) -> T,
    /// See [`rows::copy_rows`].
    pub(crate) copy_rows: unsafe fn(*mut T, usize, *const T, isize, usize, usize),
    /// See [`rows::copy_block`].
    pub(crate) copy_block: unsafe fn(*mut T, usize, *const T, isize, usize, usize),
    /// See [`rows::copy_even`].
    pub(crate) copy_even: unsafe fn(*mut T, usize, *const T, isize, usize, usize),
    /// See [`rows::transpose`].
    pub(crate) transpose: unsafe fn(*mut T, usize, *const T, isize, usize, usize),
    /// See [`leaf::leaf`].
    pub(crate) leaf: unsafe fn(LeafOp, usize, &Block<T>, &mut Block<T>),
    /// `lanes[log2 rows][log2 columns]`: see [`depthwise::tile`].
    lanes_tiles: [[TileFn<T>; depthwise::STEPS]; depthwise::STEPS],
    /// The columns of a small product are counted in halves of a vector: half an AVX-512 register is an AVX2 one, which needs no mask.
    half_lanes_log2: u32,
    /// `small_tiles[halves of vectors - 1][log2 rows]`: see [`small::tiles`].
    small_tiles: [[SmallFn<T>; SMALL_ROW_STEPS]; 2 * MAX_VECTORS],
    /// `inverses[log2 width]`: see [`small_inverse::inverse`].
    inverses: [InverseFn<T>; WIDTHS],
    /// See [`Assembly::rows`].
    pub(crate) assemble: AssembleFn<T>,
    /// `eigen[log2 g]`: see [`eigen`], of g groups of lanes.
    pub(crate) eigen: [EigenFn<T>; crate::batched::eigen::GROUPS.ilog2() as usize + 1],
    /// See [`group::invert`]: one group of any order; several by order in blocks.
    invert_one: InvertFn<T>,
    invert_few: [InvertFn<T>; group::FEW],
    /// See [`group::solve`].
    pub(crate) solve_group: SolveGroupFn<T>,
    /// `[vectors - 1]`: see [`strips::factor`] and [`strips::solve`].
    factor_strips: [FactorFn<T>; MAX_VECTORS],
    solve_strips: [SolveFn<T>; MAX_VECTORS],
    /// See [`rows::fma_chains`].
    pub(crate) fma_chains: unsafe fn(usize) -> T,
}

impl<T> Kernels<T> {
    /// Inverts `groups` groups of matrices of order `n`: one, or [`group::together`].
    pub(crate) fn invert(&self, n: usize, groups: usize) -> InvertFn<T> {
        match n.div_ceil(B) {
            blocks @ 1..=group::FEW if groups == group::TOGETHER => self.invert_few[blocks - 1],
            _ => self.invert_one,
        }
    }

    /// The largest row count with a microkernel that is at most `rows >= 1`.
    pub(crate) fn rows_step(&self, rows: usize) -> usize {
        self.mr.min(1 << rows.ilog2())
    }

    /// The microkernel for `rows` (from [`Kernels::rows_step`]) and `cols <= nr` columns, rounded up to vectors, of packed operands.
    pub(crate) fn tile(&self, rows: usize, cols: usize) -> TileFn<T> {
        self.tile_of(kind::PACKED, rows, cols)
    }

    /// The same of operands that lie otherwise.
    pub(crate) fn tile_of(&self, kind: u8, rows: usize, cols: usize) -> TileFn<T> {
        self.tiles[usize::from(kind)][cols.div_ceil(self.lanes) - 1][rows.ilog2() as usize]
    }

    /// The strip kernels for `width <= nr` lanes, rounded up to vectors.
    pub(crate) fn strips(&self, width: usize) -> (FactorFn<T>, SolveFn<T>) {
        let vectors = width.div_ceil(self.lanes) - 1;
        (self.factor_strips[vectors], self.solve_strips[vectors])
    }

    /// The largest number of rows, or columns, of a depthwise tile that is at most `count >= 1`.
    pub(crate) fn lanes_step(&self, count: usize) -> usize {
        1 << count.ilog2().min(depthwise::STEPS as u32 - 1)
    }

    /// What computes a small product of `rows >= 1` and `1 <= cols <= nr`.
    #[inline(always)]
    pub(crate) fn small_tiles(&self, rows: usize, cols: usize) -> SmallFn<T> {
        let halves = (cols - 1) >> self.half_lanes_log2;
        self.small_tiles[halves][(rows.ilog2() as usize).min(SMALL_ROW_STEPS - 1)]
    }

    /// What inverts a matrix of order `n`, of which a row is `n` elements, rounded up to a power of two of vectors.
    pub(crate) fn small_inverse(&self, n: usize) -> InverseFn<T> {
        self.inverses[n.div_ceil(self.lanes).next_power_of_two().ilog2() as usize]
    }

    /// The depthwise tile of `rows` and `columns` from [`Kernels::lanes_step`].
    pub(crate) fn lanes_tile(&self, rows: usize, columns: usize) -> TileFn<T> {
        self.lanes_tiles[rows.ilog2() as usize][columns.ilog2() as usize]
    }
}

/// Stamps the shims of one ISA and element type and collects them in a static table. Where the ISA's tile is smaller than
/// the largest, the table repeats its largest; `rows_step` and `nr` never ask for more.
macro_rules! table {
    (
        $name:ident, $t:ident, $simd:ty, half $half:ty, rows $max_rows:literal, small $small_rows:literal, vectors $max_vectors:literal
        $(, #[$feature:meta] $(#[$small:meta])?)?
    ) => {
        mod $name {
            use super::*;
            use crate::simd::Simd;
            type S = $simd;

            // SAFETY of the shims: a table is reached only through an Isa, the proof that this CPU has the features;
            // what pointers must satisfy is the contract of the function each forwards to.
            $(#[$feature])?
            unsafe fn microkernel<const M: usize, const V: usize, const KIND: u8>(
                depths: &Depths, l: *const $t, r: *const $t, c: *mut $t, ldc: usize, fresh: bool,
            ) {
                // SAFETY: see above.
                unsafe { tile::<$t, S, M, V, KIND>(depths, l, r, c, ldc, fresh, 0.0) }
            }
            $(#[$feature])?
            unsafe fn blend(dst: *mut $t, src: *const $t, n: usize, alpha: $t, beta: $t) {
                // SAFETY: see above.
                unsafe { rows::blend::<$t, S>(dst, src, n, alpha, beta) }
            }
            $(#[$feature])?
            unsafe fn add_squares(dst: *mut $t, src: *const $t, n: usize) {
                // SAFETY: see above.
                unsafe { rows::add_squares::<$t, S>(dst, src, n) }
            }
            $(#[$feature])?
            unsafe fn multiply(dst: *mut $t, src: *const $t, n: usize) {
                // SAFETY: see above.
                unsafe { rows::multiply::<$t, S>(dst, src, n) }
            }
            $(#[$feature])?
            unsafe fn add_products(
                sums: *mut $t, a: (*const $t, usize), b: (*const $t, usize), n: usize, count: usize,
            ) {
                // SAFETY: see above.
                unsafe { rows::add_products::<$t, S>(sums, a, b, n, count) }
            }
            $(#[$feature])?
            unsafe fn dot(a: *const $t, b: *const $t, n: usize) -> $t {
                // SAFETY: see above.
                unsafe { rows::dot::<$t, S>(a, b, n) }
            }
            $(#[$feature])?
            unsafe fn copy_rows(
                dst: *mut $t, step: usize, src: *const $t, src_step: isize, width: usize, count: usize,
            ) {
                // SAFETY: see above.
                unsafe { rows::copy_rows::<$t, S>(dst, step, src, src_step, width, count) }
            }
            $(#[$feature])?
            unsafe fn copy_block(
                dst: *mut $t, dst_step: usize, src: *const $t, src_step: isize, width: usize, count: usize,
            ) {
                // SAFETY: see above.
                unsafe { rows::copy_block::<$t, S>(dst, dst_step, src, src_step, width, count) }
            }
            $(#[$feature])?
            unsafe fn copy_even(
                dst: *mut $t, dst_step: usize, src: *const $t, src_step: isize, width: usize, count: usize,
            ) {
                // SAFETY: see above.
                unsafe { rows::copy_even::<$t, S>(dst, dst_step, src, src_step, width, count) }
            }
            $(#[$feature])?
            unsafe fn transpose(
                dst: *mut $t, dst_step: usize, src: *const $t, src_step: isize, rows: usize, cols: usize,
            ) {
                // SAFETY: see above.
                unsafe { rows::transpose::<$t, S>(dst, dst_step, src, src_step, rows, cols) }
            }
            $(#[$feature])?
            unsafe fn leaf_op(op: LeafOp, n: usize, l: &Block<$t>, x: &mut Block<$t>) {
                // SAFETY: see above.
                unsafe { leaf::leaf::<$t, S>(op, n, l, x) }
            }
            $(#[$feature] $(#[$small])?)?
            unsafe fn small_tiles<H: Simd<$t>, const M: usize, const MOST: usize, const V: usize>(
                job: &small::Job<$t>,
            ) {
                // SAFETY: see above.
                unsafe { small::tiles::<$t, H, M, MOST, V>(job, &TABLE) }
            }
            $(#[$feature])?
            unsafe fn inverse<const W: usize>(job: &small_inverse::Job<$t>) -> Result<(), Pivot<$t>> {
                // SAFETY: see above.
                unsafe { small_inverse::inverse::<$t, S, W>(job) }
            }
            /// `width` vectors, but no more than the largest order fills.
            const fn at_most(width: usize) -> usize {
                let most = small_inverse::SMALL / <S as Simd<$t>>::LANES;
                if width < most { width } else { most }
            }
            $(#[$feature])?
            unsafe fn lanes<const M: usize, const V: usize>(
                depths: &Depths, l: *const $t, r: *const $t, c: *mut $t, ldc: usize, fresh: bool,
            ) {
                // SAFETY: see above.
                unsafe { depthwise::tile::<$t, S, M, V>(depths, l, r, c, ldc, fresh) }
            }
            $(#[$feature])?
            unsafe fn assemble(
                assembly: &Assembly<'_, $t>, channels: (usize, usize), outer: [usize; 2], scratch: &Scratch,
                memory: [&mut [$t]; 4],
            ) {
                // SAFETY: see above.
                unsafe { assembly.rows::<S>(channels, outer, scratch, memory) }
            }
            $(#[$feature])?
            unsafe fn eigen_groups<const G: usize>(rooms: &[Room<$t>], matrices: &[Lanes<*const $t>], limit: usize) {
                // SAFETY: see above.
                unsafe { eigen::<$t, S, G>(rooms, matrices, limit) }
            }
            $(#[$feature])?
            unsafe fn invert_groups<const K: usize, const G: usize>(inverse: &Inverse<'_>, groups: &mut [Group<$t>], memory: *mut $t) {
                // SAFETY: see above.
                unsafe { group::invert::<$t, S, { $max_rows / 2 }, K, G>(inverse, groups, memory) }
            }
            $(#[$feature])?
            unsafe fn solve_group(n: usize, group: &mut Group<$t>, b: &Lanes<*const $t>, cols: usize, memory: *mut $t) {
                // SAFETY: see above.
                unsafe { group::solve::<$t, S, { $max_rows / 2 }>(n, group, b, cols, memory) }
            }
            $(#[$feature])?
            unsafe fn factor_strip<const V: usize>(strip: &Strip<$t>, diagonal: usize) -> usize {
                // SAFETY: see above.
                unsafe { strips::factor::<$t, S, { <S as Simd<$t>>::ROWS }, V>(strip, diagonal) }
            }
            $(#[$feature])?
            unsafe fn solve_strip<const V: usize>(strip: &Strip<$t>) {
                // SAFETY: see above.
                unsafe { strips::solve::<$t, S, { <S as Simd<$t>>::ROWS }, V>(strip) }
            }
            $(#[$feature])?
            unsafe fn fma_chains(rounds: usize) -> $t {
                // SAFETY: see above.
                unsafe { rows::fma_chains::<$t, S>(rounds) }
            }

            const fn vectors<const V: usize, const KIND: u8>() -> [TileFn<$t>; ROW_STEPS] {
                [microkernel::<1, V, KIND>, microkernel::<2, V, KIND>, microkernel::<4, V, KIND>, microkernel::<$max_rows, V, KIND>]
            }
            const fn tiles<const KIND: u8>() -> [[TileFn<$t>; ROW_STEPS]; MAX_VECTORS] {
                [vectors::<1, KIND>(), vectors::<2, KIND>(), vectors::<$max_vectors, KIND>()]
            }

            /// Of up to MOST rows, a power of two.
            const fn small_vectors<H: Simd<$t>, const MOST: usize, const V: usize>() -> [SmallFn<$t>; SMALL_ROW_STEPS] {
                let mut steps: [SmallFn<$t>; SMALL_ROW_STEPS] = [small_tiles::<H, MOST, MOST, V>; SMALL_ROW_STEPS];
                (steps[0], steps[1]) = (small_tiles::<H, 1, MOST, V>, small_tiles::<H, 2, MOST, V>);
                if MOST > 4 {
                    steps[2] = small_tiles::<H, 4, MOST, V>;
                }
                if MOST > 8 {
                    steps[3] = small_tiles::<H, 8, MOST, V>;
                }
                steps
            }

            pub(super) static TABLE: Kernels<$t> = Kernels {
                lanes: <S as Simd<$t>>::LANES,
                mr: <S as Simd<$t>>::ROWS,
                nr: <S as Simd<$t>>::LANES * <S as Simd<$t>>::VECTORS,
                tiles: [tiles::<{ kind::PACKED }>(), tiles::<{ kind::ROWS }>(), tiles::<{ kind::RUNS }>()],
                blend,
                add_squares,
                multiply,
                add_products,
                dot,
                copy_rows,
                copy_block,
                copy_even,
                transpose,
                leaf: leaf_op,
                lanes_tiles: [
                    [lanes::<1, 1>, lanes::<1, 2>, lanes::<1, 4>],
                    [lanes::<2, 1>, lanes::<2, 2>, lanes::<2, 4>],
                    [lanes::<4, 1>, lanes::<4, 2>, lanes::<4, 4>],
                ],
                half_lanes_log2: (<S as Simd<$t>>::LANES / 2).ilog2(),
                // A single vector of columns takes more rows, or its sums would wait for each other.
                small_tiles: [
                    small_vectors::<$half, 8, 1>(),
                    small_vectors::<S, $small_rows, 1>(),
                    small_vectors::<S, $max_rows, 2>(),
                    small_vectors::<S, $max_rows, 2>(),
                    small_vectors::<S, $max_rows, $max_vectors>(),
                    small_vectors::<S, $max_rows, $max_vectors>(),
                ],
                inverses: [
                    inverse::<1>,
                    inverse::<{ at_most(2) }>,
                    inverse::<{ at_most(4) }>,
                    inverse::<{ at_most(8) }>,
                    inverse::<{ at_most(16) }>,
                ],
                assemble,
                eigen: [eigen_groups::<1>, eigen_groups::<2>, eigen_groups::<4>],
                invert_one: invert_groups::<0, 1>,
                invert_few: [invert_groups::<1, 2>, invert_groups::<2, 2>, invert_groups::<3, 2>, invert_groups::<4, 2>],
                solve_group,
                factor_strips: [factor_strip::<1>, factor_strip::<2>, factor_strip::<$max_vectors>],
                solve_strips: [solve_strip::<1>, solve_strip::<2>, solve_strip::<$max_vectors>],
                fma_chains,
            };
            const _: () = assert!(<S as Simd<$t>>::ROWS == $max_rows && <S as Simd<$t>>::VECTORS == $max_vectors);
        }
    };
}

macro_rules! tables {
    ($t:ident) => {
        /// The kernels of `isa` for this element type.
        #[inline]
        pub(crate) fn $t(isa: Isa) -> &'static Kernels<$t> {
            #[cfg(target_arch = "x86_64")]
            table!(avx512, $t, crate::simd::avx512::Avx512, half crate::simd::avx2::Avx2, rows 8, small 16, vectors 3,
                #[target_feature(enable = "avx512f,avx2,fma")] #[target_feature(enable = "avx512vl")]);
            #[cfg(target_arch = "x86_64")]
            table!(avx2, $t, crate::simd::avx2::Avx2, half crate::simd::avx2::Avx2, rows 4, small 8, vectors 3,
                #[target_feature(enable = "avx2,fma")]);
            table!(portable, $t, crate::simd::portable::Portable, half crate::simd::portable::Portable, rows 4, small 8, vectors 2);
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => &avx512::TABLE,
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => &avx2::TABLE,
                _ => &portable::TABLE,
            }
        }
    };
}

tables!(f32);
tables!(f64);

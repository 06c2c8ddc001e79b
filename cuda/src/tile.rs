//! The register tiles of `tile.cuh` as the host sees them: how they multiply, their sizes and shared memory, and how depth is split among blocks.

use crate::device::Arch;
use crate::launch::MOST_BLOCKS;
use crate::stream::Precision;
use core::any::TypeId;
use core::fmt;
use foof_kernels::Input;

/// What a device operand is stored in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// `f32`
    F32,
    /// `f64`
    F64,
    /// `bf16`
    Bf16,
    /// `f16`
    F16,
}

impl Kind {
    /// Of a type.
    pub fn of<I: Input>() -> Kind {
        let id = TypeId::of::<I>();
        match () {
            () if id == TypeId::of::<f32>() => Kind::F32,
            () if id == TypeId::of::<f64>() => Kind::F64,
            () if id == TypeId::of::<half::bf16>() => Kind::Bf16,
            () => Kind::F16,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::F64 => 8,
            Kind::Bf16 | Kind::F16 => 2,
        }
    }

    /// What it accumulates in.
    pub fn widened(self) -> Kind {
        if self == Kind::F64 { Kind::F64 } else { Kind::F32 }
    }
}

/// How a tile multiplies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Math {
    /// Fused multiply-adds.
    Fma,
    /// Tensor cores with f32's accuracy: three TF32 products of the parts of each factor.
    Tf32x3,
    /// Tensor cores on inputs that are exact in them: f64, bf16, f16.
    Mma,
    /// Tensor cores on f32 rounded to TF32.
    Tf32,
    /// Tensor cores on f32 rounded to bf16.
    Bf16,
}

impl fmt::Display for Math {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Math::Fma => "fma",
            Math::Tf32x3 => "tf32x3",
            Math::Mma => "mma",
            Math::Tf32 => "tf32",
            Math::Bf16 => "bf16",
        })
    }
}

impl Math {
    /// What `kind` is multiplied with. Full precision takes tensor cores where their TF32 is more than three times as fast as f32's
    /// multiply-adds: sm_80, sm_90, sm_10x, not the architectures of workstations.
    pub fn of(kind: Kind, precision: Precision, arch: Arch) -> Math {
        let tensor = matches!((arch.major, arch.minor), (8, 0) | (9 | 10, _));
        match (kind, precision) {
            (Kind::F32, Precision::Full) if tensor => Math::Tf32x3,
            (Kind::F32, Precision::Full) => Math::Fma,
            (Kind::F32, Precision::Tf32) => Math::Tf32,
            (Kind::F32, Precision::Bf16) => Math::Bf16,
            _ => Math::Mma,
        }
    }

    /// All that there are for `kind`.
    pub fn all(kind: Kind) -> &'static [Math] {
        match kind {
            Kind::F32 => &[Math::Fma, Math::Tf32x3, Math::Tf32, Math::Bf16],
            Kind::F64 => &[Math::Fma, Math::Mma],
            Kind::Bf16 | Kind::F16 => &[Math::Mma],
        }
    }

    /// Roundings, in units of the sums' roundoff, that bound the error of a sum of `depth` products of inputs of `kind`: with
    /// `gamma` of this number, `|fl(C) - C| <= gamma |A||B|` unless something underflows. Derived in `docs/numerics.md`.
    pub fn depth(self, kind: Kind, depth: usize) -> usize {
        /// Roundings of a product in a tensor core and of its addition there: two truncations of two roundings each.
        const TENSOR: usize = 4;
        // Each product of so many depths starts from zero in the tensor core, and is added outside.
        let promoted = |each: usize, terms: usize| TENSOR * each * terms + depth.div_ceil(each);
        match (self, kind) {
            (Math::Fma, _) | (Math::Mma, Kind::F64) => depth,
            (Math::Tf32x3, _) => promoted(8, 3) + 9,
            (Math::Mma, Kind::Bf16) => promoted(16, 1),
            (Math::Mma, _) => promoted(8, 1),
            (Math::Tf32, _) => TENSOR * depth + (2 << 13) + 4,
            (Math::Bf16, _) => TENSOR * depth + (2 << 16) + 256,
        }
    }
}

/// Depths of a stage: `Shape::depth`.
const STAGE_DEPTH: usize = 16;

/// A square tile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tile {
    side: usize,
}

impl Tile {
    /// 64 rows: for small or deep products.
    pub const SMALL: Tile = Tile { side: 64 };
    /// 128 rows: where there are many tiles. Not in f64.
    pub const LARGE: Tile = Tile { side: 128 };

    /// All that there are for `kind`.
    pub fn all(kind: Kind) -> &'static [Tile] {
        if kind == Kind::F64 { &[Tile::SMALL] } else { &[Tile::SMALL, Tile::LARGE] }
    }

    /// Rows and columns.
    pub fn side(self) -> usize {
        self.side
    }

    /// Elements.
    pub(crate) fn len(self) -> usize {
        self.side * self.side
    }

    /// Threads of its block.
    pub(crate) fn threads(self) -> u32 {
        if self == Tile::SMALL { 128 } else { 256 }
    }

    /// Bytes of shared memory: `tile_bytes` of `epilogue.cuh`.
    pub(crate) fn shared(self, kind: Kind) -> u32 {
        let stages = if self == Tile::SMALL && kind != Kind::F64 { 4 } else { 3 };
        let lead = self.side + if kind == Kind::F64 { 4 } else { 8 };
        let staged = stages * 2 * STAGE_DEPTH * lead * kind.bytes();
        staged.max(self.side * (self.side + 1) * kind.widened().bytes()) as u32
    }

    /// Bytes of shared memory of a block that finishes a band of a tile: `band_bytes` of `epilogue.cuh`.
    pub(crate) fn band_shared(self, sums: Kind) -> u32 {
        (BAND * (self.side + 1) * sums.bytes()) as u32
    }

    /// Blocks that finish a tile.
    pub(crate) fn bands(self) -> u32 {
        (self.side / BAND) as u32
    }
}

/// `BAND` of `epilogue.cuh`.
const BAND: usize = 8;

/// `BAND_THREADS` of `epilogue.cuh`.
pub(crate) const BAND_THREADS: u32 = 128;

/// Blocks that fill a device: two on each of an H200's 132 multiprocessors. The same number on every device, so that results are the same.
const FILLING: usize = 2 * 132;

/// Depths of a chunk, at least: less would not pay for its slot, which is written and read once more.
const LEAST_CHUNK: usize = 256;

/// Chunks of a tile, at most: their slots are added one after the other.
const MOST_CHUNKS: usize = 128;

/// Depths of a chunk, at most: kernels count them in 32 bits.
const MOST_DEPTH: usize = 1 << 30;

/// Rows that chunks of that depth hold, one for each block along a grid's second axis. More cannot be stored, but a step of zero repeats a row.
pub(crate) const MOST_ROWS: usize = MOST_BLOCKS as usize * MOST_DEPTH;

/// How a symmetric product is cut into tiles and depths. It depends on the shape only, so that results do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The tile.
    pub tile: Tile,
    /// Tiles of the lower triangle.
    pub tiles: usize,
    /// Depths of a chunk; the last one may have less.
    pub chunk: usize,
    /// Chunks, at least one.
    pub chunks: usize,
}

impl Cut {
    /// For a matrix of `size` rows of inputs of `kind`, a sum over `depth` of them.
    pub fn new(kind: Kind, size: usize, depth: usize) -> Cut {
        let large = triangle(size, Tile::LARGE) >= FILLING && kind != Kind::F64;
        Cut::with_tile(if large { Tile::LARGE } else { Tile::SMALL }, size, depth)
    }

    /// The same with a given tile.
    pub fn with_tile(tile: Tile, size: usize, depth: usize) -> Cut {
        let tiles = triangle(size, tile);
        let chunks = Cut::most_chunks(tile, size, depth);
        let chunk = depth.div_ceil(chunks).next_multiple_of(STAGE_DEPTH);
        Cut { tile, tiles, chunk, chunks: depth.div_ceil(chunk.max(1)).max(1) }
    }

    /// Elements of scratch: a slot for each tile of each chunk, if there is more than one.
    pub(crate) fn slots(&self) -> Option<usize> {
        slots(self.tile, self.tiles, self.chunks)
    }

    /// Elements of scratch that are enough for a depth, and for every smaller one.
    pub(crate) fn most_slots(tile: Tile, size: usize, depth: usize) -> Option<usize> {
        slots(tile, triangle(size, tile), Cut::most_chunks(tile, size, depth))
    }

    /// Chunks of a depth, at most: rounding up what a chunk has can make them fewer. Never less for a larger depth.
    pub(crate) fn most_chunks(tile: Tile, size: usize, depth: usize) -> usize {
        let filling = FILLING.div_ceil(triangle(size, tile).max(1)).min(depth / LEAST_CHUNK).min(MOST_CHUNKS);
        filling.max(depth.div_ceil(MOST_DEPTH)).max(1)
    }

    /// [`Math::depth`] of a sum over `depth` that is cut so.
    pub fn depth(&self, math: Math, kind: Kind, depth: usize) -> usize {
        math.depth(kind, depth.min(self.chunk)) + self.chunks - 1
    }
}

fn slots(tile: Tile, tiles: usize, chunks: usize) -> Option<usize> {
    if chunks == 1 { Some(0) } else { tiles.checked_mul(chunks)?.checked_mul(tile.len()) }
}

/// Tiles of the lower triangle.
fn triangle(size: usize, tile: Tile) -> usize {
    let across = size.div_ceil(tile.side);
    across * (across + 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `triangle_tile` of `epilogue.cuh`.
    fn place(index: usize, tiles: usize) -> (usize, usize) {
        let length = tiles | 1;
        let (pair, place) = (index / length, index % length);
        let first = tiles - pair;
        if place < first { (first - 1, place) } else { (pair - (tiles & 1), place - first) }
    }

    #[test]
    fn each_tile_of_the_triangle_is_named_once() {
        for across in 0..70 {
            let size = across * Tile::SMALL.side;
            let mut seen = vec![false; across * across];
            for index in 0..triangle(size, Tile::SMALL) {
                let (row, column) = place(index, across);
                assert!(column <= row && row < across, "{across}: {index} -> ({row}, {column})");
                assert!(
                    !core::mem::replace(&mut seen[row * across + column], true),
                    "{across}: ({row}, {column}) twice"
                );
            }
            assert_eq!(seen.iter().filter(|&&seen| seen).count(), across * (across + 1) / 2);
        }
    }

    #[test]
    fn chunks_cover_the_depth_and_none_is_empty() {
        for kind in [Kind::F32, Kind::F64] {
            for size in [0, 1, 64, 65, 128, 784, 1000, 3000] {
                for depth in (0..2000).chain([10_000, 60_000, 1 << 20, (1 << 40) + 3]) {
                    let cut = Cut::new(kind, size, depth);
                    assert!(cut.chunk <= MOST_DEPTH && cut.chunk.is_multiple_of(STAGE_DEPTH));
                    assert!(cut.chunks * cut.chunk >= depth, "{size}, {depth}: {cut:?}");
                    assert!((cut.chunks - 1) * cut.chunk < depth.max(1), "{size}, {depth}: {cut:?}");
                    assert_eq!(cut.slots() == Some(0), cut.chunks == 1 || size == 0);
                }
            }
        }
    }

    #[test]
    fn scratch_of_a_depth_is_enough_for_less() {
        for size in [1, 64, 100, 784, 3000] {
            let slots = |depth| Cut::new(Kind::F32, size, depth).slots().expect("small");
            let (mut most, mut shrinks) = (0, false);
            for depth in (0..70_000).step_by(7) {
                let enough = Cut::most_slots(Cut::new(Kind::F32, size, depth).tile, size, depth).expect("small");
                shrinks |= slots(depth) < most;
                most = most.max(slots(depth));
                assert!(most <= enough, "{size}, {depth}: {most} of {enough}");
            }
            assert!(shrinks || size > 100, "otherwise the depth's own would do");
        }
    }

    /// The rows of `performance.md`.
    #[test]
    fn the_cut_of_known_shapes() {
        let cut = |size, depth| Cut::new(Kind::F32, size, depth);
        assert_eq!(cut(1000, 1000), Cut { tile: Tile::SMALL, tiles: 136, chunk: 512, chunks: 2 });
        assert_eq!(cut(784, 100), Cut { tile: Tile::SMALL, tiles: 91, chunk: 112, chunks: 1 });
        assert_eq!(cut(4096, 4096), Cut { tile: Tile::LARGE, tiles: 528, chunk: 4096, chunks: 1 });
        assert_eq!(cut(64, 60_000), Cut { tile: Tile::SMALL, tiles: 1, chunk: 480, chunks: 125 });
    }

    /// Every device since sm_80 gives a block 99 KB or more.
    #[test]
    fn tiles_fit_the_smallest_shared_memory() {
        for kind in [Kind::F32, Kind::F64, Kind::Bf16, Kind::F16] {
            for tile in Tile::all(kind) {
                assert!(tile.shared(kind) <= 99 << 10);
            }
        }
        assert_eq!(Tile::LARGE.shared(Kind::F32), 66_048);
        assert_eq!((Tile::SMALL.shared(Kind::F32), Tile::SMALL.shared(Kind::F64)), (36_864, 52_224));
    }
}

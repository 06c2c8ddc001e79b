//! Damped inverses of batches: launchers of `damped_inverse.cu` and `damped_inverse_large.cu`.

use crate::compile::Source;
use crate::device::Kernel;
use crate::error::CudaError;
use crate::launch::Grid;
use crate::pending::{Pending, Upload};
use crate::scratch::{Scratch, ScratchReq};
use crate::stream::Stream;
use crate::view::{View, ViewMut};
use core::slice;
use foof_kernels::batched::Dampings;
use foof_kernels::{Element, Triangle};

pub(crate) static SOURCE: Source =
    Source { file: "damped_inverse.cu", text: include_str!("../kernels/damped_inverse.cu") };
pub(crate) static LARGE: Source =
    Source { file: "damped_inverse_large.cu", text: include_str!("../kernels/damped_inverse_large.cu") };

/// `Params` of `damped_inverse.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    a: u64,
    out: u64,
    dampings: u64,
    records: u64,
    failures: u64,
    a_strides: [i64; 3],
    out_strides: [i64; 3],
    dampings_stride: i64,
    scale: f64,
    damping: f64,
    batch: i32,
    n: i32,
    full: i32,
    reserved: i32,
}
const _: () = assert!(size_of::<Params>() == 128);

/// How a matrix is held while it is inverted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// In shared memory, a block a matrix: the plain one, and the one for large matrices.
    Block,
    /// In the registers of a grid of threads.
    Registers,
}

impl Rung {
    /// Both of them.
    pub const ALL: [Rung; 2] = [Rung::Block, Rung::Registers];

    /// The faster one that takes matrices of order `n`.
    pub fn of<T>(n: usize) -> Rung {
        if n <= Rung::Registers.largest::<T>(usize::MAX) { Rung::Registers } else { Rung::Block }
    }

    /// The largest order that it takes where a block has `shared` bytes of shared memory.
    pub fn largest<T>(self, shared: usize) -> usize {
        let orders = match self {
            // sqrt(2 · 227 KB / 4) = 340.
            Rung::Block => 0..=512,
            Rung::Registers => 0..=grids::<T>().last().map_or(0, Registers::order),
        };
        let fits = |&n: &usize| Geometry::new::<T>(self, n).is_some_and(|geometry| geometry.shared <= shared);
        orders.rev().find(fits).unwrap_or(0)
    }
}

/// `side²` threads hold a matrix of up to `side * entries` rows, `entries²` entries each.
struct Registers {
    kernel: Kernel,
    side: usize,
    entries: usize,
    /// Threads of a block, with a matrix for each `side²`.
    threads: usize,
}

impl Registers {
    const fn new(kernel: &'static str, side: usize, entries: usize, threads: usize) -> Registers {
        Registers { kernel: Kernel { source: &SOURCE, name: kernel }, side, entries, threads }
    }

    fn order(&self) -> usize {
        self.side * self.entries
    }

    fn matrices(&self) -> usize {
        self.threads / (self.side * self.side)
    }
}

/// In ascending order; as the kernels at the end of the source.
static GRIDS_F32: [Registers; 5] = [
    Registers::new("damped_inverse_registers16_f32", 4, 4, 128),
    Registers::new("damped_inverse_registers32_f32", 4, 8, 64),
    Registers::new("damped_inverse_registers64_f32", 8, 8, 64),
    Registers::new("damped_inverse_registers128_f32", 16, 8, 256),
    Registers {
        kernel: Kernel { source: &LARGE, name: "damped_inverse_registers256_f32" },
        side: 16,
        entries: 16,
        threads: 256,
    },
];
static GRIDS_F64: [Registers; 4] = [
    Registers::new("damped_inverse_registers16_f64", 4, 4, 128),
    Registers::new("damped_inverse_registers32_f64", 4, 8, 64),
    Registers::new("damped_inverse_registers64_f64", 8, 8, 64),
    Registers::new("damped_inverse_registers128_f64", 16, 8, 256),
];

fn is_f32<T>() -> bool {
    size_of::<T>() == size_of::<f32>()
}

fn grids<T>() -> &'static [Registers] {
    if is_f32::<T>() { &GRIDS_F32 } else { &GRIDS_F64 }
}

/// A launch, but for the size of the batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Geometry {
    kernel: Kernel,
    threads: usize,
    /// Matrices of a block.
    matrices: usize,
    /// Bytes of shared memory of a block.
    shared: usize,
}

impl Geometry {
    /// Of matrices of order `n`; none where the rung does not take them.
    fn new<T>(rung: Rung, n: usize) -> Option<Geometry> {
        let triangle = n.checked_add(1)?.checked_mul(n)? / 2;
        match rung {
            Rung::Block => {
                let threads = if n <= 64 { 128 } else { 256 };
                // The triangle, the pivots' roots, a row; after a failure an int of each thread.
                let elements = triangle.checked_add(2 * n)?;
                let shared = elements.checked_mul(size_of::<T>())?.max(threads * size_of::<i32>());
                let name = if is_f32::<T>() { "damped_inverse_block_f32" } else { "damped_inverse_block_f64" };
                let kernel = Kernel { source: &SOURCE, name };
                Some(Geometry { kernel, threads, matrices: 1, shared })
            }
            Rung::Registers => {
                let grid = grids::<T>().iter().find(|grid| n <= grid.order())?;
                // As `Grid::shared` of the source.
                let elements = triangle.max(5 * grid.order() + 2).next_multiple_of(8) + 4;
                let shared = elements * size_of::<T>() * grid.matrices();
                Some(Geometry { kernel: grid.kernel, threads: grid.threads, matrices: grid.matrices(), shared })
            }
        }
    }
}

/// `out_b <- (scale A_b + damping_b I)^-1` for each matrix of `a` `[batch, n, n]`, of which the lower triangle is read, by [`Rung::of`] their order. The outputs of
/// matrices that fail are as they were.
///
/// # Errors
/// [`CudaError::TooLarge`] for a matrix that a block's shared memory cannot hold, [`CudaError::Scratch`], [`CudaError::OtherStream`],
/// [`CudaError::Launch`], [`CudaError::Driver`].
///
/// # Panics
/// If shapes disagree.
#[allow(clippy::too_many_arguments)]
pub fn damped_inverse<T: Element>(
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    triangle: Triangle,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<Pending, CudaError> {
    let rung = Rung::of::<T>(a.shape()[1]);
    damped_inverse_by(rung, out, a, scale, damping, triangle, stream, scratch)
}

/// [`damped_inverse`] by one rung.
///
/// # Errors
/// As [`damped_inverse`].
///
/// # Panics
/// As [`damped_inverse`].
#[allow(clippy::too_many_arguments)]
pub fn damped_inverse_by<T: Element>(
    rung: Rung,
    out: ViewMut<'_, T, 3>,
    a: View<'_, T, 3>,
    scale: T,
    damping: Dampings<'_, T>,
    triangle: Triangle,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<Pending, CudaError> {
    let [batch, n, columns] = a.shape();
    assert_eq!((n, out.shape()), (columns, a.shape()), "square matrices, an output for each");
    if let Dampings::Each(dampings) = damping {
        assert_eq!(dampings.len(), batch, "a damping for each matrix");
    }
    scratch.check(stream, damped_inverse_scratch::<T>(batch))?;
    let shared = stream.device().shared_memory();
    let most = |what, value, most| CudaError::TooLarge { what, value, most };
    let geometry = Geometry::new::<T>(rung, n).filter(|geometry| geometry.shared <= shared);
    let geometry = geometry.ok_or_else(|| most("n", n, rung.largest::<T>(shared)))?;
    let too_many = || most("batch", batch, i32::MAX as usize);
    let blocks = if n == 0 { 0 } else { batch.div_ceil(geometry.matrices) };
    let mut params = Params {
        a: a.pointer(),
        out: out.pointer(),
        dampings: 0,
        records: 0,
        failures: 0,
        a_strides: a.strides().map(|stride| stride as i64),
        out_strides: out.strides().map(|stride| stride as i64),
        dampings_stride: 1,
        scale: scale.to_f64(),
        damping: 0.0,
        batch: i32::try_from(batch).map_err(|_| too_many())?,
        // Bounded by what shared memory holds.
        n: n as i32,
        full: i32::from(triangle == Triangle::Full),
        reserved: 0,
    };
    match damping {
        Dampings::Same(damping) => params.damping = damping.to_f64(),
        Dampings::Each([]) => {}
        Dampings::Each(_) => params.dampings = scratch.arena().take::<T>(batch).pointer(),
    }
    let upload = match damping {
        Dampings::Each(dampings) if batch > 0 => {
            // SAFETY: floating-point numbers have no padding.
            let from = unsafe { slice::from_raw_parts(dampings.as_ptr().cast(), size_of_val(dampings)) };
            Some(Upload { from, to: params.dampings })
        }
        _ => None,
    };
    let grid = Grid { blocks: [blocks as u32, 1, 1], threads: geometry.threads as u32, shared: geometry.shared as u32 };
    scratch.statuses.report(stream, geometry.kernel.name, batch, upload, |status| {
        (params.records, params.failures) = (status.records, status.failures);
        // SAFETY: Params is the kernel's, of the same element type; every matrix of the views has its place in the batch; records has `batch` elements, a
        // block the shared memory that the geometry counts.
        unsafe { stream.launch(geometry.kernel, grid, &params) }
    })
}

/// Scratch of [`damped_inverse`] of `batch` matrices: a copy of their dampings.
pub fn damped_inverse_scratch<T: Element>(batch: usize) -> ScratchReq {
    ScratchReq::new::<T>(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shared memory of a block on sm_80, sm_90, sm_120.
    const SHARED: [usize; 3] = [163 << 10, 227 << 10, 99 << 10];

    #[test]
    fn the_largest_orders_are_those_that_fit() {
        let largest = |shared| {
            [Rung::Block, Rung::Registers].map(|rung| (rung.largest::<f32>(shared), rung.largest::<f64>(shared)))
        };
        assert_eq!(largest(SHARED[0]), [(286, 201), (256, 128)]);
        assert_eq!(largest(SHARED[1]), [(338, 238), (256, 128)]);
        assert_eq!(largest(SHARED[2]), [(222, 156), (224, 128)]);
        assert_eq!(Rung::Block.largest::<f32>(0), 0);
        assert_eq!([1, 128, 129, 256, 257].map(Rung::of::<f64>), {
            use Rung::{Block, Registers};
            [Registers, Registers, Block, Block, Block]
        });
        assert_eq!(Rung::of::<f32>(256), Rung::Registers);
        assert_eq!(Rung::of::<f32>(257), Rung::Block);
    }

    #[test]
    fn every_order_has_its_geometry() {
        for n in 0..=256 {
            let geometry = Geometry::new::<f32>(Rung::Registers, n).expect("of registers");
            let order: usize = geometry
                .kernel
                .name
                .trim_start_matches("damped_inverse_registers")
                .trim_end_matches("_f32")
                .parse()
                .expect("an order");
            assert!(n <= order && (order == 16 || 2 * n > order), "n = {n}: {geometry:?}");
            assert_eq!((geometry.threads % 32, geometry.shared % 16), (0, 0));
            assert!(geometry.shared >= geometry.matrices * n * (n + 1) / 2 * size_of::<f32>());
        }
        assert_eq!(Geometry::new::<f32>(Rung::Registers, 257), None);
        assert_eq!(Geometry::new::<f64>(Rung::Registers, 129), None);
        assert_eq!(Geometry::new::<f32>(Rung::Block, usize::MAX), None);
        let failed = Geometry::new::<f32>(Rung::Block, 1).expect("small");
        assert_eq!(failed.shared, 4 * failed.threads);
    }
}

//! Covariances `out <- beta out + alpha X^T X` of dense and weight-shared activations.

use crate::compile::Source;
use crate::device::Kernel;
use crate::error::CudaError;
use crate::launch::Grid;
use crate::scratch::{Arena, Scratch, ScratchReq};
use crate::stream::Stream;
use crate::tile::{BAND_THREADS, Cut, Kind, MOST_ROWS, Math, Tile};
use crate::view::{View, ViewMut};
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Blend, Element, Input, Triangle};

/// `covariance.cu`.
pub(crate) static SOURCE: Source = Source { file: "covariance.cu", text: include_str!("../kernels/covariance.cu") };

/// How rows are formed from activations, and how their covariance is written: as on the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Spec<T> {
    /// What positions contribute.
    pub sharing: Sharing,
    /// Factor of the sum over positions, under [`Sharing::Reduce`] only: `1 / T` for a mean.
    pub reduce_scale: T,
    /// A constant 1 after each row, neither centred nor scaled.
    pub bias: Bias,
    /// If there is one, this times the sum over all datapoints and positions is subtracted from each row.
    pub centre_scale: Option<T>,
    /// Which part of the output is written.
    pub triangle: Triangle,
    /// How the sum meets the output.
    pub blend: Blend<T>,
}

/// A rung of the ladder of `covariance.cu`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// One thread for each entry: the kernels' second oracle.
    Plain,
    /// Tiles.
    Tiles {
        /// How they multiply: one of [`Math::all`].
        math: Math,
        /// Their size: one of [`Tile::all`].
        tile: Tile,
    },
}

impl Rung {
    /// All that there are for `kind`.
    pub fn all(kind: Kind) -> Vec<Rung> {
        let tiles = Math::all(kind)
            .iter()
            .flat_map(|&math| Tile::all(kind).iter().map(move |&tile| Rung::Tiles { math, tile }));
        core::iter::once(Rung::Plain).chain(tiles).collect()
    }

    /// The one that a stream takes for rows of `kind`, `size` of them in the output.
    pub fn of(kind: Kind, size: usize, rows: usize, stream: &Stream) -> Rung {
        let math = Math::of(kind, stream.precision(), stream.device().arch());
        Rung::Tiles { math, tile: Cut::new(kind, size, rows).tile }
    }

    fn name(self, kind: Kind) -> Option<&'static str> {
        let (math, tile) = match self {
            Rung::Plain => {
                return Some(match kind {
                    Kind::F32 => "covariance_plain_f32",
                    Kind::F64 => "covariance_plain_f64",
                    Kind::Bf16 => "covariance_plain_bf16",
                    Kind::F16 => "covariance_plain_f16",
                });
            }
            Rung::Tiles { math, tile } => (math, tile.side()),
        };
        Some(match (math, tile, kind) {
            (Math::Fma, 128, Kind::F32) => "covariance_fma_128_f32",
            (Math::Fma, 64, Kind::F32) => "covariance_fma_64_f32",
            (Math::Fma, 64, Kind::F64) => "covariance_fma_64_f64",
            (Math::Tf32x3, 128, Kind::F32) => "covariance_tf32x3_128_f32",
            (Math::Tf32x3, 64, Kind::F32) => "covariance_tf32x3_64_f32",
            (Math::Mma, 64, Kind::F64) => "covariance_mma_64_f64",
            (Math::Mma, 128, Kind::Bf16) => "covariance_mma_128_bf16",
            (Math::Mma, 64, Kind::Bf16) => "covariance_mma_64_bf16",
            (Math::Mma, 128, Kind::F16) => "covariance_mma_128_f16",
            (Math::Mma, 64, Kind::F16) => "covariance_mma_64_f16",
            (Math::Tf32, 128, Kind::F32) => "covariance_tf32_128_f32",
            (Math::Tf32, 64, Kind::F32) => "covariance_tf32_64_f32",
            (Math::Bf16, 128, Kind::F32) => "covariance_bf16_128_f32",
            (Math::Bf16, 64, Kind::F32) => "covariance_bf16_64_f32",
            _ => return None,
        })
    }
}

fn finish_name(tile: Tile, sums: Kind) -> &'static str {
    match (tile.side(), sums) {
        (128, _) => "covariance_finish_128_f32",
        (_, Kind::F64) => "covariance_finish_64_f64",
        _ => "covariance_finish_64_f32",
    }
}

/// The kernels that make rows, and their mean.
fn row_names(kind: Kind) -> [&'static str; 2] {
    match kind {
        Kind::F32 => ["covariance_rows_f32", "covariance_means_f32"],
        Kind::F64 => ["covariance_rows_f64", "covariance_means_f64"],
        Kind::Bf16 => ["covariance_rows_bf16", "covariance_means_bf16"],
        Kind::F16 => ["covariance_rows_f16", "covariance_means_f16"],
    }
}

/// `CovarianceParams` of `covariance.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Params {
    x: u64,
    out: u64,
    slots: u64,
    rows: i64,
    chunk: i64,
    datapoint_step: i64,
    position_step: i64,
    feature_step: i64,
    out_row_step: i64,
    out_column_step: i64,
    alpha: f64,
    beta: f64,
    positions: u32,
    features: i32,
    size: i32,
    chunks: i32,
    reading: i32,
    full: i32,
}
const _: () = assert!(size_of::<Params>() == 120);

/// `RowsParams` of `covariance.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct RowsParams {
    x: u64,
    rows: u64,
    centre: u64,
    count: i64,
    datapoint_step: i64,
    position_step: i64,
    feature_step: i64,
    scale: f64,
    positions: u32,
    summed: i32,
    features: i32,
    lead: i32,
}
const _: () = assert!(size_of::<RowsParams>() == 80);

/// What a call comes to, from its shape.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Of the rows that are multiplied.
    kind: Kind,
    /// Whether these are made first, in scratch.
    prepared: bool,
    rows: usize,
    features: usize,
    size: usize,
}

impl Work {
    fn new<I: Input>([n, t, d]: [usize; 3], spec: &Spec<I::Acc>) -> Work {
        let reduced = spec.sharing == Sharing::Reduce;
        let prepared = reduced || spec.centre_scale.is_some();
        let kind = Kind::of::<I>();
        let kind = if prepared { kind.widened() } else { kind };
        let rows = if reduced { n } else { n.saturating_mul(t) };
        Work { kind, prepared, rows, features: d, size: d + spec.bias.columns() }
    }

    /// Elements from a prepared row to the next: whole vectors of 16 bytes.
    fn lead(&self) -> usize {
        self.features.next_multiple_of(4)
    }

    fn req<T>(&self, rung: Rung) -> ScratchReq {
        let slots = match rung {
            Rung::Plain => Some(0),
            Rung::Tiles { tile, .. } => Cut::most_slots(tile, self.size, self.rows),
        };
        let prepared = match self.prepared {
            true => self.rows.checked_mul(self.lead()).map_or(ScratchReq::OVERFLOW, ScratchReq::new::<T>),
            false => ScratchReq::EMPTY,
        };
        let centre = if self.prepared { ScratchReq::new::<T>(self.features) } else { ScratchReq::EMPTY };
        slots.map_or(ScratchReq::OVERFLOW, ScratchReq::new::<T>).and(prepared).and(centre)
    }
}

/// Rows as a kernel reads them: `CovarianceParams`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rows {
    x: u64,
    datapoint_step: isize,
    position_step: isize,
    feature_step: isize,
    /// Positions of a datapoint, 0 if rows are `position_step` apart throughout.
    positions: usize,
    reading: i32,
}

/// `Reading` of `load.cuh`.
const BY_DEPTH: i32 = 0;
const BY_COLUMN: i32 = 1;
const PAIRS: i32 = 4;
const VECTORS: i32 = 16;

impl Rows {
    fn new(kind: Kind, x: u64, [n, t, d]: [usize; 3], strides: [isize; 3]) -> Rows {
        let [datapoint, position, feature] = strides;
        let span = |count: usize, step: isize| isize::try_from(count).ok().and_then(|count| step.checked_mul(count));
        // The order of rows does not matter, so either axis may be the outer one.
        let single = match () {
            () if n * t <= 1 => Some(0),
            () if t == 1 || span(n, datapoint) == Some(position) => Some(datapoint),
            () if n == 1 || span(t, position) == Some(datapoint) => Some(position),
            () => None,
        };
        let (datapoint_step, position_step, positions) = match single {
            Some(step) => (0, step, 0),
            None => (datapoint, position, t),
        };
        let feature_step = if d > 1 { feature } else { 1 };
        let bytes = kind.bytes();
        let aligned = |to: usize| {
            let steps = [datapoint_step, position_step].map(isize::unsigned_abs);
            feature_step == 1 && x.is_multiple_of(to as u64) && steps.iter().all(|s| (s * bytes).is_multiple_of(to))
        };
        let reading = match () {
            () if aligned(16) => VECTORS,
            () if bytes == 2 && aligned(4) => PAIRS,
            () if feature_step.unsigned_abs() <= position_step.unsigned_abs() => BY_COLUMN,
            () => BY_DEPTH,
        };
        Rows { x, datapoint_step, position_step, feature_step, positions, reading }
    }
}

fn at_most(most: usize, what: &'static str, value: usize) -> Result<(), CudaError> {
    if value <= most { Ok(()) } else { Err(CudaError::TooLarge { what, value, most }) }
}

/// `out <- beta out + alpha X^T X` on the rung that the stream's precision and device ask for; `x` is `[N, T, d]` (dense: T = 1), `out` `[d, d]`,
/// or `[d + 1, d + 1]` with bias. Enqueued.
///
/// # Errors
/// [`CudaError::Scratch`] if `scratch` holds less than [`scratch`](self::scratch()), [`CudaError::OtherStream`], [`CudaError::OtherDevice`],
/// [`CudaError::TooLarge`] from 2^31 features or positions, or 2^46 rows on, and those of a launch.
///
/// # Panics
/// If shapes disagree, or positions that there are none of are reduced.
pub fn covariance<I: Input>(
    out: ViewMut<'_, I::Acc, 2>,
    x: View<'_, I, 3>,
    spec: &Spec<I::Acc>,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), CudaError> {
    let work = Work::new::<I>(x.shape(), spec);
    covariance_by(Rung::of(work.kind, work.size, work.rows, stream), out, x, spec, stream, scratch)
}

/// [`covariance`] on a given rung.
///
/// # Errors
/// As [`covariance`].
///
/// # Panics
/// As [`covariance`], and for a rung that the type of the rows does not have.
pub fn covariance_by<I: Input>(
    rung: Rung,
    out: ViewMut<'_, I::Acc, 2>,
    x: View<'_, I, 3>,
    spec: &Spec<I::Acc>,
    stream: &Stream,
    scratch: &mut Scratch,
) -> Result<(), CudaError> {
    let work = Work::new::<I>(x.shape(), spec);
    assert!(out.shape() == [work.size; 2], "covariance: the output is not {0} x {0}", work.size);
    assert!(spec.sharing == Sharing::Expand || x.shape()[1] > 0, "covariance: no positions to reduce");
    x.check_device("x", stream)?;
    out.as_view().check_device("out", stream)?;
    let [n, t, _] = x.shape();
    at_most(i32::MAX as usize, "features", work.size)?;
    at_most(i32::MAX as usize, "positions", t)?;
    at_most(MOST_ROWS, "rows", n.saturating_mul(t))?;
    scratch.check(stream, work.req::<I::Acc>(rung))?;
    let mut arena = scratch.arena();
    let rows = match work.prepared {
        true => prepare(x, spec, &work, stream, &mut arena)?,
        false => Rows::new(work.kind, x.pointer(), x.shape(), x.strides()),
    };
    product(rung, out, rows, spec, &work, stream, &mut arena)
}

/// Scratch of [`covariance`] for activations of `shape` `[N, T, d]`, or of fewer rows, on any stream.
pub fn scratch<I: Input>(shape: [usize; 3], spec: &Spec<I::Acc>) -> ScratchReq {
    let work = Work::new::<I>(shape, spec);
    let tile = Cut::new(work.kind, work.size, work.rows).tile; // whatever the math
    work.req::<I::Acc>(Rung::Tiles { math: Math::Mma, tile })
}

/// Scratch of [`covariance_by`].
pub fn scratch_by<I: Input>(rung: Rung, shape: [usize; 3], spec: &Spec<I::Acc>) -> ScratchReq {
    Work::new::<I>(shape, spec).req::<I::Acc>(rung)
}

/// Roundings that bound the error of [`covariance_by`], as [`Math::depth`] has it. Under [`Sharing::Reduce`] each row's are not among them: `T` additions and a
/// product; nor, centred, the mean's.
pub fn depth<I: Input>(rung: Rung, shape: [usize; 3], spec: &Spec<I::Acc>) -> usize {
    let work = Work::new::<I>(shape, spec);
    match rung {
        Rung::Plain => work.rows,
        Rung::Tiles { math, tile } => Cut::with_tile(tile, work.size, work.rows).depth(math, work.kind, work.rows),
    }
}

/// Blocks for `entries` threads, `each` in a block.
fn blocks(entries: Option<usize>, each: usize) -> Result<u32, CudaError> {
    let most = i32::MAX as usize;
    let blocks = entries.map(|entries| entries.div_ceil(each)).filter(|&blocks| blocks <= most);
    blocks.map(|blocks| blocks as u32).ok_or(CudaError::TooLarge {
        what: "entries",
        value: entries.unwrap_or(usize::MAX),
        most: most.saturating_mul(each),
    })
}

/// Makes the rows that are multiplied: sums over positions, centred.
fn prepare<I: Input>(
    x: View<'_, I, 3>,
    spec: &Spec<I::Acc>,
    work: &Work,
    stream: &Stream,
    arena: &mut Arena<'_>,
) -> Result<Rows, CudaError> {
    let rows = arena.take::<I::Acc>(work.rows * work.lead());
    let centre = arena.take::<I::Acc>(work.features);
    let ([n, t, _], [datapoint, position, feature]) = (x.shape(), x.strides());
    let kind = Kind::of::<I>();
    let launch = |name, params: &RowsParams, grid| {
        // SAFETY: RowsParams is the kernels' parameter; `x` has the shape and strides given, `rows` and `centre` the sizes, on this device.
        unsafe { stream.launch(Kernel { source: &SOURCE, name }, grid, params) }
    };
    let params = RowsParams {
        x: x.pointer(),
        rows: centre.pointer(),
        centre: 0,
        count: (n * t) as i64,
        datapoint_step: datapoint as i64,
        position_step: position as i64,
        feature_step: feature as i64,
        scale: spec.centre_scale.map_or(0.0, Element::to_f64),
        positions: t as u32,
        summed: 0,
        features: work.features as i32,
        lead: work.lead() as i32,
    };
    if spec.centre_scale.is_some() {
        let shared = (256 * kind.widened().bytes()) as u32;
        let grid = Grid { blocks: [work.features.div_ceil(32) as u32, 1, 1], threads: 256, shared };
        launch(row_names(kind)[1], &params, grid)?;
    }
    let summed = spec.sharing == Sharing::Reduce;
    let params = RowsParams {
        rows: rows.pointer(),
        centre: if spec.centre_scale.is_some() { centre.pointer() } else { 0 },
        count: work.rows as i64,
        scale: spec.reduce_scale.to_f64(),
        summed: i32::from(summed),
        ..params
    };
    let grid = Grid { blocks: [blocks(work.rows.checked_mul(work.features), 256)?, 1, 1], threads: 256, shared: 0 };
    launch(row_names(kind)[0], &params, grid)?;
    Ok(Rows::new(work.kind, rows.pointer(), [work.rows, 1, work.features], [work.lead() as isize, 0, 1]))
}

fn product<T: Element>(
    rung: Rung,
    out: ViewMut<'_, T, 2>,
    rows: Rows,
    spec: &Spec<T>,
    work: &Work,
    stream: &Stream,
    arena: &mut Arena<'_>,
) -> Result<(), CudaError> {
    let name = rung.name(work.kind);
    let name = name.unwrap_or_else(|| panic!("covariance: {:?} has no {rung:?}", work.kind));
    let cut = match rung {
        Rung::Plain => Cut { chunks: 1, ..Cut::new(work.kind, work.size, work.rows) },
        Rung::Tiles { tile, .. } => Cut::with_tile(tile, work.size, work.rows),
    };
    let slots = arena.take::<T>(cut.slots().unwrap_or(0));
    // A whole matrix whose columns are contiguous is written as its transpose: along its lines.
    let [row_step, column_step] = out.strides();
    let turned = spec.triangle == Triangle::Full && row_step.unsigned_abs() < column_step.unsigned_abs();
    let [out_row_step, out_column_step] = if turned { [column_step, row_step] } else { [row_step, column_step] };
    let params = Params {
        x: rows.x,
        out: out.pointer(),
        slots: slots.pointer(),
        rows: work.rows as i64,
        chunk: cut.chunk as i64,
        datapoint_step: rows.datapoint_step as i64,
        position_step: rows.position_step as i64,
        feature_step: rows.feature_step as i64,
        out_row_step: out_row_step as i64,
        out_column_step: out_column_step as i64,
        alpha: spec.blend.alpha.to_f64(),
        beta: spec.blend.beta.to_f64(),
        positions: rows.positions as u32,
        features: work.features as i32,
        size: work.size as i32,
        chunks: cut.chunks as i32,
        reading: rows.reading,
        full: i32::from(spec.triangle == Triangle::Full),
    };
    let launch = |name, grid| {
        // SAFETY: Params is the kernels' parameter; the rows have the strides given, `out` is `size` x `size`, there is a slot for each tile of
        // each chunk, all on this device, and `out` overlaps nothing that is read.
        unsafe { stream.launch(Kernel { source: &SOURCE, name }, grid, &params) }
    };
    let sums = work.kind.widened();
    match rung {
        Rung::Plain => {
            let blocks = blocks(work.size.checked_mul(work.size), 256)?;
            launch(name, Grid { blocks: [blocks, 1, 1], threads: 256, shared: 0 })
        }
        Rung::Tiles { tile, .. } => {
            let tiles = blocks(Some(cut.tiles), 1)?;
            let (threads, shared) = (tile.threads(), tile.shared(work.kind));
            launch(name, Grid { blocks: [tiles, cut.chunks as u32, 1], threads, shared })?;
            if cut.chunks == 1 {
                return Ok(());
            }
            let (threads, shared) = (BAND_THREADS, tile.band_shared(sums));
            launch(finish_name(tile, sums), Grid { blocks: [tiles, tile.bands(), 1], threads, shared })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_one_axis_where_strides_allow() {
        let rows = |shape, strides| {
            let rows = Rows::new(Kind::F32, 0, shape, strides);
            (rows.datapoint_step, rows.position_step, rows.positions)
        };
        assert_eq!(rows([5, 1, 8], [8, 0, 1]), (0, 8, 0));
        assert_eq!(rows([1, 5, 8], [0, 8, 1]), (0, 8, 0));
        assert_eq!(rows([3, 4, 8], [32, 8, 1]), (0, 8, 0));
        assert_eq!(rows([3, 4, 8], [8, 24, 1]), (0, 8, 0), "positions outermost");
        assert_eq!(rows([3, 4, 8], [-32, -8, 1]), (0, -8, 0));
        assert_eq!(rows([3, 4, 8], [40, 8, 1]), (40, 8, 4));
        assert_eq!(rows([3, 4, 8], [32, 1, 4]), (32, 1, 4), "channels first");
        assert_eq!(rows([1, 1, 8], [7, 9, 1]), (0, 0, 0));
    }

    #[test]
    fn vectors_are_read_where_all_is_aligned() {
        let reading = |kind, x, shape, strides| Rows::new(kind, x, shape, strides).reading;
        assert_eq!(reading(Kind::F32, 256, [5, 1, 8], [8, 0, 1]), VECTORS);
        assert_eq!(reading(Kind::F32, 264, [5, 1, 8], [8, 0, 1]), BY_COLUMN, "the address");
        assert_eq!(reading(Kind::F32, 256, [5, 1, 7], [7, 0, 1]), BY_COLUMN, "the step");
        assert_eq!(reading(Kind::F32, 256, [5, 1, 7], [8, 0, 1]), VECTORS, "a padded step");
        assert_eq!(reading(Kind::F32, 256, [5, 3, 8], [26, 8, 1]), BY_COLUMN, "the other step");
        assert_eq!(reading(Kind::F32, 256, [5, 1, 7], [1, 0, 5]), BY_DEPTH);
        assert_eq!(reading(Kind::F64, 256, [5, 1, 6], [6, 0, 1]), VECTORS);
        assert_eq!(reading(Kind::Bf16, 256, [5, 1, 8], [8, 0, 1]), VECTORS);
        assert_eq!(reading(Kind::Bf16, 256, [5, 1, 6], [6, 0, 1]), PAIRS);
        assert_eq!(reading(Kind::F16, 256, [5, 1, 7], [7, 0, 1]), BY_COLUMN);
        assert_eq!(reading(Kind::F32, 256, [1, 1, 7], [7, 0, 1]), VECTORS, "one row has no step");
    }

    #[test]
    fn each_rung_has_a_kernel_of_the_source() {
        for kind in [Kind::F32, Kind::F64, Kind::Bf16, Kind::F16] {
            let rungs = Rung::all(kind).into_iter().map(|rung| rung.name(kind).expect("a kernel"));
            let tiles = Tile::all(kind).iter().map(|&tile| finish_name(tile, kind.widened()));
            for name in rungs.chain(tiles).chain(row_names(kind)) {
                let found = SOURCE.text.matches(&format!("({name},")).count()
                    + SOURCE.text.matches(&format!(" {name},")).count();
                assert_eq!(found, 1, "{name}");
            }
        }
    }
}

//! The launches of one covariance.

use super::names;
use super::params::{
    Assemble, BiasRow, Correlate, Features, FoldChunks, Geometry, Images, Mirror, Output, Pack, Plain, Unfold, Windows,
};
use super::plan::{Form, Plan, cut, reduced_math};
use super::tables::{Divisor, Tables};
use super::{CORRELATE, DevicePlan, DeviceTables, SOURCE, UNFOLD};
use crate::compile::Source;
use crate::device::Kernel;
use crate::error::CudaError;
use crate::launch::Grid;
use crate::scratch::Arena;
use crate::stream::Stream;
use crate::tile::{BAND_THREADS, Cut, Kind, Math};
use crate::view::View;
use foof_kernels::conv::{Conv, ConvSpec};
use foof_kernels::covariance::{Bias, Sharing};
use foof_kernels::{Element, Input, Triangle};

/// Threads of a block of the kernels that are no tiles.
const THREADS: u32 = 256;

/// Elements that a block packs, at most, and a column beside them.
const PACKED: usize = 1024;
const PACKED_SHARED: usize = PACKED + 32;

/// Channels and taps of an assembled block, and its elements, as in `conv_covariance.cu`.
const ASSEMBLED: usize = 32;
const ASSEMBLED_TAPS: usize = 8;
const ASSEMBLED_SHARED: usize = ASSEMBLED_TAPS * (ASSEMBLED * (ASSEMBLED + 1) + 4);

/// Elements of a partial sum that a block adds.
const FOLDED: usize = 1024;

/// The output with its rows along memory: blocks write along rows. Only a caller who wants one triangle can tell them from columns.
pub(super) fn along_rows<T>(out: View<'_, T, 3>, triangle: Triangle) -> View<'_, T, 3> {
    let [group, row, column] = out.strides();
    match triangle == Triangle::Full && row.unsigned_abs() < column.unsigned_abs() {
        true => out.with_axes(out.shape(), [group, column, row]),
        false => out,
    }
}

/// One covariance, whose arguments agree. The output is written although its view is shared: the caller has borrowed it mutably.
pub(super) struct Call<'a, I: Input> {
    pub(super) out: View<'a, I::Acc, 3>,
    pub(super) x: View<'a, I, 5>,
    pub(super) plan: &'a DevicePlan,
    /// Of a reduced row: `1 / T` for a mean.
    pub(super) reduce_scale: I::Acc,
    pub(super) spec: &'a ConvSpec<I::Acc>,
    pub(super) stream: &'a Stream,
}

/// `n` blocks along the first axis of a grid, or an error that names what there is too much of.
fn blocks(n: u128) -> Result<u32, CudaError> {
    let most = i32::MAX as usize;
    let value = usize::try_from(n).unwrap_or(usize::MAX);
    if value <= most { Ok(value as u32) } else { Err(CudaError::TooLarge { what: "blocks of a grid", value, most }) }
}

fn product(sizes: &[usize]) -> u128 {
    sizes.iter().fold(1, |product, &size| product.saturating_mul(size as u128))
}

impl<I: Input> Call<'_, I> {
    fn conv(&self) -> &Conv {
        self.plan.plan.conv()
    }

    /// Images, of which the plan may be for more: then what depth is cut into ends early.
    fn images(&self) -> usize {
        self.x.shape()[0]
    }

    /// # Safety
    /// As [`Stream::launch`], for a kernel of `source`.
    unsafe fn launch<P: Copy>(
        &self,
        source: &'static Source,
        name: &'static str,
        grid: Grid,
        params: &P,
    ) -> Result<(), CudaError> {
        // SAFETY: the caller's contract.
        unsafe { self.stream.launch(Kernel { source, name }, grid, params) }
    }

    /// One of [`SOURCE`]'s kernels.
    ///
    /// # Safety
    /// As [`Stream::launch`].
    unsafe fn small<P: Copy>(
        &self,
        name: &'static str,
        blocks: [u32; 3],
        shared: usize,
        params: &P,
    ) -> Result<(), CudaError> {
        let grid = Grid { blocks, threads: THREADS, shared: shared as u32 };
        // SAFETY: the caller's contract.
        unsafe { self.launch(&SOURCE, name, grid, params) }
    }

    pub(super) fn run(&self, arena: &mut Arena<'_>) -> Result<(), CudaError> {
        if self.spec.sharing == Sharing::Reduce {
            return self.reduced(arena);
        }
        match (&self.plan.plan.form, &self.plan.tables) {
            (Form::Correlation(tables), Some(on_device)) => self.correlation(tables, on_device, arena),
            (Form::Unfold(cut), _) => {
                let images = Images::new(self.x, self.conv().groups());
                let how = (self.plan.plan.math, Kind::of::<I>());
                self.unfold(images, self.conv(), how, cut, arena)
            }
            (Form::Pixels(_), _) => {
                let conv = self.conv();
                let how = (self.plan.plan.math, Kind::of::<I>());
                let images = Images::new(self.x, conv.groups());
                self.unfold(images, conv, how, &cut(conv, self.plan.plan.images * conv.positions()), arena)
            }
            (Form::Plain | Form::Correlation(_), _) => self.plain(),
        }
    }

    fn full(&self) -> bool {
        self.spec.triangle == Triangle::Full
    }

    fn plain(&self) -> Result<(), CudaError> {
        let (conv, [groups, size, _]) = (self.conv(), self.out.shape());
        let params = Plain {
            x: Images::new(self.x, groups),
            out: Output::new(self.out, self.spec.blend),
            geometry: Geometry::new(conv),
            features: Features::new(conv),
            groups: groups as i32,
            size: size as i32,
            full: i32::from(self.full()),
        };
        let name = names::reads(
            Kind::of::<I>(),
            [
                "conv_covariance_plain_f32",
                "conv_covariance_plain_f64",
                "conv_covariance_plain_bf16",
                "conv_covariance_plain_f16",
            ],
        );
        let grid = [blocks(product(&[groups, size, size]).div_ceil(THREADS.into()))?, 1, 1];
        // SAFETY: one thread for each entry; images and output have the geometry's shapes.
        unsafe { self.small(name, grid, 0, &params) }
    }

    /// The covariance of the patches that `conv` reads of `images`, as many as there are of the call's.
    fn unfold(
        &self,
        images: Images,
        conv: &Conv,
        (math, kind): (Math, Kind),
        cut: &Cut,
        arena: &mut Arena<'_>,
    ) -> Result<(), CudaError> {
        let [groups, size, _] = self.out.shape();
        let slots = arena.take::<I::Acc>(groups * cut.slots().unwrap_or(0));
        let params = Unfold {
            x: images,
            out: Output::new(self.out, self.spec.blend),
            slots: slots.pointer(),
            rows: (self.images() * conv.positions()) as i64,
            chunk: cut.chunk as i64,
            geometry: Geometry::new(conv),
            features: Features::new(conv),
            outputs: conv.axes3().map(|axis| Divisor::new(axis.outputs())),
            size: size as i32,
            chunks: cut.chunks as i32,
            full: i32::from(self.full()),
        };
        let tiles = blocks(cut.tiles as u128)?;
        let grid = |y: u32, threads, shared| Grid { blocks: [tiles, y, groups as u32], threads, shared };
        let multiply = grid(cut.chunks as u32, cut.tile.threads(), cut.tile.shared(kind));
        // SAFETY: a block for each tile and chunk, slots for each; images and output have the geometry's shapes.
        unsafe { self.launch(&UNFOLD, names::unfold(math, kind), multiply, &params)? };
        if cut.chunks == 1 {
            return Ok(());
        }
        let name = names::sums(kind, "conv_unfold_finish_64_f32", "conv_unfold_finish_64_f64");
        let finish = grid(cut.tile.bands(), BAND_THREADS, cut.tile.band_shared(kind.widened()));
        // SAFETY: as above.
        unsafe { self.launch(&UNFOLD, name, finish, &params) }
    }

    /// `rows [image][group][feature] <- scale sum over outputs`
    fn window_sums(&self, rows: u64, scale: f64) -> Result<(), CudaError> {
        let (conv, n) = (self.conv(), self.images());
        let params = Windows {
            x: Images::new(self.x, conv.groups()),
            rows,
            scale,
            geometry: Geometry::new(conv),
            features: Features::new(conv),
            groups: conv.groups() as i32,
        };
        let name = names::reads(
            Kind::of::<I>(),
            ["conv_window_sums_f32", "conv_window_sums_f64", "conv_window_sums_bf16", "conv_window_sums_f16"],
        );
        let warps = product(&[conv.groups(), n, conv.features()]);
        // SAFETY: a warp for each of the rows' elements, which the caller made room for.
        unsafe { self.small(name, [blocks(warps.div_ceil(u128::from(THREADS / 32)))?, 1, 1], 0, &params) }
    }

    /// Mean patches, and their covariance as that of images of one pixel.
    fn reduced(&self, arena: &mut Arena<'_>) -> Result<(), CudaError> {
        let (conv, n) = (self.conv(), self.images());
        let (groups, features) = (conv.groups(), conv.features());
        let rows = arena.take::<I::Acc>(groups * n * features);
        self.window_sums(rows.pointer(), self.reduce_scale.to_f64())?;
        let (pixels, cut) = (conv.mean_patches(), cut(conv, self.plan.plan.images));
        let step = [(groups * features) as isize, 1, 0, 0, 0];
        let rows = rows.as_view().with_axes([n, groups * features, 1, 1, 1], step);
        let kind = Kind::of::<I::Acc>();
        let how = (reduced_math(self.plan.plan.math, kind), kind);
        self.unfold(Images::new(rows, groups), &pixels, how, &cut, arena)
    }

    fn correlation(&self, tables: &Tables, on_device: &DeviceTables, arena: &mut Arena<'_>) -> Result<(), CudaError> {
        let (conv, [groups, ..]) = (self.conv(), self.out.shape());
        let Plan { tile, math, .. } = self.plan.plan;
        let (n, kind, elements) = (self.images(), Kind::of::<I>(), tables.side * tables.side);
        let [z, y, x] = tables.pitch;
        let image_len = z * y * x * tables.width;
        let packed = arena.take::<I>(groups * tables.phase_count() * n * image_len);
        let partials = arena.take::<I::Acc>(groups * tables.partials * elements);
        let partials_step = (tables.partials * elements) as i64;
        let (data, steps) = match InPlace::of(self.x, conv, tables) {
            Some(steps) => (self.x.pointer(), steps),
            None => {
                self.pack(tables, on_device, packed.pointer())?;
                let phase = (n * image_len) as i64;
                let axes = [image_len, y * x * tables.width, x * tables.width, tables.width].map(|step| step as i32);
                let group = phase * tables.phase_count() as i64;
                (packed.pointer(), InPlace { group, phase, axes })
            }
        };
        let params = Correlate {
            images: data,
            sums: on_device.sums.base(),
            items: on_device.items.base(),
            partials: partials.pointer(),
            group_step: steps.group,
            phase_step: steps.phase,
            partials_step,
            steps: steps.axes,
            width: tables.width as i32,
            batch: n as i32,
        };
        let grid = Grid {
            blocks: [blocks(tables.items.len() as u128)?, groups as u32, 1],
            threads: tile.threads(),
            shared: tile.shared(kind),
        };
        // SAFETY: a block for each item, which name samples inside the packed images and partial sums that there is room for.
        unsafe { self.launch(&CORRELATE, names::correlate(math, kind, tile), grid, &params)? };
        let fold = FoldChunks {
            folds: on_device.folds.base(),
            partials: partials.pointer(),
            group_step: partials_step,
            elements: elements as i32,
            reserved: 0,
        };
        let grid = [blocks(tables.folds.len() as u128)?, elements.div_ceil(FOLDED) as u32, groups as u32];
        // SAFETY: partial sums that the correlation wrote.
        unsafe { self.small(names::sums(kind, "conv_fold_f32", "conv_fold_f64"), grid, 0, &fold)? };
        self.assemble(on_device, partials.pointer(), partials_step)?;
        if conv.bias() == Bias::With {
            let rows = arena.take::<I::Acc>(groups * n * conv.features());
            self.bias(rows.pointer())?;
        }
        if self.full() { self.mirror() } else { Ok(()) }
    }

    fn pack(&self, tables: &Tables, on_device: &DeviceTables, packed: u64) -> Result<(), CudaError> {
        let (conv, n) = (self.conv(), self.images());
        let params = Pack {
            x: Images::new(self.x, conv.groups()),
            packed,
            phases: on_device.phases.base(),
            geometry: Geometry::new(conv),
            pitch: tables.pitch.map(|samples| samples as i32),
            width: tables.width as i32,
            phase_count: tables.phase_count() as i32,
            groups: conv.groups() as i32,
        };
        let channels = tables.width.min(32);
        let length = PACKED / channels / 32 * 32;
        let (lines, slices) = (product(&tables.pitch).div_ceil(length as u128), tables.width.div_ceil(channels));
        let images = product(&[conv.groups(), tables.phase_count(), n, slices]);
        let (name, bytes) = match size_of::<I>() {
            2 => ("conv_pack_16", 2),
            4 => ("conv_pack_32", 4),
            _ => ("conv_pack_64", 8),
        };
        // SAFETY: there is room for every phase of every image.
        unsafe { self.small(name, [blocks(images.saturating_mul(lines))?, 1, 1], PACKED_SHARED * bytes, &params) }
    }

    fn assemble(&self, on_device: &DeviceTables, partials: u64, group_step: i64) -> Result<(), CudaError> {
        let (conv, kind, groups) = (self.conv(), Kind::of::<I>(), self.conv().groups());
        let params = Assemble {
            out: Output::new(self.out, self.spec.blend),
            sums: on_device.sums.base(),
            pairs: on_device.pairs.base(),
            partials,
            group_step,
            features: Features::new(conv),
            side: self.plan.plan.tile.side() as i32,
        };
        let (slices, taps) = ((conv.in_channels() / groups).div_ceil(ASSEMBLED), conv.taps());
        let grid = [blocks(product(&[slices, slices, taps, taps.div_ceil(ASSEMBLED_TAPS)]))?, groups as u32, 1];
        let shared = ASSEMBLED_SHARED * size_of::<I::Acc>();
        // SAFETY: the tables name partial sums; a block for each block of taps and channels of the output.
        unsafe { self.small(names::sums(kind, "conv_assemble_f32", "conv_assemble_f64"), grid, shared, &params) }
    }

    fn bias(&self, rows: u64) -> Result<(), CudaError> {
        let (conv, kind, n) = (self.conv(), Kind::of::<I>(), self.images());
        self.window_sums(rows, 1.0)?;
        let params = BiasRow {
            out: Output::new(self.out, self.spec.blend),
            rows,
            outputs: (n * conv.positions()) as i64,
            images: n as i32,
            features: conv.features() as i32,
            groups: conv.groups() as i32,
            reserved: 0,
        };
        let entries = product(&[conv.groups(), conv.features() + 1]);
        let grid = [blocks(entries.div_ceil(THREADS.into()))?, 1, 1];
        // SAFETY: a thread for each entry of the last row; the sums of windows have been written.
        unsafe { self.small(names::sums(kind, "conv_bias_f32", "conv_bias_f64"), grid, 0, &params) }
    }

    fn mirror(&self) -> Result<(), CudaError> {
        let [groups, size, _] = self.out.shape();
        let squares = size.div_ceil(32);
        let name = names::sums(Kind::of::<I>(), "conv_mirror_f32", "conv_mirror_f64");
        let grid = [blocks(product(&[squares, squares]))?, groups as u32, 1];
        // SAFETY: a block for each square of the output.
        unsafe { self.small(name, grid, 32 * 33 * size_of::<I::Acc>(), &Mirror::new(self.out)) }
    }
}

/// How pixel-major images lie: elements between neighbours.
struct InPlace {
    group: i64,
    phase: i64,
    /// From an image to the next, and along z, y, x.
    axes: [i32; 4],
}

impl InPlace {
    /// The images' own, if they are pixel-major, of whole aligned vectors, and every sample is read.
    fn of<I: Input>(x: View<'_, I, 5>, conv: &Conv, tables: &Tables) -> Option<InPlace> {
        let ([_, channels, sizes @ ..], [image, channel, axes @ ..]) = (x.shape(), x.strides());
        let channels = channels / conv.groups();
        let whole = |count: usize, step: isize| count <= 1 || step.unsigned_abs().is_multiple_of(16 / size_of::<I>());
        let pixels = channel == 1 && channels == tables.width && x.pointer().is_multiple_of(16);
        let aligned = whole(x.shape()[0], image) && sizes.iter().zip(axes).all(|(&size, step)| whole(size, step));
        let reach = sizes
            .iter()
            .zip(axes)
            .try_fold(channels, |reach, (&size, step)| reach.checked_add((size - 1).checked_mul(step.unsigned_abs())?));
        let most = i32::MAX as usize;
        let short = reach.is_some_and(|reach| reach <= most) && (x.shape()[0] <= 1 || image.unsigned_abs() <= most);
        // An axis of one sample may have any step.
        let step = |size: usize, step: isize| if size > 1 { step as i32 } else { 0 };
        let axes =
            [step(x.shape()[0], image), step(sizes[0], axes[0]), step(sizes[1], axes[1]), step(sizes[2], axes[2])];
        let steps = InPlace { group: channels as i64, phase: 0, axes };
        (pixels && aligned && short && tables.every_sample(conv)).then_some(steps)
    }
}

//! Block sizes and the order of sums: a pure function of shape and instruction set, never of the thread count.

use super::kernels::Kernels;
use crate::element::Element;
use crate::par::Par;
use core::ops::Range;
use dyn_stack::StackReq;

/// Alignment of packed panels and tiles: a cache line, and the widest vector.
pub(crate) const ALIGN: usize = 64;

/// Depth of a packed slab. A right panel of it (`nr * KC` elements, 36 kB with 48 f32) stays in L1 or streams from L2 while left panels
/// stream; a tile is read and written once a slab.
const KC: usize = 192;

/// Sides of macro-tiles, largest first: multiples of every panel width. A tile and its two slabs take 585 KiB (864 KiB in f64,
/// which starts at the second): they fit a 1 MiB L2.
pub(crate) const SIDES: [usize; 5] = [240, 192, 144, 96, 48];

/// Tasks that a product is cut into if it is large enough: enough to balance the threads of a desktop, few enough that
/// their cost (an epilogue each, a panel read again) stays small.
pub(crate) const TASKS: usize = 28;

/// A depth that is worth a chunk of its own, and the tasks below which depth is cut.
const CHUNK: usize = 1024;
const CHUNKED_TASKS: usize = 8;

/// Multiply-adds below which a product runs on the calling thread: about 40 us, several times what waking a thread costs.
pub(crate) const PARALLEL_WORK: usize = 1 << 21;

/// Multiply-adds of a full product.
fn work(m: usize, n: usize, k: usize) -> usize {
    m.saturating_mul(n).saturating_mul(k)
}

/// Tasks that a streamed product is cut into: each packs its operands anew, so tiles stay large.
const STREAMED_TASKS: usize = 14;

/// The most rows of a strip, bytes of its lines, and elements of a window of [`Plan::windowed`], about: many strips share a window, a strip and its
/// window's slab fit L2, and a window is columns enough that packing the strips anew costs little.
const STRIP: usize = 96;
pub(crate) const LINE: usize = 512 * 4;
pub(crate) const WINDOW: usize = 800_000;

/// Rows from which on a product is worth a window.
const WINDOWED: usize = 625;

/// Rows of a strip of a window on `degree` threads. The more, the less often a window's panels come from beyond L2, but there are four strips to a
/// thread where there are rows enough, and as many to each. A strip is rows of the output: where it ends plays no part in any sum.
pub(crate) fn strip_rows(rows: usize, degree: usize) -> usize {
    let strips = rows.div_ceil(STRIP).max((4 * degree).min(rows / LEAST)).max(1).next_multiple_of(degree);
    rows.div_ceil(strips).next_multiple_of(8).max(LEAST)
}

/// The fewest rows of a strip.
pub(crate) const LEAST: usize = 24;

/// Which part of the product is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Region {
    Full,
    /// Tiles that meet the lower triangle of a square product.
    Lower,
}

/// How one product is cut into tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) nr: usize,
    /// Sides of a macro-tile.
    pub(crate) tm: usize,
    pub(crate) tn: usize,
    pub(crate) region: Region,
    /// The depth is cut into this many chunks, each summed into a tile of its own.
    pub(crate) chunks: usize,
    /// Which operands are packed before their tiles are computed.
    pub(crate) packing: Packing,
}

/// Which operands are packed before their tiles are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packing {
    /// Those that several tiles read, whole.
    Ahead,
    /// None: each task packs its own slabs, however many tiles read a panel.
    Streamed,
    /// The right one, as many columns at a time as a tile has.
    Windows,
}

impl Plan {
    pub(crate) fn new<T: Element>(m: usize, n: usize, k: usize, region: Region, kernels: &Kernels<T>) -> Plan {
        // f64 tiles are half as many elements, so that they take the same part of L2.
        let largest = if size_of::<T>() > 4 { 1 } else { 0 };
        let nr = kernels.nr;
        // What fits into one tile on one axis is cut along the other only: then each panel of that other operand is read by one task.
        let within = |extent: usize| extent <= SIDES[largest] && region == Region::Full;
        let side_of = |extent: usize, other: usize, side: usize| {
            let side = if within(extent) && !within(other) { SIDES[largest] } else { side };
            side.min(extent.next_multiple_of(nr)).max(nr)
        };
        let with_side = |side: usize| {
            let (tm, tn) = (side_of(m, n, side), side_of(n, m, side));
            Plan { m, n, k, nr, tm, tn, region, chunks: 1, packing: Packing::Ahead }
        };
        let mut candidates = SIDES[largest..].iter().map(|&side| with_side(side));
        let mut plan = candidates
            .clone()
            .find(|plan| plan.tiles() >= TASKS)
            .or(candidates.next_back())
            .unwrap_or_else(|| with_side(nr));
        if work(m, n, k) < PARALLEL_WORK {
            plan = with_side(SIDES[largest]);
        } else if plan.tiles() < CHUNKED_TASKS {
            plan.chunks = (k / CHUNK).clamp(1, CHUNKED_TASKS.div_ceil(plan.tiles().max(1)) * 2);
        }
        plan
    }

    /// A plan whose operands are never packed whole: each task packs the slabs that its tile reads. For operands that would take far more
    /// memory packed than they do as they are.
    pub(crate) fn streamed<T: Element>(m: usize, n: usize, k: usize, kernels: &Kernels<T>) -> Plan {
        let largest = if size_of::<T>() > 4 { 1 } else { 0 };
        let nr = kernels.nr;
        // Even tiles: none but the last is narrower than the others by more than a panel.
        let even = |extent: usize, side: usize| extent.div_ceil(extent.div_ceil(side).max(1)).next_multiple_of(nr);
        let with_side = |side: usize| {
            let (tm, tn) = (even(m, side).max(nr), even(n, side).max(nr));
            let mut plan = Plan { m, n, k, nr, tm, tn, region: Region::Full, chunks: 1, packing: Packing::Streamed };
            if work(m, n, k) >= PARALLEL_WORK {
                plan.chunks = (k / CHUNK).clamp(1, STREAMED_TASKS.div_ceil(plan.tiles().max(1)));
            }
            plan
        };
        let mut plans = SIDES[largest..4].iter().map(|&side| with_side(side));
        let enough = |plan: &Plan| work(m, n, k) < PARALLEL_WORK || plan.tiles() * plan.chunks >= STREAMED_TASKS;
        plans.clone().find(enough).or(plans.next_back()).unwrap_or_else(|| with_side(nr))
    }

    /// A plan that packs little at a time of operands that are cheap to pack: a window of columns, then, strip by strip of rows, slabs of the
    /// left operand, which is packed again for each window. Streamed where there are too few strips, or no depth is to be summed.
    pub(crate) fn windowed<T: Element>(m: usize, n: usize, k: usize, par: Par) -> Plan {
        let (kernels, tm) = (T::kernels(par.isa()), strip_rows(m, par.degree()));
        let nr = kernels.nr;
        let columns = (WINDOW / k.max(1)).clamp(nr, LINE / size_of::<T>());
        let tn = n.div_ceil(n.div_ceil(columns).max(1)).next_multiple_of(nr).max(nr);
        let plan = Plan { m, n, k, nr, tm, tn, region: Region::Full, chunks: 1, packing: Packing::Windows };
        if m >= WINDOWED && work(m, n, k) >= PARALLEL_WORK { plan } else { Plan::streamed(m, n, k, kernels) }
    }

    /// Tiles along rows and columns.
    pub(crate) fn grid(&self) -> (usize, usize) {
        (self.m.div_ceil(self.tm), self.n.div_ceil(self.tn))
    }

    /// The number of tiles computed.
    pub(crate) fn tiles(&self) -> usize {
        let (rows, cols) = self.grid();
        match self.region {
            Region::Full => rows * cols,
            Region::Lower => rows * (rows + 1) / 2,
        }
    }

    /// Rows and columns of the output in tile `index`.
    pub(crate) fn tile(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let (rows, cols) = self.grid();
        let (i, j) = match self.region {
            Region::Full => (index / cols, index % cols),
            Region::Lower => {
                // Longest rows of tiles first: the small last row of tiles ends the product with short tasks.
                let mut i = 0;
                let mut rest = index;
                while rest > i {
                    i += 1;
                    rest -= i;
                }
                debug_assert!(i < rows);
                (i, rest)
            }
        };
        let clip = |at: usize, side: usize, end: usize| at * side..end.min((at + 1) * side);
        (clip(i, self.tm, self.m), clip(j, self.tn, self.n))
    }

    /// Depths of chunk `index`: multiples of [`KC`], but for the last.
    pub(crate) fn chunk(&self, index: usize) -> Range<usize> {
        let blocks = self.k.div_ceil(KC);
        let cut = |c: usize| (blocks * c / self.chunks * KC).min(self.k);
        cut(index)..cut(index + 1)
    }

    /// Whether the left and the right operand are packed ahead: it pays once a panel is read by more than one tile. Else each task packs its
    /// own slabs, which never leave L2.
    pub(crate) fn packs_ahead(&self) -> [bool; 2] {
        let (rows, cols) = self.grid();
        match self.region {
            _ if self.packing == Packing::Streamed => [false; 2],
            _ if self.packing == Packing::Windows => [false, true],
            Region::Full => [cols > 1, rows > 1],
            // One operand, read from both sides.
            Region::Lower => [rows > 1; 2],
        }
    }

    /// The longest chain of additions into one entry: within a slab, over slabs, over chunks.
    pub(crate) fn depth(&self) -> usize {
        let longest = (0..self.chunks).map(|c| self.chunk(c).len()).max().unwrap_or(0);
        KC.min(longest) + longest.div_ceil(KC) + self.chunks
    }

    /// Threads that this much work feeds.
    pub(crate) fn par(&self, par: Par) -> Par {
        match work(self.m, self.n, self.k) < PARALLEL_WORK {
            true => par.at_most(1),
            false => par.at_most(self.tiles() * self.chunks),
        }
    }

    pub(crate) fn tile_len(&self) -> usize {
        self.tm * self.tn
    }

    /// Elements of a packed operand with `extent` indices.
    pub(crate) fn packed_len(&self, extent: usize, depth: usize) -> usize {
        extent.next_multiple_of(self.nr) * depth
    }

    /// Elements of the operands packed ahead.
    pub(crate) fn packed_lens(&self) -> [usize; 2] {
        let [left, right] = self.packs_ahead();
        let len = |ahead: bool, extent: usize| if ahead { self.packed_len(extent, self.k) } else { 0 };
        let columns = if self.packing == Packing::Windows { self.tn } else { self.n };
        [len(left, self.m), len(right && self.region == Region::Full, columns)]
    }

    /// Elements of the slabs that a worker packs for itself.
    pub(crate) fn slab_lens(&self) -> (usize, usize) {
        let [left, right] = self.packs_ahead();
        let len = |ahead: bool, side: usize| if ahead { 0 } else { self.packed_len(side, KC.min(self.k)) };
        (len(left, self.tm), len(right, self.tn))
    }

    pub(crate) fn scratch<T: Element>(&self, par: Par) -> StackReq {
        let req = |len: usize| StackReq::new_aligned::<T>(len, ALIGN);
        let [left, right] = self.packed_lens();
        let (l, r) = self.slab_lens();
        let degree = self.par(par).degree();
        StackReq::all_of(&[
            req(left),
            req(right),
            req((l + r) * degree),
            req(self.tile_len() * degree),
            req(self.partials_len()),
        ])
    }

    /// One more tile for each worker.
    pub(crate) fn tiles_scratch<T: Element>(&self, par: Par) -> StackReq {
        StackReq::new_aligned::<T>(self.tile_len() * self.par(par).degree(), ALIGN)
    }

    /// Elements of the chunks' tiles.
    pub(crate) fn partials_len(&self) -> usize {
        if self.chunks > 1 { self.tile_len() * self.tiles() * self.chunks } else { 0 }
    }
}

/// The slabs of a stretch of depth.
pub(crate) fn slabs_of(depths: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    depths.clone().step_by(KC).map(move |p| p..depths.end.min(p + KC))
}

/// Uninitialised scratch for panels or tiles.
pub(crate) fn aligned<T>(
    stack: &mut dyn_stack::MemStack,
    len: usize,
) -> (&mut [core::mem::MaybeUninit<T>], &mut dyn_stack::MemStack) {
    stack.make_aligned_uninit::<T>(len, ALIGN)
}

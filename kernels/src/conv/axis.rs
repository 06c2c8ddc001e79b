//! Along one axis: which taps may share a product, and over which positions.
//!
//! A tap reads sample `s y + d p - pad = s (y + a) + r`: phase `r` of the axis, shifted by `a`. What two taps `(r, a)` and
//! `(r', a')` need is `sum_u X_r[u] X_r'[u + delta]` with `delta = a' - a`, over the window `u in [a, a + outputs)`, cut to where both samples
//! exist. Tap pairs with the same `(r, r', delta)` form a *class*: they differ in the window only. Consecutive classes of one
//! phase pair form a *group*, whose products share their left or right operand. The ends of a group's windows cut the axis into
//! *segments*: a window is a run of whole segments.

use super::geometry::Axis;
use core::ops::Range;

/// Whether positions of a group count along its left samples or its right ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Count {
    /// `u`, where the left samples are.
    Left,
    /// `u + delta`, where the right samples are.
    Right,
}

/// Positions that every window of a group takes whole or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) positions: Range<usize>,
    /// The classes of the group that need it, and those between: at all of them both samples exist.
    pub(crate) classes: Range<usize>,
}

/// Consecutive classes `(left, right, delta + i)`, `i < count`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    pub(crate) left: usize,
    pub(crate) right: usize,
    pub(crate) delta: isize,
    pub(crate) count: usize,
    pub(crate) segments: Vec<Segment>,
}

impl Group {
    /// Of class `i`: -1, 0 or 1, the opposite for the transposed class `(right, left, -delta)`.
    pub(crate) fn sign(&self, i: usize) -> isize {
        match self.left.cmp(&self.right) {
            core::cmp::Ordering::Less => 1,
            core::cmp::Ordering::Greater => -1,
            core::cmp::Ordering::Equal => (self.delta + i as isize).signum(),
        }
    }

    /// The first class whose sign is not negative.
    pub(crate) fn first_not_negative(&self) -> usize {
        (0..self.count).find(|&i| self.sign(i) >= 0).unwrap_or(self.count)
    }
}

/// Where a pair of taps finds its sum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub(crate) group: usize,
    /// Class of the group.
    pub(crate) class: usize,
    pub(crate) sign: isize,
    /// Segments of the group; none if the two taps never see two samples at once.
    pub(crate) segments: Range<usize>,
}

/// All classes of an axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AxisPlan {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// The phases that taps read, ascending; groups name them by their place here.
    pub(crate) phases: Vec<usize>,
    /// Samples of the longest phase.
    pub(crate) pitch: usize,
    pub(crate) groups: Vec<Group>,
    /// `[p * kernel + p']`
    pairs: Vec<Pair>,
}

/// How classes are put into groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grouping {
    /// Classes in a group, at most.
    pub(crate) most: usize,
    pub(crate) count: Count,
    /// Whether a group may hold negative classes beside others.
    pub(crate) mixed: bool,
}

/// A pair of taps: their phases, the shift between them, and their window.
struct Window {
    key: (usize, usize),
    delta: isize,
    /// Empty if `start >= end`.
    positions: Range<isize>,
}

fn window(axis: &Axis, p: usize, q: usize, count: Count) -> Window {
    let s = axis.stride as isize;
    let place = |tap: usize| (axis.dilation * tap) as isize - axis.padding[0] as isize;
    let phase = |tap: usize| place(tap).rem_euclid(s) as usize;
    let shift = |tap: usize| place(tap).div_euclid(s);
    let samples = |phase: usize| (axis.size.saturating_sub(phase)).div_ceil(axis.stride) as isize;
    let (a, delta) = (shift(p), shift(q) - shift(p));
    // Along the left samples: outputs [a, a + outputs), left samples from 0, right ones from -delta.
    let start = a.max(0).max(-delta);
    let end = (a + axis.outputs() as isize).min(samples(phase(p))).min(samples(phase(q)) - delta);
    let along = if count == Count::Left { 0 } else { delta };
    Window { key: (phase(p), phase(q)), delta, positions: start + along..end + along }
}

impl AxisPlan {
    pub(crate) fn new(axis: &Axis, grouping: Grouping) -> AxisPlan {
        let k = axis.kernel;
        let windows: Vec<Window> = (0..k * k).map(|pair| window(axis, pair / k, pair % k, grouping.count)).collect();
        let mut classes: Vec<_> = windows.iter().map(|w| (w.key, w.delta)).collect();
        classes.sort_unstable();
        classes.dedup();
        let mut groups: Vec<Group> = Vec::new();
        for &((left, right), delta) in &classes {
            let next = Group { left, right, delta, count: 1, segments: Vec::new() };
            match groups.last_mut() {
                Some(group)
                    if (group.left, group.right) == (left, right)
                        && group.delta + group.count as isize == delta
                        && group.count < grouping.most
                        && (grouping.mixed || group.sign(0) >= 0 || next.sign(0) < 0) =>
                {
                    group.count += 1;
                }
                _ => groups.push(next),
            }
        }
        let mut pairs = Vec::with_capacity(k * k);
        for w in &windows {
            let class_of = |group: &Group| {
                let class = usize::try_from(w.delta - group.delta).ok()?;
                ((group.left, group.right) == w.key && class < group.count).then_some(class)
            };
            let found = groups.iter().enumerate().find_map(|(g, group)| class_of(group).map(|class| (g, class)));
            let (group, class) = found.unwrap_or_else(|| unreachable!("every class is in a group"));
            pairs.push(Pair { group, class, sign: groups[group].sign(class), segments: 0..0 });
        }
        for (g, group) in groups.iter_mut().enumerate() {
            let members = || pairs.iter().zip(&windows).filter(|(pair, w)| pair.group == g && !w.positions.is_empty());
            let mut cuts: Vec<isize> = members().flat_map(|(_, w)| [w.positions.start, w.positions.end]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            for ends in cuts.windows(2) {
                let covers = |w: &Window| w.positions.start <= ends[0] && ends[1] <= w.positions.end;
                let needed = || members().filter(|(_, w)| covers(w)).map(|(pair, _)| pair.class);
                let (Some(first), Some(last)) = (needed().min(), needed().max()) else { continue };
                group
                    .segments
                    .push(Segment { positions: ends[0] as usize..ends[1] as usize, classes: first..last + 1 });
            }
        }
        for (pair, w) in pairs.iter_mut().zip(&windows) {
            let inside = |s: &Segment| {
                w.positions.start <= s.positions.start as isize && s.positions.end as isize <= w.positions.end
            };
            let segments = &groups[pair.group].segments;
            let start = segments.iter().position(inside).unwrap_or(0);
            pair.segments = start..start + segments.iter().filter(|&s| inside(s)).count();
        }
        let mut phases: Vec<usize> = groups.iter().map(|group| group.left).collect();
        phases.sort_unstable();
        phases.dedup();
        for group in &mut groups {
            let place = |phase: usize| phases.partition_point(|&p| p < phase);
            (group.left, group.right) = (place(group.left), place(group.right));
        }
        AxisPlan { kernel: k, stride: axis.stride, phases, pitch: axis.size.div_ceil(axis.stride), groups, pairs }
    }

    pub(crate) fn pair(&self, p: usize, q: usize) -> &Pair {
        &self.pairs[p * self.kernel + q]
    }

    /// Segments of the groups before `group`.
    pub(crate) fn groups_before(&self, group: usize) -> usize {
        self.groups[..group].iter().map(|group| group.segments.len()).sum()
    }

    /// The most segments in one window.
    pub(crate) fn longest_window(&self) -> usize {
        self.pairs.iter().map(|pair| pair.segments.len()).max().unwrap_or(0)
    }
}

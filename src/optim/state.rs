//! Saving an optimiser's state to safetensors and resuming from it, bit for bit.

use super::optimizer::Optimizer;
use super::preconditioner::{Entry, Preconditioner, State};
use crate::convolution::Axis;
use crate::layer::Layer;
use crate::{Element, Error};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;

/// Names the layout of the entries.
const FORMAT: &str = "foof-optimizer-2";

/// The one entry of the file's metadata: with several, their order would be that of a hash map. A line `name = value` for each option, the
/// checksum last.
const KEY: &str = "foof";
const CHECKSUM: &str = "checksum";

fn invalid(entry: &str, reason: impl ToString) -> Error {
    Error::State { entry: entry.into(), reason: reason.to_string() }
}

fn dtype<T: Element>() -> Dtype {
    if size_of::<T>() == size_of::<f32>() { Dtype::F32 } else { Dtype::F64 }
}

/// FNV-1a over the entries in their order, so that a flipped bit is found.
fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", parts.fold(0xcbf2_9ce4_8422_2325, |hash, part| part.iter().fold(hash, step)))
}

/// A layer's geometry in one line.
fn described(layer: &Layer) -> String {
    let (bias, sharing) = (layer.bias(), layer.sharing());
    match layer.convolution() {
        None => {
            let (i, o, t) = (layer.inputs(), layer.outputs(), layer.positions());
            format!("{i} to {o}, bias {bias:?}, positions {t}, sharing {sharing:?}")
        }
        Some(conv) => {
            let (c, o, groups, order) = (conv.in_channels(), conv.out_channels(), conv.groups(), conv.order());
            let axes: Vec<String> = conv.axes().iter().map(axis).collect();
            let axes = axes.join("; ");
            format!("{c} to {o} channels in {groups} groups, {axes}, {order:?}, bias {bias:?}, sharing {sharing:?}")
        }
    }
}

fn axis(axis: &Axis) -> String {
    let Axis { size, kernel, stride, dilation, padding: [before, after] } = axis;
    format!("{kernel} taps over {size}, stride {stride}, dilation {dilation}, padding {before} and {after}")
}

/// The value of `name` in lines `name = value`, or nothing.
fn value<'a>(lines: &'a str, name: &str) -> &'a str {
    lines.lines().filter_map(|line| line.split_once(" = ")).find(|&(key, _)| key == name).map_or("", |(_, value)| value)
}

impl<T: Element, P: Preconditioner<T>> Optimizer<T, P> {
    /// What must be the same where the state is loaded: its numbers were made with these.
    fn made_with(&self) -> Vec<(String, String)> {
        let mut made_with = vec![("format".into(), FORMAT.into()), ("method".into(), P::NAME.into())];
        for (l, layer) in self.layers().iter().enumerate() {
            made_with.push((format!("layer.{l}"), described(layer)));
        }
        made_with.extend(self.preconditioner.rules().into_iter().map(|(name, value)| (name.into(), value)));
        made_with
    }

    /// What says how training went on, and may be another where the state is loaded.
    fn followed(&self) -> [(&'static str, String); 9] {
        let (schedule, step) = (self.schedule, self.step);
        [
            ("schedule.period", schedule.period.to_string()),
            ("schedule.observe", schedule.observe.to_string()),
            ("schedule.initial", schedule.initial.to_string()),
            ("schedule.order", format!("{:?}", schedule.order)),
            ("step.learning_rate", format!("{:?}", step.learning_rate)),
            ("step.momentum", format!("{:?}", step.momentum)),
            ("step.momentum_start", step.momentum_start.to_string()),
            ("step.weight_decay", format!("{:?}", step.weight_decay)),
            ("step.polyak", step.polyak.map_or("none".into(), |cap| format!("{cap:?}"))),
        ]
    }

    /// Momentum and averages.
    fn buffers(&self) -> Vec<Entry<'_, T>> {
        let mut entries: Vec<Entry<'_, T>> = Vec::new();
        for (name, buffers) in [("momentum", &self.momentum), ("average", &self.average)] {
            for (l, values) in buffers.iter().enumerate() {
                let shape = self.layers()[l].weight_shape();
                entries.push((format!("layer.{l}.{name}"), shape.to_vec(), values));
            }
        }
        entries
    }

    /// The state as a safetensors file: factors, inverses or eigenbases, momentum, averages, counters; in the metadata the options. Equal
    /// states and options give equal bytes.
    ///
    /// # Errors
    /// [`Error::State`] if the file cannot be formed.
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        let [count, ready] = self.preconditioner.counters();
        let counters = bytes_of_counters([self.t, count, ready]);
        let entries = [self.preconditioner.entries(), self.buffers()].concat();
        let line = |name: &str, value: &str| format!("{name} = {value}\n");
        let made_with = self.made_with().iter().map(|(name, value)| line(name, value)).collect::<String>();
        let mut lines = made_with + &self.followed().map(|(name, value)| line(name, &value)).concat();
        let parts = entries.iter().map(|(_, _, values)| bytemuck::cast_slice(values));
        let sum = checksum(parts.chain([&counters[..], lines.as_bytes()]));
        lines += &line(CHECKSUM, &sum);
        let metadata = HashMap::from([(KEY.into(), lines)]);
        let error = |error| invalid("file", error);
        let mut tensors = Vec::new();
        for (name, shape, values) in &entries {
            let view = TensorView::new(dtype::<T>(), shape.clone(), bytemuck::cast_slice(values)).map_err(error)?;
            tensors.push((name.as_str(), view));
        }
        tensors.push(("counters", TensorView::new(Dtype::U64, vec![3], &counters).map_err(error)?));
        safetensors::serialize(tensors, Some(metadata)).map_err(error)
    }

    /// Resumes from the bytes of [`save`](Self::save).
    ///
    /// Method, layers, element type, damping, `m` and the method's rules must be those of the saved optimiser: its inverses, eigenbases and
    /// averages were made with them, and mixed with others would be neither's. Schedule and step options are this optimiser's own; they are
    /// in the file's metadata for the reader. So a learning rate or a period may change on the way; with the same ones, training goes on
    /// bit for bit as if it had not stopped. Momentum or averaging must be there where the file has it, and only there.
    ///
    /// # Errors
    /// [`Error::State`], naming the entry or the option, if the file is truncated, corrupt, or of another optimiser; state as it was.
    pub fn load(&mut self, file: &[u8]) -> Result<(), Error> {
        let (_, metadata) = SafeTensors::read_metadata(file).map_err(|error| invalid("file", error))?;
        let tensors = SafeTensors::deserialize(file).map_err(|error| invalid("file", error))?;
        let lines = metadata.metadata().as_ref().and_then(|map| map.get(KEY)).map_or("", |lines| lines);
        for (name, expected) in self.made_with() {
            let found = value(lines, &name);
            if found != expected {
                return Err(invalid(&name, format!("expected {expected:?}, got {found:?}")));
            }
        }
        let find = |name: &str, dtype: Dtype, shape: &[usize]| {
            let tensor = tensors.tensor(name).map_err(|error| invalid(name, error))?;
            if tensor.dtype() != dtype || tensor.shape() != shape {
                let got = (tensor.dtype(), tensor.shape());
                return Err(invalid(name, format!("expected {dtype:?} {shape:?}, got {:?} {:?}", got.0, got.1)));
            }
            Ok(tensor.data())
        };
        let state = self.preconditioner.state();
        let first = |name: &str| tensors.tensor(name).ok().and_then(|tensor| tensor.shape().first().copied());
        let datapoints = state.datapoints(&first);
        let mut shapes = state.shapes(datapoints);
        shapes.extend(self.buffers().into_iter().map(|(name, shape, _)| (name, shape)));
        if tensors.len() != shapes.len() + 1 {
            let reason = format!("expected {} entries, got {}", shapes.len() + 1, tensors.len());
            return Err(invalid("file", reason));
        }
        let mut parts = Vec::new();
        for (name, shape) in &shapes {
            parts.push(find(name, dtype::<T>(), shape)?);
        }
        let bytes = find("counters", Dtype::U64, &[3])?;
        let counters: [u64; 3] = core::array::from_fn(|i| bytemuck::pod_read_unaligned(&bytes[8 * i..8 * i + 8]));
        let described = lines.find(&format!("{CHECKSUM} = ")).map_or(lines, |end| &lines[..end]);
        if checksum(parts.iter().copied().chain([bytes, described.as_bytes()])) != value(lines, CHECKSUM) {
            return Err(invalid(CHECKSUM, "does not match the entries"));
        }
        if counters[2] > 1 {
            return Err(invalid("counters", "the last is not 0 or 1"));
        }
        self.preconditioner.state_mut().resize(datapoints);
        let mut targets = self.preconditioner.state_mut().entries_mut();
        targets.extend(self.momentum.iter_mut().chain(&mut self.average).map(|values| &mut values[..]));
        for (target, part) in targets.into_iter().zip(parts) {
            bytemuck::cast_slice_mut(target).copy_from_slice(part);
        }
        self.t = counters[0];
        self.preconditioner.state_mut().set_counters([counters[1], counters[2]]);
        Ok(())
    }
}

fn bytes_of_counters(counters: [u64; 3]) -> [u8; 24] {
    bytemuck::cast(counters)
}

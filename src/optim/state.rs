//! Saving an optimiser's state to safetensors and resuming from it, bit for bit.

use super::optimizer::Optimizer;
use super::preconditioner::{Entry, Preconditioner};
use crate::{Element, Error};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;

/// Names the layout of the entries.
const FORMAT: &str = "foof-optimizer-1";

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

impl<T: Element, P: Preconditioner<T>> Optimizer<T, P> {
    fn state(&self) -> Vec<Entry<'_, T>> {
        let mut entries = self.preconditioner.entries();
        for (name, buffers) in [("momentum", &self.momentum), ("average", &self.average)] {
            for (l, values) in buffers.iter().enumerate() {
                let shape = self.layers()[l].weight_shape();
                entries.push((format!("layer.{l}.{name}"), shape.to_vec(), values));
            }
        }
        entries
    }

    /// The state as a safetensors file: factors, inverses or eigenbases, momentum, averages, counters. Options are not part of it.
    ///
    /// # Errors
    /// [`Error::State`] if the file cannot be formed.
    pub fn save(&self) -> Result<Vec<u8>, Error> {
        let [count, ready] = self.preconditioner.counters();
        let counters = bytes_of_counters([self.t, count, ready]);
        let entries = self.state();
        let parts = entries.iter().map(|(_, _, values)| bytemuck::cast_slice(values)).chain([&counters[..]]);
        let metadata = [("format", FORMAT.into()), ("method", P::NAME.into()), ("checksum", checksum(parts))];
        let metadata: HashMap<String, String> = metadata.map(|(key, value)| (key.into(), value)).into();
        let error = |error| invalid("file", error);
        let mut tensors = Vec::new();
        for (name, shape, values) in &entries {
            let view = TensorView::new(dtype::<T>(), shape.clone(), bytemuck::cast_slice(values)).map_err(error)?;
            tensors.push((name.as_str(), view));
        }
        tensors.push(("counters", TensorView::new(Dtype::U64, vec![3], &counters).map_err(error)?));
        safetensors::serialize(tensors, Some(metadata)).map_err(error)
    }

    /// Resumes from the bytes of [`save`](Self::save), by an optimiser of the same method, layers, element type and kind of options.
    ///
    /// # Errors
    /// [`Error::State`], naming the entry, if the file is truncated, corrupt, or of another optimiser; state as it was.
    pub fn load(&mut self, file: &[u8]) -> Result<(), Error> {
        let (_, metadata) = SafeTensors::read_metadata(file).map_err(|error| invalid("file", error))?;
        let tensors = SafeTensors::deserialize(file).map_err(|error| invalid("file", error))?;
        let label = |key: &str| metadata.metadata().as_ref().and_then(|map| map.get(key)).map_or("", |value| value);
        for (key, expected) in [("format", FORMAT), ("method", P::NAME)] {
            if label(key) != expected {
                return Err(invalid(key, format!("expected {expected:?}, got {:?}", label(key))));
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
        let entries = self.state();
        if tensors.len() != entries.len() + 1 {
            let reason = format!("expected {} entries, got {}", entries.len() + 1, tensors.len());
            return Err(invalid("file", reason));
        }
        let mut parts = Vec::new();
        for (name, shape, _) in &entries {
            parts.push(find(name, dtype::<T>(), shape)?);
        }
        let bytes = find("counters", Dtype::U64, &[3])?;
        let counters: [u64; 3] = core::array::from_fn(|i| bytemuck::pod_read_unaligned(&bytes[8 * i..8 * i + 8]));
        if checksum(parts.iter().copied().chain([bytes])) != label("checksum") {
            return Err(invalid("checksum", "does not match the entries"));
        }
        if counters[2] > 1 {
            return Err(invalid("counters", "the last is not 0 or 1"));
        }
        let mut targets = self.preconditioner.entries_mut();
        targets.extend(self.momentum.iter_mut().chain(&mut self.average).map(|values| &mut values[..]));
        for (target, part) in targets.into_iter().zip(parts) {
            bytemuck::cast_slice_mut(target).copy_from_slice(part);
        }
        self.t = counters[0];
        self.preconditioner.set_counters([counters[1], counters[2]]);
        Ok(())
    }
}

fn bytes_of_counters(counters: [u64; 3]) -> [u8; 24] {
    bytemuck::cast(counters)
}

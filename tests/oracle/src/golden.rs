//! The golden vectors of `tests/golden`: what PyTorch's autograd and dense solves gave (see the README there).

use crate::Dense;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::PathBuf;

/// One file of golden tensors; every look-up panics with the tensor's name if it is missing or of another type.
pub struct Golden {
    name: String,
    bytes: Vec<u8>,
}

impl Golden {
    /// The file `tests/golden/{name}.safetensors`.
    pub fn load(name: &str) -> Self {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../golden").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Self { name: name.to_owned(), bytes }
    }

    fn parsed(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn with<R>(&self, tensor: &str, dtype: Dtype, read: impl FnOnce(&TensorView<'_>) -> R) -> R {
        let parsed = self.parsed();
        let view = parsed.tensor(tensor).unwrap_or_else(|e| panic!("{}: {tensor}: {e}", self.name));
        assert_eq!(view.dtype(), dtype, "{}: {tensor}", self.name);
        read(&view)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, tensor: &str) -> bool {
        self.parsed().tensor(tensor).is_ok()
    }

    /// How many layers the file has weights for.
    pub fn layers(&self) -> usize {
        (0..).take_while(|l| self.contains(&format!("weight.{l}"))).count()
    }

    /// Shape of a tensor of floats.
    pub fn shape(&self, tensor: &str) -> Vec<usize> {
        self.with(tensor, Dtype::F64, |view| view.shape().to_vec())
    }

    /// The entries of a tensor of floats, row-major.
    pub fn values(&self, tensor: &str) -> Vec<f64> {
        let number = |b: &[u8]| f64::from_le_bytes(b.try_into().expect("eight bytes"));
        self.with(tensor, Dtype::F64, |view| view.data().chunks_exact(8).map(number).collect())
    }

    /// The entries of a tensor of integers, row-major.
    pub fn integers(&self, tensor: &str) -> Vec<i64> {
        let number = |b: &[u8]| i64::from_le_bytes(b.try_into().expect("eight bytes"));
        self.with(tensor, Dtype::I64, |view| view.data().chunks_exact(8).map(number).collect())
    }

    /// A tensor of class labels.
    pub fn labels(&self, tensor: &str) -> Vec<usize> {
        self.integers(tensor).iter().map(|&label| usize::try_from(label).expect("a class")).collect()
    }

    /// A tensor as a matrix: the first dimension is the rows, all others together the columns.
    pub fn matrix(&self, tensor: &str) -> Dense {
        let values = self.values(tensor);
        let rows = self.shape(tensor)[0];
        Dense::from_slice(rows, values.len() / rows, &values)
    }

    /// A tensor `[blocks, rows, cols]`, or a matrix for one block, as its blocks.
    pub fn blocks(&self, tensor: &str) -> Vec<Dense> {
        let shape = self.shape(tensor);
        let values = self.values(tensor);
        let (rows, cols) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        values.chunks(rows * cols).map(|block| Dense::from_slice(rows, cols, block)).collect()
    }

    /// A tensor of one entry.
    pub fn scalar(&self, tensor: &str) -> f64 {
        let values = self.values(tensor);
        assert_eq!(values.len(), 1, "{}: {tensor}", self.name);
        values[0]
    }
}

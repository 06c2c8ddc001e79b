//! Batches of symmetric eigendecompositions: `cargo bench --bench eigen`.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn eigen(criterion: &mut Criterion) {
    support::family(criterion, support::Family::Eigen);
}

criterion_group!(benches, eigen);
criterion_main!(benches);

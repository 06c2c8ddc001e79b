//! Natural gradients: `cargo bench --bench woodbury`.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn woodbury(criterion: &mut Criterion) {
    support::family(criterion, support::Family::Woodbury);
}

criterion_group!(benches, woodbury);
criterion_main!(benches);

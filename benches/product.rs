//! Preconditioning products: `cargo bench --bench product`.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn product(criterion: &mut Criterion) {
    support::family(criterion, support::Family::Product);
}

criterion_group!(benches, product);
criterion_main!(benches);

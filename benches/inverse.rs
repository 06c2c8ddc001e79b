//! Damped factors, inverses and solves: `cargo bench --bench inverse`.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn inverse(criterion: &mut Criterion) {
    support::family(criterion, support::Family::Inverse);
}

criterion_group!(benches, inverse);
criterion_main!(benches);

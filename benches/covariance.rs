//! Covariances and second moments: `cargo bench --bench covariance`.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn covariance(criterion: &mut Criterion) {
    support::family(criterion, support::Family::Covariance);
}

criterion_group!(benches, covariance);
criterion_main!(benches);

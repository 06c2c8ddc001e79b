//! What is measured: kernels at shapes, named as in the peers' JSON, with the operations a symmetric algorithm needs.

use foof_kernels::Triangle;
use foof_kernels::conv::{Axis, Conv};

/// A square convolution of `n` square images.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Images {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Side of an image.
    pub h: usize,
    /// Side of the kernel.
    pub k: usize,
    /// Padding on each side.
    pub p: usize,
    /// Stride.
    pub s: usize,
    /// Groups.
    pub groups: usize,
}

impl Images {
    const fn new(n: usize, c: usize, h: usize, k: usize, p: usize) -> Images {
        Images { n, c, h, k, p, s: 1, groups: 1 }
    }

    /// The geometry.
    pub fn conv(self) -> Conv {
        let axis = Axis::new(self.h, self.k).stride(self.s).padding(self.p);
        let conv = Conv::new(self.c, self.c, [axis, axis]).and_then(|conv| conv.with_groups(self.groups));
        conv.expect("the shapes are convolutions")
    }

    /// Small and large kernels at stride 1, the rows of the peers first; then down-sampling, depthwise, and single pixels.
    const ALL: [Images; 14] = [
        Images::new(32, 3, 32, 3, 1),
        Images::new(32, 64, 32, 3, 1),
        Images::new(32, 128, 16, 3, 1),
        Images::new(32, 256, 8, 3, 1),
        Images::new(32, 512, 4, 3, 1),
        Images::new(32, 16, 28, 5, 2),
        Images::new(8, 64, 56, 3, 1),
        Images::new(8, 3, 224, 7, 3),
        Images { s: 2, ..Images::new(8, 64, 56, 3, 1) },
        Images { s: 2, ..Images::new(8, 128, 28, 3, 1) },
        Images { s: 2, ..Images::new(8, 3, 224, 7, 3) },
        Images { groups: 128, ..Images::new(8, 128, 28, 3, 1) },
        Images::new(8, 256, 28, 1, 0),
        Images { s: 2, ..Images::new(8, 256, 28, 1, 0) },
    ];
}

/// One kernel at one shape. Lengths are the mathematics' letters: `n` datapoints or order, `d`/`i` inputs, `o` outputs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Job {
    /// `A <- X^T X / n`, `X` `[n, d]`.
    Covariance { n: usize, d: usize, triangle: Triangle },
    /// The same of bf16 activations, lower triangle.
    CovarianceBf16 { n: usize, d: usize },
    /// Rows that are sums over `t` positions, lower triangle.
    CovarianceReduce { n: usize, t: usize, d: usize },
    /// The input factor of a convolution, NCHW, features `(channel, taps)`.
    ConvCovariance { images: Images, triangle: Triangle },
    /// EK-FAC's second moments.
    Moments { n: usize, t: usize, o: usize, i: usize },
    /// `(A + damping I)^-1`.
    Inverse { n: usize, triangle: Triangle },
    /// `(A_b + damping I)^-1` for each `b`, full.
    Batched { batch: usize, n: usize },
    /// `A_b = Q_b diag(a_b) Q_b^T` for each `b`.
    Eigen { batch: usize, n: usize },
    /// `L` of `A + damping I = L L^T`.
    Cholesky { n: usize },
    /// `(L L^T)^-1 B`.
    Solve { n: usize, cols: usize },
    /// `C <- A B`, square.
    Product { n: usize },
    /// `W <- W - rate U P`.
    Foof { o: usize, i: usize },
    /// `W <- W - rate E^T (X P)`: the gradient kept as `m` rows of activations and errors.
    FoofLowRank { m: usize, o: usize, i: usize },
    /// `W <- W - rate Q U P`.
    Kfac { o: usize, i: usize },
    /// `(F + damping I)^-1 u` of the network of [`MLP`] for `n` datapoints, `u` kept as `m` rows, or as matrices.
    Woodbury { n: usize, m: Option<usize> },
    /// The same of one convolution, `u` a matrix.
    ConvWoodbury { images: Images },
}

/// Sizes of the layers of the network that natural gradients are measured on.
pub const MLP: [usize; 5] = [784, 1000, 1000, 1000, 10];

impl Job {
    /// Every job, in the order of the table.
    pub fn all() -> Vec<Job> {
        use Triangle::{Full, Lower};
        let mut jobs = Vec::new();
        for triangle in [Full, Lower] {
            let shapes = [(100, 784), (100, 1000), (1000, 1000), (4096, 1024), (4096, 2048)];
            jobs.extend(shapes.map(|(n, d)| Job::Covariance { n, d, triangle }));
        }
        jobs.push(Job::CovarianceBf16 { n: 4096, d: 1024 });
        jobs.push(Job::CovarianceReduce { n: 100, t: 256, d: 512 });
        jobs.extend(Images::ALL.map(|images| Job::ConvCovariance { images, triangle: Lower }));
        jobs.extend([&Images::ALL[1], &Images::ALL[4]].map(|&images| Job::ConvCovariance { images, triangle: Full }));
        jobs.push(Job::Moments { n: 100, t: 1, o: 1000, i: 1000 });
        jobs.extend([4, 16, 64].map(|t| Job::Moments { n: 20, t, o: 512, i: 1024 }));
        jobs.extend([4, 8, 16, 32, 256, 512, 1024, 2048, 4096].map(|n| Job::Inverse { n, triangle: Full }));
        jobs.extend([256, 512, 1024, 2048, 4096].map(|n| Job::Inverse { n, triangle: Lower }));
        let batches = [(4096, 8), (4096, 16), (1024, 32), (256, 64), (64, 128)];
        jobs.extend(batches.map(|(batch, n)| Job::Batched { batch, n }));
        let batches = [(4096, 8), (4096, 16), (2048, 32), (1024, 64), (1, 8), (1, 16), (1, 32), (1, 64), (4, 32)];
        jobs.extend(batches.map(|(batch, n)| Job::Eigen { batch, n }));
        jobs.extend([1024, 2048].map(|n| Job::Cholesky { n }));
        jobs.push(Job::Solve { n: 1000, cols: 1000 });
        jobs.extend([4, 8, 16, 32].map(|n| Job::Product { n }));
        let layers = [(1000, 784), (1000, 1000), (512, 4608), (10, 1000)];
        jobs.extend(layers.map(|(o, i)| Job::Foof { o, i }));
        jobs.extend([(1000, 784), (1000, 1000)].map(|(o, i)| Job::FoofLowRank { m: 100, o, i }));
        jobs.extend(layers.map(|(o, i)| Job::Kfac { o, i }));
        jobs.extend([100, 1000, 4000].map(|n| Job::Woodbury { n, m: Some(100) }));
        jobs.extend([100, 1000, 4000].map(|n| Job::Woodbury { n, m: None }));
        jobs.push(Job::ConvWoodbury { images: Images::new(128, 64, 16, 3, 1) });
        jobs
    }

    /// The kernel's name in tables and JSON.
    pub fn kernel(self) -> &'static str {
        match self {
            Job::Covariance { triangle: Triangle::Full, .. } => "covariance",
            Job::Covariance { triangle: Triangle::Lower, .. } => "covariance_lower",
            Job::CovarianceBf16 { .. } => "covariance_bf16",
            Job::CovarianceReduce { .. } => "covariance_reduce",
            Job::ConvCovariance { triangle: Triangle::Lower, .. } => "conv_covariance",
            Job::ConvCovariance { triangle: Triangle::Full, .. } => "conv_covariance_full",
            Job::Moments { .. } => "ekfac_moments",
            Job::Inverse { triangle: Triangle::Full, .. } => "damped_inverse",
            Job::Inverse { triangle: Triangle::Lower, .. } => "damped_inverse_lower",
            Job::Batched { .. } => "damped_inverse_batched",
            Job::Eigen { .. } => "eigen_batched",
            Job::Cholesky { .. } => "damped_cholesky",
            Job::Solve { .. } => "cholesky_solve",
            Job::Product { .. } => "product",
            Job::Foof { .. } => "foof_product",
            Job::FoofLowRank { .. } => "foof_product_lowrank",
            Job::Kfac { .. } => "kfac_product",
            Job::Woodbury { m: Some(_), .. } => "woodbury",
            Job::Woodbury { m: None, .. } => "woodbury_matrix",
            Job::ConvWoodbury { .. } => "woodbury_conv",
        }
    }

    /// The shape's name in tables and JSON.
    pub fn shape(self) -> String {
        match self {
            Job::Covariance { n, d, .. } | Job::CovarianceBf16 { n, d } => format!("N={n} d={d}"),
            Job::CovarianceReduce { n, t, d } => format!("N={n} T={t} d={d}"),
            Job::Woodbury { n, m } => {
                let rows = m.map_or(String::new(), |m| format!(" M={m}"));
                format!("N={n}{rows} mlp784-1000x3-10")
            }
            Job::ConvWoodbury { images: Images { n, c, h, k, p, s, groups } }
            | Job::ConvCovariance { images: Images { n, c, h, k, p, s, groups }, .. } => {
                let stride = if s > 1 { format!(" s={s}") } else { String::new() };
                let groups = if groups > 1 { format!(" g={groups}") } else { String::new() };
                format!("N={n} C={c} H={h} k={k} p={p}{stride}{groups}")
            }
            Job::Moments { n, t, o, i } => format!("N={n} T={t} o={o} i={i}"),
            Job::Inverse { n, .. } | Job::Cholesky { n } | Job::Product { n } => format!("n={n}"),
            Job::Batched { batch, n } | Job::Eigen { batch, n } => format!("batch={batch} n={n}"),
            Job::Solve { n, cols } => format!("n={n} cols={cols}"),
            Job::FoofLowRank { m, o, i } => format!("M={m} o={o} i={i}"),
            Job::Foof { o, i } | Job::Kfac { o, i } => format!("o={o} i={i}"),
        }
    }

    /// Useful operations: an addition and a multiplication count one each, symmetry is used where there is any. Of a convolution's
    /// covariance, those of a symmetric update of the unfolded images.
    pub fn flops(self) -> f64 {
        let f = |n: usize| n as f64;
        match self {
            Job::Covariance { n, d, .. } | Job::CovarianceBf16 { n, d } => f(n) * f(d) * f(d),
            Job::CovarianceReduce { n, t, d } => f(n) * f(d) * (f(t) + f(d)),
            Job::ConvCovariance { images, .. } => {
                let conv = images.conv();
                f(images.n) * f(conv.positions()) * f(conv.groups()) * f(conv.features()).powi(2)
            }
            Job::Moments { n, t, o, i } => 2.0 * f(n) * f(t) * f(o) * f(i),
            Job::Inverse { n, .. } => f(n).powi(3),
            Job::Batched { batch, n } => f(batch) * f(n).powi(3),
            // As LAPACK's users count.
            Job::Eigen { batch, n } => 9.0 * f(batch) * f(n).powi(3),
            Job::Cholesky { n } => f(n).powi(3) / 3.0,
            Job::Solve { n, cols } => 2.0 * f(n) * f(n) * f(cols),
            Job::Product { n } => 2.0 * f(n).powi(3),
            Job::Foof { o, i } => 2.0 * f(o) * f(i) * f(i),
            Job::FoofLowRank { m, o, i } => 2.0 * f(m) * f(i) * (f(i) + f(o)),
            Job::Kfac { o, i } => 2.0 * f(o) * f(i) * (f(o) + f(i)),
            // A low-rank step (1), a symmetric Gram matrix, its factor, one product.
            Job::Woodbury { n, m } => {
                let sides: f64 = MLP.windows(2).map(|w| f(w[0] + w[1])).sum();
                let weights: f64 = MLP.windows(2).map(|w| f(w[0]) * f(w[1])).sum();
                let dots = m.map_or(2.0 * f(n) * weights, |m| 2.0 * f(n) * f(m) * sides);
                let sum = 2.0 * f(n + m.unwrap_or(0)) * weights;
                dots + f(n) * f(n) * sides + f(n).powi(3) / 3.0 + sum
            }
            // Gradients once more than the dots and the sum; half of all their products.
            Job::ConvWoodbury { images } => {
                let conv = images.conv();
                let weights = f(conv.features()) * f(conv.out_channels());
                f(images.n) * weights * (6.0 * f(conv.positions()) + f(images.n)) + f(images.n).powi(3) / 3.0
            }
        }
    }
}

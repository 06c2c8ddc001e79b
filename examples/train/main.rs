mod curves;
mod data;
mod idx;
mod random;
fn main() {
    let t = std::time::Instant::now();
    let c = curves::curves(10000, 0);
    println!("{:?}", t.elapsed());
    let d = idx::read_folder(std::path::Path::new("/work/shared/data/mnist-t10k")).unwrap();
    println!("{} {}", d.len(), d.width);
    use std::io::Write;
    let (lo, hi) = c.pixels.iter().fold((9f32, -9f32), |a, &b| (a.0.min(b), a.1.max(b)));
    println!("{lo} {hi}");
    let mut f = std::fs::File::create("/tmp/train/sheet.bin").unwrap();
    for gy in 0..8 {
        for y in 0..28 {
            for gx in 0..16 {
                for x in 0..28 {
                    f.write_all(&[((c.image(gy * 16 + gx)[y * 28 + x] - lo) / (hi - lo) * 255.) as u8]).unwrap();
                }
            }
        }
    }
}

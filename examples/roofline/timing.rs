//! Times several ways of doing one job, in turns, so that a drift of the machine meets all of them.

use super::ours::Work;
use std::time::{Duration, Instant};

/// Turns: each way gets its share of the repeats in each.
const TURNS: usize = 3;

/// A sample lasts at least this long; shorter work is called several times in one.
const SAMPLE: Duration = Duration::from_micros(200);

/// A turn of one way ends after this long, with one sample at least.
const TURN: Duration = Duration::from_secs(2);

/// The best time of each way in seconds, of `repeats` samples each. Each turn begins with an untimed call, which fills caches.
pub fn race(ways: &mut [Work], repeats: usize) -> Vec<f64> {
    let calls: Vec<u32> = ways.iter_mut().map(calls_per_sample).collect();
    let mut best = vec![f64::INFINITY; ways.len()];
    for _ in 0..TURNS {
        for ((way, &calls), best) in ways.iter_mut().zip(&calls).zip(&mut best) {
            way();
            let turn = Instant::now();
            for _ in 0..repeats.div_ceil(TURNS) {
                let start = Instant::now();
                (0..calls).for_each(|_| way());
                *best = best.min(start.elapsed().as_secs_f64() / f64::from(calls));
                if turn.elapsed() > TURN {
                    break;
                }
            }
        }
    }
    best
}

/// How many calls fill a sample, from the second call on: the first also touches memory for the first time.
fn calls_per_sample(way: &mut Work) -> u32 {
    way();
    let mut calls = 1;
    loop {
        let start = Instant::now();
        (0..calls).for_each(|_| way());
        if start.elapsed() >= SAMPLE || calls >= 1 << 20 {
            return calls;
        }
        calls *= 2;
    }
}

//! Every method on a small grid around its defaults.

use crate::Result;
use crate::options::Options;
use crate::progress::{Bar, Progress};
use crate::report::{markdown, summary};
use crate::settings::{MethodKind, Settings};
use crate::training::{Problem, Run};

/// Runs each method's grid with the first seed.
pub fn run(problem: &Problem, options: &Options, progress: &Progress) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for &method in options.methods() {
        let grid = Settings::grid(options.task(), method);
        let mut bar = progress.begin(method.name(), grid.len());
        let mut best = f64::INFINITY;
        for (number, settings) in grid.into_iter().enumerate() {
            let run = problem.run(method, options.scheduled(settings), options.seeds[0], &mut Bar::hidden())?;
            best = best.min(run.loss());
            bar.step();
            bar.update(number + 1, best);
            runs.push(run);
        }
        bar.finish(&format!("best loss {best:.4e}"));
    }
    Ok(runs)
}

/// A table for each method: learning rates down, momenta or dampings across, the final training loss in the cells and
/// the best one in bold.
pub fn tables(runs: &[Run]) -> String {
    let tables = crate::report::by_method(runs).into_iter().map(|(method, runs)| table(method, &runs));
    tables.collect::<Vec<_>>().join("\n")
}

fn table(method: MethodKind, runs: &[&Run]) -> String {
    let (name, second): (_, fn(&Settings) -> f64) = match method.is_damped() {
        true => ("damping", |settings| settings.damping),
        false => ("momentum", |settings| settings.momentum),
    };
    let (label, rate): (_, fn(&Settings) -> f64) = match method.is_natural() {
        true => ("learning rate / damping", |settings| settings.learning_rate / settings.damping),
        false => ("learning rate", |settings| settings.learning_rate),
    };
    let rates = distinct(runs.iter().map(|run| rate(&run.settings)));
    let seconds = distinct(runs.iter().map(|run| second(&run.settings)));
    let best = runs.iter().map(|run| run.loss()).fold(f64::INFINITY, f64::min);

    let mut rows = vec![vec![format!("{}: {label}", method.name())]];
    rows[0].extend(seconds.iter().map(|value| format!("{name} {value}")));
    for value in rates {
        let mut row = vec![value.to_string()];
        for across in &seconds {
            let cell = runs.iter().find(|run| rate(&run.settings) == value && second(&run.settings) == *across);
            row.push(match cell {
                Some(run) if run.loss() == best => format!("**{best:.3e}**"),
                Some(run) if run.loss().is_finite() => format!("{:.3e}", run.loss()),
                Some(run) => summary(run),
                None => String::new(),
            });
        }
        rows.push(row);
    }
    markdown(&rows)
}

/// The values in the order of their first appearance.
fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut seen = Vec::new();
    values.for_each(|value| {
        if !seen.contains(&value) {
            seen.push(value);
        }
    });
    seen
}

//! The table at the end, and the records: Markdown for people, JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::options::FisherFrom;
use crate::settings::{MethodKind, Settings};
use crate::training::{End, Point, Problem, Run};

/// What was run, in one line.
pub fn headline(problem: &Problem) -> String {
    let Problem { task, train, batch, fisher_batch, fisher_from, steps, par, .. } = problem;
    let threads = if par.degree() == 1 { "thread" } else { "threads" };
    let fisher = match fisher_from {
        FisherFrom::Step if fisher_batch == batch => String::new(),
        FisherFrom::Step => format!(" (F of {fisher_batch} of them)"),
        FisherFrom::Independent => format!(" (F of {fisher_batch} others)"),
    };
    format!(
        "{} {} {}: {} images, batch {batch}{fisher}, {steps} steps, {} {threads} ({})",
        train.name,
        task.title(),
        problem.architecture,
        train.len(),
        par.degree(),
        par.isa(),
    )
}

/// One line for the end of a progress bar.
pub fn summary(run: &Run) -> String {
    match run.end {
        End::Finished { loss, .. } => format!("loss {loss:.4e}"),
        End::Diverged { step } => format!("diverged at step {step}"),
    }
}

/// The runs of one method, in the order in which methods first appear.
pub fn by_method(runs: &[Run]) -> Vec<(MethodKind, Vec<&Run>)> {
    let mut methods: Vec<(MethodKind, Vec<&Run>)> = Vec::new();
    for run in runs {
        match methods.iter_mut().find(|(method, _)| *method == run.method) {
            Some((_, group)) => group.push(run),
            None => methods.push((run.method, vec![run])),
        }
    }
    methods
}

/// One row a method; means over seeds.
pub fn table(problem: &Problem, runs: &[Run]) -> String {
    let classifies = problem.task.classifies();
    let mut head = vec!["method", "learning rate", "momentum", "damping", "training loss"];
    if classifies {
        head.push("training accuracy");
    }
    if problem.held_out.is_some() {
        head.push("held-out accuracy");
    }
    head.extend(["ms / step", "step / SGD", "s before training"]);
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];

    let methods = by_method(runs);
    let sgd = methods.iter().find(|(method, _)| *method == MethodKind::Sgd);
    let sgd_seconds = sgd.map(|(_, group)| mean(group.iter().map(|run| run.step_seconds)));
    for (method, group) in methods {
        let Settings { learning_rate, momentum, damping, .. } = group[0].settings;
        let damping = if method.is_damped() { damping.to_string() } else { "-".into() };
        let mut row = vec![method.name().to_owned(), learning_rate.to_string(), momentum.to_string(), damping];
        row.push(losses(&group));
        let [accuracy, held_out] = accuracies(&group);
        if classifies {
            row.push(accuracy.map_or("-".into(), percent));
        }
        if problem.held_out.is_some() {
            row.push(held_out.map_or("-".into(), percent));
        }
        let seconds = mean(group.iter().map(|run| run.step_seconds));
        row.push(format!("{:.2}", 1e3 * seconds));
        row.push(sgd_seconds.map_or("-".into(), |sgd| format!("{:.2}", seconds / sgd)));
        row.push(format!("{:.2}", mean(group.iter().map(|run| run.start_seconds))));
        rows.push(row);
    }
    markdown(&rows)
}

/// Mean and, of several seeds, standard deviation of the final losses.
fn losses(group: &[&Run]) -> String {
    if let Some(step) = group.iter().find_map(|run| match run.end {
        End::Diverged { step } => Some(step),
        End::Finished { .. } => None,
    }) {
        return format!("diverged at step {step}");
    }
    let mean_loss = mean(group.iter().map(|run| run.loss()));
    if group.len() == 1 {
        return format!("{mean_loss:.3e}");
    }
    let squares = group.iter().map(|run| (run.loss() - mean_loss).powi(2));
    let deviation = (squares.sum::<f64>() / (group.len() - 1) as f64).sqrt();
    format!("{mean_loss:.3e} ± {deviation:.0e}")
}

/// Mean accuracies on the training set and on the images held out.
fn accuracies(group: &[&Run]) -> [Option<f64>; 2] {
    let pick = |which: fn(&End) -> Option<f64>| {
        let values: Option<Vec<f64>> = group.iter().map(|run| which(&run.end)).collect();
        values.map(|values| mean(values.into_iter()))
    };
    let training = pick(|end| match end {
        End::Finished { accuracy, .. } => Some(*accuracy),
        End::Diverged { .. } => None,
    });
    let held_out = pick(|end| match end {
        End::Finished { held_out_accuracy, .. } => *held_out_accuracy,
        End::Diverged { .. } => None,
    });
    [training, held_out]
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn percent(fraction: f64) -> String {
    format!("{:.2}%", 100.0 * fraction)
}

/// A Markdown table whose columns line up in plain text, too: the first to the left, the others to the right.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text.push('|');
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(text, " {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
        if number == 0 {
            text.push('|');
            for (column, &width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                text.push_str(&if column == 0 { format!(":{dashes}|") } else { format!("{dashes}:|") });
            }
            text.push('\n');
        }
    }
    text
}

/// Everything measured, for programs.
pub fn json(problem: &Problem, runs: &[Run]) -> Value {
    let Problem { train, batch, fisher_batch, fisher_from, steps, par, .. } = problem;
    json!({
        "data": train.name,
        "images": train.len(),
        "batch": batch,
        "fisher_batch": fisher_batch,
        "fisher_independent": *fisher_from == FisherFrom::Independent,
        "steps": steps,
        "threads": par.degree(),
        "isa": par.isa().name(),
        "runs": runs.iter().map(json_run).collect::<Vec<_>>(),
    })
}

/// One run; what it does not have (a loss after divergence, say) is null.
fn json_run(run: &Run) -> Value {
    let Settings { learning_rate, momentum, damping, period, observe, factor_decay } = run.settings;
    let has_factors = run.method.has_factors();
    let (loss, accuracy, held_out_accuracy, diverged_at) = match run.end {
        End::Finished { loss, accuracy, held_out_accuracy } => (Some(loss), Some(accuracy), held_out_accuracy, None),
        End::Diverged { step } => (None, None, None, Some(step)),
    };
    let column = |pick: fn(&Point) -> f64| run.curve.iter().map(pick).collect::<Vec<_>>();
    json!({
        "method": run.method.name(),
        "seed": run.seed,
        "learning_rate": learning_rate,
        "momentum": momentum,
        "damping": run.method.is_damped().then_some(damping),
        "period": has_factors.then_some(period),
        "observe": has_factors.then_some(observe),
        "factor_decay": has_factors.then_some(factor_decay),
        "loss": loss,
        "accuracy": accuracy,
        "held_out_accuracy": held_out_accuracy,
        "diverged_at": diverged_at,
        "step_seconds": run.step_seconds,
        "start_seconds": run.start_seconds,
        "curve": {
            "step": run.curve.iter().map(|point| point.step).collect::<Vec<_>>(),
            "seconds": column(|point| point.seconds),
            "loss": column(|point| point.loss),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up() {
        let rows = [["method", "loss"], ["K-FAC", "0.5 ± 0.1"]].map(|row| row.map(String::from).to_vec());
        let expected = "\
| method |      loss |
|:-------|----------:|
| K-FAC  | 0.5 ± 0.1 |
";
        assert_eq!(markdown(&rows), expected);
    }
}

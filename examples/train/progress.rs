//! Live progress: a bar for each run on a terminal, a few lines for each run elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

/// Lines for each run where there is no terminal.
const LINES: usize = 4;

/// Where progress is shown: the standard error stream, so that the table can be piped elsewhere.
pub struct Progress {
    bars: MultiProgress,
    terminal: bool,
}

/// The progress of one run.
pub struct Bar {
    bar: ProgressBar,
    label: String,
    terminal: bool,
    total: usize,
    lines: usize,
}

impl Progress {
    pub fn new() -> Self {
        Self { bars: MultiProgress::new(), terminal: stderr().is_terminal() }
    }

    /// A new bar below the others, of `total` steps.
    pub fn begin(&self, label: impl Into<String>, total: usize) -> Bar {
        let label = label.into();
        let bar = match self.terminal {
            true => self.bars.add(ProgressBar::new(total as u64)),
            false => ProgressBar::hidden(),
        };
        bar.set_style(style("{prefix:>16} {bar:28.cyan/blue} {pos:>5}/{len} {msg} [{elapsed}, {eta} left]"));
        bar.set_prefix(label.clone());
        bar.enable_steady_tick(Duration::from_millis(250));
        Bar { bar, label, terminal: self.terminal, total, lines: 0 }
    }
}

/// A bar that looks as the template says.
fn style(template: &str) -> ProgressStyle {
    // The templates here are constants that parse.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("━╸─")
}

impl Bar {
    /// A bar that nobody sees.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), label: String::new(), terminal: true, total: 0, lines: 0 }
    }

    /// One step more.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// Shows a loss measured after `step` steps.
    pub fn update(&mut self, step: usize, loss: f64) {
        self.bar.set_message(format!("loss {loss:<9.4e}"));
        if !self.terminal && step * LINES >= self.lines * self.total {
            self.lines = step * LINES / self.total.max(1) + 1;
            eprintln!("{:>16}: step {step:>5} of {}, loss {loss:.4e}", self.label, self.total);
        }
    }

    /// Shows how the run ended.
    pub fn finish(self, message: &str) {
        if self.terminal {
            self.bar.set_style(style("{prefix:>16} {bar:28.cyan/blue} {pos:>5}/{len} {msg} [{elapsed}]"));
            self.bar.finish_with_message(message.to_owned());
        } else {
            eprintln!("{:>16}: {message}, {}", self.label, HumanDuration(self.bar.elapsed()));
        }
    }
}

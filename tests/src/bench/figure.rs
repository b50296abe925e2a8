//! Samples, rounds, and the table that they end in.

use std::{fmt::Write as _, time::Duration};

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Megabytes,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Megabytes => "MB",
        }
    }
}

/// One figure over all rounds, with its limit where there is one.
#[derive(Clone, Debug)]
pub(super) struct Row {
    name: String,
    unit: Unit,
    rounds: Vec<Round>,
    /// What the limit is; empty for none.
    limit: String,
    target: Target,
}

/// What a figure is to keep to.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// It is told for information.
    None,
    /// At most this.
    Value(f64),
    /// At most this beyond its limit.
    Beyond(f64),
    /// Not to be told from its limit: no further from it than the limit's own rounds are from each other.
    Same,
}

/// One round: the figure, and the limit that was measured around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) ours: f64,
    pub(super) limit: Option<f64>,
}

impl Row {
    /// A figure that stands alone.
    pub(super) fn plain(name: &str, unit: Unit, ours: Vec<f64>) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            rounds: ours
                .into_iter()
                .map(|ours| Round { ours, limit: None })
                .collect(),
            limit: String::new(),
            target: Target::None,
        }
    }

    /// A time beside its limit.
    pub(super) fn beside(name: &str, limit: &str, rounds: Vec<Round>) -> Self {
        Self {
            name: name.to_owned(),
            unit: Unit::Milliseconds,
            rounds,
            limit: limit.to_owned(),
            target: Target::None,
        }
    }

    /// Sets the largest value.
    pub(super) fn at_most(mut self, target: f64) -> Self {
        self.target = Target::Value(target);
        self
    }

    /// Sets the largest difference to the limit.
    pub(super) fn beyond_limit_at_most(mut self, target: f64) -> Self {
        self.target = Target::Beyond(target);
        self
    }

    /// It must not be told from its limit.
    pub(super) fn same_as_limit(mut self) -> Self {
        self.target = Target::Same;
        self
    }

    /// Adds a word on what is counted.
    pub(super) fn noting(mut self, note: &str) -> Self {
        note.clone_into(&mut self.limit);
        self
    }

    /// Writes its cells, and the line below that names the limit.
    fn cells(&self) -> ([String; 6], String) {
        let unit = self.unit.word();
        let value = |value: f64| format!("{value:.2} {unit}");
        let ours: Vec<f64> = self.rounds.iter().map(|round| round.ours).collect();
        let limits: Vec<f64> = self.rounds.iter().filter_map(|round| round.limit).collect();
        let mut cells = [
            self.name.clone(),
            value(median(&ours)),
            String::new(),
            String::new(),
            span(&ours, |value| format!("{value:.2}")),
            String::new(),
        ];
        let over: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| Some(round.ours - round.limit?))
            .collect();
        if !limits.is_empty() {
            let ratio = median(&ours) / median(&limits);
            cells[2] = value(median(&limits));
            cells[3] = format!("{:+.2} {unit} ({ratio:.2}x)", median(&over));
            cells[4] = span(&over, |value| format!("{value:+.2}"));
        }
        let word = |met: bool| if met { "met" } else { "MISSED" };
        cells[5] = match self.target {
            Target::None => String::new(),
            Target::Value(most) => {
                format!("<= {most} {unit}: {}", word(median(&ours) <= most))
            }
            Target::Beyond(most) => {
                format!("<= +{most} {unit}: {}", word(median(&over) <= most))
            }
            Target::Same => {
                let (least, most) = ends(&limits);
                let noise = most - least;
                let met = median(&over) <= noise;
                format!("+0 (noise {noise:.2}) {unit}: {}", word(met))
            }
        };
        (cells, self.limit.clone())
    }
}

/// The middle of what was measured.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// A time in the table's unit.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn span(values: &[f64], show: impl Fn(f64) -> String) -> String {
    if values.len() < 2 {
        return String::new();
    }
    let (least, most) = ends(values);
    format!("{} to {}", show(least), show(most))
}

/// The least and the most.
fn ends(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

/// All rows as text. Spreads are over the rounds, of the difference where there is a limit.
pub(super) fn table(rows: &[Row]) -> String {
    let head = ["", "ours", "limit", "beyond it", "spread", "target"].map(str::to_owned);
    let lines: Vec<([String; 6], String)> = std::iter::once((head, String::new()))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let widths: Vec<usize> = (0..6)
        .map(|column| {
            let lengths = lines.iter().map(|(cells, _)| cells[column].chars().count());
            lengths.max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (cells, limit) in &lines {
        let mut line = format!("{:width$}", cells[0], width = widths[0]);
        for column in 1..5 {
            let _ = write!(line, "  {:>width$}", cells[column], width = widths[column]);
        }
        let _ = write!(line, "  {}", cells[5]);
        text.push_str(line.trim_end());
        text.push('\n');
        if !limit.is_empty() {
            let _ = writeln!(text, "    {limit}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_of_any_order() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_row_beside_a_limit_is_judged_by_what_it_takes_beyond_it() {
        let rounds = [(4.0, 1.0), (6.0, 2.0), (5.0, 3.0)];
        let rounds = rounds.map(|(ours, limit)| Round {
            ours,
            limit: Some(limit),
        });
        let row = Row::beside("a", "two commits", rounds.to_vec()).beyond_limit_at_most(3.0);
        let text = table(&[row]);
        assert!(text.contains("5.00 ms"), "{text}");
        assert!(text.contains("+3.00 ms (2.50x)"), "{text}");
        assert!(text.contains("+2.00 to +4.00"), "{text}");
        assert!(text.contains("<= +3 ms: met"), "{text}");
        assert!(text.contains("\n    two commits\n"), "{text}");
    }

    #[test]
    fn what_stays_within_the_limits_own_spread_is_the_same() {
        let rounds = |over: f64| {
            let limits = [10.0, 10.5, 10.2];
            let rounds = limits.map(|limit| Round {
                ours: limit + over,
                limit: Some(limit),
            });
            table(&[Row::beside("a", "b", rounds.to_vec()).same_as_limit()])
        };
        assert!(
            rounds(0.4).contains("(noise 0.50) ms: met"),
            "{}",
            rounds(0.4)
        );
        assert!(
            rounds(0.6).contains("(noise 0.50) ms: MISSED"),
            "{}",
            rounds(0.6)
        );
    }

    #[test]
    fn what_is_above_its_target_is_missed() {
        let row = Row::plain("size", Unit::Megabytes, vec![8.5]).at_most(8.0);
        let text = table(&[row]);
        assert!(text.contains("<= 8 MB: MISSED"), "{text}");
    }
}

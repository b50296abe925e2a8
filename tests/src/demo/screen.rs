//! What the demo prints and asks.

use std::{io::Write as _, time::Instant};

use anyhow::{Result, bail};
use mainloop_proto::v1::TaskEvent;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

/// Events that only say how the plane keeps house.
const QUIET: &[&str] = &[
    "claimed",
    "worker_connected",
    "session_started",
    "wait_elapsed",
];

/// The terminal. A pipe that was closed is no reason to stop.
pub(super) struct Screen {
    start: Instant,
    input: Lines<BufReader<Stdin>>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            input: BufReader::new(tokio::io::stdin()).lines(),
        }
    }

    /// Lines, without anything in them that the terminal would act on.
    #[expect(clippy::unused_self, reason = "every line goes through the screen")]
    pub(super) fn line(&self, text: &str) {
        for line in text.split('\n') {
            let _ = writeln!(std::io::stdout(), "{}", plain(line));
        }
    }

    /// A heading.
    pub(super) fn head(&self, text: &str) {
        self.line(&format!("\n== {text}"));
    }

    /// A line with the time since the start.
    pub(super) fn stamp(&self, text: &str) {
        self.line(&format!(
            "[{:5.1} s] {text}",
            self.start.elapsed().as_secs_f64()
        ));
    }

    /// Text with a margin, every line of it.
    pub(super) fn quote(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("    | {line}"));
        }
    }

    /// An event of the task.
    pub(super) fn event(&self, event: &TaskEvent) {
        if !QUIET.contains(&event.kind.as_str()) && !event.ignored {
            self.stamp(&plain(&event.text));
        }
    }

    /// Asks for one line.
    pub(super) async fn ask(&mut self, question: &str) -> Result<String> {
        let mut out = std::io::stdout();
        let _ = write!(out, "{} ", plain(question));
        let _ = out.flush();
        match self.input.next_line().await {
            Ok(Some(line)) => Ok(line.trim().to_owned()),
            _ => bail!("the input ended where an answer was needed; `--yes` answers everything"),
        }
    }

    /// Seconds since the start.
    pub(super) fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// One line without control, bidirectional and invisible characters: the text may come from a model.
pub(super) fn plain(text: &str) -> String {
    text.replace('\n', " ")
        .replace('\t', "    ")
        .chars()
        .filter(|c| !is_hidden(*c))
        .collect()
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_words_do_not_drive_the_terminal() {
        assert_eq!(
            plain("a\u{1b}[2J\u{202e}b\u{e0041}\n\tc\u{9b}\u{200b}"),
            "a[2Jb     c"
        );
    }
}

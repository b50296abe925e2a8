//! Logs of failing checks, small enough for a prompt.
//!
//! A log is data from a stranger's tests. It is cleaned of escape sequences, cut to the failing
//! step and to a bound in bytes, and its end is what stays: errors come last.

use serde::Deserialize;

use crate::client::Client;
use crate::error::Result;
use crate::text::visible;
use crate::verdict::FailedCheck;

/// What is kept of a download before it is cut to the failing step.
const RAW_TAIL: usize = 4 << 20;
/// Annotations that are asked for: the first page.
const ANNOTATIONS: usize = 50;
const CUT_NOTE: &str = "[... the beginning is left out ...]\n";

impl Client {
    /// What is known about why `check` failed, at most `limit` bytes: the job's log cut to the
    /// failing step; where there is none, the check's own output and annotations; where there is
    /// nothing, its one-line summary. Logs that are gone or may not be read are not an error.
    pub async fn failure_log(&self, check: &FailedCheck, limit: usize) -> Result<String> {
        if let Some(job) = check.job_id {
            let operation = format!("read log of job {job} ({})", check.name);
            let path = self.path(&format!("/actions/jobs/{job}/logs"));
            match self.transport.tail(&operation, &path, RAW_TAIL).await {
                Ok((bytes, _)) => {
                    let log = trim(&String::from_utf8_lossy(&bytes), limit);
                    if !log.trim().is_empty() {
                        return Ok(log);
                    }
                }
                Err(error) if error.is_denied() => {
                    tracing::debug!(%error, "job log cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        let mut text = String::new();
        if let Some(id) = check.check_run_id {
            match self.check_output(id).await {
                Ok(output) => text = output,
                Err(error) if error.is_denied() => {
                    tracing::debug!(%error, "check output cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        if text.is_empty() {
            text.push_str(check.summary.as_deref().unwrap_or("no log and no output"));
            if let Some(url) = &check.url {
                text.push_str("\nsee ");
                text.push_str(url);
            }
        }
        Ok(tail(&visible(&text), limit))
    }

    async fn check_output(&self, id: u64) -> Result<String> {
        let operation = format!("read output of check run {id}");
        let path = self.path(&format!("/check-runs/{id}"));
        let run: RawCheckRun = self.transport.get(&operation, &path).await?;
        let mut parts: Vec<String> = [run.output.title, run.output.summary, run.output.text]
            .into_iter()
            .flatten()
            .filter(|part| !part.trim().is_empty())
            .collect();
        if run.output.annotations_count.unwrap_or(0) > 0 {
            let path = format!("{path}/annotations?per_page={ANNOTATIONS}");
            let list: Vec<RawAnnotation> = self.transport.get(&operation, &path).await?;
            parts.extend(list.iter().map(RawAnnotation::line));
        }
        Ok(parts.join("\n"))
    }
}

/// The failing step of an Actions job log, without timestamps and escapes, its tail where it
/// is larger than `limit` bytes.
pub fn trim(log: &str, limit: usize) -> String {
    let lines: Vec<String> = log
        .lines()
        .map(|line| strip_ansi(strip_timestamp(line.trim_start_matches('\u{feff}'))))
        .collect();
    let (start, end) = failing_step(&lines);
    let step = lines[start..end]
        .iter()
        .map(|line| readable(line))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n");
    tail(&visible(&step), limit)
}

/// From the command line of the step that failed to its last error. A step opens with a group
/// named after its command; what follows the error (post steps, cleanup) says nothing.
fn failing_step(lines: &[String]) -> (usize, usize) {
    let is_exit = |l: &String| l.starts_with("##[error]Process completed with exit code");
    let is_error = |l: &String| l.starts_with("##[error]");
    let Some(error) = lines
        .iter()
        .position(is_exit)
        .or_else(|| lines.iter().rposition(is_error))
    else {
        return (0, lines.len());
    };
    let start = lines[..error]
        .iter()
        .rposition(|l| l.starts_with("##[group]Run "))
        .unwrap_or(0);
    (start, error + 1)
}

/// Workflow commands as plain words.
fn readable(line: &str) -> String {
    let Some(rest) = line.strip_prefix("##[") else {
        return line.trim_end().to_owned();
    };
    match rest.split_once(']') {
        Some(("error", text)) => format!("Error: {text}"),
        Some(("warning", text)) => format!("Warning: {text}"),
        Some(("group", text)) => text.to_owned(),
        Some(("command", text)) => format!("$ {text}"),
        Some(("endgroup" | "debug", _)) => String::new(),
        _ => line.trim_end().to_owned(),
    }
}

/// `2026-11-21T10:00:00.1234567Z text`
fn strip_timestamp(line: &str) -> &str {
    let Some((stamp, rest)) = line.split_once(' ') else {
        let bare = line.ends_with('Z') && line.parse::<jiff::Timestamp>().is_ok();
        return if bare { "" } else { line };
    };
    let looks = stamp.len() >= 20 && stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T';
    if looks && stamp.parse::<jiff::Timestamp>().is_ok() {
        rest
    } else {
        line
    }
}

/// Without CSI and OSC sequences; of a line that rewrites itself, what is left on the screen.
fn strip_ansi(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\r' if chars.peek().is_some() => out.clear(),
            '\r' => {}
            c => out.push(c),
        }
    }
    out
}

/// The last `limit` bytes, from the beginning of a line.
fn tail(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let room = limit.saturating_sub(CUT_NOTE.len());
    let from = (text.len() - room..=text.len())
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(text.len());
    let rest = &text[from..];
    // One endless line is cut in its middle.
    let rest = match rest.find('\n') {
        Some(end) if end + 1 < rest.len() => &rest[end + 1..],
        _ => rest,
    };
    format!("{CUT_NOTE}{rest}")
}

/// The lines of a log that tell what went wrong; all of them where none says so.
pub(crate) fn error_lines(log: &str) -> Vec<&str> {
    let telling: Vec<&str> = log
        .lines()
        .filter(|line| {
            let lower = line.to_lowercase();
            [
                "error",
                "fail",
                "panic",
                "assert",
                "exception",
                "fatal",
                "not found",
            ]
            .iter()
            .any(|word| lower.contains(word))
        })
        // Says only that something did.
        .filter(|line| !line.contains("Process completed with exit code"))
        .collect();
    if telling.is_empty() {
        log.lines().collect()
    } else {
        telling
    }
}

#[derive(Deserialize)]
struct RawCheckRun {
    #[serde(default)]
    output: RawOutput,
}

#[derive(Default, Deserialize)]
struct RawOutput {
    title: Option<String>,
    summary: Option<String>,
    text: Option<String>,
    annotations_count: Option<u64>,
}

#[derive(Deserialize)]
struct RawAnnotation {
    path: String,
    start_line: u64,
    annotation_level: Option<String>,
    message: Option<String>,
}

impl RawAnnotation {
    fn line(&self) -> String {
        format!(
            "{}:{}: {}: {}",
            self.path,
            self.start_line,
            self.annotation_level.as_deref().unwrap_or("notice"),
            self.message.as_deref().unwrap_or("")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\u{feff}2026-11-21T10:00:00.0000000Z ##[group]Run actions/checkout@v4
2026-11-21T10:00:00.1000000Z ##[endgroup]
2026-11-21T10:00:01.0000000Z noise of the checkout
2026-11-21T10:00:02.0000000Z ##[group]Run cargo test
2026-11-21T10:00:02.1000000Z \u{1b}[36;1mcargo test\u{1b}[0m
2026-11-21T10:00:02.2000000Z ##[endgroup]
2026-11-21T10:00:03.0000000Z 10%\r50%\r100% built
2026-11-21T10:00:04.0000000Z \u{1b}[31merror\u{1b}[0m: it broke
2026-11-21T10:00:05.0000000Z ##[error]Process completed with exit code 101.
2026-11-21T10:00:06.0000000Z Post job cleanup.
2026-11-21T10:00:07.0000000Z ##[error]cleanup noise
";

    #[test]
    fn log_is_cut_to_the_failing_step() {
        insta::assert_snapshot!(trim(LOG, 10_000), @r"
        Run cargo test
        cargo test
        100% built
        error: it broke
        Error: Process completed with exit code 101.
        ");
    }

    #[test]
    fn tail_is_kept_within_the_bound() {
        let lines: Vec<String> = (0..1_000).map(|n| format!("line {n} ä")).collect();
        let log = lines.join("\n");
        let cut = trim(&log, 200);
        assert!(cut.len() <= 200, "{} bytes", cut.len());
        assert!(
            cut.starts_with(CUT_NOTE) && cut.ends_with("line 999 ä"),
            "{cut}"
        );
    }

    #[test]
    fn endless_line_is_cut_at_a_character() {
        let cut = trim(&"ä".repeat(1_000), 101);
        assert!(cut.len() <= 101 && cut.ends_with("ää"), "{cut}");
    }

    #[test]
    fn log_without_an_error_line_stays_whole() {
        assert_eq!(trim("a\nb\n", 100), "a\nb");
    }

    #[test]
    fn times_that_are_words_of_the_log_stay() {
        assert_eq!(strip_timestamp("2026 was a year"), "2026 was a year");
        assert_eq!(strip_timestamp("2026-11-21T10:00:00Z"), "");
    }
}

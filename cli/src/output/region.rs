//! Lines at the end of the terminal that are redrawn in place, while others scroll by above them.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

/// The redrawn lines. They must fit the terminal: a line that wraps would be counted wrong.
#[derive(Debug, Default)]
pub(crate) struct Region {
    drawn: usize,
}

impl Region {
    /// Prints `above` for good and redraws the region below it, in one write.
    pub(crate) fn draw(&mut self, above: &[String], lines: &[String]) -> io::Result<()> {
        let mut bytes = String::new();
        if self.drawn > 0 {
            let _ = write!(bytes, "\r\u{1b}[{}A\u{1b}[J", self.drawn);
        }
        for line in above.iter().chain(lines) {
            bytes.push_str(line);
            bytes.push('\n');
        }
        self.drawn = lines.len();
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes.as_bytes())?;
        stdout.flush()
    }
}

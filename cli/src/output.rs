//! All printing: data to stdout, the rest to stderr; colour only for a terminal; JSON where it is asked for.
//!
//! A message of the plane is printed through `message`, which hands a cleaned copy to the human form: no field can be forgotten.

pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod region;
pub(crate) mod style;
pub(crate) mod table;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use clap::ValueEnum;

use self::{
    json::Wire,
    style::{Palette, Style},
};

/// Columns that prose takes at most: longer lines are hard to read.
const MAX_PROSE: usize = 100;
/// Columns where the terminal does not say.
const DEFAULT_COLUMNS: usize = 100;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// The contract's JSON mapping: one object for a call, one a line for lists and streams.
    Json,
}

/// Where and how to print. Everything goes through a value of it, also what needs none of its settings.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    terminal: bool,
    palette: Palette,
    notes: Palette,
}

#[allow(clippy::unused_self)]
impl Output {
    pub(crate) fn new(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            format,
            terminal,
            palette: Palette::new(terminal),
            notes: Palette::new(io::stderr().is_terminal()),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// True where a person looks at stdout, and wants text.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal && !self.is_json()
    }

    /// True where a person can be asked.
    pub(crate) fn is_interactive(&self) -> bool {
        !self.is_json() && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    pub(crate) fn palette(&self) -> Palette {
        self.palette
    }

    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        self.palette.paint(style, text)
    }

    /// Columns of the terminal; none where lines may be as long as they are.
    pub(crate) fn columns(&self) -> Option<usize> {
        self.terminal.then(columns)
    }

    /// Columns for prose.
    pub(crate) fn prose(&self) -> usize {
        self.columns().unwrap_or(MAX_PROSE).min(MAX_PROSE)
    }

    /// One line of data.
    pub(crate) fn line(&self, text: impl Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// Data as it is, at once.
    pub(crate) fn raw(&self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }

    /// A message of the plane: as JSON, or by `human` from a copy without anything that a terminal would act on.
    pub(crate) fn message<M: Wire>(
        &self,
        message: &M,
        human: impl FnOnce(&M) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        if self.is_json() {
            self.line(json::encode(message)?)?;
        } else {
            human(&json::clean(message)?)?;
        }
        Ok(())
    }

    /// A word to the person beside the data.
    pub(crate) fn note(&self, text: impl Display) {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// What to do next.
    pub(crate) fn hint(&self, text: &str) {
        self.note(format!("{} {text}", self.notes.paint(Style::Cyan, "hint:")));
    }

    /// What to type next.
    pub(crate) fn next(&self, command: &str) {
        if !self.is_json() {
            self.note(format!(
                "{} {command}",
                self.notes.paint(Style::Cyan, "next:")
            ));
        }
    }

    pub(crate) fn error(&self, text: &str) {
        self.note(format!("{} {text}", self.notes.paint(Style::Red, "error:")));
    }

    pub(crate) fn error_detail(&self, text: &str) {
        self.note(format!("  {text}"));
    }

    /// Asks on stderr, without a line end.
    pub(crate) fn prompt(&self, text: &str) -> io::Result<()> {
        let mut stderr = io::stderr().lock();
        write!(stderr, "{} ", self.notes.paint(Style::Bold, text))?;
        stderr.flush()
    }
}

/// Rows of the terminal now.
pub(crate) fn rows() -> usize {
    crossterm::terminal::size().map_or(24, |(_, rows)| usize::from(rows).max(4))
}

/// Columns of the terminal now.
pub(crate) fn columns() -> usize {
    crossterm::terminal::size().map_or(DEFAULT_COLUMNS, |(columns, _)| usize::from(columns).max(20))
}

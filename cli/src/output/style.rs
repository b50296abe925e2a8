//! Colours and weights, by meaning; nothing where colour is not wanted.

use std::env;

use mainloop_proto::v1::{CheckState, InboxGroup};

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

/// Paints, or does not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette {
    color: bool,
}

impl Palette {
    /// For a stream: colour on a terminal that can and whose user does not forbid it by `NO_COLOR`.
    pub(crate) fn new(terminal: bool) -> Self {
        let forbidden = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            color: terminal && !forbidden && !dumb,
        }
    }

    /// Never paints.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { color: false }
    }

    pub(crate) fn is_colored(self) -> bool {
        self.color
    }

    /// The style that `paint` writes with this code; plain for its end.
    pub(crate) fn style_of(code: &str) -> Style {
        match code {
            "1" => Style::Bold,
            "2" => Style::Dim,
            "31" => Style::Red,
            "32" => Style::Green,
            "33" => Style::Yellow,
            "36" => Style::Cyan,
            _ => Style::Plain,
        }
    }

    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Red => "31",
            Style::Green => "32",
            Style::Yellow => "33",
            Style::Cyan => "36",
        };
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The colour of a group.
pub(crate) fn of_group(group: InboxGroup) -> Style {
    match group {
        InboxGroup::Unspecified => Style::Plain,
        InboxGroup::Active => Style::Cyan,
        InboxGroup::NeedsYou => Style::Yellow,
        InboxGroup::Completed => Style::Green,
        InboxGroup::Failed => Style::Red,
    }
}

/// The colour of a check.
pub(crate) fn of_check(state: CheckState) -> Style {
    match state {
        CheckState::Unspecified | CheckState::Skipped => Style::Dim,
        CheckState::Pending => Style::Yellow,
        CheckState::Passed => Style::Green,
        CheckState::Failed => Style::Red,
    }
}

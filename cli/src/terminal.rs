//! What a person types: answers to prompts, and texts piped in.

use std::io::{self, BufRead, Read};

use crate::{exit::Failure, output::Output};

/// More than any text that the plane takes, so that a wrong pipe does not fill the memory.
const MAX_TEXT: u64 = 1 << 20;

/// Asks and reads one line; `None` at the end of the input.
pub(crate) fn ask(output: &Output, question: &str) -> io::Result<Option<String>> {
    output.prompt(question)?;
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        output.note("");
        return Ok(None);
    }
    Ok(Some(line.trim().to_owned()))
}

/// A yes, and nothing else, is a yes.
pub(crate) fn confirm(output: &Output, question: &str) -> io::Result<bool> {
    let answer = ask(output, &format!("{question} [y/N]"))?.unwrap_or_default();
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The text itself, or what is piped in where it is `-`.
pub(crate) fn text_or_stdin(text: String) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text);
    }
    let mut piped = String::new();
    io::stdin()
        .lock()
        .take(MAX_TEXT + 1)
        .read_to_string(&mut piped)?;
    if piped.len() as u64 > MAX_TEXT {
        return Err(Failure::usage("the text on stdin is longer than a megabyte").into());
    }
    Ok(piped.trim().to_owned())
}

//! `.mainloop.toml`: what a repository wishes for the work in it. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::sandbox::check_variables;

/// The file's name, in the root of the base commit.
pub(crate) const FILE: &str = ".mainloop.toml";

/// Its content. It may add commands and environment, never mounts, hosts or credentials.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Wishes {
    /// Commands that make the work tree ready, run in its root.
    pub(crate) setup: Vec<String>,
    /// The command that runs the tests, for `mainloop doctor --repo`.
    pub(crate) test: Option<String>,
    /// Environment of the commands and of Claude.
    pub(crate) env: BTreeMap<String, String>,
}

impl Wishes {
    /// Reads it; the error is a sentence that names the file and the key.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wishes: Self = toml::from_str(text).map_err(|error| {
            let message = error.message();
            format!("{FILE} of the base commit is not understood: {message}")
        })?;
        check_variables(wishes.env.keys())
            .map_err(|error| format!("{FILE} of the base commit is refused: {error}"))?;
        Ok(wishes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn commands_and_environment_are_taken_and_nothing_else() {
        let text = "setup = ['npm ci']\ntest = 'npm test'\n[env]\nNODE_ENV = 'test'";
        let wishes = Wishes::parse(text).unwrap();
        assert_eq!(wishes.setup, ["npm ci"]);
        assert_eq!(wishes.test.as_deref(), Some("npm test"));
        assert_eq!(wishes.env["NODE_ENV"], "test");
        for (text, word) in [
            ("mounts = ['/']", "mounts"),
            ("[env]\nPATH = '/x'", "PATH"),
            ("test = 3", "not understood"),
        ] {
            let error = Wishes::parse(text).unwrap_err();
            assert!(error.contains(word) && error.contains(FILE), "{error}");
        }
    }
}

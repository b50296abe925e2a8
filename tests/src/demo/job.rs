//! The job that the demo hands over: a small Python repository, and what the scripted model does in it.

use std::time::Duration;

use crate::{
    anthropic::{Conversation, Reply, Rule, Script, ToolCall, call, when},
    github::{Role, Seed},
    world::script::{FIX, IMPLEMENT, PLAN, REVISE, commit},
};

/// The repository's name.
pub(super) const REPOSITORY: &str = "ada/wordcount";
/// What the user asks for.
pub(super) const SENTENCE: &str =
    "Report how long a text takes to read, in whole minutes, beside its word count.";

const PROGRAM: &str = r#""""Counts the words of a text."""

import sys


def count(text):
    """How many words a text has."""
    return len(text.split())


def report(text):
    """One line for people."""
    return f"{count(text)} words"


if __name__ == "__main__":
    print(report(sys.stdin.read()))
"#;

const TESTS: &str = r#"import unittest

import wordcount


class CountTest(unittest.TestCase):
    def test_words_are_separated_by_blanks_and_lines(self):
        self.assertEqual(wordcount.count("one two\nthree"), 3)

    def test_an_empty_text_has_no_words(self):
        self.assertEqual(wordcount.count(""), 0)


class ReportTest(unittest.TestCase):
    def test_it_names_the_words(self):
        self.assertIn("3 words", wordcount.report("one two three"))
"#;

const WORKFLOW: &str = "name: tests\non: pull_request\njobs:\n  unittest:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - name: Run the tests\n        run: python3 -m unittest -v\n";

/// The repository as it is at the start.
pub(super) fn seed(bot: &str) -> Seed {
    Seed::new(REPOSITORY)
        .public()
        .file(
            "README.md",
            "# wordcount\n\n`python3 wordcount.py < text` prints how many words a text has.\n",
        )
        .file(".gitignore", "__pycache__/\n")
        .file("wordcount.py", PROGRAM)
        .file("test_wordcount.py", TESTS)
        .file(".github/workflows/tests.yml", WORKFLOW)
        .collaborator(bot, Role::Write)
}

const QUESTION: &str = "How many words a minute does a reader read?";

/// The model: asks one question, plans, implements with a mistake that the new tests find in CI, and mends it.
pub(super) fn script() -> Script {
    let careful = "200";
    let fast = "250";
    let mut rules = Vec::new();
    // The answer decides; whatever else the person typed, 200 is the careful choice.
    rules.push(Rule::reply(
        when::prompt(PLAN).and(when::returned_with("AskUserQuestion", fast)),
        Reply::call(call::write_plan(&plan(fast, ""))),
    ));
    rules.push(Rule::sequence(
        when::prompt(PLAN),
        vec![
            Reply::empty()
                .and_text("I look at the code and its tests first.")
                .and_call(call::bash("cat wordcount.py test_wordcount.py")),
            Reply::empty()
                .and_text("One thing the code does not settle.")
                .and_call(call::ask_user_question(
                    QUESTION,
                    "Reading speed",
                    &[
                        (careful, "A careful reader, safe for technical texts"),
                        (fast, "A fluent reader, usual for prose"),
                    ],
                )),
            Reply::call(call::write_plan(&plan(careful, ""))),
            Reply::call(call::exit_plan_mode()),
        ],
    ));
    for speed in [fast, careful] {
        let revised = plan(
            speed,
            "\n## What changed in this revision\n\nYou asked: {{re:## What they ask for\\s+(.+)}}\n",
        );
        let said = format!("{speed} words a minute");
        rules.push(Rule::sequence(
            when::prompt(REVISE).and(when::prompt(&said)),
            vec![
                Reply::call(call::write_plan(&revised)),
                Reply::call(call::exit_plan_mode()),
            ],
        ));
        rules.push(Rule::sequence(
            when::prompt(IMPLEMENT).and(when::prompt(&said)),
            vec![
                Reply::call(call::report_progress("Adding the reading time and its tests")),
                Reply::call(implement(speed, false)),
                Reply::text("The report names the reading time now; `reading_minutes` has tests of its own."),
            ],
        ));
        rules.push(Rule::sequence(
            when::prompt(FIX).and(when::prompt(&said)),
            vec![
                Reply::empty()
                    .and_text("The tests ask for whole minutes rounded up, and the code rounds down. I run them here first.")
                    .and_call(call::bash("python3 -m unittest 2>&1 | tail -n 20")),
                Reply::call(implement(speed, true)),
                Reply::call(call::bash("python3 -m unittest 2>&1 | tail -n 4")),
                Reply::text("Reading time is rounded up: a text that takes half a minute counts as one minute. All tests pass."),
            ],
        ));
    }
    Script::new()
        .with(Conversation::rules("the demo", when::always(), rules))
        .paced(Duration::from_millis(8))
}

fn plan(speed: &str, more: &str) -> String {
    format!(
        "# Report the reading time\n\n\
         `report` will say how long a text takes to read, at {speed} words a minute, in whole minutes.\n\n\
         ## Steps\n\n\
         1. `wordcount.py`: add `reading_minutes(text)`, rounded up to whole minutes, and name it in `report`.\n\
         2. `test_wordcount.py`: test a text of less than a minute, of exactly one, and of a little more; and the report.\n\
         3. Run `python3 -m unittest`.\n\n\
         ## Decided\n\n\
         - An empty text takes 0 minutes.\n\
         - The speed is a constant, not an option: nobody asked for one.\n\n\
         ## Risks\n\n\
         None: `count` and the words of the report stay as they are.\n{more}"
    )
}

fn implement(speed: &str, right: bool) -> ToolCall {
    let (program, tests, message) = change(speed, right);
    commit(
        &[("wordcount.py", &program), ("test_wordcount.py", &tests)],
        message,
    )
}

/// The program and its tests after the implementation, and what the commit says.
fn change(speed: &str, right: bool) -> (String, String, &'static str) {
    let (import, minutes, message) = if right {
        (
            "import math\nimport sys\n",
            "math.ceil(count(text) / WORDS_PER_MINUTE)",
            "Round the reading time up",
        )
    } else {
        (
            "import sys\n",
            "count(text) // WORDS_PER_MINUTE",
            "Report how long a text takes to read",
        )
    };
    let function = format!(
        "\n\ndef reading_minutes(text):\n    \"\"\"Whole minutes that it takes to read a text, rounded up.\"\"\"\n    return {minutes}\n\n\ndef report"
    );
    let program = PROGRAM
        .replace(
            "import sys\n",
            &format!("{import}\nWORDS_PER_MINUTE = {speed}\n"),
        )
        .replace("\n\ndef report", &function)
        .replace(
            "{count(text)} words\"",
            "{count(text)} words, {reading_minutes(text)} min to read\"",
        );
    let tests = format!(
        "{TESTS}\n    def test_it_names_the_minutes(self):\n        self.assertIn(\"1 min to read\", wordcount.report(\"one two three\"))\n\n\n\
         class ReadingTest(unittest.TestCase):\n    def test_less_than_a_minute_counts_as_one(self):\n        self.assertEqual(wordcount.reading_minutes(\"word\"), 1)\n\n    \
         def test_a_little_more_counts_as_the_next(self):\n        text = \"word \" * {speed}\n        self.assertEqual(wordcount.reading_minutes(text), 1)\n        \
         self.assertEqual(wordcount.reading_minutes(text + \"word\"), 2)\n\n    def test_an_empty_text_takes_no_time(self):\n        \
         self.assertEqual(wordcount.reading_minutes(\"\"), 0)\n"
    );
    (program, tests, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    fn tests_pass(right: bool) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let (program, tests, _) = change("200", right);
        std::fs::write(folder.path().join("wordcount.py"), program).unwrap();
        std::fs::write(folder.path().join("test_wordcount.py"), tests).unwrap();
        let output = Command::new("python3")
            .args(["-m", "unittest"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("Ran 7 tests"), "{said}");
        output.status.success()
    }

    #[test]
    fn the_first_implementation_fails_its_tests_and_the_second_passes_them() {
        assert!(!tests_pass(false));
        assert!(tests_pass(true));
    }
}

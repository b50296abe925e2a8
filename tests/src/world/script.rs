//! What the scripted model does in each step, by rules that look at the request alone, so that a worker which was killed
//! goes on where its own history says it is.

use std::fmt::Write as _;

use crate::anthropic::{Conversation, Reply, Rule, Script, ToolCall, Usage, When, call, when};

/// First words of the prompt of a first plan.
pub const PLAN: &str = "Plan the following task.";
/// Of a revision.
pub const REVISE: &str = "The person who reads your plan asks for a revision.";
/// Of the implementation.
pub const IMPLEMENT: &str = "A person approved the plan below.";
/// Of mending CI.
pub const FIX: &str = "CI failed on the commits that you made.";

/// Of addressing a review.
pub const REVIEW: &str = "Reviewers have read your pull request";
/// Of resolving a conflict.
pub const REBASE: &str = "Your pull request conflicts with its base branch.";

/// What most stories ask for.
pub const TASK: &str = "Teach the calculator to subtract.";

/// The repository that most stories work on: one function, one test, a workflow that runs the tests.
pub fn calculator() -> Vec<(&'static str, &'static str)> {
    vec![
        ("README.md", "# Calculator\n"),
        ("calc.py", "def add(a, b):\n    return a + b\n"),
        (
            "test_calc.py",
            "import unittest\n\nimport calc\n\n\nclass AddTest(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(calc.add(2, 3), 5)\n",
        ),
        (".github/workflows/ci.yml", WORKFLOW),
    ]
}

const WORKFLOW: &str = "name: ci\non: [push, pull_request]\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - name: Run the tests\n        run: python3 -m unittest -v\n";

/// The calculator with a workflow that does not end while there is a file `hold`.
pub fn holding_calculator() -> Vec<(&'static str, &'static str)> {
    let mut files = calculator();
    files.retain(|(path, _)| *path != ".github/workflows/ci.yml");
    files.push((".github/workflows/ci.yml", HOLDING_WORKFLOW));
    files
}

const HOLDING_WORKFLOW: &str = "name: ci\non: [push, pull_request]\njobs:\n  test:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - name: Run the tests\n        run: test ! -e hold || tail -f /dev/null; python3 -m unittest -v\n";

/// The tests that the implementation brings; only a right `subtract` passes them.
const SUBTRACT_TEST: &str = "import unittest\n\nimport calc\n\n\nclass SubtractTest(unittest.TestCase):\n    def test_subtract(self):\n        self.assertEqual(calc.subtract(5, 3), 2)\n";
const WRONG: &str = "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a + b\n";
/// The calculator with a subtract that is right.
pub const RIGHT: &str =
    "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n";

/// The plan of the good day.
pub const SUBTRACT_PLAN: &str = "# Add subtract\n\nThe calculator learns to subtract.\n\n1. `calc.py`: add `subtract(a, b)`.\n2. `test_subtract.py`: test it.\n";

/// A day on which everything goes well: a plan, an implementation that is right, a summary.
pub fn good_day() -> Script {
    rules(
        "a good day",
        vec![
            planning(SUBTRACT_PLAN),
            revising(SUBTRACT_PLAN),
            implementing(vec![subtract(true)], "Subtract is there, with its test."),
        ],
    )
}

/// A day on which the first implementation is wrong, CI finds it, and the second turn mends it.
pub fn red_then_green() -> Script {
    rules(
        "red, then green",
        vec![
            planning(SUBTRACT_PLAN),
            revising(SUBTRACT_PLAN),
            implementing(vec![subtract(false)], "Subtract is there, with its test."),
            fixing(vec![subtract(true)], "Subtract subtracts now."),
        ],
    )
}

/// A day on which the implementation is right, and brings the file that holds the checks of [`holding_calculator`].
pub fn held() -> Script {
    rules(
        "held",
        vec![
            planning(SUBTRACT_PLAN),
            implementing(
                vec![commit(&[("hold", "\n")], "Hold"), subtract(true)],
                "Subtract is there, with its test.",
            ),
        ],
    )
}

/// A day on which planning begins with a reply that costs a little more than 1.50 US dollars.
pub fn dear() -> Script {
    let dear = Usage {
        input: 1_000,
        output: 100_000,
        ..Usage::default()
    };
    let replies = [
        vec![Reply::call(call::bash("ls")).charging(dear)],
        present(SUBTRACT_PLAN),
    ];
    rules(
        "dear",
        vec![Rule::sequence(when::prompt(PLAN), replies.concat())],
    )
}

/// The whole script is one conversation of these rules.
pub fn rules(name: &str, rules: Vec<Rule>) -> Script {
    Script::new().with(Conversation::rules(name, when::always(), rules))
}

/// Plans as on the good day, and has these replies to give in the implementation.
pub fn working(name: &str, replies: Vec<Reply>) -> Script {
    let work = Rule::sequence(when::prompt(IMPLEMENT), replies);
    rules(name, vec![planning(SUBTRACT_PLAN), work])
}

/// Commits `subtract` and its test; wrong where `right` is false.
pub fn subtract(right: bool) -> ToolCall {
    let (body, message) = if right {
        (RIGHT, "Subtract the second from the first")
    } else {
        (WRONG, "Add subtract")
    };
    commit(
        &[("calc.py", body), ("test_subtract.py", SUBTRACT_TEST)],
        message,
    )
}

/// Writes the first plan and presents it.
pub fn planning(plan: &str) -> Rule {
    Rule::sequence(when::prompt(PLAN), present(plan))
}

/// Writes the next plan and presents it.
pub fn revising(plan: &str) -> Rule {
    Rule::sequence(when::prompt(REVISE), present(plan))
}

/// The two replies that present a plan.
pub fn present(plan: &str) -> Vec<Reply> {
    vec![
        Reply::call(call::write_plan(plan)),
        Reply::call(call::exit_plan_mode()),
    ]
}

/// The calls one after another in the implementation, then the summary.
pub fn implementing(calls: Vec<ToolCall>, summary: &str) -> Rule {
    steps(when::prompt(IMPLEMENT), calls, summary)
}

/// The calls one after another where CI failed, then the summary.
pub fn fixing(calls: Vec<ToolCall>, summary: &str) -> Rule {
    steps(when::prompt(FIX), calls, summary)
}

/// The calls one after another where `when` holds, then `last`.
pub fn steps(when: When, calls: Vec<ToolCall>, last: &str) -> Rule {
    let mut replies: Vec<Reply> = calls.into_iter().map(Reply::call).collect();
    replies.push(Reply::text(last));
    Rule::sequence(when, replies)
}

/// Writes files in the work tree and commits just them. A second run changes nothing and is no error.
pub fn commit(files: &[(&str, &str)], message: &str) -> ToolCall {
    let mut script = String::from("set -e\n");
    for (path, text) in files {
        let _ = write!(
            script,
            "mkdir -p \"$(dirname '{path}')\"\ncat > '{path}' <<'END_OF_FILE'\n{text}END_OF_FILE\ngit add -- '{path}'\n"
        );
    }
    let _ = write!(
        script,
        "git diff --cached --quiet || git commit -q -m '{message}'\ngit log --oneline -1"
    );
    call::bash(&script)
}

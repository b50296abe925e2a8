//! Which tool calls are allowed. Pure; the sandbox is what protects, this keeps a planning Claude from working.
//!
//! No human is ever asked for a permission. Only calls that the CLI itself does not allow come here: in plan mode it lets
//! through what it knows to be read-only, and the write of the plan file.

use std::path::{Component, Path};

use serde_json::Value;

use super::driver::Mode;
use super::events::{MAX_TEXT, Question, QuestionOption, clip};
use super::mcp;

/// Largest input of AskUserQuestion, in bytes of JSON.
const MAX_QUESTIONS: usize = 64 * 1024;

/// What to do with a tool call.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Allow,
    Deny(&'static str),
    /// Ask a human, then allow with their answers.
    Ask(Vec<Question>),
    /// The plan is ready.
    Plan(String),
}

const READ_ONLY: &[&str] = &[
    "Read",
    "Glob",
    "Grep",
    "NotebookRead",
    "ToolSearch",
    "Agent",
    "Task",
    "TodoWrite",
    "ListAgents",
    "ReportFindings",
    "TaskStop",
];

/// `config_dir` is the CLI's, below which it keeps plan files.
pub(crate) fn decide(mode: Mode, tool: &str, input: &Value, config_dir: &str) -> Verdict {
    match tool {
        "AskUserQuestion" => questions(input).map_or(
            Verdict::Deny("The questions are not well formed: each needs a text and a list of options with labels."),
            Verdict::Ask,
        ),
        "ExitPlanMode" => exit_plan(mode, input),
        _ if tool.strip_prefix("mcp__").and_then(|t| t.strip_prefix(mcp::SERVER)).is_some_and(|t| t.starts_with("__")) => Verdict::Allow,
        _ => match mode {
            Mode::Work => Verdict::Allow,
            Mode::Plan if READ_ONLY.contains(&tool) => Verdict::Allow,
            Mode::Plan if matches!(tool, "Write" | "Edit") && is_plan_file(input["file_path"].as_str().unwrap_or_default(), config_dir) => Verdict::Allow,
            Mode::Plan => Verdict::Deny(
                "This step only plans: nothing is changed yet, and only commands that plainly read are allowed. \
                 Write what you would do into the plan file and call ExitPlanMode.",
            ),
        },
    }
}

fn exit_plan(mode: Mode, input: &Value) -> Verdict {
    if mode == Mode::Work {
        return Verdict::Deny(
            "The plan is approved already. Go on with the work; there is no plan to present in this step.",
        );
    }
    match input["plan"].as_str() {
        Some(plan) if plan.len() > super::events::MAX_PLAN => Verdict::Deny(
            "The plan is too long to be read and stored. Shorten the plan file below 60,000 bytes and call ExitPlanMode again.",
        ),
        Some(plan) if !plan.trim().is_empty() => Verdict::Plan(plan.to_owned()),
        _ => Verdict::Deny(
            "There is no plan yet. Write it with the Write tool to the plan file whose path plan mode gave you (the .md file below `plans/`), \
             then call ExitPlanMode again without arguments.",
        ),
    }
}

fn is_plan_file(path: &str, config_dir: &str) -> bool {
    let path = Path::new(path);
    path.starts_with(Path::new(config_dir).join("plans"))
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && path.extension().is_some_and(|extension| extension == "md")
}

/// At most four questions with eight options are believed; the tool itself allows four of each.
fn questions(input: &Value) -> Option<Vec<Question>> {
    // The input is kept until the answer comes, and goes back with it.
    if input.to_string().len() > MAX_QUESTIONS {
        return None;
    }
    let text = |value: &Value| value.as_str().map(|text| clip(text, MAX_TEXT / 4));
    let list = input["questions"]
        .as_array()
        .filter(|list| (1..=4).contains(&list.len()))?;
    list.iter()
        .map(|question| {
            let options = question["options"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            // The answer is keyed by the exact question: one that would be cut cannot be answered.
            let asked = question["question"]
                .as_str()
                .filter(|asked| !asked.trim().is_empty() && asked.len() <= MAX_TEXT / 4)?;
            Some(Question {
                question: asked.to_owned(),
                header: text(&question["header"]).unwrap_or_default(),
                options: options
                    .iter()
                    .take(8)
                    .map(|option| {
                        Some(QuestionOption {
                            label: text(&option["label"])?,
                            description: text(&option["description"]).unwrap_or_default(),
                        })
                    })
                    .collect::<Option<_>>()?,
                multi_select: question["multiSelect"].as_bool().unwrap_or(false),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIR: &str = "/state/claude";

    #[test]
    fn work_allows_everything_but_another_plan() {
        assert_eq!(
            decide(
                Mode::Work,
                "Bash",
                &json!({"command": "rm -rf target"}),
                DIR
            ),
            Verdict::Allow
        );
        assert!(matches!(
            decide(Mode::Work, "ExitPlanMode", &json!({"plan": "x"}), DIR),
            Verdict::Deny(_)
        ));
    }

    #[test]
    fn planning_writes_the_plan_file_alone() {
        let write = |path: &str| decide(Mode::Plan, "Write", &json!({"file_path": path}), DIR);
        assert_eq!(write("/state/claude/plans/a.md"), Verdict::Allow);
        for path in [
            "/state/claude/plans/../settings.md",
            "/state/claude/settings.json",
            "/state/claude/plans2/a.md",
            "src/main.rs",
            "",
        ] {
            assert!(matches!(write(path), Verdict::Deny(_)), "{path}");
        }
        assert!(matches!(
            decide(Mode::Plan, "Bash", &json!({"command": "make"}), DIR),
            Verdict::Deny(_)
        ));
        assert_eq!(decide(Mode::Plan, "Read", &json!({}), DIR), Verdict::Allow);
        assert_eq!(
            decide(Mode::Plan, "mcp__mainloop__ask_human", &json!({}), DIR),
            Verdict::Allow
        );
        assert!(matches!(
            decide(Mode::Plan, "mcp__mainloopx__ask_human", &json!({}), DIR),
            Verdict::Deny(_)
        ));
    }

    #[test]
    fn a_plan_must_be_there_and_fit() {
        let exit = |input: Value| decide(Mode::Plan, "ExitPlanMode", &input, DIR);
        assert_eq!(
            exit(json!({"plan": "# P\n"})),
            Verdict::Plan("# P\n".into())
        );
        assert!(matches!(exit(json!({})), Verdict::Deny(why) if why.contains("no plan yet")));
        assert!(matches!(exit(json!({"plan": " \n"})), Verdict::Deny(_)));
        assert!(
            matches!(exit(json!({"plan": "x".repeat(70_000)})), Verdict::Deny(why) if why.contains("too long"))
        );
    }

    #[test]
    fn questions_are_parsed_or_refused() {
        let input = json!({"questions": [{"question": "Which color?", "header": "Color", "multiSelect": true, "options": [{"label": "Red", "description": "warm"}]}]});
        let Verdict::Ask(questions) = decide(Mode::Work, "AskUserQuestion", &input, DIR) else {
            panic!("not asked")
        };
        assert_eq!(questions[0].options[0].label, "Red");
        assert!(questions[0].multi_select);
        for input in [
            json!({}),
            json!({"questions": []}),
            json!({"questions": [{"question": ""}]}),
            json!({"questions": [1]}),
        ] {
            assert!(
                matches!(
                    decide(Mode::Work, "AskUserQuestion", &input, DIR),
                    Verdict::Deny(_)
                ),
                "{input}"
            );
        }
    }
}

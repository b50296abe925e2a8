//! With which arguments, environment and files the harness starts the CLI.
//!
//! Pure. No credential ever passes through here: the CLI gets a placeholder of the right kind, so that it sends the headers
//! that belong to it, and the model proxy replaces it. Settings, hooks and MCP servers of the repository stay out
//! (`--setting-sources user`, `--strict-mcp-config`); only the words of its CLAUDE.md and AGENTS.md come in, as read from the base commit.

use std::fmt::Write as _;

use serde_json::json;
use uuid::Uuid;

use super::driver::Mode;
use super::events::clip;
use super::mcp;

/// What the CLI sends in place of a credential. Worth nothing anywhere.
pub const PLACEHOLDER: &str = "mainloop-placeholder";
/// Longest text of one guidance file, in bytes. Longer ones are cut and marked; the CLI itself warns from 40,000 characters on.
const MAX_GUIDANCE: usize = 64 * 1024;
/// Silence within a started reply of the model after which the CLI cuts it and asks again, in milliseconds.
const STREAM_IDLE_MS: &str = "120000";

/// How long a tool of ours may take, in milliseconds: a person answers when they answer, and the step's deadline bounds it.
const TOOL_TIMEOUT_MS: &str = "100000000";

/// Tools that make no sense in a worker, and why.
const DISALLOWED: &[&str] = &[
    // No network.
    "WebFetch",
    "WebSearch",
    // They start turns by themselves, later; nobody would be there to account for them.
    "CronCreate",
    "CronDelete",
    "CronList",
    "ScheduleWakeup",
    "Monitor",
    // They leave the work tree, the branch or the step that this driver watches.
    "EnterWorktree",
    "ExitWorktree",
    "EnterPlanMode",
    "Workflow",
];

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub session: Session,
    pub mode: Mode,
    /// A model's id or alias, as `--model` takes it.
    pub model: String,
    /// The model to go on with where `model` is overloaded or missing.
    pub fallback_model: Option<String>,
    /// `CLAUDE_CONFIG_DIR` inside the sandbox. Holds transcript and plan files, so it must outlive the process for a resume.
    pub config_dir: String,
    /// `HOME` inside the sandbox.
    pub home: String,
    /// Where the model proxy listens inside the sandbox, without a trailing slash.
    pub base_url: String,
    pub credential: CredentialKind,
    /// CLAUDE.md, AGENTS.md and the like of the base commit.
    pub guidance: Vec<Guidance>,
}

/// Which conversation the process continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// A new one; the id must not have been used in this `config_dir`.
    New(Uuid),
    Resume(Uuid),
}

/// Which kind of credential the sidecar's model proxy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    ApiKey,
    /// A subscription's token.
    OAuthToken,
    /// A bearer token of an Anthropic-compatible gateway.
    GatewayToken,
}

/// One file of instructions from the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guidance {
    /// Its path in the repository.
    pub path: String,
    pub text: String,
}

/// What the harness does to start the CLI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Environment to add to PATH and the task's own.
    pub env: Vec<(String, String)>,
    /// Files to write before the start, replacing older ones.
    pub files: Vec<File>,
}

/// A file of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute, inside the sandbox.
    pub path: String,
    pub contents: String,
}

/// The exact start of the CLI for `options`.
pub fn launch(options: &Options) -> Launch {
    Launch {
        args: args(options),
        env: env(options),
        files: files(options),
    }
}

fn args(options: &Options) -> Vec<String> {
    let servers = json!({"mcpServers": {mcp::SERVER: {"type": "sdk", "name": mcp::SERVER}}});
    let (session_flag, session) = match options.session {
        Session::New(id) => ("--session-id", id),
        Session::Resume(id) => ("--resume", id),
    };
    let mut args: Vec<String> = vec![
        "-p".into(),
        "--verbose".into(),
        "--include-partial-messages".into(),
        "--strict-mcp-config".into(),
    ];
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--input-format", "stream-json".into());
    flag("--output-format", "stream-json".into());
    flag("--permission-prompt-tool", "stdio".into());
    flag(session_flag, session.to_string());
    flag("--model", options.model.clone());
    if let Some(model) = &options.fallback_model {
        flag("--fallback-model", model.clone());
    }
    flag("--permission-mode", options.mode.permission_mode().into());
    flag("--setting-sources", "user".into());
    flag("--mcp-config", servers.to_string());
    flag("--allowedTools", format!("mcp__{}", mcp::SERVER));
    flag("--disallowedTools", DISALLOWED.join(","));
    args
}

fn env(options: &Options) -> Vec<(String, String)> {
    let credential = match options.credential {
        CredentialKind::ApiKey => "ANTHROPIC_API_KEY",
        CredentialKind::OAuthToken => "CLAUDE_CODE_OAUTH_TOKEN",
        CredentialKind::GatewayToken => "ANTHROPIC_AUTH_TOKEN",
    };
    [
        ("HOME", options.home.as_str()),
        ("CLAUDE_CONFIG_DIR", &options.config_dir),
        ("ANTHROPIC_BASE_URL", &options.base_url),
        (credential, PLACEHOLDER),
        // Only the base URL is ever called.
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS", "1"),
        // A command that runs too long is killed and Claude told so, instead of living on after the turn was counted as over.
        ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
        ("CLAUDE_ENABLE_BYTE_WATCHDOG", "1"),
        ("CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS", STREAM_IDLE_MS),
        // Set, so that the repository's environment cannot: it would take questions back.
        ("MCP_TOOL_TIMEOUT", TOOL_TIMEOUT_MS),
        // After a restart Claude sees which call was cut off, and can look at what it did.
        ("CLAUDE_CODE_RESUME_SHOWS_CUT_OFF_CALLS", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("IS_SANDBOX", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Always written, also when there is no guidance, so that a file left by an earlier attempt does not speak.
fn files(options: &Options) -> Vec<File> {
    let mut contents = String::from(
        "# About this workspace\n\nYou work alone in a sandbox on one task. There is no network but what the task allows. \
         Instructions of the task come in the conversation.\n",
    );
    for guidance in &options.guidance {
        let path: String = guidance
            .path
            .chars()
            .filter(|c| !c.is_control() && *c != '`')
            .collect();
        let _ = write!(
            contents,
            "\n# From the repository's `{path}`, as of the base commit\n\n{}\n",
            clip(guidance.text.trim_end(), MAX_GUIDANCE)
        );
    }
    vec![File {
        path: format!("{}/CLAUDE.md", options.config_dir.trim_end_matches('/')),
        contents,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            session: Session::New(Uuid::from_u128(7)),
            mode: Mode::Plan,
            model: "sonnet".into(),
            fallback_model: None,
            config_dir: "/state/claude".into(),
            home: "/home/worker".into(),
            base_url: "http://127.0.0.1:8080".into(),
            credential: CredentialKind::ApiKey,
            guidance: vec![Guidance {
                path: "docs/AGENTS.md".into(),
                text: "Run the tests.\n".into(),
            }],
        }
    }

    fn env_of(launch: &Launch, name: &str) -> Option<String> {
        launch
            .env
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.clone())
    }

    #[test]
    fn a_plan_step_starts_in_plan_mode_without_the_repositorys_settings() {
        let args = launch(&options()).args.join(" ");
        for part in [
            "--permission-mode plan",
            "--setting-sources user",
            "--strict-mcp-config",
            "--permission-prompt-tool stdio",
        ] {
            assert!(args.contains(part), "{part} is missing in {args}");
        }
        assert!(
            args.contains("--session-id 00000000-0000-0000-0000-000000000007"),
            "{args}"
        );
    }

    #[test]
    fn a_resumed_session_names_it_and_its_mode_again() {
        let options = Options {
            session: Session::Resume(Uuid::from_u128(7)),
            mode: Mode::Work,
            ..options()
        };
        let args = launch(&options).args.join(" ");
        assert!(
            args.contains("--resume 00000000-0000-0000-0000-000000000007"),
            "{args}"
        );
        assert!(!args.contains("--session-id"), "{args}");
        assert!(args.contains("--permission-mode default"), "{args}");
    }

    #[test]
    fn each_kind_of_credential_gets_its_own_placeholder_and_no_other() {
        let names = [
            "ANTHROPIC_API_KEY",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "ANTHROPIC_AUTH_TOKEN",
        ];
        for (kind, mine) in [
            CredentialKind::ApiKey,
            CredentialKind::OAuthToken,
            CredentialKind::GatewayToken,
        ]
        .into_iter()
        .zip(names)
        {
            let launch = launch(&Options {
                credential: kind,
                ..options()
            });
            for name in names {
                assert_eq!(
                    env_of(&launch, name),
                    (name == mine).then(|| PLACEHOLDER.to_owned()),
                    "{kind:?} {name}"
                );
            }
        }
    }

    #[test]
    fn guidance_says_where_it_comes_from() {
        let launch = launch(&options());
        assert_eq!(launch.files[0].path, "/state/claude/CLAUDE.md");
        insta::assert_snapshot!(launch.files[0].contents, @r"
        # About this workspace

        You work alone in a sandbox on one task. There is no network but what the task allows. Instructions of the task come in the conversation.

        # From the repository's `docs/AGENTS.md`, as of the base commit

        Run the tests.
        ");
    }
}

//! The real Claude Code CLI against the scripted API: what the API plays is what the CLI takes it for.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::*;
use crate::claude::claude_path;

/// A CLI in a folder of its own that speaks stream-json; killed and its folder removed when dropped.
struct Cli {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    seen: Vec<Value>,
    home: TempDir,
}

impl Cli {
    fn start(server: &Running, options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let work = home.path().join("work");
        std::fs::create_dir(&work).unwrap();
        let mut child = Command::new(claude_path().unwrap())
            .args(["-p", "--verbose", "--model", "sonnet"])
            .args(["--input-format", "stream-json"])
            .args(["--output-format", "stream-json"])
            .args(["--setting-sources", "user", "--strict-mcp-config"])
            .args(options)
            .current_dir(&work)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", home.path())
            .env("CLAUDE_CONFIG_DIR", home.path().join("claude"))
            .env("ANTHROPIC_BASE_URL", &server.base_url)
            .env("ANTHROPIC_API_KEY", "k1")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            seen: Vec::new(),
            home,
        }
    }

    fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    async fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
    }

    async fn say(&mut self, text: &str) {
        let message = json!({"type": "user", "message": {"role": "user", "content": text}});
        self.send(&message).await;
    }

    /// The next message of type `kind`; panics with what came instead after a minute or at the end.
    async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let line = tokio::time::timeout(WAIT_LIMIT, self.stdout.next_line()).await;
            let Ok(Ok(Some(line))) = line else {
                panic!("no {kind} came ({line:?}); seen: {:#?}", self.seen);
            };
            let message: Value = serde_json::from_str(&line).unwrap();
            self.seen.push(message.clone());
            if message["type"] == kind {
                return message;
            }
        }
    }

    async fn answer(&mut self, request: &Value, response: Value) {
        self.send(&json!({"type": "control_response", "response": {
            "subtype": "success", "request_id": request["request_id"], "response": response}}))
            .await;
    }

    fn retries(&self) -> Vec<u64> {
        self.seen
            .iter()
            .filter(|message| message["subtype"] == "api_retry")
            .filter_map(|message| message["error_status"].as_u64())
            .collect()
    }

    /// Ends the CLI by the end of its input.
    async fn end(mut self) -> i32 {
        drop(self.stdin);
        let status = tokio::time::timeout(WAIT_LIMIT, self.child.wait())
            .await
            .expect("the CLI ends when its input does");
        status.unwrap().code().unwrap()
    }
}

fn playing(replies: Vec<Reply>) -> Script {
    Script::new()
        .accepting(Credential::ApiKey("k1".into()))
        .with(Conversation::turns("only", when::always(), replies))
}

#[tokio::test]
async fn a_text_turn_ends_with_the_text_and_its_usage() {
    let usage = Usage {
        input: 1200,
        output: 40,
        ..Usage::default()
    };
    let reply = Reply::text("Hello from the script.").charging(usage);
    let server = Anthropic::start(playing(vec![reply])).await.unwrap();
    let mut cli = Cli::start(&server, &[]);
    cli.say("Say hello, marker-1.").await;
    let result = cli.expect("result").await;
    assert_eq!(result["result"], "Hello from the script.");
    assert_eq!(result["is_error"], false);
    assert_eq!(result["usage"]["input_tokens"], 1200);
    assert_eq!(result["usage"]["output_tokens"], 40);
    assert_eq!(cli.end().await, 0);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].target, "/v1/messages?beta=true");
    let request = requests[0].request();
    assert_eq!(request.prompt(), "Say hello, marker-1.");
    assert_eq!(request.session(), result["session_id"].as_str().unwrap());
    assert_eq!(server.usage(), usage);
    server.check().unwrap();
}

#[tokio::test]
async fn a_tool_call_runs_and_its_result_comes_back() {
    let script = Script::new().with(Conversation::rules(
        "shell",
        when::about("marker-2"),
        vec![
            Rule::reply(
                when::called("Bash", 0),
                Reply::empty()
                    .and_text("I look.")
                    .and_call(call::bash("echo from-the-tool > made.txt && cat made.txt")),
            ),
            Rule::reply(
                when::returned_with("Bash", "from-the-tool"),
                Reply::text("It ran."),
            ),
        ],
    ));
    let server = Anthropic::start(script).await.unwrap();
    let mut cli = Cli::start(&server, &["--allowedTools", "Bash"]);
    cli.say("Run it, marker-2.").await;
    let result = cli.expect("result").await;
    assert_eq!(result["result"], "It ran.", "{:#?}", server.problems());
    let made = std::fs::read_to_string(cli.work().join("made.txt")).unwrap();
    assert_eq!(made, "from-the-tool\n");
    server.check().unwrap();
}

#[tokio::test]
async fn plan_mode_presents_the_plan_that_was_written_where_it_said() {
    let script = Script::new().with(Conversation::rules(
        "plan",
        when::always(),
        vec![
            Rule::sequence(
                when::prompt("Plan it"),
                vec![
                    Reply::call(call::write_plan("# The plan\n\n1. Greet.\n")),
                    Reply::call(call::exit_plan_mode()),
                ],
            ),
            Rule::reply(when::prompt("Carry it out"), Reply::text("Carried out.")),
        ],
    ));
    let server = Anthropic::start(script).await.unwrap();
    let options = [
        "--permission-mode",
        "plan",
        "--permission-prompt-tool",
        "stdio",
    ];
    let mut cli = Cli::start(&server, &options);
    cli.say("Plan it.").await;
    let asked = cli.expect("control_request").await;
    assert_eq!(asked["request"]["subtype"], "can_use_tool");
    assert_eq!(asked["request"]["tool_name"], "ExitPlanMode", "{asked:#}");
    assert_eq!(
        asked["request"]["input"]["plan"],
        "# The plan\n\n1. Greet.\n"
    );
    let denial = json!({"behavior": "deny", "message": "The plan is stored.", "interrupt": true});
    cli.answer(&asked, denial).await;
    let result = cli.expect("result").await;
    assert_eq!(result["subtype"], "error_during_execution", "{result:#}");

    cli.say("Carry it out.").await;
    let result = cli.expect("result").await;
    assert_eq!(result["result"], "Carried out.", "{:#?}", server.problems());
    server.check().unwrap();
}

#[tokio::test]
async fn rate_limit_and_overload_are_retried_until_the_reply_comes() {
    let reply = Reply::text("Made it.")
        .after(Trouble::rate_limited(1))
        .after(Trouble::overloaded());
    let server = Anthropic::start(playing(vec![reply])).await.unwrap();
    let mut cli = Cli::start(&server, &[]);
    cli.say("Try.").await;
    let result = cli.expect("result").await;
    assert_eq!(result["result"], "Made it.");
    assert_eq!(cli.retries(), [429, 529]);
    let statuses: Vec<u16> = server.requests().iter().map(|seen| seen.status).collect();
    assert_eq!(statuses, [429, 529, 200]);
}

#[tokio::test]
async fn a_cut_stream_is_asked_for_again() {
    let reply = Reply::text("The whole of a text that is long enough for several events.")
        .after(Trouble::Cut { after: 4 });
    let server = Anthropic::start(playing(vec![reply])).await.unwrap();
    let mut cli = Cli::start(&server, &[]);
    cli.say("Try.").await;
    let result = cli.expect("result").await;
    assert_eq!(
        result["result"],
        "The whole of a text that is long enough for several events."
    );
    assert_eq!(result["is_error"], false);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_silent_stream_goes_on_when_it_is_released() {
    let silence = Gate::closed();
    let reply = Reply::text("After a while.").after(Trouble::Silent(silence.clone()));
    let server = Anthropic::start(playing(vec![reply])).await.unwrap();
    let mut cli = Cli::start(&server, &["--include-partial-messages"]);
    cli.say("Try.").await;
    let started = cli.expect("stream_event").await;
    assert_eq!(started["event"]["type"], "message_start");
    silence.reached().await.unwrap();
    silence.open();
    let result = cli.expect("result").await;
    assert_eq!(result["result"], "After a while.");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_error_that_says_not_to_retry_ends_the_turn_at_once() {
    let refusals = [
        (Trouble::unauthorized().not_to_retry(), 401),
        (Trouble::rate_limited(1).not_to_retry(), 429),
        (Trouble::internal().not_to_retry(), 500),
        (Trouble::forbidden(), 403),
    ];
    for (trouble, status) in refusals {
        let server = Anthropic::start(playing(vec![Reply::trouble(trouble)]))
            .await
            .unwrap();
        let mut cli = Cli::start(&server, &[]);
        cli.say("Try.").await;
        let result = cli.expect("result").await;
        assert_eq!(result["is_error"], true, "{status}");
        assert_eq!(result["api_error_status"], status);
        assert_eq!(cli.retries(), [0_u64; 0], "{status}");
        assert_eq!(server.requests().len(), 1, "{status}");
        assert_eq!(cli.end().await, 1);
    }
}

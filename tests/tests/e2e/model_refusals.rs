//! Refusals of the model, each by its own name, with what a person can do about it and that it leads on.

use anyhow::Result;
use mainloop_proto::v1::{FailureReason, InboxAction, InboxItemKind, TaskState};
use mainloop_tests::{
    anthropic::{Reply, Rule, Trouble, call, when},
    world::{Item, Settings, World, script},
};

/// What is mended elsewhere.
const MEND: &[InboxAction] = &[
    InboxAction::Retry,
    InboxAction::Answer,
    InboxAction::StartAfresh,
    InboxAction::TakeOver,
    InboxAction::Reject,
];
/// What another word to the worker can mend.
const STEER: &[InboxAction] = &[
    InboxAction::Answer,
    InboxAction::Retry,
    InboxAction::StartAfresh,
    InboxAction::TakeOver,
    InboxAction::Reject,
];

/// A person is asked at the first failure.
const AT_ONCE: &str = "max_attempts = 1\nmax_waits = 0";

/// The item says so, and offers just these.
fn says(item: &Item, words: &[&str], choices: &[InboxAction]) {
    let shown = format!("{}\n{}", item.seen.title, item.seen.body);
    for words in words {
        assert!(shown.contains(words), "{words:?}: {shown}");
    }
    let offered: Vec<InboxAction> = item.seen.actions().collect();
    assert_eq!(offered, choices, "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_of_the_models_host_has_its_name_and_its_choices_and_a_retry_leads_on()
-> Result<()> {
    let settings = Settings::script(script::good_day()).limits(AT_ONCE);
    let world = World::with(settings).await?;
    let repo = world.repo("calc", &script::calculator())?;
    for (trouble, reason, words, choices) in [
        (
            Trouble::unauthorized(),
            FailureReason::ModelCredential,
            "does not accept the credential",
            MEND,
        ),
        (
            Trouble::invalid("Your credit balance is too low to access the Anthropic API."),
            FailureReason::ModelCredit,
            "the account has no credit left",
            MEND,
        ),
        (
            Trouble::error(402, "billing_error", "Payment is required."),
            FailureReason::ModelCredit,
            "the account has no credit left",
            MEND,
        ),
        (
            Trouble::error(404, "not_found_error", "model: claude-of-gold"),
            FailureReason::ModelNotAllowed,
            "The model does not exist",
            MEND,
        ),
        (
            Trouble::invalid("prompt is too long: 250000 tokens > 200000 maximum"),
            FailureReason::ModelContext,
            "longer than the model takes",
            STEER,
        ),
        (
            Trouble::overloaded(),
            FailureReason::ModelOverloaded,
            "overloaded and answers nobody",
            MEND,
        ),
        (
            Trouble::internal(),
            FailureReason::ModelUnavailable,
            "failed or could not be reached",
            MEND,
        ),
    ] {
        world.model().outage(Some(trouble.not_to_retry()));
        let task = world.submit(&repo, script::TASK).await?;
        let item = task.expect_stuck(reason).await?;
        says(&item, &[words], choices);
        world.model().outage(None);
        item.resolve(InboxAction::Retry, "").await?;
        // It gets to its plan; its worker makes room for the next one's.
        task.reject().await?;
    }
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_refuses_to_go_on_goes_on_when_it_is_said_in_other_words() -> Result<()> {
    const WORDS: &str = "It is about numbers only.";
    let refusal = Reply::text("I cannot help with that.").stopping_for("refusal");
    let script = script::rules(
        "refuses",
        vec![
            Rule::sequence(when::prompt(WORDS), script::present(script::SUBTRACT_PLAN)),
            // Claude Code asks again by itself, and gives up then.
            Rule::reply(when::always(), refusal),
        ],
    );
    let world = World::with(Settings::script(script).limits(AT_ONCE)).await?;
    let task = world.begin(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::ModelRefused).await?;
    says(&item, &["declined to go on"], STEER);
    item.answer(WORDS).await?;
    task.expect_item(InboxItemKind::Plan).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_hands_no_plan_in_is_told_what_to_cover() -> Result<()> {
    const WORDS: &str = "Name the file and the test.";
    let script = script::rules(
        "plans nothing",
        vec![
            Rule::sequence(when::prompt(WORDS), script::present(script::SUBTRACT_PLAN)),
            Rule::reply(when::always(), Reply::text("It is quite simple.")),
        ],
    );
    let world = World::with(Settings::script(script).limits(AT_ONCE)).await?;
    let task = world.begin(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::NoPlan).await?;
    says(
        &item,
        &["ended without a plan, also when asked again"],
        STEER,
    );
    item.answer(WORDS).await?;
    task.expect_item(InboxItemKind::Plan).await?;
    world.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claude_that_exits_again_and_again_is_told_with_its_end_and_goes_on_with_an_answer()
-> Result<()> {
    const WORDS: &str = "Do not end yourself.";
    let script = script::rules(
        "exits",
        vec![
            script::planning(script::SUBTRACT_PLAN),
            script::steps(
                when::prompt(script::IMPLEMENT).and(when::prompt(WORDS)),
                vec![script::subtract(true)],
                "Done.",
            ),
            // The shell's parent is Claude Code.
            script::implementing(vec![call::bash("kill -9 $PPID")], "never said"),
        ],
    );
    let world = World::with(Settings::script(script).limits("max_attempts = 2")).await?;
    let task = world.approved(&script::calculator()).await?;
    let item = task.expect_stuck(FailureReason::ClaudeExited).await?;
    says(
        &item,
        &[
            "Claude Code exited in the middle of a turn (signal 9)",
            "It was tried 2 times.",
        ],
        MEND,
    );
    item.answer(WORDS).await?;
    task.expect_state(TaskState::Ready).await?;
    world.end().await
}

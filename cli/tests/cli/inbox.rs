//! `inbox`, `show`, and decisions.

use insta::assert_snapshot;
use mainloop_proto::v1::{
    InboxAction, InboxGroup, InboxItem, InboxItemKind, InboxItemState, Question, Resolution,
    TaskState,
};

use crate::{
    fake::{Plane, World},
    run::{Running, addressed, against, json, piped},
    samples::{at, failed_task, plan_item, question_item, ready_task, task},
};

fn world() -> World {
    let items = vec![plan_item(), question_item()];
    let mut tasks: Vec<_> = items.iter().filter_map(|item| item.task.clone()).collect();
    tasks.push(task(
        "a1",
        "Speed up the parser 解析",
        TaskState::Implementing,
        InboxGroup::Active,
    ));
    tasks.push(ready_task());
    tasks.push(failed_task());
    World {
        tasks,
        items,
        ..World::default()
    }
}

#[test]
fn inbox_lists_its_four_groups() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["inbox"]), @r"
    exit 0
    --- stdout
    needs you (2)
    ITEM    KIND      TASK  OPEN FOR  WHAT
    q7@1    question  q1    0s        How long may an entry live?
    k3f9@2  plan      p1    0s        Plan: retry on 503

    active (1)
    TASK  STATE         REPOSITORY    COST     TITLE
    a1    implementing  acme/widgets  $0.0123  Speed up the parser 解析

    failed (1)
    TASK  STATE   REPOSITORY    COST     TITLE
    f1    failed  acme/widgets  $0.0123  Port to the new API

    completed (1)
    TASK  STATE             REPOSITORY    COST     TITLE
    r1    ready for review  acme/widgets  $0.0123  Retry on 503
    ");
    assert_snapshot!(against(&Plane::start(World::default()), &["inbox"]), @r"
    exit 0
    --- stderr
    nothing here: `mainloop task create` proposes a task
    ");
    let items = json(&plane, &["inbox"]);
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["kind"], "INBOX_ITEM_KIND_PLAN");
}

#[test]
fn inbox_watch_prints_each_change() {
    let mut plane = Plane::start(world());
    let running = Running::start(&mut addressed(&plane, &["inbox", "--watch"]));
    running.wait_for("needs you: k3f9@2");
    running.wait_for("f1  failed  Port to the new API");
    let later = task(
        "b2",
        "New after the restart",
        TaskState::Queued,
        InboxGroup::Active,
    );
    plane.world().tasks.push(later);
    plane.restart();
    running.wait_for("New after the restart");
}

#[test]
fn plan_is_shown_with_its_difference_and_files() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["show", "k3f9@2"]), @r#"
    exit 0
    --- stdout
    k3f9@2 Plan: retry on 503
      kind     plan, revision 2, open for 0s
      task     p1  Retry on 503
      on       https://github.com/acme/widgets (main)
      cost     $0.0123 of $5.00
      plan     0123456789ab

    # Plan

    1. Change `src/fetch.rs`.
    2. Add a test in `tests/fetch.rs`.
    3. Keep the old flag.

    Changed since k3f9@1

        1. Change `src/fetch.rs`.
      - 2. Remove the old flag.
      + 2. Add a test in `tests/fetch.rs`.
      + 3. Keep the old flag.

    Files it mentions
      src/fetch.rs
      tests/fetch.rs

    What you can do
      mainloop approve k3f9@2
      mainloop revise k3f9@2 "what to change"
      mainloop reject k3f9@2
    "#);
    assert_eq!(
        json(&plane, &["show", "k3f9"])[0]["item"]["planHash"],
        "0123456789abcdef0123"
    );
}

#[test]
fn question_is_shown_with_numbered_options() {
    assert_snapshot!(against(&Plane::start(world()), &["show", "q7"]), @r"
    exit 0
    --- stdout
    q7@1 How long may an entry live?
      kind     question, open for 0s
      task     q1  Add a cache
      on       https://github.com/acme/widgets (main)
      cost     $0.0123 of $5.00

      1  One hour  as the docs say
      2  One day

    What you can do
      mainloop answer q7@1 1
    ");
}

#[test]
fn proposal_blocker_and_resolved_items_are_shown() {
    let proposal = InboxItem {
        id: "s1".to_owned(),
        kind: InboxItemKind::Spawn.into(),
        title: "Start `Retry on 503`?".to_owned(),
        body: String::new(),
        ..plan_item()
    };
    let resolved = InboxItem {
        id: "b1".to_owned(),
        kind: InboxItemKind::Blocker.into(),
        state: InboxItemState::Resolved.into(),
        body: "The registry answers 403.".to_owned(),
        resolution: Some(Resolution {
            action: InboxAction::Answer.into(),
            text: "use the mirror".to_owned(),
            actor: "ada".to_owned(),
            time: at(5),
        }),
        ..question_item()
    };
    let plane = Plane::start(World {
        items: vec![proposal, resolved],
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["show", "s1"]), @r#"
    exit 0
    --- stdout
    s1@2 Start `Retry on 503`?
      kind     proposal, revision 2, open for 0s
      task     p1  Retry on 503
      on       https://github.com/acme/widgets (main)
      cost     $0.0123 of $5.00
      model    sonnet
      by       ada
      plan     0123456789ab

    What you can do
      mainloop approve s1@2
      mainloop revise s1@2 "what to change"
      mainloop reject s1@2
    "#);
    assert_snapshot!(against(&plane, &["show", "b1"]), @r"
    exit 0
    --- stdout
    b1@1 How long may an entry live?
      kind     blocker, open for 0s
      task     q1  Add a cache
      on       https://github.com/acme/widgets (main)
      cost     $0.0123 of $5.00

    The registry answers 403.

      1  One hour  as the docs say
      2  One day

    answered by ada at 2100-01-01 12:00: use the mirror
    ");
}

#[test]
fn hidden_characters_of_a_plan_are_announced() {
    let item = InboxItem {
        body: "Read\u{202e} `a.rs`\u{1b}[8m secretly\u{1b}[0m\n".to_owned(),
        ..plan_item()
    };
    let mut asks = question_item();
    asks.questions[0].options[0].label.push('\u{e0041}');
    let plane = Plane::start(World {
        items: vec![item, asks],
        ..World::default()
    });
    let asked = against(&plane, &["show", "q7"]);
    assert!(
        asked.contains("careful: the text holds characters"),
        "{asked}"
    );
    let shown = against(&plane, &["show", "k3f9"]);
    assert!(shown.contains("Read `a.rs` secretly\n"), "{shown}");
    assert!(
        shown.contains("careful: the text holds characters"),
        "{shown}"
    );
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{202e}'),
        "{shown:?}"
    );
}

#[test]
fn decisions_carry_the_revision_that_was_seen() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["approve", "k3f9@2"]), @r"
    exit 0
    --- stdout
    approved k3f9@2: Plan: retry on 503
    --- stderr
    next: mainloop task watch p1
    ");
    assert_snapshot!(against(&plane, &["reject", "k3f9@2", "not now"]), @r"
    exit 0
    --- stdout
    rejected k3f9@2: Plan: retry on 503
    --- stderr
    next: mainloop task watch p1
    ");
    assert_snapshot!(piped(&plane, &["revise", "k3f9@2", "-"], "keep the\nold flag\n"), @r"
    exit 0
    --- stdout
    sent back k3f9@2: Plan: retry on 503
    --- stderr
    next: mainloop task watch p1
    ");
    assert_snapshot!(against(&plane, &["reject", "k3f9"]), @r"
    exit 0
    --- stdout
    rejected k3f9@2: Plan: retry on 503
    --- stderr
    next: mainloop task watch p1
    ");
    assert_snapshot!(plane.world().asked.join("\n"), @r#"
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: Approve, text: "", answers: [], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: Reject, text: "not now", answers: [], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: Revise, text: "keep the\nold flag", answers: [], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: Reject, text: "", answers: [], attempts: 0, budget_micros: 0 }
    "#);
}

#[test]
fn every_way_on_is_sent_with_what_belongs_to_it() {
    let plane = Plane::start(world());
    for way in [
        &["--retry"][..],
        &["--more-attempts"],
        &["--more-attempts=2", "look at the fixture"],
        &["--start-afresh", "use the parser"],
        &["--top-up"],
        &["--top-up=3.5"],
        &["--take-over"],
    ] {
        let shown = against(&plane, &[&["resolve", "k3f9@2"], way].concat());
        assert!(shown.starts_with("exit 0"), "{way:?}: {shown}");
    }
    for wrong in [
        &[][..],
        &["--retry", "--take-over"],
        &["--more-attempts=0"],
        &["--more-attempts=many"],
        &["--top-up=-1"],
    ] {
        let shown = against(&plane, &[&["resolve", "k3f9@2"], wrong].concat());
        assert!(shown.starts_with("exit 2"), "{wrong:?}: {shown}");
    }
    assert_snapshot!(plane.world().asked.join("\n"), @r#"
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: Retry, text: "", answers: [], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: MoreAttempts, text: "", answers: [], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: MoreAttempts, text: "look at the fixture", answers: [], attempts: 2, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: StartAfresh, text: "use the parser", answers: [], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: TopUp, text: "", answers: [], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: TopUp, text: "", answers: [], attempts: 0, budget_micros: 3500000 }
    ResolveInboxItemRequest { item_id: "k3f9", revision: 2, action: TakeOver, text: "", answers: [], attempts: 0, budget_micros: 0 }
    "#);
}

#[test]
fn approval_without_a_revision_is_refused() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["approve", "k3f9"]), @r"
    exit 2
    --- stderr
    error: an approval names the revision that you saw
    hint: `mainloop show k3f9` shows the newest and the command that approves it
    ");
    assert!(plane.world().asked.is_empty());
}

#[test]
fn approval_of_an_old_revision_is_refused() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["approve", "k3f9@1"]), @r"
    exit 1
    --- stderr
    error: cannot approve k3f9@1: there is a newer revision, k3f9@2
    hint: `mainloop show k3f9` shows what it asks now
    ");
    assert!(plane.world().asked.is_empty());
}

#[test]
fn revision_without_words_is_refused() {
    assert_snapshot!(against(&Plane::start(world()), &["revise", "k3f9@2"]), @r#"
    exit 2
    --- stderr
    error: a revision needs your words on what to change
    hint: mainloop revise k3f9@2 "what to change"
    "#);
}

#[test]
fn answers_pick_options_or_are_words() {
    let plane = Plane::start(world());
    assert_snapshot!(against(&plane, &["answer", "q7@1", "2"]), @r"
    exit 0
    --- stdout
    answered q7@1: How long may an entry live?
    --- stderr
    next: mainloop task watch q1
    ");
    against(&plane, &["answer", "q7", "until", "the", "next", "write"]);
    against(&plane, &["answer", "q7", "--verbatim", "2"]);
    assert_snapshot!(plane.world().asked.join("\n"), @r#"
    ResolveInboxItemRequest { item_id: "q7", revision: 1, action: Answer, text: "", answers: ["One day"], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "q7", revision: 1, action: Answer, text: "", answers: ["until the next write"], attempts: 0, budget_micros: 0 }
    ResolveInboxItemRequest { item_id: "q7", revision: 1, action: Answer, text: "", answers: ["2"], attempts: 0, budget_micros: 0 }
    "#);
    assert_snapshot!(against(&plane, &["answer", "q7", "3"]), @r"
    exit 2
    --- stderr
    error: `3` is not among the 2 options of `How long may an entry live?`
    hint: --verbatim sends the number itself
    ");
    assert_snapshot!(against(&plane, &["answer", "q7"]), @r"
    exit 2
    --- stderr
    error: questions asked: 1, answers given: 0
    hint: `mainloop show q7@1` shows what it asks
    ");
}

#[test]
fn several_questions_need_an_answer_each() {
    let mut item = question_item();
    item.questions.push(Question {
        text: "Where?".to_owned(),
        ..Question::default()
    });
    let plane = Plane::start(World {
        items: vec![item],
        ..World::default()
    });
    assert_snapshot!(against(&plane, &["answer", "q7", "1"]), @r"
    exit 2
    --- stderr
    error: questions asked: 2, answers given: 1
    hint: `mainloop show q7@1` shows what it asks
    ");
    let done = against(&plane, &["answer", "q7", "1", "in memory"]);
    assert!(done.starts_with("exit 0\n"), "{done}");
    let asked = plane.world().asked.join("\n");
    assert!(
        asked.contains(r#"answers: ["One hour", "in memory"]"#),
        "{asked}"
    );
}

//! The screen after keys and changes, on a terminal in memory.
#![allow(clippy::unwrap_used)]

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use mainloop_proto::v1::{
    Check, CheckState, InboxAction, InboxGroup, InboxItem, InboxItemKind, InboxItemState,
    LogSource, Question, QuestionOption, Repository, StreamTaskLogsResponse, Task, TaskState,
    WatchInboxResponse,
};
use ratatui::{Terminal, backend::TestBackend};

use super::{
    draw,
    keys::{self, Effect},
    model::{Model, Purpose},
};

#[allow(clippy::unnecessary_wraps)]
fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn task(id: &str, title: &str, state: TaskState, group: InboxGroup) -> Task {
    Task {
        id: format!("id-{id}"),
        short_id: id.to_owned(),
        version: 5,
        title: title.to_owned(),
        repository: Some(Repository {
            owner: "acme".to_owned(),
            name: "widgets".to_owned(),
            ..Repository::default()
        }),
        state: state.into(),
        group: group.into(),
        budget_micros: 5_000_000,
        cost_micros: 12_300,
        update_time: at(940),
        confirm_time: at(400),
        ..Task::default()
    }
}

fn plan() -> InboxItem {
    InboxItem {
        id: "k3f9".to_owned(),
        revision: 2,
        kind: InboxItemKind::Plan.into(),
        state: InboxItemState::Open.into(),
        task: Some(task(
            "p1",
            "Retry on 503",
            TaskState::PlanReview,
            InboxGroup::NeedsYou,
        )),
        title: "Plan: retry on 503".to_owned(),
        body: "# Plan\n\nChange `a.rs`.\n".to_owned(),
        actions: vec![
            InboxAction::Approve.into(),
            InboxAction::Revise.into(),
            InboxAction::Reject.into(),
        ],
        open_time: at(900),
        ..InboxItem::default()
    }
}

fn question(count: usize) -> InboxItem {
    let option = |label: &str| QuestionOption {
        label: label.to_owned(),
        description: String::new(),
    };
    let question = Question {
        text: "Which one?".to_owned(),
        options: vec![option("Red"), option("Blue")],
        ..Question::default()
    };
    InboxItem {
        id: "q7".to_owned(),
        revision: 1,
        kind: InboxItemKind::Question.into(),
        title: "Which one?".to_owned(),
        questions: vec![question; count],
        actions: vec![InboxAction::Answer.into()],
        ..plan()
    }
}

fn change(task: Task, open_items: Vec<InboxItem>) -> WatchInboxResponse {
    WatchInboxResponse {
        task: Some(task),
        open_items,
        caught_up: false,
    }
}

fn model() -> Model {
    let mut model = Model::new();
    model.change(change(plan().task.unwrap(), vec![plan()]));
    model.change(change(
        Task {
            milestone: "draft PR #2 opened".to_owned(),
            checks: vec![Check {
                name: "build".to_owned(),
                state: CheckState::Pending.into(),
                ..Check::default()
            }],
            ..task(
                "a1",
                "Speed up the parser 解析",
                TaskState::Implementing,
                InboxGroup::Active,
            )
        },
        Vec::new(),
    ));
    model.change(change(
        task("f1", "Port it", TaskState::Failed, InboxGroup::Failed),
        Vec::new(),
    ));
    model.change(change(
        task(
            "r1",
            "Done long ago",
            TaskState::Ready,
            InboxGroup::Completed,
        ),
        Vec::new(),
    ));
    model.change(WatchInboxResponse {
        caught_up: true,
        ..WatchInboxResponse::default()
    });
    model
}

fn press(model: &mut Model, code: KeyCode) -> Option<Effect> {
    keys::press(model, KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(model: &mut Model, text: &str) {
    for character in text.chars() {
        assert_eq!(press(model, KeyCode::Char(character)), None);
    }
}

fn screen(model: &mut Model, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let now = Timestamp::new(1_000, 0).unwrap();
    terminal
        .draw(|frame| draw::draw(frame, model, now))
        .unwrap();
    terminal.backend().to_string()
}

#[test]
fn list_shows_the_groups_and_an_open_row_its_log() {
    let mut model = model();
    press(&mut model, KeyCode::Down);
    assert_eq!(
        press(&mut model, KeyCode::Enter),
        Some(Effect::OpenLog("id-a1".to_owned()))
    );
    for number in 0..20 {
        let chunk = StreamTaskLogsResponse {
            position: number,
            source: LogSource::Claude.into(),
            text: format!("line {number}\n"),
            ..StreamTaskLogsResponse::default()
        };
        model.log("id-a1", &chunk);
    }
    assert_eq!(model.log_position("id-a1"), 19);
    insta::assert_snapshot!(screen(&mut model, 100, 32), @r#"
    " mainloop   1 needs you  1 active  1 failed  1 completed                                            "
    "                                                                                                    "
    " needs you                                                                                          "
    " ▸ k3f9@2    plan              Plan: retry on 503          acme/widgets            1m 40s   $0.0123 "
    "                                                                                                    "
    " active                                                                                             "
    " ▾ a1        implementing      Speed up the parser 解析    acme/widgets           10m 00s   $0.0123 " Hidden by multi-width symbols: [(52, " "), (54, " ")]
    "      draft PR #2 opened · $0.0123 of $5.00                                                         "
    "      ● build                                                                                       "
    "      claude line 8                                                                                 "
    "      claude line 9                                                                                 "
    "      claude line 10                                                                                "
    "      claude line 11                                                                                "
    "      claude line 12                                                                                "
    "      claude line 13                                                                                "
    "      claude line 14                                                                                "
    "      claude line 15                                                                                "
    "      claude line 16                                                                                "
    "      claude line 17                                                                                "
    "      claude line 18                                                                                "
    "      claude line 19                                                                                "
    "                                                                                                    "
    " failed                                                                                             "
    " ▸ f1        failed            Port it                     acme/widgets            1m 00s   $0.0123 "
    "                                                                                                    "
    " completed                                                                                          "
    " ▸ r1        ready for review  Done long ago               acme/widgets            1m 00s   $0.0123 "
    "                                                                                                    "
    "                                                                                                    "
    "                                                                                                    "
    "                                                                                                    "
    " ↑↓ move · Enter open · Space logs · ? help · q quit                                                "
    "#);
    assert_eq!(
        press(&mut model, KeyCode::Char(' ')),
        Some(Effect::CloseLog("id-a1".to_owned()))
    );
    assert!(!screen(&mut model, 100, 32).contains("line 19"));
}

#[test]
fn narrow_screen_keeps_the_title() {
    let shown = screen(&mut model(), 48, 12);
    assert!(shown.contains("Plan: retry on 5…"), "{shown}");
}

#[test]
fn selection_stays_in_sight() {
    let mut model = model();
    for number in 0..60 {
        let id = format!("c{number}");
        model.change(change(
            task(
                &id,
                &format!("Old {number}"),
                TaskState::Completed,
                InboxGroup::Completed,
            ),
            Vec::new(),
        ));
    }
    press(&mut model, KeyCode::End);
    let last = model.current().unwrap().title.clone();
    let shown = screen(&mut model, 80, 12);
    assert!(shown.contains(&last), "{last}: {shown}");
    press(&mut model, KeyCode::Home);
    let shown = screen(&mut model, 80, 12);
    assert!(
        shown.contains("needs you") && shown.contains("k3f9@2"),
        "{shown}"
    );
}

#[test]
fn plan_is_approved_for_the_revision_on_the_screen() {
    let mut model = model();
    assert_eq!(
        press(&mut model, KeyCode::Enter),
        Some(Effect::OpenItem("k3f9@2".to_owned()))
    );
    model.open(plan(), false);
    press(&mut model, KeyCode::Char('a'));
    insta::assert_snapshot!(screen(&mut model, 70, 16), @r#"
    " mainloop   1 needs you  1 active  1 failed  1 completed              "
    " k3f9@2 Plan: retry on 503                                            "
    "   kind     plan, revision 2, open for 1m 40s                         "
    "   task     p1  Retry on 503                                          "
    "   cost     $0.0123 of $5.00                                          "
    "                                                                      "
    " Plan                                                                 "
    "                                                                      "
    " Change a.rs.                                                         "
    "                                                                      "
    " Files it mentions                                                    "
    "   a.rs                                                               "
    "                                                                      "
    "                                                                      "
    " approve k3f9@2? [y/N]                                                "
    " y yes · any other key no                                             "
    "#);
    assert_eq!(press(&mut model, KeyCode::Enter), None, "only y is a yes");
    press(&mut model, KeyCode::Char('a'));
    let Some(Effect::Resolve(request)) = press(&mut model, KeyCode::Char('y')) else {
        panic!("y did not approve");
    };
    assert_eq!((request.item_id.as_str(), request.revision), ("k3f9", 2));
    assert_eq!(request.action(), InboxAction::Approve);
    model.resolved(&request);
    assert!(screen(&mut model, 70, 16).contains("approved k3f9@2"));
}

#[test]
fn revision_needs_words() {
    let mut model = model();
    model.open(plan(), false);
    press(&mut model, KeyCode::Char('v'));
    assert_eq!(press(&mut model, KeyCode::Enter), None);
    assert!(screen(&mut model, 70, 12).contains("a revision needs your words"));
    press(&mut model, KeyCode::Char('v'));
    type_in(&mut model, "keep x");
    press(&mut model, KeyCode::Backspace);
    keys::paste(&mut model, "the old\nflag");
    let Some(Effect::Resolve(request)) = press(&mut model, KeyCode::Enter) else {
        panic!("Enter did not send");
    };
    assert_eq!(request.text, "keep the old flag");
    assert_eq!(request.action(), InboxAction::Revise);
}

#[test]
fn rejection_may_be_wordless_and_can_be_dropped() {
    let mut model = model();
    model.open(plan(), false);
    press(&mut model, KeyCode::Char('r'));
    press(&mut model, KeyCode::Esc);
    assert!(model.input.is_none() && model.page.is_some());
    press(&mut model, KeyCode::Char('r'));
    let Some(Effect::Resolve(request)) = press(&mut model, KeyCode::Enter) else {
        panic!("Enter did not send");
    };
    assert_eq!(request.action(), InboxAction::Reject);
}

#[test]
fn questions_are_answered_one_after_the_other() {
    let mut model = model();
    model.open(question(2), false);
    assert_eq!(press(&mut model, KeyCode::Char('a')), None);
    assert!(model.input.is_none(), "a question cannot be approved");
    press(&mut model, KeyCode::Char('2'));
    insta::assert_snapshot!(screen(&mut model, 60, 18), @r#"
    " mainloop   1 needs you  1 active  1 failed  1 completed    "
    " q7@1 Which one?                                            "
    "   kind     question, open for 1m 40s                       "
    "   task     p1  Retry on 503                                "
    "   cost     $0.0123 of $5.00                                "
    "                                                            "
    " Plan                                                       "
    "                                                            "
    " Change a.rs.                                               "
    "                                                            "
    " Question 1: Which one?                                     "
    "   1  Red                                                   "
    "   2  Blue                                                  "
    "                                                            "
    " Question 2: Which one?                                     "
    "   1  Red                                                   "
    " answer 1 of 2: 2                                           "
    " Enter send · Esc drop                                      "
    "#);
    assert_eq!(press(&mut model, KeyCode::Enter), None);
    let purpose = model.input.as_ref().map(|input| input.purpose.clone());
    assert_eq!(purpose, Some(Purpose::Answer(vec!["Blue".to_owned()])));
    type_in(&mut model, "7");
    assert_eq!(
        press(&mut model, KeyCode::Enter),
        None,
        "there is no option 7"
    );
    assert!(screen(&mut model, 90, 18).contains("not among the 2 options"));
    press(&mut model, KeyCode::Backspace);
    type_in(&mut model, "neither");
    let Some(Effect::Resolve(request)) = press(&mut model, KeyCode::Enter) else {
        panic!("Enter did not send");
    };
    assert_eq!(request.answers, ["Blue", "neither"]);
}

#[test]
fn hidden_characters_are_announced_where_it_is_decided() {
    let mut model = model();
    model.open(plan(), true);
    assert!(screen(&mut model, 110, 14).contains("careful: the text holds characters"));
}

#[test]
fn newer_revision_is_announced_on_the_page() {
    let mut model = model();
    model.open(plan(), false);
    let newer = InboxItem {
        revision: 3,
        ..plan()
    };
    let mut task = plan().task.unwrap();
    task.version = 6;
    model.change(change(task.clone(), vec![newer]));
    assert!(screen(&mut model, 90, 14).contains("there is a newer revision, k3f9@3"));
    task.version = 7;
    model.change(change(task, Vec::new()));
    assert!(screen(&mut model, 90, 14).contains("this is no longer asked"));
}

#[test]
fn older_state_of_a_task_is_dropped() {
    let mut model = model();
    let mut old = task("a1", "Old title", TaskState::Queued, InboxGroup::Active);
    old.version = 4;
    model.change(change(old, Vec::new()));
    assert!(!screen(&mut model, 90, 20).contains("Old title"));
}

#[test]
fn selection_follows_a_task_into_its_new_group() {
    let mut model = model();
    let mut moved = plan().task.unwrap();
    moved.version = 6;
    moved.set_state(TaskState::Implementing);
    moved.set_group(InboxGroup::Active);
    model.change(change(moved, Vec::new()));
    assert_eq!(model.current().unwrap().name, "p1");
}

#[test]
fn plane_that_went_away_is_announced() {
    let mut model = model();
    model.connected = false;
    assert!(screen(&mut model, 110, 12).contains("the plane does not answer; trying again"));
}

#[test]
fn long_lines_of_a_page_are_broken() {
    let mut model = model();
    let mut item = question(1);
    item.questions[0].options[0].description = "word ".repeat(40);
    model.open(item, false);
    let shown = screen(&mut model, 50, 20);
    assert_eq!(shown.matches("word").count(), 40, "{shown}");
}

#[test]
fn keys_quit_and_help() {
    let mut model = model();
    press(&mut model, KeyCode::Char('?'));
    assert!(screen(&mut model, 90, 24).contains(" keys "));
    press(&mut model, KeyCode::Esc);
    assert!(!model.help);
    assert_eq!(press(&mut model, KeyCode::Char('q')), Some(Effect::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    model.open(plan(), false);
    assert_eq!(keys::press(&mut model, interrupt), Some(Effect::Quit));
}

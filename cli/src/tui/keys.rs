//! What keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use mainloop_proto::v1::{InboxAction, InboxGroup, InboxItemKind, ResolveInboxItemRequest};

use super::model::{Input, Log, Model, Purpose, Tone};
use crate::{commands::choose, text};

/// Rows or lines of a page key.
const PAGE: isize = 10;

/// What the loop has to do.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Quit,
    /// Get the item by its id, with its revision.
    OpenItem(String),
    Resolve(Box<ResolveInboxItemRequest>),
    /// Follow the task's log.
    OpenLog(String),
    CloseLog(String),
}

/// A key was pressed.
pub(super) fn press(model: &mut Model, key: KeyEvent) -> Option<Effect> {
    if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
        return Some(Effect::Quit);
    }
    if model.help {
        model.help = false;
        return None;
    }
    if model.input.is_some() {
        return typed(model, key);
    }
    model.notice = None;
    if key.code == KeyCode::Char('?') {
        model.help = true;
        return None;
    }
    if model.page.is_some() {
        on_page(model, key)
    } else {
        on_list(model, key)
    }
}

/// A text was pasted into the line.
pub(super) fn paste(model: &mut Model, pasted: &str) {
    if let Some(input) = &mut model.input
        && !matches!(input.purpose, Purpose::Confirm(_))
    {
        input.text.push_str(&text::one_line(pasted));
    }
}

fn on_list(model: &mut Model, key: KeyEvent) -> Option<Effect> {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Some(Effect::Quit),
        KeyCode::Down | KeyCode::Char('j') => model.step(1),
        KeyCode::Up | KeyCode::Char('k') => model.step(-1),
        KeyCode::PageDown => model.step(PAGE),
        KeyCode::PageUp => model.step(-PAGE),
        KeyCode::Home | KeyCode::Char('g') => model.step(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => model.step(isize::MAX),
        KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => {
            let row = model.current()?.clone();
            if !row.key.item.is_empty() {
                return Some(Effect::OpenItem(row.name));
            }
            return toggle(model, row.key.task, row.group);
        }
        KeyCode::Char(' ') => {
            let row = model.current()?.clone();
            return toggle(model, row.key.task, row.group);
        }
        _ => {}
    }
    None
}

/// Opens or closes a row. Only a task that is at work has a log that goes on; the others show what came of them.
fn toggle(model: &mut Model, task: String, group: InboxGroup) -> Option<Effect> {
    if model.open.remove(&task).is_some() {
        return Some(Effect::CloseLog(task));
    }
    model.open.insert(task.clone(), Log::default());
    matches!(
        group,
        InboxGroup::Active | InboxGroup::NeedsYou | InboxGroup::Failed
    )
    .then_some(Effect::OpenLog(task))
}

fn on_page(model: &mut Model, key: KeyEvent) -> Option<Effect> {
    let page = model.page.as_mut()?;
    match key.code {
        KeyCode::Char('q' | 'h') | KeyCode::Esc | KeyCode::Left => {
            model.close_page();
        }
        KeyCode::Down | KeyCode::Char('j') => page.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => page.scroll(-1),
        KeyCode::PageDown | KeyCode::Char(' ') => page.scroll(PAGE),
        KeyCode::PageUp => page.scroll(-PAGE),
        KeyCode::Home | KeyCode::Char('g') => page.scroll = 0,
        KeyCode::End | KeyCode::Char('G') => page.scroll = usize::MAX / 2,
        KeyCode::Char('a') => begin(model, InboxAction::Approve, ""),
        KeyCode::Char('r') => begin(model, InboxAction::Reject, ""),
        KeyCode::Char('v') => begin(model, InboxAction::Revise, ""),
        KeyCode::Char('t') => begin(model, InboxAction::Retry, ""),
        KeyCode::Char('m') => begin(model, InboxAction::MoreAttempts, ""),
        KeyCode::Char('f') => begin(model, InboxAction::StartAfresh, ""),
        KeyCode::Char('b') => begin(model, InboxAction::TopUp, ""),
        KeyCode::Char('o') => begin(model, InboxAction::TakeOver, ""),
        KeyCode::Enter | KeyCode::Char('w') => begin(model, InboxAction::Answer, ""),
        KeyCode::Char(digit @ '1'..='9') => {
            begin(model, InboxAction::Answer, &digit.to_string());
        }
        _ => {}
    }
    None
}

/// Begins a line, where the item offers the action.
fn begin(model: &mut Model, action: InboxAction, text: &str) {
    let purpose = match action {
        InboxAction::Approve | InboxAction::TopUp | InboxAction::TakeOver => {
            Purpose::Confirm(action)
        }
        InboxAction::Answer => Purpose::Answer(Vec::new()),
        other => Purpose::Words(other),
    };
    if model.page.as_ref().is_some_and(|page| page.can(action)) {
        model.input = Some(Input {
            purpose,
            text: text.to_owned(),
        });
    }
}

fn typed(model: &mut Model, key: KeyEvent) -> Option<Effect> {
    model.notice = None;
    let input = model.input.as_mut()?;
    if let Purpose::Confirm(action) = input.purpose {
        let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
        model.input = None;
        let page = model.page.as_ref().filter(|_| yes)?;
        return Some(resolve(page.request(action, String::new(), Vec::new())));
    }
    match key.code {
        KeyCode::Esc => {
            model.input = None;
        }
        KeyCode::Enter => return finish(model),
        KeyCode::Backspace => {
            input.text.pop();
        }
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => input.text.clear(),
        KeyCode::Char('w') if key.modifiers.contains(KeyModifiers::CONTROL) => {
            let kept = input.text.trim_end().rfind(' ').map_or(0, |at| at + 1);
            input.text.truncate(kept);
        }
        KeyCode::Char(character) if !key.modifiers.contains(KeyModifiers::CONTROL) => {
            input.text.push(character);
        }
        _ => {}
    }
    None
}

/// The line is complete.
fn finish(model: &mut Model) -> Option<Effect> {
    let page = model.page.as_ref()?;
    let input = model.input.take()?;
    let text = input.text.trim().to_owned();
    match input.purpose {
        Purpose::Confirm(_) => None,
        Purpose::Words(action) => {
            if action == InboxAction::Revise && text.is_empty() {
                model.say(
                    Tone::Bad,
                    "a revision needs your words on what to change".to_owned(),
                );
                return None;
            }
            Some(resolve(page.request(action, text, Vec::new())))
        }
        Purpose::Answer(mut answers) => {
            let questions = &page.item.questions;
            if page.item.kind() != InboxItemKind::Question || questions.is_empty() {
                if text.is_empty() {
                    model.say(Tone::Bad, "an answer needs your words".to_owned());
                    return None;
                }
                return Some(resolve(page.request(InboxAction::Answer, text, Vec::new())));
            }
            match choose(questions.get(answers.len())?, text.clone()) {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    model.say(Tone::Bad, error.to_string());
                    model.input = Some(Input {
                        purpose: Purpose::Answer(answers),
                        text,
                    });
                    return None;
                }
            }
            if answers.len() < questions.len() {
                model.input = Some(Input {
                    purpose: Purpose::Answer(answers),
                    text: String::new(),
                });
                return None;
            }
            Some(resolve(page.request(
                InboxAction::Answer,
                String::new(),
                answers,
            )))
        }
    }
}

fn resolve(request: ResolveInboxItemRequest) -> Effect {
    Effect::Resolve(Box::new(request))
}

//! `approve`, `reject`, `revise`, `answer`: a decision on the revision that was seen.

use mainloop_proto::v1::{
    InboxAction, InboxItem, InboxItemKind, Question, ResolveInboxItemRequest,
};

use super::{connect, show};
use crate::{
    args::{Answer, Approve, Global, Resolve, Way},
    client::Client,
    exit::{Call, Exit, Failure},
    item::ItemRef,
    output::{Output, json},
    terminal, words,
};

pub(super) async fn approve(
    approve: Approve,
    global: &Global,
    output: &Output,
) -> anyhow::Result<Exit> {
    let item = approve.item;
    // The newest revision may be one that nobody has read.
    if item.revision.is_none() {
        let id = item.id;
        return Err(
            Failure::usage("an approval names the revision that you saw")
                .hint(format!(
                    "`mainloop show {id}` shows the newest and the command that approves it"
                ))
                .into(),
        );
    }
    let text = words_of(approve.text)?;
    act(item, InboxAction::Approve, text, global, output).await
}

pub(super) async fn reject(
    resolve: Resolve,
    global: &Global,
    output: &Output,
) -> anyhow::Result<Exit> {
    let text = words_of(resolve.text)?;
    act(resolve.item, InboxAction::Reject, text, global, output).await
}

pub(super) async fn revise(
    resolve: Resolve,
    global: &Global,
    output: &Output,
) -> anyhow::Result<Exit> {
    let given = match resolve.text {
        None if output.is_interactive() => {
            terminal::ask(output, "What should change?")?.unwrap_or_default()
        }
        text => words_of(text)?,
    };
    if given.is_empty() {
        return Err(
            Failure::usage("a revision needs your words on what to change")
                .hint(format!(
                    "mainloop revise {} \"what to change\"",
                    resolve.item
                ))
                .into(),
        );
    }
    act(resolve.item, InboxAction::Revise, given, global, output).await
}

pub(super) async fn answer(
    answer: Answer,
    global: &Global,
    output: &Output,
) -> anyhow::Result<Exit> {
    let mut client = connect(global).await?;
    let item = seen(&mut client, &answer.item).await?;
    let mut given = answer
        .answers
        .into_iter()
        .map(terminal::text_or_stdin)
        .collect::<Result<Vec<_>, _>>()?;
    if given.is_empty() && output.is_interactive() {
        given = ask(&item, output)?;
    }
    let mut request = request(&item, InboxAction::Answer);
    if item.kind() == InboxItemKind::Question && !item.questions.is_empty() {
        request.answers = chosen(&item, given, answer.verbatim)?;
    } else {
        request.text = given.join(" ");
        if request.text.is_empty() {
            return Err(Failure::usage("an answer needs your words").into());
        }
    }
    send(&mut client, request, output).await
}

/// Every other way on for a task that is stuck.
pub(super) async fn choose_way(way: Way, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let mut client = connect(global).await?;
    let mut request = ResolveInboxItemRequest {
        item_id: way.item.id.clone(),
        revision: way.item.revision.unwrap_or_default(),
        action: way.choice.action().into(),
        text: words_of(way.text)?,
        ..ResolveInboxItemRequest::default()
    };
    if let Some(Some(count)) = way.choice.more_attempts {
        request.attempts = i32::try_from(count).unwrap_or(i32::MAX);
    }
    if let Some(Some(micros)) = way.choice.top_up {
        request.budget_micros = micros;
    }
    if way.item.revision.is_none() {
        request.revision = seen(&mut client, &way.item).await?.revision;
    }
    send(&mut client, request, output).await
}

fn words_of(text: Option<String>) -> anyhow::Result<String> {
    text.map_or(Ok(String::new()), terminal::text_or_stdin)
}

async fn act(
    item: ItemRef,
    action: InboxAction,
    text: String,
    global: &Global,
    output: &Output,
) -> anyhow::Result<Exit> {
    let mut client = connect(global).await?;
    let mut request = ResolveInboxItemRequest {
        item_id: item.id.clone(),
        revision: item.revision.unwrap_or_default(),
        action: action.into(),
        text,
        ..ResolveInboxItemRequest::default()
    };
    if item.revision.is_none() {
        request.revision = seen(&mut client, &item).await?.revision;
    }
    send(&mut client, request, output).await
}

/// The item as it is now, cleaned.
async fn seen(client: &mut Client, item: &ItemRef) -> anyhow::Result<InboxItem> {
    let response = show::get(client, item).await?;
    let item = json::clean(&response)?.item;
    item.ok_or_else(|| Failure::new(Exit::Failed, "the plane sent no item").into())
}

fn request(item: &InboxItem, action: InboxAction) -> ResolveInboxItemRequest {
    ResolveInboxItemRequest {
        item_id: item.id.clone(),
        revision: item.revision,
        action: action.into(),
        ..ResolveInboxItemRequest::default()
    }
}

async fn send(
    client: &mut Client,
    request: ResolveInboxItemRequest,
    output: &Output,
) -> anyhow::Result<Exit> {
    let action = request.action();
    let item = ItemRef {
        id: request.item_id.clone(),
        revision: Some(request.revision),
    };
    let command = words::command(action)
        .and_then(|command| command.split(' ').next())
        .unwrap_or("resolve");
    let response = client
        .inbox
        .resolve_inbox_item(request)
        .await
        .map_err(Call::refused(
            format!("{command} {item}"),
            format!("`mainloop show {}` shows what it asks now", item.id),
        ))?
        .into_inner();
    output.message(&response, |response| {
        let resolved = response.item.clone().unwrap_or_default();
        output.line(format!(
            "{} {item}: {}",
            words::done(action),
            resolved.title
        ))?;
        if let Some(task) = &resolved.task
            && task.settle_time.is_none()
        {
            output.next(&format!("mainloop task watch {}", task.short_id));
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

/// Asks each question on the terminal.
fn ask(item: &InboxItem, output: &Output) -> anyhow::Result<Vec<String>> {
    if item.questions.is_empty() {
        output.note(&item.title);
        return Ok(terminal::ask(output, "Your answer:")?.into_iter().collect());
    }
    let mut answers = Vec::new();
    for question in &item.questions {
        output.note(&question.text);
        for line in show::options(question, output.palette()) {
            output.note(line);
        }
        let Some(answer) = terminal::ask(output, "Your answer:")? else {
            return Err(Failure::usage("no answer was given").into());
        };
        answers.push(answer);
    }
    Ok(answers)
}

/// One answer for each question. Words of a single answer need no quotes.
fn chosen(item: &InboxItem, given: Vec<String>, verbatim: bool) -> Result<Vec<String>, Failure> {
    let given = if item.questions.len() == 1 && !given.is_empty() {
        vec![given.join(" ")]
    } else {
        given
    };
    if given.len() != item.questions.len() {
        let asked = item.questions.len();
        return Err(Failure::usage(format!(
            "questions asked: {asked}, answers given: {}",
            given.len()
        ))
        .hint(format!(
            "`mainloop show {}` shows what it asks",
            ItemRef::of(item)
        )));
    }
    item.questions
        .iter()
        .zip(given)
        .map(|(question, answer)| {
            if verbatim {
                Ok(answer)
            } else {
                choose(question, answer)
            }
        })
        .collect()
}

/// Numbers become the labels of their options; anything else stays as it is.
pub(crate) fn choose(question: &Question, answer: String) -> Result<String, Failure> {
    if answer.trim().is_empty() {
        return Err(Failure::usage(format!("no answer to `{}`", question.text)));
    }
    let numbers: Option<Vec<usize>> = answer
        .split([',', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok())
        .collect();
    let Some(numbers) =
        numbers.filter(|numbers| !numbers.is_empty() && !question.options.is_empty())
    else {
        return Ok(answer);
    };
    if numbers.len() > 1 && !question.multi_select {
        return Err(Failure::usage(format!(
            "only one option of `{}` can be chosen",
            question.text
        ))
        .hint("--verbatim sends the numbers themselves"));
    }
    let labels: Option<Vec<&str>> = numbers
        .iter()
        .map(|number| Some(question.options.get(number.checked_sub(1)?)?.label.as_str()))
        .collect();
    labels.map(|labels| labels.join(", ")).ok_or_else(|| {
        Failure::usage(format!(
            "`{answer}` is not among the {} options of `{}`",
            question.options.len(),
            question.text
        ))
        .hint("--verbatim sends the number itself")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mainloop_proto::v1::QuestionOption;

    use super::*;

    fn question(multi_select: bool) -> Question {
        let option = |label: &str| QuestionOption {
            label: label.to_owned(),
            description: String::new(),
        };
        Question {
            text: "Which?".to_owned(),
            options: vec![option("Red"), option("Blue")],
            multi_select,
            ..Question::default()
        }
    }

    #[test]
    fn numbers_pick_options_and_words_stay() {
        let choose = |multi, answer: &str| choose(&question(multi), answer.to_owned()).ok();
        assert_eq!(choose(false, "2").as_deref(), Some("Blue"));
        assert_eq!(choose(false, "neither").as_deref(), Some("neither"));
        assert_eq!(choose(false, "2 of them").as_deref(), Some("2 of them"));
        assert_eq!(choose(true, "1,2").as_deref(), Some("Red, Blue"));
        assert_eq!(choose(true, "2 1").as_deref(), Some("Blue, Red"));
        assert_eq!(choose(false, "1,2"), None);
        assert_eq!(choose(false, "3"), None);
        assert_eq!(choose(false, "0"), None);
        assert_eq!(choose(false, " "), None);
    }

    #[test]
    fn one_question_takes_words_without_quotes_and_several_need_one_each() {
        let item = |questions: Vec<Question>| InboxItem {
            questions,
            ..InboxItem::default()
        };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let one = item(vec![question(false)]);
        assert_eq!(
            chosen(&one, words("keep the old"), false).unwrap(),
            ["keep the old"]
        );
        assert_eq!(chosen(&one, words("2"), true).unwrap(), ["2"]);
        let two = item(vec![question(false), question(false)]);
        assert_eq!(
            chosen(&two, words("1 mine"), false).unwrap(),
            ["Red", "mine"]
        );
        assert!(chosen(&two, words("1"), false).is_err());
        assert!(chosen(&one, Vec::new(), false).is_err());
    }
}

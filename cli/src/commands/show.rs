//! `mainloop show`: all that a person needs to decide on an item.

use jiff::Timestamp;
use mainloop_proto::v1::{
    GetInboxItemRequest, GetInboxItemResponse, InboxItem, InboxItemKind, InboxItemState, Question,
    Task,
};
use similar::{ChangeTag, TextDiff};

use super::connect;
use crate::{
    args::Global,
    client::Client,
    exit::{Call, Exit},
    format,
    item::ItemRef,
    output::{
        Output, markdown,
        style::{Palette, Style},
    },
    text, words,
};

/// Lines of context around a change of the plan.
const CONTEXT: usize = 2;

pub(super) async fn run(item: &ItemRef, global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let mut client = connect(global).await?;
    let response = get(&mut client, item).await?;
    output.message(&response, |clean| {
        let Some(item) = &clean.item else {
            return Ok(());
        };
        let page = Page {
            item,
            hides: response.item.as_ref().is_some_and(hides_something),
            palette: output.palette(),
            columns: output.prose(),
            rendered: output.is_terminal(),
            commands: true,
            now: Timestamp::now(),
        };
        for line in page.lines() {
            output.line(line)?;
        }
        Ok(())
    })?;
    Ok(Exit::Done)
}

/// The item, of the revision that is named or the newest.
pub(super) async fn get(
    client: &mut Client,
    item: &ItemRef,
) -> anyhow::Result<GetInboxItemResponse> {
    let request = GetInboxItemRequest {
        item_id: item.to_string(),
    };
    Ok(client
        .inbox
        .get_inbox_item(request)
        .await
        .map_err(Call::failed(format!("get the item `{item}`")))?
        .into_inner())
}

/// True where cleaning the item takes something away that a terminal would hide or obey.
pub(crate) fn hides_something(item: &InboxItem) -> bool {
    let questions = item.questions.iter().flat_map(|question| {
        let options = question
            .options
            .iter()
            .flat_map(|option| [&option.label, &option.description]);
        options.chain([&question.text])
    });
    questions
        .chain([&item.title, &item.body])
        .any(|text| text::hides_something(text))
}

/// An item as lines of text.
pub(crate) struct Page<'a> {
    /// Cleaned.
    pub(crate) item: &'a InboxItem,
    /// Cleaning took something away.
    pub(crate) hides: bool,
    pub(crate) palette: Palette,
    pub(crate) columns: usize,
    /// Markdown as a page, or as it is.
    pub(crate) rendered: bool,
    /// With the commands to type.
    pub(crate) commands: bool,
    pub(crate) now: Timestamp,
}

impl Page<'_> {
    pub(crate) fn lines(&self) -> Vec<String> {
        let item = self.item;
        let mut lines = vec![format!(
            "{} {}",
            self.palette
                .paint(Style::Bold, &ItemRef::of(item).to_string()),
            self.palette.paint(Style::Bold, &item.title)
        )];
        self.facts(&mut lines);
        if self.hides {
            lines.push(self.palette.paint(
                Style::Red,
                "careful: the text holds characters that a terminal would hide or obey; they are not shown",
            ));
        }
        lines.push(String::new());
        if !item.body.trim().is_empty() {
            lines.extend(self.markdown(&item.body));
            lines.push(String::new());
        }
        self.questions(&mut lines);
        if item.kind() == InboxItemKind::Plan {
            self.difference(&mut lines);
            let files = markdown::mentioned_files(&item.body);
            if !files.is_empty() {
                lines.push(self.heading("Files it mentions"));
                lines.extend(files.iter().map(|file| format!("  {file}")));
                lines.push(String::new());
            }
        }
        self.ending(&mut lines);
        lines
    }

    fn heading(&self, text: &str) -> String {
        self.palette.paint(Style::Cyan, text)
    }

    fn markdown(&self, text: &str) -> Vec<String> {
        if self.rendered {
            markdown::render(text, self.palette, self.columns)
        } else {
            text.lines().map(str::to_owned).collect()
        }
    }

    fn facts(&self, lines: &mut Vec<String>) {
        let item = self.item;
        let mut fact = |name: &str, value: String| {
            if !value.is_empty() {
                lines.push(format!(
                    "  {}{value}",
                    self.palette.paint(Style::Dim, &format!("{name:<9}"))
                ));
            }
        };
        let age = format::since(item.open_time.as_ref(), self.now);
        let revision = match item.revision {
            0 | 1 => String::new(),
            revision => format!(", revision {revision}"),
        };
        fact(
            "kind",
            format!("{}{revision}, open for {age}", words::kind(item)),
        );
        if item.assume_time.is_some() {
            let at = format::time(item.assume_time.as_ref(), self.now);
            fact(
                "unless",
                format!("you answer by {at}, the first option of each question is assumed"),
            );
        }
        let Some(task) = &item.task else { return };
        fact("task", format!("{}  {}", task.short_id, task.title));
        fact("on", place(task));
        fact(
            "cost",
            format!(
                "{} of {}",
                format::money(task.cost_micros),
                format::money(task.budget_micros)
            ),
        );
        if item.kind() == InboxItemKind::Spawn {
            fact("model", task.model.clone());
            fact("by", task.created_by.clone());
        }
        fact(
            "issue",
            task.issue
                .as_ref()
                .map(|link| link.url.clone())
                .unwrap_or_default(),
        );
        fact(
            "pull",
            task.pull_request
                .as_ref()
                .map(|link| link.url.clone())
                .unwrap_or_default(),
        );
        fact("plan", item.plan_hash.chars().take(12).collect());
        if task.unsandboxed {
            fact("sandbox", self.palette.paint(Style::Red, "off"));
        }
    }

    fn questions(&self, lines: &mut Vec<String>) {
        for (at, question) in self.item.questions.iter().enumerate() {
            let number = if self.item.questions.len() > 1 {
                format!("Question {}: ", at + 1)
            } else {
                String::new()
            };
            // A single question is the item's title as well.
            if self.item.questions.len() > 1 || question.text != self.item.title {
                let text = format!("{number}{}", question.text);
                lines.push(self.palette.paint(Style::Bold, &text));
            }
            lines.extend(options(question, self.palette));
            lines.push(String::new());
        }
    }

    fn difference(&self, lines: &mut Vec<String>) {
        let item = self.item;
        if item.previous_body.is_empty() {
            return;
        }
        lines.push(self.heading(&format!("Changed since {}@{}", item.id, item.revision - 1)));
        let difference = TextDiff::from_lines(item.previous_body.as_str(), item.body.as_str());
        let groups = difference.grouped_ops(CONTEXT);
        if groups.is_empty() {
            lines.push("  nothing".to_owned());
        }
        for (at, group) in groups.iter().enumerate() {
            if at > 0 {
                lines.push(self.palette.paint(Style::Dim, "  …"));
            }
            for change in group.iter().flat_map(|op| difference.iter_changes(op)) {
                let (style, mark) = match change.tag() {
                    ChangeTag::Delete => (Style::Red, '-'),
                    ChangeTag::Insert => (Style::Green, '+'),
                    ChangeTag::Equal => (Style::Plain, ' '),
                };
                let text = change.value().trim_end_matches('\n');
                lines.push(
                    self.palette
                        .paint(style, format!("  {mark} {text}").trim_end()),
                );
            }
        }
        lines.push(String::new());
    }

    fn ending(&self, lines: &mut Vec<String>) {
        match (self.item.state(), &self.item.resolution) {
            (InboxItemState::Resolved, Some(resolution)) => {
                let words = if resolution.text.is_empty() {
                    String::new()
                } else {
                    format!(": {}", resolution.text)
                };
                lines.push(format!(
                    "{} by {} at {}{words}",
                    words::done(resolution.action()),
                    resolution.actor,
                    format::time(resolution.time.as_ref(), self.now),
                ));
            }
            (InboxItemState::Withdrawn, _) => {
                lines.push("withdrawn: the task moved on or ended".to_owned());
            }
            _ if !self.commands => {}
            _ => {
                lines.push(self.heading("What you can do"));
                lines.extend(
                    words::commands_for(self.item)
                        .into_iter()
                        .map(|command| format!("  {command}")),
                );
            }
        }
    }
}

/// The options of a question, numbered as `answer` takes them.
pub(crate) fn options(question: &Question, palette: Palette) -> Vec<String> {
    let mut lines: Vec<String> = question
        .options
        .iter()
        .enumerate()
        .map(|(at, option)| {
            let number = palette.paint(Style::Cyan, &format!("{}", at + 1));
            let meaning = if option.description.is_empty() {
                String::new()
            } else {
                palette.paint(
                    Style::Dim,
                    &format!("  {}", option.description.replace('\n', " ")),
                )
            };
            format!("  {number}  {}{meaning}", option.label)
        })
        .collect();
    if question.multi_select && !question.options.is_empty() {
        lines.push(palette.paint(Style::Dim, "  several may be chosen: 1,2"));
    }
    lines
}

/// `https://host/owner/name (base)`.
pub(crate) fn place(task: &Task) -> String {
    let url = task
        .repository
        .as_ref()
        .map_or("", |repository| &repository.url);
    if task.base_ref.is_empty() {
        url.to_owned()
    } else {
        format!("{url} ({})", task.base_ref)
    }
}

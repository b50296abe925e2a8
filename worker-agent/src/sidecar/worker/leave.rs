//! Leave to push: asking a person about a push that is held, and waiting for what they say.

use mainloop_proto::v1::{HumanWord, PushHeld, command::What, milestone::Fact};

use super::{Worker, claude};
use crate::sidecar::{
    link,
    proxy::{HeldChange, Refusal},
};

/// What a person said of a push that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It may pass.
    Given,
    /// It may not, and these are their words.
    NotGiven(String),
}

impl Worker {
    /// Why the last push did not pass, where the proxy knows; told once.
    pub(crate) fn take_refusal(&self) -> Option<Refusal> {
        self.host.screen()?.take_refusal()
    }

    /// Asks a person about a push that is held, and waits for as long as it takes. The commits stay in the work tree.
    pub(crate) async fn ask_leave(&mut self, version: i64, held: HeldChange) -> Leave {
        let HeldChange { hash, paths, diff } = held;
        self.note(format!("a push is held: it changes {}", paths.join(", ")));
        let fact = PushHeld {
            hash: hash.clone(),
            paths,
            diff,
        };
        self.link.report(version, Fact::PushHeld(fact));
        loop {
            tokio::select! {
                Some(notice) = claude::notice(&mut self.host.notices) => self.noticed(notice),
                Some(event) = self.host.proxy_events.recv() => {
                    self.seen(version, event);
                }
                Some(command) = self.commands.recv() => {
                    let Some(What::Answer(answer)) = command
                        .what
                        .as_ref()
                        .filter(|what| matches!(what, What::Answer(answer) if answer.question_id == hash))
                    else {
                        self.keep(command);
                        continue;
                    };
                    let (approved, text) = (answer.approved, answer.text.clone());
                    self.link.done(&command.id);
                    if approved {
                        if let Some(screen) = self.host.screen() {
                            screen.allow(&hash);
                        }
                        self.note("a person allowed the push".to_owned());
                        return Leave::Given;
                    }
                    self.words.push(HumanWord {
                        question: "May this change of CI definitions be pushed?".to_owned(),
                        text: text.clone(),
                        assumed: false,
                        time: Some(link::now()),
                    });
                    return Leave::NotGiven(text);
                }
                // The line home is gone: the attempt ends from outside.
                else => std::future::pending().await,
            }
        }
    }
}

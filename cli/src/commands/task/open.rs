//! `mainloop task open`.

use std::{
    env,
    ffi::OsString,
    process::{Command, Stdio},
};

use url::Url;

use super::fetch;
use crate::{
    client::Client,
    exit::{Exit, Failure},
    output::{Output, json},
};

pub(super) async fn run(
    task: &str,
    issue: bool,
    client: &mut Client,
    output: &Output,
) -> anyhow::Result<Exit> {
    let response = fetch(task, client).await?;
    if output.is_json() {
        output.message(&response, |_| Ok(()))?;
        return Ok(Exit::Done);
    }
    let task = json::clean(&response)?.task.unwrap_or_default();
    let link = if issue {
        task.issue
    } else {
        task.pull_request.or(task.issue)
    };
    let Some(link) = link else {
        return Err(Failure::new(
            Exit::Failed,
            format!("task {} has no page yet", task.short_id),
        )
        .hint(format!("mainloop task watch {}", task.short_id))
        .into());
    };
    output.line(&link.url)?;
    if output.is_terminal() && is_page(&link.url) && !browse(&link.url) {
        output.note("no browser was found; the address is above");
    }
    Ok(Exit::Done)
}

/// Only a page of the web is handed to a browser: the address comes from the plane.
fn is_page(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "https" | "http"))
}

fn browse(url: &str) -> bool {
    let named = env::var_os("BROWSER").filter(|browser| !browser.is_empty());
    named
        .into_iter()
        .chain([OsString::from("xdg-open"), OsString::from("wslview")])
        .any(|program| {
            Command::new(program)
                .arg(url)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
}

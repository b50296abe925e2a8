//! For the crate in `/fuzz` alone: what reads GitHub's answers.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::{Checks, Error, PullRef};

/// All that a successful answer may be: a pull request, an issue, comments, reviews, a file, a tree, a blob, a repository,
/// an App, its installation, its token.
pub fn answer(body: &[u8]) -> Option<PullRef> {
    crate::issues::fuzzing::issue(body);
    crate::issues::fuzzing::comments(body, "mainloop[bot]");
    crate::client::fuzzing::answer(body, 4096);
    crate::reviews::fuzzing::reviews(body);
    crate::objects::answer(body);
    crate::app::answer(body);
    crate::pulls::fuzzing::pull(body)
}

/// An object with the lists of workflow runs, check runs, statuses and jobs.
pub fn checks(body: &[u8]) -> Option<Checks> {
    crate::checks::fuzzing::checks(body)
}

/// The errors of GraphQL.
pub fn graphql(body: &[u8]) -> Option<Error> {
    crate::transport::fuzzing::graphql(body)
}

/// An answer that is not a success.
pub fn error(status: u16, headers: &[(&'static str, &[u8])], body: &[u8]) -> Option<Error> {
    let status = StatusCode::from_u16(status).ok()?;
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.insert(HeaderName::from_static(name), value);
        }
    }
    Some(Error::from_reply(
        "ask",
        "/repos/o/r/issues/1",
        status,
        &map,
        body,
    ))
}

/// Whether a workflow treats drafts apart.
pub fn skips_drafts(text: &str) -> bool {
    crate::workflows::skips_drafts(text)
}

/// Text on its way to a model.
pub fn clean_inbound(text: &str) -> String {
    crate::text::clean_inbound(text)
}

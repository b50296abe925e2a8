//! See `crate::fuzzing`.

use serde::Deserialize;

use super::{
    Checks, RawCheckRun, RawJob, RawRun, RawStatus, from_check_runs, job_in_url, newest_runs,
};

/// The four lists, put together as they are for one commit.
#[derive(Deserialize)]
struct Lists {
    #[serde(default)]
    workflow_runs: Vec<RawRun>,
    #[serde(default)]
    check_runs: Vec<RawCheckRun>,
    #[serde(default)]
    statuses: Vec<RawStatus>,
    #[serde(default)]
    jobs: Vec<RawJob>,
}

pub(crate) fn checks(body: &[u8]) -> Option<Checks> {
    let lists: Lists = serde_json::from_slice(body).ok()?;
    let (runs, replaced) = newest_runs(lists.workflow_runs);
    let mut items = from_check_runs(lists.check_runs, &runs, &replaced);
    let jobs: Vec<_> = lists.jobs.into_iter().map(RawJob::into_check).collect();
    items.extend(runs.iter().filter_map(|run| run.unless_told_by(&jobs)));
    items.extend(jobs);
    items.extend(lists.statuses.into_iter().map(RawStatus::into_check));
    for url in items.iter().filter_map(|check| check.url.as_deref()) {
        let _ = job_in_url(url);
    }
    Some(Checks {
        sha: String::new(),
        items,
        limited: Vec::new(),
    })
}

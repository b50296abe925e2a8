//! From what GitHub and git say to the reason that the plane goes by. Pure.

use mainloop_github::{Class, Error, Thing};
use mainloop_proto::v1::FailureReason as Reason;

/// What a call to GitHub failed for.
pub(super) fn of_github(error: &Error) -> Reason {
    let said = error.said().to_lowercase();
    let numbered = matches!(error.thing(), Thing::Issue | Thing::Pull);
    match error.class() {
        Class::Unauthorized => Reason::GithubCredential,
        Class::Forbidden { .. } if said.contains("archived") => Reason::RepositoryArchived,
        Class::Forbidden { .. } if numbered && said.contains("is locked") => Reason::PullGone,
        Class::Forbidden { .. } => Reason::GithubPermission,
        Class::NotFound if numbered => Reason::PullGone,
        Class::NotFound if error.thing() == Thing::Repository => Reason::RepositoryAbsent,
        Class::NotFound | Class::Validation => Reason::Github,
        Class::RateLimited { .. } => Reason::GithubLimit,
        Class::Unavailable | Class::Other => Reason::GithubUnavailable,
    }
}

/// Parts of git's and GitHub's messages, in lower case, with what each means; the first that fits counts. GitHub's
/// codes are listed in its documentation of push protection, rulesets and branch protection.
const GIT: &[(&str, Reason)] = &[
    ("no space left on device", Reason::Disk),
    ("disk quota exceeded", Reason::Disk),
    ("refusing to allow", Reason::GithubWorkflow),
    ("must have verified signatures", Reason::SignedCommits),
    ("commits must be signed", Reason::SignedCommits),
    ("protected branch", Reason::BranchProtected),
    ("gh006", Reason::BranchProtected),
    ("gh013", Reason::BranchProtected),
    ("repository rule violations", Reason::BranchProtected),
    ("archived", Reason::RepositoryArchived),
    (
        "could not be asked what the push changes",
        Reason::GithubUnavailable,
    ),
    ("hook declined", Reason::PushRejected),
    ("remote rejected", Reason::PushRejected),
    ("repository not found", Reason::RepositoryAbsent),
    ("authentication failed", Reason::GithubCredential),
    ("invalid username or", Reason::GithubCredential),
    (
        "write access to repository not granted",
        Reason::GithubPermission,
    ),
    ("permission to", Reason::GithubPermission),
    ("error: 401", Reason::GithubCredential),
    ("error: 403", Reason::GithubPermission),
    ("error: 404", Reason::RepositoryAbsent),
    ("error: 429", Reason::GithubLimit),
    ("error: 500", Reason::GithubUnavailable),
    ("error: 502", Reason::GithubUnavailable),
    ("error: 503", Reason::GithubUnavailable),
    ("error: 504", Reason::GithubUnavailable),
    // The connection broke in the middle: curl's words for it follow.
    ("rpc failed", Reason::GithubUnavailable),
];

/// What git failed for, by what it said.
pub(super) fn of_git(message: &str) -> Reason {
    let message = message.to_lowercase();
    if message.contains("git fetch") && message.contains("did not end within") {
        return Reason::CloneTimeout;
    }
    GIT.iter()
        .find(|(part, _)| message.contains(part))
        .map_or(Reason::Git, |(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(thing: Thing, class: Class, message: &str) -> Error {
        Error::Api {
            operation: "read issue-archived/pull request #1".to_owned(),
            status: 404,
            message: message.to_owned(),
            documentation_url: None,
            class,
            thing,
        }
    }

    #[test]
    fn what_is_not_found_is_told_by_what_was_asked_for() {
        let forbidden = || Class::Forbidden { hint: None };
        for (error, reason) in [
            (
                refused(Thing::Issue, Class::NotFound, "Not Found"),
                Reason::PullGone,
            ),
            (
                refused(Thing::Pull, Class::NotFound, "Not Found"),
                Reason::PullGone,
            ),
            (
                refused(Thing::Repository, Class::NotFound, "Not Found"),
                Reason::RepositoryAbsent,
            ),
            (
                refused(Thing::Other, Class::NotFound, "Not Found"),
                Reason::Github,
            ),
            (
                refused(
                    Thing::Issue,
                    forbidden(),
                    "Unable to create comment because issue is locked.",
                ),
                Reason::PullGone,
            ),
            (
                refused(Thing::Issue, forbidden(), "no"),
                Reason::GithubPermission,
            ),
            (
                refused(
                    Thing::Other,
                    forbidden(),
                    "Repository was archived so is read-only.",
                ),
                Reason::RepositoryArchived,
            ),
        ] {
            assert_eq!(of_github(&error), reason, "{error}");
        }
    }

    #[test]
    fn what_git_says_has_a_name() {
        for (message, reason) in [
            (
                "remote: error: GH006: Protected branch update failed for refs/heads/mainloop/x.",
                Reason::BranchProtected,
            ),
            (
                "remote: error: GH013: Repository rule violations found for refs/heads/x.\nremote: - Commits must have verified signatures.",
                Reason::SignedCommits,
            ),
            (
                "! [remote rejected] x -> x (refusing to allow a Personal Access Token to create or update workflow `.github/workflows/ci.yml` without `workflow` scope)",
                Reason::GithubWorkflow,
            ),
            (
                "! [remote rejected] x -> x (pre-receive hook declined)",
                Reason::PushRejected,
            ),
            (
                "fatal: unable to access 'http://127.0.0.1/': The requested URL returned error: 404",
                Reason::RepositoryAbsent,
            ),
            ("fatal: write error: No space left on device", Reason::Disk),
            (
                "! [remote rejected] x -> x (mainloop: the code host could not be asked what the push changes, try again: no answer)",
                Reason::GithubUnavailable,
            ),
            (
                "git fetch -q --no-tags origin +refs/heads/main: did not end within 1800s",
                Reason::CloneTimeout,
            ),
            (
                "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF",
                Reason::GithubUnavailable,
            ),
            ("fatal: early EOF", Reason::Git),
        ] {
            assert_eq!(of_git(message), reason, "{message}");
        }
    }
}

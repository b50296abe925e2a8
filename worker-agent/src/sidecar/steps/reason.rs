//! From what GitHub and git say to the reason that the plane goes by. Pure.

use mainloop_github::{Class, Error, Thing};
use mainloop_proto::v1::FailureReason as Reason;

use crate::sidecar::proxy::Denied;

/// GitHub's words to git and to its API about a repository that is archived.
const ARCHIVED: &str = "was archived so";

/// What a call to GitHub failed for.
pub(super) fn of_github(error: &Error) -> Reason {
    let said = error.said().to_lowercase();
    let numbered = matches!(error.thing(), Thing::Issue | Thing::Pull);
    match error.class() {
        Class::Unauthorized => Reason::GithubCredential,
        Class::Forbidden { .. } if said.contains(ARCHIVED) => Reason::RepositoryArchived,
        Class::Forbidden { .. } if numbered && said.contains("is locked") => Reason::PullGone,
        Class::Forbidden { .. } => Reason::GithubPermission,
        Class::NotFound if numbered => Reason::PullGone,
        Class::NotFound if error.thing() == Thing::Repository => Reason::RepositoryAbsent,
        Class::NotFound | Class::Validation => Reason::Github,
        Class::RateLimited { .. } => Reason::GithubLimit,
        Class::Unavailable | Class::Other => Reason::GithubUnavailable,
    }
}

/// Parts of git's and GitHub's messages, in lower case, with what each means; the first that fits counts. None fits a
/// branch's name, which git prints as well: each has a character that no ref has. GitHub's codes are listed in its
/// documentation of push protection, rulesets and branch protection.
const GIT: &[(&str, Reason)] = &[
    ("no space left on device", Reason::Disk),
    ("disk quota exceeded", Reason::Disk),
    ("refusing to allow", Reason::GithubWorkflow),
    ("must have verified signatures", Reason::SignedCommits),
    ("commits must be signed", Reason::SignedCommits),
    ("protected branch", Reason::BranchProtected),
    ("gh006:", Reason::BranchProtected),
    ("gh013:", Reason::BranchProtected),
    ("repository rule violations", Reason::BranchProtected),
    // Our own words, beside the ref: no hook's.
    ("(mainloop: ", Reason::Git),
    ("hook declined", Reason::PushRejected),
    ("remote rejected", Reason::PushRejected),
    ("repository not found", Reason::RepositoryAbsent),
    (DENIED, Reason::GithubPermission),
    ("error: 404", Reason::RepositoryAbsent),
    ("error: 429", Reason::GithubLimit),
    ("error: 500", Reason::GithubUnavailable),
    ("error: 502", Reason::GithubUnavailable),
    ("error: 503", Reason::GithubUnavailable),
    ("error: 504", Reason::GithubUnavailable),
    // The connection broke in the middle: curl's words for it follow.
    ("rpc failed", Reason::GithubUnavailable),
];

/// What git prints where the proxy passes a no of the code host on: 403, whether that was 401 or 403.
const DENIED: &str = "error: 403";

/// What a command of git failed for, by what it printed.
pub(super) fn of_git(command: &str, printed: &str) -> Reason {
    let printed = printed.to_lowercase();
    if command.starts_with("git fetch") && printed.contains("did not end within") {
        return Reason::CloneTimeout;
    }
    GIT.iter()
        .find(|(part, _)| printed.contains(part))
        .map_or(Reason::Git, |(_, reason)| *reason)
}

/// Whether git says by this reason that the code host said no, and the proxy knows more.
pub(super) fn is_denied(reason: Reason) -> bool {
    reason == Reason::GithubPermission
}

/// What the code host said no for.
pub(super) fn of_denied(denied: &Denied) -> Reason {
    match denied.status {
        401 => Reason::GithubCredential,
        _ if denied.words.to_lowercase().contains(ARCHIVED) => Reason::RepositoryArchived,
        _ => Reason::GithubPermission,
    }
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
                "! [remote rejected] x -> x (mainloop: the branch has moved on the code host: fetch it and try again)",
                Reason::Git,
            ),
            (
                "! [remote rejected] 12ab -> mainloop/k3f9-archived-gh006-gh013 (pre-receive hook declined)",
                Reason::PushRejected,
            ),
            ("did not end within 1800s", Reason::Git),
            (
                "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\nfatal: early EOF",
                Reason::GithubUnavailable,
            ),
            ("fatal: early EOF", Reason::Git),
        ] {
            let push = "git push -q origin 12ab:refs/heads/mainloop/k3f9-archived-things";
            assert_eq!(of_git(push, message), reason, "{message}");
        }
        assert_eq!(
            of_git("git fetch -q origin main", "did not end within 1800s"),
            Reason::CloneTimeout
        );
    }

    #[test]
    fn a_no_of_the_code_host_is_told_by_its_status_and_its_words() {
        for (status, words, reason) in [
            (401, "Invalid username or token.", Reason::GithubCredential),
            (
                403,
                "This repository was archived so it is read-only.",
                Reason::RepositoryArchived,
            ),
            (
                403,
                "Permission to o/archived.git denied to x.",
                Reason::GithubPermission,
            ),
            (403, "", Reason::GithubPermission),
        ] {
            let words = words.to_owned();
            assert_eq!(of_denied(&Denied { status, words }), reason, "{status}");
        }
    }
}

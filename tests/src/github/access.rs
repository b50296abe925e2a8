//! Who may do what: tokens with a level per permission, and roles of people on a repository.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

/// A permission of a token, as GitHub names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Metadata,
    Contents,
    Issues,
    PullRequests,
    Checks,
    Statuses,
    Actions,
    /// Needed, beside `Contents`, to push a commit that changes `.github/workflows`.
    Workflows,
}

impl Scope {
    pub(super) const ALL: [Self; 8] = [
        Self::Metadata,
        Self::Contents,
        Self::Issues,
        Self::PullRequests,
        Self::Checks,
        Self::Statuses,
        Self::Actions,
        Self::Workflows,
    ];

    /// The name in the `X-Accepted-GitHub-Permissions` header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Contents => "contents",
            Self::Issues => "issues",
            Self::PullRequests => "pull_requests",
            Self::Checks => "checks",
            Self::Statuses => "statuses",
            Self::Actions => "actions",
            Self::Workflows => "workflows",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Read,
    Write,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What an operation asks of a token.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    Nothing,
    On(Scope, Level),
}

pub(super) const fn read(scope: Scope) -> Need {
    Need::On(scope, Level::Read)
}

pub(super) const fn write(scope: Scope) -> Need {
    Need::On(scope, Level::Write)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Classic,
    FineGrained,
    Installation,
    /// A request that an App signed itself.
    App,
}

/// What a token stands for. Build one with [`Token::classic`], [`Token::fine_grained`] or [`Token::installation`], then narrow it.
#[derive(Clone, Debug)]
pub struct Token {
    pub login: String,
    pub kind: TokenKind,
    levels: BTreeMap<Scope, Level>,
    repos: Option<BTreeSet<String>>,
    /// The App that signed; of [`TokenKind::App`] alone.
    pub(super) app: Option<u64>,
    expires_at: Option<Timestamp>,
}

impl Token {
    /// A classic personal token with the `repo` and `workflow` scopes: whatever its user may do.
    pub fn classic(login: &str) -> Self {
        Self::new(login, TokenKind::Classic)
    }

    /// A fine-grained personal token with every permission that such a token can have. Reading checks is not among them.
    pub fn fine_grained(login: &str) -> Self {
        Self::new(login, TokenKind::FineGrained).with(Scope::Checks, Level::None)
    }

    /// An App's installation token; `login` is the App's bot, `name[bot]`.
    pub fn installation(login: &str) -> Self {
        Self::new(login, TokenKind::Installation)
    }

    /// What an App signs reaches nothing but what is about itself.
    pub(super) fn app(id: u64, login: &str) -> Self {
        Self {
            levels: BTreeMap::new(),
            repos: Some(BTreeSet::new()),
            app: Some(id),
            ..Self::new(login, TokenKind::App)
        }
    }

    /// An installation's token as it is made on request.
    pub(super) fn minted(
        login: &str,
        levels: &BTreeMap<Scope, Level>,
        repos: &BTreeSet<String>,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            levels: levels.clone(),
            repos: Some(repos.clone()),
            expires_at: Some(expires_at),
            ..Self::new(login, TokenKind::Installation)
        }
    }

    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    fn new(login: &str, kind: TokenKind) -> Self {
        let levels = Scope::ALL.map(|scope| (scope, Level::Write)).into();
        Self {
            login: login.to_owned(),
            kind,
            levels,
            repos: None,
            app: None,
            expires_at: None,
        }
    }

    #[must_use]
    pub fn with(mut self, scope: Scope, level: Level) -> Self {
        self.levels.insert(scope, level);
        self
    }

    /// Every permission lowered to reading.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        for level in self.levels.values_mut() {
            *level = (*level).min(Level::Read);
        }
        self
    }

    /// The token sees this repository (`owner/name`) and those named by further calls, and no other private one.
    #[must_use]
    pub fn only(mut self, repo: &str) -> Self {
        self.repos.get_or_insert_default().insert(repo.to_owned());
        self
    }

    pub(super) fn level(&self, scope: Scope) -> Level {
        self.levels.get(&scope).copied().unwrap_or(Level::None)
    }

    pub(super) fn reaches(&self, repo: &str) -> bool {
        self.repos.as_ref().is_none_or(|repos| repos.contains(repo))
    }

    /// GitHub's words for a permission that the token does not have.
    pub(super) fn refusal(&self) -> &'static str {
        match self.kind {
            TokenKind::Installation | TokenKind::App => "Resource not accessible by integration",
            TokenKind::Classic | TokenKind::FineGrained => {
                "Resource not accessible by personal access token"
            }
        }
    }
}

/// What a person may do on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Read,
    Triage,
    Write,
    Maintain,
    Admin,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Triage => "triage",
            Self::Write => "write",
            Self::Maintain => "maintain",
            Self::Admin => "admin",
        }
    }
}

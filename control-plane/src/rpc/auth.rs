//! Who calls, and what they may do.

use super::Error;

/// What a credential may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// See tasks, logs and the inbox.
    Read,
    /// Propose, cancel and guide tasks.
    Submit,
    /// Confirm tasks and resolve inbox items.
    Approve,
    /// Manage tokens.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Approve, Self::Admin];

    /// The word in the database and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Approve => "approve",
            Self::Admin => "admin",
        }
    }
}

/// The caller of an RPC, put into the request's extensions before it reaches a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// A token's name, or the user behind the local socket.
    pub name: String,
    /// What they may do.
    pub scopes: Vec<Scope>,
    /// True on the local socket.
    pub local: bool,
}

impl Caller {
    /// Refuses a caller without this scope.
    pub fn require(&self, scope: Scope) -> Result<(), Error> {
        if self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(Error::Denied {
                message: format!("{} lacks the scope `{}`", self.name, scope.word()),
            })
        }
    }
}

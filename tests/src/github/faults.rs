//! Faults that a test orders: the next requests that match fail, or lose their answer.

use crate::anthropic::Gate;

/// What happens to the next `times` REST, GraphQL or git requests that match.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Method, or empty for any.
    pub method: String,
    /// A part of the path, such as `/pulls`.
    pub path: String,
    pub kind: FaultKind,
    pub times: u32,
}

#[derive(Clone, Debug)]
pub enum FaultKind {
    /// Answer with this status and do nothing.
    Status(u16),
    /// 403 with GitHub's words for the secondary rate limit, and `retry-after` in seconds.
    SecondaryRateLimit(u64),
    /// 403 with the primary limit used up until this many seconds from now.
    RateLimit(u64),
    /// Close the connection before the request has any effect.
    CutBefore,
    /// Do what was asked, then close the connection without an answer.
    CutAfter,
    /// Do what was asked, then hold the answer at the gate.
    HeldAfter(Gate),
}

impl Fault {
    pub fn new(method: &str, path: &str, kind: FaultKind) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            kind,
            times: 1,
        }
    }

    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        self.times > 0
            && (self.method.is_empty() || self.method.eq_ignore_ascii_case(method))
            && path.contains(&self.path)
    }
}

/// Takes one use of the first fault that matches.
pub(super) fn take(faults: &mut Vec<Fault>, method: &str, path: &str) -> Option<FaultKind> {
    let fault = faults
        .iter_mut()
        .find(|fault| fault.matches(method, path))?;
    fault.times -= 1;
    let kind = fault.kind.clone();
    faults.retain(|fault| fault.times > 0);
    Some(kind)
}

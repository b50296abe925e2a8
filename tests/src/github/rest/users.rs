//! Users, and the rate limit that a token has left.

use serde_json::json;

use super::super::access::TokenKind;
use super::super::call::{Call, Reply};
use super::super::limits::RATE_LIMIT;
use super::super::problem::Problem;
use super::super::{render, site::Site};

pub(super) fn authenticated(site: &mut Site, call: &Call) -> Result<Reply, Problem> {
    let Some(token) = &call.token else {
        return Err(Problem::new(
            http::StatusCode::UNAUTHORIZED,
            "Requires authentication",
        ));
    };
    if matches!(token.kind, TokenKind::Installation | TokenKind::App) {
        return Err(Problem::forbidden(token.refusal()));
    }
    Ok(Reply::ok(render::private_user(site, &token.login)))
}

pub(super) fn by_name(site: &mut Site, call: &Call) -> Result<Reply, Problem> {
    let login = call.param("username");
    if !site.users.contains_key(login) {
        return Err(Problem::not_found());
    }
    Ok(Reply::ok(render::public_user(site, login)))
}

#[expect(clippy::unnecessary_wraps, reason = "every handler has this shape")]
pub(super) fn rate_limit(site: &mut Site, call: &Call) -> Result<Reply, Problem> {
    let (used, reset) = site.limits.core(call.login());
    let (used, reset) = (used.min(RATE_LIMIT), reset.as_second());
    let one =
        json!({"limit": RATE_LIMIT, "used": used, "remaining": RATE_LIMIT - used, "reset": reset});
    Ok(Reply::ok(
        json!({"resources": {"core": one, "search": one, "graphql": one}, "rate": one}),
    ))
}

//! What an App asks about itself, and its installations' tokens.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::access::{Level, Scope, Token, TokenKind};
use super::super::apps::{App, Installation, Minted, unauthorized};
use super::super::call::{Call, Reply};
use super::super::problem::Problem;
use super::super::render;
use super::super::site::Site;

type Result = std::result::Result<Reply, Problem>;

/// The App that signed the request.
fn signer<'a>(site: &'a Site, call: &Call) -> std::result::Result<&'a App, Problem> {
    let id = call.token.as_ref().and_then(|token| token.app);
    id.and_then(|id| site.apps.get(&id))
        .ok_or_else(|| unauthorized("A JSON web token could not be decoded"))
}

fn levels(permissions: &BTreeMap<Scope, Level>) -> Map<String, Value> {
    permissions
        .iter()
        .filter(|(_, level)| **level > Level::None)
        .map(|(scope, level)| (scope.name().to_owned(), level.name().into()))
        .collect()
}

pub(super) fn authenticated(site: &mut Site, call: &Call) -> Result {
    let app = signer(site, call)?;
    let installed = site.installations.values();
    let installed = installed.filter(|one| one.app == app.id).count();
    Ok(Reply::ok(json!({
        "id": app.id, "slug": app.slug, "node_id": render::node_id("A", app.id), "client_id": format!("Iv1.{:016x}", app.id),
        "owner": render::user(site, &app.owner), "name": app.slug, "description": null, "external_url": site.base,
        "html_url": format!("{}/apps/{}", site.base, app.slug), "created_at": render::time(app.created_at),
        "updated_at": render::time(app.created_at), "permissions": levels(&app.permissions), "events": [],
        "installations_count": installed,
    })))
}

fn installation(site: &Site, app: &App, found: &Installation) -> Value {
    let api = render::api(site);
    json!({
        "id": found.id, "account": render::user(site, &found.account), "repository_selection": "selected",
        "access_tokens_url": format!("{api}/app/installations/{}/access_tokens", found.id),
        "repositories_url": format!("{api}/installation/repositories"),
        "html_url": format!("{}/settings/installations/{}", site.base, found.id), "app_id": app.id,
        "target_id": site.users.get(&found.account).map_or(0, |user| user.id), "target_type": "User",
        "permissions": levels(&app.permissions), "events": [], "created_at": render::time(found.created_at),
        "updated_at": render::time(found.created_at), "single_file_name": null, "app_slug": app.slug,
        "suspended_by": null, "suspended_at": null,
    })
}

pub(super) fn of_repository(site: &mut Site, call: &Call) -> Result {
    let app = signer(site, call)?;
    let full = site.need_repo(&call.repo())?.full_name();
    let found = site
        .installations
        .values()
        .find(|one| one.app == app.id && one.repos.contains(&full))
        .ok_or_else(Problem::not_found)?;
    Ok(Reply::ok(installation(site, app, found)))
}

pub(super) fn mint(site: &mut Site, call: &Call) -> Result {
    let app = signer(site, call)?.clone();
    let found = site
        .installations
        .get(&call.number("installation_id")?)
        .filter(|one| one.app == app.id)
        .ok_or_else(Problem::not_found)?
        .clone();
    let repos = match call.texts("repositories") {
        None => found.repos.clone(),
        Some(names) => names
            .iter()
            .map(|name| format!("{}/{name}", found.account))
            .collect::<BTreeSet<_>>(),
    };
    if repos.is_empty() || !repos.is_subset(&found.repos) {
        return Err(Problem::unprocessable(
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
        ));
    }
    let permissions = match call.body["permissions"].as_object() {
        None => app.permissions.clone(),
        Some(asked) => granted(&app, asked)?,
    };
    let expires_at = Timestamp::now() + app.lifetime;
    let secret = format!("ghs_{}", Uuid::new_v4().simple());
    site.tokens.insert(
        secret.clone(),
        Token::minted(&app.bot(), &permissions, &repos, expires_at),
    );
    site.minted.push(Minted {
        secret: secret.clone(),
        installation: found.id,
        repos: repos.iter().cloned().collect(),
        permissions: permissions.clone(),
        expires_at,
        revoked: false,
    });
    let listed: Vec<Value> = repos
        .iter()
        .filter_map(|name| site.repo(name))
        .map(|repo| render::repo(site, repo, repo.role(&app.bot())))
        .collect();
    Ok(Reply::created(json!({
        "token": secret, "expires_at": render::time(expires_at), "permissions": levels(&permissions),
        "repository_selection": "selected", "repositories": listed,
    })))
}

/// What was asked for, which the App must have.
fn granted(
    app: &App,
    asked: &Map<String, Value>,
) -> std::result::Result<BTreeMap<Scope, Level>, Problem> {
    let refused = || {
        Problem::unprocessable("The permissions requested are not granted to this installation.")
    };
    let mut granted = BTreeMap::new();
    for (name, level) in asked {
        let scope = Scope::ALL.into_iter().find(|scope| scope.name() == name);
        let scope = scope.ok_or_else(refused)?;
        let level = if level == "write" {
            Level::Write
        } else {
            Level::Read
        };
        if app.permissions.get(&scope).is_none_or(|has| *has < level) {
            return Err(refused());
        }
        granted.insert(scope, level);
    }
    Ok(granted)
}

pub(super) fn revoke(site: &mut Site, call: &Call) -> Result {
    let token = call.token.as_ref();
    if token.is_none_or(|token| token.kind != TokenKind::Installation) {
        return Err(Problem::forbidden("Resource not accessible by integration"));
    }
    let secret = site.tokens.remove(&call.secret).map(|_| &call.secret);
    for minted in &mut site.minted {
        minted.revoked |= Some(&minted.secret) == secret;
    }
    Ok(Reply::Empty(StatusCode::NO_CONTENT))
}

//! `token`, `whoami`, `status`.

use jiff::Timestamp;
use mainloop_proto::v1::{
    CreateTokenRequest, GetCallerRequest, GetStatusRequest, GetStatusResponse, ListTokensRequest,
    RevokeTokenRequest, Token,
};

use super::connect;
use crate::{
    args::{self, Global},
    exit::{Call, Exit},
    format,
    output::{Output, style::Style, table::Table},
    words,
};

pub(super) async fn token(
    command: args::Token,
    global: &Global,
    output: &Output,
) -> anyhow::Result<Exit> {
    let mut client = connect(global).await?.access;
    match command {
        args::Token::Create { name, scope, ttl } => {
            let request = CreateTokenRequest {
                name: name.clone(),
                scopes: scope.into_iter().map(Into::into).collect(),
                ttl: ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            };
            let response = client
                .create_token(request)
                .await
                .map_err(Call::failed(format!("make the token `{name}`")))?
                .into_inner();
            output.message(&response, |response| {
                output.line(&response.secret)?;
                let token = response.token.clone().unwrap_or_default();
                let until = match &token.expire_time {
                    Some(_) => format::time(token.expire_time.as_ref(), Timestamp::now()),
                    None => "it is revoked".to_owned(),
                };
                output.note(format!(
                    "token {} `{}` may {} until {until}; this is the only time its secret is shown",
                    token.id,
                    token.name,
                    words::scopes(token.scopes())
                ));
                Ok(())
            })?;
        }
        args::Token::List { all } => {
            let response = client
                .list_tokens(ListTokensRequest {
                    include_revoked: all,
                })
                .await
                .map_err(Call::failed("list tokens"))?
                .into_inner();
            list(&response.tokens, output)?;
        }
        args::Token::Revoke { token } => {
            let response = client
                .revoke_token(RevokeTokenRequest {
                    token_id: token.clone(),
                })
                .await
                .map_err(Call::failed(format!("revoke the token `{token}`")))?
                .into_inner();
            output.message(&response, |response| {
                let token = response.token.clone().unwrap_or_default();
                output.line(format!("token {} `{}` is revoked", token.id, token.name))
            })?;
        }
    }
    Ok(Exit::Done)
}

fn list(tokens: &[Token], output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        for token in tokens {
            output.message(token, |_| Ok(()))?;
        }
        return Ok(());
    }
    if tokens.is_empty() {
        output.note("no tokens");
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = Table::new(["ID", "NAME", "SCOPES", "MADE", "USED", "ENDS"]);
    for token in tokens {
        let (style, ends) = match (&token.revoke_time, &token.expire_time) {
            (Some(_), _) => (Style::Red, "revoked".to_owned()),
            (None, Some(end)) => (Style::Plain, format::time(Some(end), now)),
            (None, None) => (Style::Plain, "never".to_owned()),
        };
        table.row([
            (Style::Bold, token.id.clone()),
            (Style::Plain, token.name.clone()),
            (Style::Plain, words::scopes(token.scopes())),
            (Style::Plain, format::time(token.create_time.as_ref(), now)),
            (
                Style::Plain,
                format::time(token.last_use_time.as_ref(), now),
            ),
            (style, ends),
        ]);
    }
    for line in table.render(output.palette(), output.columns()) {
        output.line(line)?;
    }
    Ok(())
}

pub(super) async fn whoami(global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let response = connect(global)
        .await?
        .access
        .get_caller(GetCallerRequest {})
        .await
        .map_err(Call::failed("find out who you are"))?
        .into_inner();
    output.message(&response, |caller| {
        let how = if caller.local {
            "on the local socket"
        } else {
            "by token"
        };
        let scopes = words::scopes(caller.scopes());
        output.line(format!(
            "{} ({how}), may {}",
            output.paint(Style::Bold, &caller.name),
            if scopes.is_empty() {
                "do nothing"
            } else {
                &scopes
            }
        ))
    })?;
    Ok(Exit::Done)
}

pub(super) async fn status(global: &Global, output: &Output) -> anyhow::Result<Exit> {
    let target = global.target()?;
    let response = connect(global)
        .await?
        .access
        .get_status(GetStatusRequest {})
        .await
        .map_err(Call::failed("read the plane's status"))?
        .into_inner();
    output.message(&response, |status| {
        for (name, value) in facts(status, &target.address.to_string(), Timestamp::now()) {
            output.line(format!(
                "{}{value}",
                output.paint(Style::Dim, &format!("{name:<12}"))
            ))?;
        }
        for problem in &status.problems {
            output.line(format!(
                "{}{problem}",
                output.paint(Style::Red, "problem     ")
            ))?;
        }
        Ok(())
    })?;
    Ok(if response.problems.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn facts(status: &GetStatusResponse, address: &str, now: Timestamp) -> Vec<(&'static str, String)> {
    let or = |text: &str, otherwise: &str| {
        if text.is_empty() {
            otherwise.to_owned()
        } else {
            text.to_owned()
        }
    };
    vec![
        (
            "plane",
            format!(
                "{} at {address}, up for {}",
                status.version,
                format::since(status.start_time.as_ref(), now)
            ),
        ),
        ("database", status.database.clone()),
        (
            "code host",
            format!(
                "{} as {}",
                status.code_host,
                or(&status.code_host_login, "nobody yet")
            ),
        ),
        (
            "model",
            format!(
                "{} (credential: {})",
                or(&status.models.join(", "), "none listed"),
                or(&status.model_credential.replace('_', " "), "none")
            ),
        ),
        (
            "budget",
            format!(
                "{} a task, when nothing else is said",
                format::money(status.default_budget_micros)
            ),
        ),
        ("workers", status.launcher.clone()),
        (
            "slots",
            format!(
                "{} of {} in use, {} queued",
                status.slots_used, status.slots_total, status.queued
            ),
        ),
        (
            "tasks",
            format!(
                "{} active, {} waiting for you",
                status.active, status.open_items
            ),
        ),
    ]
}

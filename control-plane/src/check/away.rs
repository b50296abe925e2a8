//! What the code host and the model say about the credentials.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mainloop_github::{Access, App, Class};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::Check;
use crate::{
    config::{CodeHostCredential, Config, ModelCredential, ModelKind},
    errors,
};

/// From the first byte sent to the last byte read.
const ANSWER: Duration = Duration::from_secs(15);
/// Largest answer: both are a few KiB.
const BODY_MAX: usize = 1 << 20;
/// What a token for real work is made with.
const NEW_TOKEN: &str = "make a classic token with the scopes `repo` and `workflow` at \
                         https://github.com/settings/tokens/new?scopes=repo,workflow";
/// How a subscription's token is accepted by the API.
const OAUTH_BETA: &str = "oauth-2025-04-20";

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The token, and whether it can read checks.
pub(super) async fn github(config: &Config) -> Vec<Check> {
    let name = "GitHub token";
    let token = match &config.code_host.credential {
        Some(CodeHostCredential::Token(token)) => Some(token),
        Some(CodeHostCredential::App { id, key }) => {
            let workflows = config.policy.change_workflows;
            return app(&App::new(&config.code_host.api, id, key.clone()), workflows).await;
        }
        None => None,
    };
    let Some(token) = token else {
        let missing = config.missing();
        let missing = missing
            .iter()
            .find(|missing| missing.name == "GITHUB_TOKEN");
        let fix = missing.map_or(NEW_TOKEN, |missing| missing.source);
        return vec![Check::wrong(name, "GITHUB_TOKEN is not set", fix)];
    };
    let secret = token.expose_secret().trim();
    let headers = [("authorization", format!("Bearer {secret}"))];
    let answer = match get(&config.code_host.api, "/user", &headers).await {
        Ok(answer) => answer,
        Err(why) => {
            let fix = "see whether this machine reaches the code host, and whether --github-url and --github-api-url are right";
            return vec![Check::wrong(name, why, fix)];
        }
    };
    // An App's installation has no user; that it is told so means that it is known.
    let installation = secret.starts_with("ghs_") && answer.status == StatusCode::FORBIDDEN;
    if !answer.status.is_success() && !installation {
        let detail = format!(
            "{} answers {} to /user",
            config.code_host.api, answer.status
        );
        return vec![Check::wrong(name, detail, NEW_TOKEN)];
    }
    let login = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|user| user["login"].as_str().map(str::to_owned));
    let known = match login {
        Some(login) if answer.status.is_success() => Check::well(name, format!("is {login}'s")),
        _ if installation => Check::well(name, "is an App's installation's"),
        _ => {
            let detail = format!("{} answers without a login", config.code_host.api);
            Check::wrong(
                name,
                detail,
                "see whether --github-api-url names a GitHub API",
            )
        }
    };
    vec![known, rights(secret, &answer.headers)]
}

/// The App, and whether it asks for what the work needs.
async fn app(app: &App, workflows: bool) -> Vec<Check> {
    let name = "GitHub App";
    let about = match tokio::time::timeout(ANSWER, app.about()).await {
        Ok(Ok(about)) => about,
        Ok(Err(error)) => {
            let fix = match error.class() {
                Class::Unauthorized | Class::NotFound => {
                    "see whether GITHUB_APP_ID and the private key are of the same App, and whether this machine's clock is right"
                }
                _ => {
                    "see whether this machine reaches the code host, and whether --github-url and --github-api-url are right"
                }
            };
            return vec![Check::wrong(name, errors::chain(&error), fix)];
        }
        Err(_) => {
            let detail = format!("GitHub does not answer within {} s", ANSWER.as_secs());
            let fix = "see whether this machine reaches the code host";
            return vec![Check::wrong(name, detail, fix)];
        }
    };
    let known = if about.installations == Some(0) {
        let fix = "install it on the accounts whose repositories tasks may name: App settings, Install App";
        Check::wrong(
            name,
            format!("is {}; nobody has installed it", about.login()),
            fix,
        )
    } else {
        Check::well(name, format!("is {}", about.login()))
    };
    let name = "GitHub App's permissions";
    let lacking = about.lacks(Access::Work { workflows });
    let rights = if lacking.is_empty() {
        Check::well(name, "has all that the work needs")
    } else {
        let fix = "give them to it: App settings, Permissions & events; then accept them where it is installed";
        Check::wrong(name, format!("lacks {}", lacking.join(", ")), fix)
    };
    vec![known, rights]
}

/// What the token may do, as far as it shows without a repository.
fn rights(secret: &str, headers: &HeaderMap) -> Check {
    let name = "GitHub token's rights";
    if secret.starts_with("github_pat_") {
        return Check::wrong(
            name,
            "a fine-grained token cannot read check runs: in private repositories only GitHub Actions and commit statuses \
             would be seen, and other services' checks would be missed",
            format!("{NEW_TOKEN}, or use a GitHub App's token"),
        );
    }
    let Some(scopes) = headers
        .get("x-oauth-scopes")
        .and_then(|value| value.to_str().ok())
    else {
        return Check::well(name, "the code host does not say");
    };
    let scopes: Vec<&str> = scopes
        .split(',')
        .map(str::trim)
        .filter(|scope| !scope.is_empty())
        .collect();
    let shown = if scopes.is_empty() {
        "none".to_owned()
    } else {
        scopes.join(", ")
    };
    if !scopes.contains(&"repo") {
        let detail =
            format!("scopes: {shown}; without `repo` it cannot push or read checks everywhere");
        return Check::wrong(name, detail, NEW_TOKEN);
    }
    if scopes.contains(&"workflow") {
        Check::well(name, format!("scopes: {shown}"))
    } else {
        let note = "without `workflow`, pushes that change .github/workflows are refused";
        Check::well(name, format!("scopes: {shown}; {note}"))
    }
}

/// The model's credential.
pub(super) async fn model(config: &Config) -> Check {
    let name = "model credential";
    let Some(model) = &config.model else {
        let missing = config.missing();
        let missing = missing
            .iter()
            .find(|missing| missing.name != "GITHUB_TOKEN");
        let fix = missing.map_or("set ANTHROPIC_API_KEY", |missing| missing.source);
        return Check::wrong(name, "there is none", fix);
    };
    match get(&model.url, "/v1/models?limit=1", &credential(model)).await {
        Ok(answer) => judge(name, model, answer.status),
        Err(why) => {
            let fix = "see whether this machine reaches the model's API, and whether ANTHROPIC_BASE_URL is right";
            Check::wrong(name, why, fix)
        }
    }
}

fn judge(name: &'static str, model: &ModelCredential, status: StatusCode) -> Check {
    let kind = match model.kind {
        ModelKind::ApiKey => "API key",
        ModelKind::OauthToken => "subscription's token",
        ModelKind::Gateway => "gateway's token",
    };
    let at = model.url.as_str().trim_end_matches('/');
    match status {
        status if status.is_success() => Check::well(name, format!("{kind}, accepted by {at}")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let fix = match model.kind {
                ModelKind::ApiKey => "get a key at https://console.anthropic.com/settings/keys",
                ModelKind::OauthToken => "run `claude setup-token` for a new token",
                ModelKind::Gateway => "ask whoever runs the gateway for a token that is valid",
            };
            Check::wrong(name, format!("{kind}, refused by {at} ({status})"), fix)
        }
        // Gateways need not list models, and a busy service says nothing about the credential.
        status => Check::well(
            name,
            format!("{kind}; {at} answers ({status}), and does not say whether it is valid"),
        ),
    }
}

fn credential(model: &ModelCredential) -> Vec<(&'static str, String)> {
    let secret = |secret: &SecretString| secret.expose_secret().trim().to_owned();
    let mut headers = vec![("anthropic-version", "2023-06-01".to_owned())];
    match model.kind {
        ModelKind::ApiKey => headers.push(("x-api-key", secret(&model.secret))),
        ModelKind::OauthToken => {
            headers.push(("authorization", format!("Bearer {}", secret(&model.secret))));
            headers.push(("anthropic-beta", OAUTH_BETA.to_owned()));
        }
        ModelKind::Gateway => {
            headers.push(("authorization", format!("Bearer {}", secret(&model.secret))));
        }
    }
    headers
}

/// One request, whole or not at all; the error is a sentence for people and holds no credential.
async fn get(base: &Url, path: &str, headers: &[(&str, String)]) -> Result<Answer, String> {
    let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
    let asked = async {
        // Its own provider, so that no other has to be installed first.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(|error| format!("this machine's certificates cannot be read: {error}"))?
            .https_or_http()
            .enable_http1()
            .build();
        let mut request = Request::get(&url)
            .header(header::USER_AGENT, "mainloop")
            .header(header::ACCEPT, "application/json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|_| "the credential has characters that none has".to_owned())?;
        let answer = Client::builder(TokioExecutor::new())
            .build(tls)
            .request(request)
            .await
            .map_err(|error| format!("{url} does not answer: {}", errors::chain(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BODY_MAX)
            .collect()
            .await
            .map_err(|error| format!("{url} breaks off: {error}"))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    };
    tokio::time::timeout(ANSWER, asked)
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "{url} does not answer within {} s",
                ANSWER.as_secs()
            ))
        })
}

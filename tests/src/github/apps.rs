//! GitHub Apps: who they are, where they are installed, the requests that they sign, and the tokens that they get.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use super::access::{Level, Role, Scope, Token};
use super::problem::Problem;
use super::site::Site;

/// The longest that a signed request may be valid, in seconds.
const VALID: i64 = 600;

/// An App.
#[derive(Clone, Debug)]
pub struct App {
    pub id: u64,
    pub slug: String,
    pub owner: String,
    /// What it asks for where it is installed, and has there.
    pub permissions: BTreeMap<Scope, Level>,
    /// How long its tokens live: an hour at GitHub.
    pub lifetime: Duration,
    pub created_at: Timestamp,
    public_key: Vec<u8>,
}

/// An App on an account, for the repositories that were chosen.
#[derive(Clone, Debug)]
pub struct Installation {
    pub id: u64,
    pub app: u64,
    pub account: String,
    /// As `owner/name`.
    pub repos: BTreeSet<String>,
    pub created_at: Timestamp,
}

/// A token that an App was given.
#[derive(Clone, Debug)]
pub struct Minted {
    pub secret: String,
    pub installation: u64,
    pub repos: Vec<String>,
    pub permissions: BTreeMap<Scope, Level>,
    pub expires_at: Timestamp,
    pub revoked: bool,
}

/// What its maker keeps of a new App.
#[derive(Clone, Debug)]
pub struct AppKey {
    pub id: u64,
    /// Private key, PEM.
    pub pem: String,
}

impl App {
    /// The user that its tokens act as.
    pub fn bot(&self) -> String {
        format!("{}[bot]", self.slug)
    }
}

/// What mainloop's documentation tells people to give it, and leave to push workflow files.
fn permissions() -> BTreeMap<Scope, Level> {
    let level = |scope| match scope {
        Scope::Contents | Scope::Issues | Scope::PullRequests | Scope::Workflows => Level::Write,
        Scope::Metadata | Scope::Checks | Scope::Statuses | Scope::Actions => Level::Read,
    };
    Scope::ALL.map(|scope| (scope, level(scope))).into()
}

pub(super) fn create(
    site: &mut Site,
    slug: &str,
    owner: &str,
    lifetime: Duration,
) -> anyhow::Result<AppKey> {
    let pair = KeyPair::generate(KeySize::Rsa2048)?;
    let der: Pkcs8V1Der<'_> = pair.as_der()?;
    let id = site.id();
    let app = App {
        id,
        slug: slug.to_owned(),
        owner: owner.to_owned(),
        permissions: permissions(),
        lifetime,
        created_at: super::site::now(),
        public_key: pair.public_key().as_ref().to_vec(),
    };
    site.add_user(owner);
    site.add_user(&app.bot());
    site.apps.insert(id, app);
    let text = STANDARD.encode(der.as_ref());
    Ok(AppKey {
        id,
        pem: format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"),
    })
}

/// Installs an App on a repository, beside those that it has of the same account.
pub(super) fn install(site: &mut Site, app: u64, repo: &str) -> Result<(), Problem> {
    let bot = site.apps.get(&app).ok_or_else(Problem::not_found)?.bot();
    let repo = site.repo_mut(repo)?;
    // The site asks what a login may do; where an App is installed its bot may write, as far as its tokens go.
    repo.collaborators.insert(bot, Role::Write);
    let (account, full) = (repo.owner.clone(), repo.full_name());
    let id = site.id();
    let known = site
        .installations
        .values_mut()
        .find(|known| known.app == app && known.account == account);
    if let Some(known) = known {
        known.repos.insert(full);
        return Ok(());
    }
    let installation = Installation {
        id,
        app,
        account,
        repos: BTreeSet::from([full]),
        created_at: super::site::now(),
    };
    site.installations.insert(id, installation);
    Ok(())
}

/// The App that signed `token`: its signature, its times and its issuer are checked.
pub(super) fn signed(site: &Site, token: &str, now: Timestamp) -> Result<Token, Problem> {
    let undecodable = || unauthorized("A JSON web token could not be decoded");
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| undecodable());
    let (signed, signature) = token.rsplit_once('.').ok_or_else(undecodable)?;
    let (header, claims) = signed.split_once('.').ok_or_else(undecodable)?;
    let json = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(|_| undecodable());
    let (header, claims): (Value, Value) = (json(part(header)?)?, json(part(claims)?)?);
    if header["alg"] != "RS256" {
        return Err(undecodable());
    }
    let id = match &claims["iss"] {
        Value::String(id) => id.parse().ok(),
        id => id.as_u64(),
    };
    let app = id.and_then(|id: u64| site.apps.get(&id));
    let app = app.ok_or_else(|| unauthorized("Integration not found"))?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &app.public_key)
        .verify(signed.as_bytes(), &part(signature)?)
        .map_err(|_| undecodable())?;
    let now = now.as_second();
    let time = |claim: &str| claims[claim].as_i64();
    if time("iat").is_none_or(|issued| issued > now) {
        return Err(unauthorized(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        ));
    }
    match time("exp") {
        Some(expires) if expires > now + VALID => Err(unauthorized(
            "'Expiration time' claim ('exp') is too far in the future",
        )),
        Some(expires) if expires > now => Ok(Token::app(app.id, &app.bot())),
        _ => Err(unauthorized(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        )),
    }
}

pub(super) fn unauthorized(message: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, message)
}

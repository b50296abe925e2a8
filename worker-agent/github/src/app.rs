//! A GitHub App: who it is, and tokens that reach one repository each.
//!
//! An App signs short-lived requests with its private key and gets installation tokens for them, which live for an
//! hour. Each is asked for with one repository and the permissions that its use needs, never with all that the
//! installation has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backon::Retryable;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::client::{Options, Repo};
use crate::error::{Error, Result};
use crate::transport::{Transport, backoff};

/// A clock that is ahead of GitHub's by as much is still taken.
const BACKDATED: i64 = 60;
/// GitHub takes nothing that is valid for more than ten minutes by its own clock.
const VALID: i64 = 8 * 60;
/// What GitHub says of its tokens, where an answer's times cannot be compared.
const HOUR: Duration = Duration::from_hours(1);

/// An App's private key.
#[derive(Clone)]
pub struct AppKey(Arc<EncodingKey>);

impl std::fmt::Debug for AppKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppKey")
    }
}

impl AppKey {
    /// Reads the PEM text that GitHub gave. In environment variables its line breaks are often written `\n`.
    pub fn from_pem(text: &SecretString) -> Result<Self> {
        let wrong =
            |_| Error::Config("the App's private key is not PEM text of an RSA key".to_owned());
        let text = text.expose_secret().replace("\\n", "\n");
        let key = Self(Arc::new(
            EncodingKey::from_rsa_pem(text.as_bytes()).map_err(wrong)?,
        ));
        // Some faults of a key show only when it signs.
        key.sign("", Timestamp::UNIX_EPOCH)?;
        Ok(key)
    }

    /// A JSON web token of the App, as of `now`.
    fn sign(&self, id: &str, now: Timestamp) -> Result<SecretString> {
        let now = now.as_second();
        let claims = json!({ "iat": now - BACKDATED, "exp": now + VALID, "iss": id });
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.0)
            .map(SecretString::from)
            .map_err(|_| Error::Config("the App's private key does not sign".to_owned()))
    }
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The work on a task. The pushes may change workflow files or not.
    Work {
        /// They may.
        workflows: bool,
    },
    /// Looking at pull requests.
    Watch,
}

/// What the work needs, beside leave to change workflow files.
const WORK: &[(&str, &str)] = &[
    ("contents", "write"),
    ("issues", "write"),
    ("pull_requests", "write"),
    ("checks", "read"),
    ("statuses", "read"),
    ("actions", "read"),
    ("metadata", "read"),
];
const WATCH: &[(&str, &str)] = &[
    ("pull_requests", "read"),
    ("checks", "read"),
    ("statuses", "read"),
    ("actions", "read"),
    ("metadata", "read"),
];

impl Access {
    /// The permissions that it takes, by GitHub's names.
    pub fn permissions(self) -> BTreeMap<&'static str, &'static str> {
        let (list, workflows) = match self {
            Self::Work { workflows } => (WORK, workflows),
            Self::Watch => (WATCH, false),
        };
        let more = workflows.then_some(("workflows", "write"));
        list.iter().copied().chain(more).collect()
    }
}

/// A token for one repository.
#[derive(Debug, Clone)]
pub struct InstallationToken {
    /// The token.
    pub secret: SecretString,
    /// How long it lived, by GitHub's clock, when GitHub gave it out.
    pub lifetime: Duration,
}

/// What GitHub knows of the App.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its name in addresses.
    pub slug: String,
    /// What it asks for where it is installed, by GitHub's names: `read` or `write`.
    pub permissions: BTreeMap<String, String>,
    /// How many accounts have installed it, where GitHub says so.
    pub installations: Option<u64>,
}

impl About {
    /// Whom the App's tokens speak as.
    pub fn login(&self) -> String {
        format!("{}[bot]", self.slug)
    }

    /// Permissions that `access` takes and the App does not ask for, as `name: level`.
    pub fn lacks(&self, access: Access) -> Vec<String> {
        let has = |name: &str, level: &str| match self.permissions.get(name).map(String::as_str) {
            Some("write" | "admin") => true,
            Some(known) => known == level,
            None => false,
        };
        access
            .permissions()
            .into_iter()
            .filter(|(name, level)| !has(name, level))
            .map(|(name, level)| format!("{name}: {level}"))
            .collect()
    }
}

/// An App at one API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    api: Url,
    id: String,
    key: AppKey,
}

impl App {
    /// `id` is the App's id or its client id; `api` as for [`crate::Client::new`].
    pub fn new(api: &Url, id: &str, key: AppKey) -> Self {
        Self {
            api: api.clone(),
            id: id.to_owned(),
            key,
        }
    }

    /// Asks GitHub who this is.
    pub async fn about(&self) -> Result<About> {
        let raw: RawApp = self.signed()?.get("ask who the App is", "/app").await?;
        Ok(About {
            slug: raw.slug,
            permissions: raw.permissions,
            installations: raw.installations_count,
        })
    }

    /// A token for this repository alone.
    pub async fn token(&self, repo: &Repo, access: Access) -> Result<InstallationToken> {
        let transport = self.signed()?;
        let operation = format!("find the App's installation on {repo}");
        let path = format!("/repos/{}/{}/installation", repo.owner, repo.name);
        let found: Option<Installation> = transport.get_optional(&operation, &path).await?;
        let Some(Installation { id }) = found else {
            return Err(Error::NotInstalled { repo: repo.clone() });
        };
        let operation = format!("get a token for {repo}");
        let path = format!("/app/installations/{id}/access_tokens");
        let body = json!({ "repositories": [repo.name], "permissions": access.permissions() });
        // One whose answer was lost is used by nobody and runs out, so it is asked for again.
        let reply = (|| transport.post(&operation, &path, &body))
            .retry(backoff())
            .when(Error::is_unavailable)
            .await?;
        let raw: RawToken = reply.json(&operation)?;
        Ok(InstallationToken {
            secret: raw.token.into(),
            lifetime: lifetime(reply.header("date"), raw.expires_at),
        })
    }

    /// Ends a token's life.
    pub async fn revoke(&self, token: &SecretString) -> Result<()> {
        let transport = Transport::new(&self.api, token, Options::default())?;
        (|| transport.delete("revoke a token", "/installation/token"))
            .retry(backoff())
            .when(Error::is_unavailable)
            .await
    }

    fn signed(&self) -> Result<Transport> {
        let signed = self.key.sign(&self.id, Timestamp::now())?;
        Transport::new(&self.api, &signed, Options::default())
    }
}

/// Both times are GitHub's, so that our own clock may be wrong.
fn lifetime(answered: Option<&str>, expires_at: Timestamp) -> Duration {
    let answered = answered.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
    answered.map_or(HOUR, |answered| {
        let left = expires_at.duration_since(answered.timestamp());
        // It may be over already.
        Duration::try_from(left).unwrap_or_default()
    })
}

#[derive(Deserialize)]
struct RawApp {
    slug: String,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    installations_count: Option<u64>,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

#[derive(Deserialize)]
struct RawToken {
    token: String,
    expires_at: Timestamp,
}

/// What GitHub may answer, for the crate in `/fuzz`.
#[cfg(feature = "fuzzing")]
pub(crate) fn answer(body: &[u8]) {
    let _ = serde_json::from_slice::<RawApp>(body);
    let _ = serde_json::from_slice::<Installation>(body);
    if let Ok(token) = serde_json::from_slice::<RawToken>(body) {
        // A header is as foreign as the body.
        let _ = lifetime(Some(&token.token), token.expires_at);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey,
    };
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};

    use super::*;

    fn pem(label: &str, der: &[u8]) -> SecretString {
        let text = STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").into()
    }

    fn pair() -> (RsaKeyPair, Vec<u8>) {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let der = der.as_ref().to_vec();
        (pair, der)
    }

    #[test]
    fn keys_are_read_in_both_forms_and_with_written_line_breaks() {
        let (pair, pkcs8) = pair();
        // What a PKCS#8 key of this size wraps begins at this byte.
        let (pkcs1, now) = (&pkcs8[26..], Timestamp::now());
        let written = pem("RSA PRIVATE KEY", pkcs1)
            .expose_secret()
            .replace('\n', "\\n");
        for text in [
            pem("PRIVATE KEY", &pkcs8),
            pem("RSA PRIVATE KEY", pkcs1),
            written.into(),
        ] {
            let token = AppKey::from_pem(&text).unwrap().sign("7", now).unwrap();
            let (signed, signature) = token.expose_secret().rsplit_once('.').unwrap();
            let signature = BASE64.decode(signature).unwrap();
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref())
                .verify(signed.as_bytes(), &signature)
                .unwrap();
            let claims = BASE64.decode(signed.split_once('.').unwrap().1).unwrap();
            let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
            let now = now.as_second();
            assert_eq!(
                claims,
                json!({ "iat": now - 60, "exp": now + 480, "iss": "7" })
            );
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in [
            "",
            "marker",
            "-----BEGIN PRIVATE KEY-----\nbWFya2Vy\n-----END PRIVATE KEY-----\n",
        ] {
            let error = AppKey::from_pem(&text.into()).unwrap_err().to_string();
            assert!(error.contains("the App's private key"), "{error}");
            assert!(!error.contains("marker"), "{error}");
        }
        let (_, der) = pair();
        let key = AppKey::from_pem(&pem("PRIVATE KEY", &der)).unwrap();
        assert_eq!(format!("{key:?}"), "AppKey");
    }

    #[test]
    fn a_token_has_no_more_than_its_use_needs() {
        let work = Access::Work { workflows: false }.permissions();
        assert_eq!(work.len(), 7);
        assert!(!work.contains_key("workflows") && !work.contains_key("administration"));
        assert_eq!(
            Access::Work { workflows: true }
                .permissions()
                .get("workflows"),
            Some(&"write")
        );
        assert!(
            Access::Watch
                .permissions()
                .values()
                .all(|level| *level == "read")
        );
    }

    #[test]
    fn what_the_app_lacks_is_named() {
        let mut about = About {
            slug: "mainloop".to_owned(),
            permissions: WORK
                .iter()
                .map(|(name, level)| ((*name).to_owned(), (*level).to_owned()))
                .collect(),
            installations: None,
        };
        assert_eq!(about.login(), "mainloop[bot]");
        assert_eq!(
            about.lacks(Access::Work { workflows: false }),
            Vec::<String>::new()
        );
        about.permissions.insert("contents".into(), "read".into());
        about.permissions.insert("checks".into(), "write".into());
        about.permissions.remove("issues");
        assert_eq!(
            about.lacks(Access::Work { workflows: true }),
            ["contents: write", "issues: write", "workflows: write"]
        );
    }
}

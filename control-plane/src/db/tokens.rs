//! Clients' tokens: only their hashes are stored.

use jiff::Timestamp;
use tokio_postgres::{Row, error::SqlState};

use super::{Error, Store, execute, query, query_opt};
use crate::ids;

/// What a client's secret begins with.
pub const PREFIX: &str = "mlt_";
/// What an attempt's secret begins with.
pub const ATTEMPT_PREFIX: &str = "mla_";

macro_rules! columns {
    () => {
        "id, name, scopes, created_at, expires_at, revoked_at, used_at"
    };
}

const INSERT: &str = concat!(
    "INSERT INTO token (id, name, hash, scopes, expires_at) \
     VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5)) RETURNING ",
    columns!()
);

const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM token WHERE $1 OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())) \
     ORDER BY created_at DESC, id"
);

const REVOKE: &str = concat!(
    "UPDATE token SET revoked_at = coalesce(revoked_at, clock_timestamp()) \
     WHERE id = $1 OR (name = $1 AND revoked_at IS NULL) RETURNING ",
    columns!()
);

const BY_HASH: &str = "\
SELECT id, name, scopes, coalesce(used_at < clock_timestamp() - interval '1 minute', true) AS stale FROM token \
WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())";

const HOLDS: &str = "\
SELECT 1 FROM token \
WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())";

const USED: &str =
    "UPDATE token SET used_at = date_trunc('minute', clock_timestamp()) WHERE id = $1";

/// All statements of this file.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("tokens::INSERT", INSERT),
    ("tokens::LIST", LIST),
    ("tokens::REVOKE", REVOKE),
    ("tokens::BY_HASH", BY_HASH),
    ("tokens::HOLDS", HOLDS),
    ("tokens::USED", USED),
];

/// A token without its secret.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the columns are described in the contract")]
pub struct TokenRow {
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub used_at: Option<Timestamp>,
}

impl From<&Row> for TokenRow {
    fn from(row: &Row) -> Self {
        Self {
            id: row.get("id"),
            name: row.get("name"),
            scopes: row.get("scopes"),
            created_at: row.get("created_at"),
            expires_at: row.get("expires_at"),
            revoked_at: row.get("revoked_at"),
            used_at: row.get("used_at"),
        }
    }
}

/// Whose secret it is.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The token's id.
    pub id: String,
    /// The token's name.
    pub name: String,
    /// What it may do, by the words of the column.
    pub scopes: Vec<String>,
}

impl Store {
    /// Makes a token. None when its name is taken; else the token with its secret, which is not stored.
    pub async fn create_token(
        &self,
        name: &str,
        scopes: &[&str],
        ttl_seconds: Option<f64>,
    ) -> Result<Option<(TokenRow, String)>, Error> {
        let what = "make a token";
        let secret = ids::secret(PREFIX);
        let client = self.connection(what).await?;
        let made = query_opt(
            &client,
            what,
            INSERT,
            &[
                &ids::short(),
                &name,
                &ids::hash(&secret),
                &scopes,
                &ttl_seconds,
            ],
        )
        .await;
        match made {
            Ok(row) => Ok(row.map(|row| (TokenRow::from(&row), secret))),
            Err(Error::Postgres { source, .. })
                if source.code() == Some(&SqlState::UNIQUE_VIOLATION) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Tokens, newest first; revoked and expired ones as well when asked for.
    pub async fn list_tokens(&self, all: bool) -> Result<Vec<TokenRow>, Error> {
        let what = "list tokens";
        let client = self.connection(what).await?;
        Ok(query(&client, what, LIST, &[&all])
            .await?
            .iter()
            .map(TokenRow::from)
            .collect())
    }

    /// Ends a token by its id, or by the name of one that is valid. None when there is none.
    pub async fn revoke_token(&self, key: &str) -> Result<Option<TokenRow>, Error> {
        let what = "revoke a token";
        let client = self.connection(what).await?;
        Ok(query(&client, what, REVOKE, &[&key])
            .await?
            .first()
            .map(TokenRow::from))
    }

    /// Whose secret this is, if it is valid now. Notes its use, to the minute.
    pub async fn token_holder(&self, secret: &str) -> Result<Option<Holder>, Error> {
        let what = "check a token";
        let client = self.connection(what).await?;
        let Some(row) = query_opt(&client, what, BY_HASH, &[&ids::hash(secret)]).await? else {
            return Ok(None);
        };
        let id: String = row.get("id");
        if row.get("stale") {
            execute(&client, what, USED, &[&id]).await?;
        }
        Ok(Some(Holder {
            id,
            name: row.get("name"),
            scopes: row.get("scopes"),
        }))
    }

    /// Whether a token is still valid.
    pub async fn token_holds(&self, id: &str) -> Result<bool, Error> {
        let what = "check a stream's token";
        let client = self.connection(what).await?;
        Ok(query_opt(&client, what, HOLDS, &[&id]).await?.is_some())
    }
}

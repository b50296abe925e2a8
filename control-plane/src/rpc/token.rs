//! Page tokens: opaque to clients, a position to us.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;

use super::Error;

/// A token for the page after the row with this time and key.
pub fn after(at: Timestamp, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{key}", at.as_microsecond()))
}

/// The position that a token stands for.
pub fn position(token: &str) -> Result<(Timestamp, String), Error> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| {
            let (micros, key) = text.split_once('/')?;
            let at = Timestamp::from_microsecond(micros.parse().ok()?).ok()?;
            // Neither is taken by Postgres.
            let fits = at >= Timestamp::UNIX_EPOCH && !key.contains('\0');
            fits.then(|| (at, key.to_owned()))
        })
        .ok_or_else(unknown)
}

/// What comes back for a token that does not read.
pub fn unknown() -> Error {
    Error::invalid("page_token", "is none that this plane gave")
}

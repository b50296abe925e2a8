//! See `crate::fuzzing`.

use super::GraphqlAnswer;
use crate::error::Error;

/// The first error of a GraphQL answer.
pub(crate) fn graphql(body: &[u8]) -> Option<Error> {
    let answer: GraphqlAnswer = serde_json::from_slice(body).ok()?;
    answer.errors.first().map(|error| error.to_error("ask"))
}

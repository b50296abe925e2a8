//! Short ids: what people type.

use aws_lc_rs::rand;

/// Letters and digits that are hard to mistake for one another.
const ALPHABET: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyz0";
/// 32^8 ids; uniqueness is the column's business.
const LENGTH: usize = 8;

/// A random short id.
pub fn short() -> String {
    let mut bytes = [0_u8; LENGTH];
    rand::fill(&mut bytes).expect("the system has randomness");
    bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect()
}

/// The short id of a task: the random tail of its UUIDv7, whose head is a timestamp and repeats.
pub fn tail(id: uuid::Uuid) -> String {
    let text = id.simple().to_string();
    text[text.len() - LENGTH..].to_owned()
}

/// A secret of 256 random bits, in lower-case hex, behind a prefix that says what it is.
pub fn secret(prefix: &str) -> String {
    use std::fmt::Write;

    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes).expect("the system has randomness");
    let mut text = prefix.to_owned();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes any text");
    }
    text
}

/// What is stored of a secret.
pub fn hash(secret: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes())
        .as_ref()
        .to_vec()
}

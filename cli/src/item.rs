//! An inbox item as people name it: `k3f9`, or `k3f9@2` for the revision that they saw.

use std::{fmt, str::FromStr};

use mainloop_proto::v1::InboxItem;

/// A reference to an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemRef {
    /// Short id.
    pub(crate) id: String,
    /// The revision that was seen; the newest when absent.
    pub(crate) revision: Option<i32>,
}

impl ItemRef {
    /// The reference to exactly what the item holds.
    pub(crate) fn of(item: &InboxItem) -> Self {
        Self {
            id: item.id.clone(),
            revision: Some(item.revision),
        }
    }
}

impl FromStr for ItemRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refusal = || format!("`{text}` is not an item such as `k3f9` or `k3f9@2`");
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => {
                let revision = revision.parse::<i32>().map_err(|_| refusal())?;
                (
                    id,
                    Some(revision)
                        .filter(|revision| *revision > 0)
                        .ok_or_else(refusal)?
                        .into(),
                )
            }
            None => (text, None),
        };
        if id.is_empty()
            || !id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(refusal());
        }
        Ok(Self {
            id: id.to_owned(),
            revision,
        })
    }
}

impl fmt::Display for ItemRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_people_type_them() {
        let read = |text: &str| text.parse::<ItemRef>().map(|item| (item.id, item.revision));
        assert_eq!(read("k3f9"), Ok(("k3f9".to_owned(), None)));
        assert_eq!(read("k3f9@2"), Ok(("k3f9".to_owned(), Some(2))));
        for text in [
            "", "@2", "k3f9@", "k3f9@0", "k3f9@-1", "k3f9@two", "k3 f9", "k@1@2",
        ] {
            assert!(read(text).is_err(), "{text} was taken");
        }
    }
}

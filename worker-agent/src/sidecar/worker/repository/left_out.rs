//! What of a repository is not there for its workers, by two files of the base commit. Pure.

/// What Claude and people are to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Files are kept by Git LFS.
    lfs: bool,
    submodules: usize,
}

impl LeftOut {
    /// From `.gitattributes` and `.gitmodules`.
    pub(super) fn of(attributes: &str, modules: &str) -> Self {
        let lfs = attributes
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .any(|line| line.split_whitespace().any(|word| word == "filter=lfs"));
        let submodules = modules
            .lines()
            .filter(|line| line.trim_start().starts_with("[submodule"))
            .count();
        Self { lfs, submodules }
    }

    /// For Claude. No word of it is the repository's.
    pub(super) fn for_claude(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.lfs {
            notes.push(
                "Files that `.gitattributes` gives to Git LFS are pointers here, without their content. Do not read, change or add \
                 such files; where the task needs one, report a blocker."
                    .to_owned(),
            );
        }
        if self.submodules > 0 {
            notes.push(format!(
                "Its submodules ({}) are empty folders here: no other repository can be reached. Do without them; where the task \
                 needs one, report a blocker.",
                self.submodules
            ));
        }
        notes
    }

    /// For people, in the task's events.
    pub(super) fn for_people(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.lfs {
            notes.push("Git LFS is not fetched: such files are pointers for the worker".to_owned());
        }
        if self.submodules > 0 {
            notes.push(format!(
                "submodules are not fetched: the worker has empty folders in place of {}",
                self.submodules
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lfs_and_submodules_are_found() {
        let modules =
            "[submodule \"a\"]\n\tpath = a\n\turl = ../a\n  [submodule \"b\"]\n\tpath = b\n";
        for (attributes, modules, lfs, submodules) in [
            ("", "", false, 0),
            ("*.png filter=lfs diff=lfs merge=lfs -text\n", "", true, 0),
            ("# *.png filter=lfs\n*.png filter=lfsx\n", "", false, 0),
            ("*.txt text\r\n*.bin filter=lfs\r\n", modules, true, 2),
        ] {
            let found = LeftOut::of(attributes, modules);
            assert_eq!((found.lfs, found.submodules), (lfs, submodules));
            let count = usize::from(lfs) + usize::from(submodules > 0);
            assert_eq!(found.for_claude().len(), count);
            assert_eq!(found.for_people().len(), count);
        }
    }
}

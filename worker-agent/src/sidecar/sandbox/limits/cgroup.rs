//! Control groups, by their file systems: where this process may make some, what they hold, what they count.
//!
//! Version 2 wants a group's processes in its leaves, so a worker's group lies beside the one that the plane is in, or
//! beside one of those above it. Version 1 knows no such rule, and there it lies below the plane's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Pid};

use super::{Limits, Strain};

/// What is bounded or shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    /// Bounded.
    Memory,
    /// Bounded.
    Pids,
    /// Not bounded: in a group of its own a worker counts as one, however many processes it has.
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    fn among(words: &str, separator: impl Fn(char) -> bool) -> Vec<Self> {
        let words: Vec<&str> = words.split(separator).collect();
        Self::ALL
            .into_iter()
            .filter(|controller| words.contains(&controller.word()))
            .collect()
    }
}

/// Which rules a hierarchy follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V1,
    V2,
}

/// A mounted hierarchy, and where in it this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    /// Of version 1; version 2 says it in each folder.
    controllers: Vec<Controller>,
    mount: PathBuf,
    own: PathBuf,
}

/// The hierarchies of this host.
#[derive(Debug)]
pub(super) struct Host(Vec<Hierarchy>);

/// A group that was made.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    pub(super) folder: PathBuf,
}

impl Host {
    /// As the kernel tells it.
    pub(super) fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self(hierarchies(
            &read("/proc/self/mountinfo"),
            &read("/proc/self/cgroup"),
        ))
    }

    /// Makes the groups, each named to `announce` before it is there. Returns them, and why none bounds memory.
    pub(super) fn make(
        &self,
        name: &str,
        limits: &Limits,
        announce: &dyn Fn(&[PathBuf]) -> io::Result<()>,
    ) -> (Vec<Group>, String) {
        let mut groups: Vec<Group> = Vec::new();
        let mut why_not = "this system has no control groups for it".to_owned();
        let is_v1 = self
            .0
            .iter()
            .any(|hierarchy| hierarchy.controllers.contains(&Controller::Memory));
        for hierarchy in &self.0 {
            // Where both are mounted, the second has what the first left over.
            if is_v1 && hierarchy.version == Version::V2 {
                continue;
            }
            let mut folders: Vec<PathBuf> =
                groups.iter().map(|group| group.folder.clone()).collect();
            for parent in hierarchy.parents() {
                let folder = parent.join(name);
                folders.push(folder.clone());
                let made = announce(&folders).and_then(|()| hierarchy.make(&parent, name, limits));
                folders.pop();
                match made {
                    Ok(group) => {
                        groups.push(group);
                        break;
                    }
                    Err(error) => why_not = hierarchy.refusal(&parent, &error),
                }
            }
        }
        // Those that could not be made are nobody's to remove.
        let folders: Vec<PathBuf> = groups.iter().map(|group| group.folder.clone()).collect();
        if let Err(error) = announce(&folders) {
            tracing::warn!(%error, "could not write down a worker's control groups");
        }
        (groups, why_not)
    }
}

impl Hierarchy {
    /// Where a group may lie, the best first.
    fn parents(&self) -> Vec<PathBuf> {
        match self.version {
            Version::V1 => vec![self.own.clone()],
            Version::V2 => {
                let above = self.own.ancestors();
                above
                    .take_while(|folder| folder.starts_with(&self.mount))
                    .map(Path::to_owned)
                    .collect()
            }
        }
    }

    fn make(&self, parent: &Path, name: &str, limits: &Limits) -> io::Result<Group> {
        let controllers = match self.version {
            Version::V1 => self.controllers.clone(),
            Version::V2 => open_up(parent)?,
        };
        let group = Group {
            version: self.version,
            controllers,
            folder: parent.join(name),
        };
        match fs::create_dir(&group.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        group.limit(limits).inspect_err(|_| {
            let _ = group.remove();
        })?;
        Ok(group)
    }

    /// Why there is no group, with what would help.
    fn refusal(&self, parent: &Path, error: &io::Error) -> String {
        let is_root = nix::unistd::geteuid().is_root();
        let what = format!(
            "no control group can be made in {}: {error}",
            parent.display()
        );
        match self.version {
            _ if is_root => what,
            Version::V1 => "this system lets root alone make control groups".to_owned(),
            Version::V2 if Path::new("/run/systemd/system").exists() => "start the plane by \
                 `systemd-run --user --scope mainloop up`, or as a service with Delegate=yes and \
                 DelegateSubgroup=plane"
                .to_owned(),
            Version::V2 => what,
        }
    }
}

/// Has a folder of version 2 share its controllers out to the groups in it. Those that it does.
fn open_up(parent: &Path) -> io::Result<Vec<Controller>> {
    let read = |file| -> io::Result<Vec<Controller>> {
        let text = fs::read_to_string(parent.join(file))?;
        Ok(Controller::among(&text, char::is_whitespace))
    };
    let offered = read("cgroup.controllers")?;
    let shared = parent.join("cgroup.subtree_control");
    for controller in &offered {
        if !read("cgroup.subtree_control")?.contains(controller) {
            // A folder that has processes of its own refuses; its parent may not.
            let _ = fs::write(&shared, format!("+{}", controller.word()));
        }
    }
    let shared = read("cgroup.subtree_control")?;
    if !shared.contains(&Controller::Memory) {
        return Err(io::Error::other("it does not share memory out"));
    }
    // Whoever moves a process has to be allowed to write here as well.
    nix::unistd::access(&parent.join("cgroup.procs"), AccessFlags::W_OK)?;
    Ok(shared)
}

impl Group {
    /// The file that a process enters by.
    pub(super) fn entrance(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    fn limit(&self, limits: &Limits) -> io::Result<()> {
        let memory = limits.memory().to_string();
        let nothing = "0".to_owned();
        for controller in &self.controllers {
            // What is swapped out would come on top.
            let (file, value, swap, swapped) = match (self.version, controller) {
                (Version::V1, Controller::Memory) => (
                    "memory.limit_in_bytes",
                    &memory,
                    "memory.memsw.limit_in_bytes",
                    &memory,
                ),
                (Version::V2, Controller::Memory) => {
                    ("memory.max", &memory, "memory.swap.max", &nothing)
                }
                (_, Controller::Pids) => {
                    fs::write(self.folder.join("pids.max"), limits.processes.to_string())?;
                    continue;
                }
                (_, Controller::Cpu) => continue,
            };
            fs::write(self.folder.join(file), value)?;
            let swap = self.folder.join(swap);
            if swap.exists() {
                fs::write(swap, swapped)?;
            }
        }
        Ok(())
    }

    /// Whether the process is in it.
    pub(super) fn holds(&self, pid: Pid) -> bool {
        self.processes().contains(&pid)
    }

    /// The processes in it, by their ids on the host.
    pub(super) fn processes(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.entrance()).unwrap_or_default();
        let ids = text.lines().filter_map(|line| line.parse().ok());
        ids.filter(|id| *id > 0).map(Pid::from_raw).collect()
    }

    /// Removes it, where it is empty. One that is gone is removed.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Adds what it has counted. `memory` is its bound.
    pub(super) fn add_strain(&self, strain: &mut Strain, memory: u64) {
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        for controller in &self.controllers {
            match (self.version, controller) {
                (Version::V1, Controller::Memory) => {
                    strain.killed += value(&read("memory.oom_control"), "oom_kill");
                    strain.at_own_limit |= reached(&read("memory.max_usage_in_bytes"), memory);
                }
                (Version::V2, Controller::Memory) => {
                    let events = read("memory.events");
                    strain.killed += value(&events, "oom_kill");
                    strain.at_own_limit |= value(&events, "oom") > 0;
                }
                (_, Controller::Pids) => strain.not_started += value(&read("pids.events"), "max"),
                (_, Controller::Cpu) => {}
            }
        }
    }
}

/// Whether a group of version 1 has ever been full; the last page that it was refused may have been a huge one.
fn reached(most: &str, memory: u64) -> bool {
    const HUGE_PAGE: u64 = 2 << 20;
    let most: u64 = most.trim().parse().unwrap_or(0);
    most.saturating_add(HUGE_PAGE) >= memory
}

/// The number behind a key, in a file of lines `key number`; 0 where it is not there.
pub(super) fn value(text: &str, key: &str) -> u64 {
    let value = |line: &str| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    };
    text.lines().find_map(value).unwrap_or(0)
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`. A hierarchy of which this process sees another part than the one
/// that it is in is left out.
fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((head, tail)) = line.split_once(" - ") else {
            continue;
        };
        let (head, tail): (Vec<&str>, Vec<&str>) =
            (head.split(' ').collect(), tail.split(' ').collect());
        let ([_, _, _, root, mount, ..], [kind, _, options]) = (&head[..], &tail[..]) else {
            continue;
        };
        let (version, controllers) = match *kind {
            "cgroup" => (Version::V1, Controller::among(options, |c| c == ',')),
            "cgroup2" => (Version::V2, Vec::new()),
            _ => continue,
        };
        let known = found.iter().any(|known| {
            known.version == version && (known.controllers == controllers || controllers.is_empty())
        });
        if known || (version == Version::V1 && controllers.is_empty()) {
            continue;
        }
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (named, path) = (fields.next()?, fields.next()?);
            let named = Controller::among(named, |c| c == ',');
            let is_v2 = line.starts_with("0::");
            (is_v2 == (version == Version::V2) && named == controllers).then_some(path)
        });
        let below = path.and_then(|path| Path::new(path).strip_prefix(root).ok());
        if let Some(below) = below {
            found.push(Hierarchy {
                version,
                controllers,
                mount: PathBuf::from(mount),
                own: PathBuf::from(mount).join(below),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hierarchies_are_found_where_this_process_is_in_them() {
        let v1 = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let own = "9:name=systemd:/\n8:pids:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/";
        let found = hierarchies(v1, own);
        let own: Vec<&Path> = found.iter().map(|hierarchy| &*hierarchy.own).collect();
        let wanted = ["cpu,cpuacct", "memory/a/b", "pids", "unified"];
        let wanted = wanted.map(|path| Path::new("/sys/fs/cgroup").join(path));
        assert_eq!(own, wanted);
        let version = |hierarchy: &Hierarchy| hierarchy.version;
        assert_eq!(
            found.iter().map(version).collect::<Vec<_>>(),
            [Version::V1, Version::V1, Version::V1, Version::V2]
        );

        // A container that is shown its own part of the tree.
        let part = "50 40 0:30 /docker/x /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw";
        let found = hierarchies(part, "0::/docker/x/inner");
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/inner"));
        // And one that is shown another.
        assert_eq!(hierarchies(part, "0::/elsewhere"), []);
        assert_eq!(hierarchies("no mounts", ""), []);
    }

    /// A folder of version 2, with files as the kernel makes them.
    fn folder(path: &Path, controllers: &str, shared: &str) {
        fs::create_dir_all(path).unwrap();
        for (file, text) in [
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", shared),
            ("cgroup.procs", ""),
        ] {
            fs::write(path.join(file), text).unwrap();
        }
    }

    /// A host of version 2 whose plane is in `service`.
    fn unified(mount: &Path) -> Host {
        Host(vec![Hierarchy {
            version: Version::V2,
            controllers: Vec::new(),
            mount: mount.to_owned(),
            own: mount.join("user.slice/app.slice/service"),
        }])
    }

    #[test]
    fn a_group_of_version_2_lies_beside_the_planes() {
        let mount = tempfile::tempdir().unwrap();
        let slice = mount.path().join("user.slice/app.slice");
        folder(&slice, "io memory pids", "memory pids\n");
        // The plane's own has nothing to share out, as systemd leaves it.
        folder(&slice.join("service"), "", "");
        let limits = Limits {
            memory_mib: Some(512),
            processes: 77,
            ..Limits::default()
        };
        let announced = std::cell::RefCell::new(Vec::new());
        let (groups, _) = unified(mount.path()).make("mainloop-x", &limits, &|folders| {
            announced.borrow_mut().push(folders.to_vec());
            Ok(())
        });
        let wanted = slice.join("mainloop-x");
        assert_eq!(groups.len(), 1, "{groups:?}");
        assert_eq!(groups[0].folder, wanted);
        assert_eq!(announced.take().last(), Some(&vec![wanted.clone()]));
        let read = |file| fs::read_to_string(wanted.join(file)).unwrap();
        assert_eq!(read("memory.max"), (512 << 20).to_string());
        assert_eq!(read("pids.max"), "77");
        assert!(groups[0].controllers.contains(&Controller::Memory));
    }

    #[test]
    fn without_a_folder_that_shares_memory_out_there_is_no_group_and_a_reason() {
        let mount = tempfile::tempdir().unwrap();
        folder(
            &mount.path().join("user.slice/app.slice/service"),
            "pids",
            "pids",
        );
        let (groups, why) =
            unified(mount.path()).make("mainloop-x", &Limits::default(), &|_| Ok(()));
        assert!(groups.is_empty(), "{groups:?}");
        assert!(!why.is_empty());
        let (groups, why) = Host(Vec::new()).make("x", &Limits::default(), &|_| Ok(()));
        assert!(
            groups.is_empty() && why.contains("no control groups"),
            "{why}"
        );
    }

    #[test]
    fn what_the_kernel_did_is_read_from_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let group = |version| Group {
            version,
            controllers: vec![Controller::Memory, Controller::Pids],
            folder: folder.path().to_owned(),
        };
        let seen = |version, memory| {
            let mut strain = Strain::default();
            group(version).add_strain(&mut strain, memory);
            strain
        };
        assert_eq!(seen(Version::V1, 1 << 30), Strain::default());
        for (file, text) in [
            (
                "memory.events",
                "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 0\n",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            ),
            ("memory.max_usage_in_bytes", "1073000000\n"),
            ("pids.events", "max 5\n"),
            ("cgroup.procs", "12\n0\n13\n"),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let strain = |killed, at_own_limit| Strain {
            killed,
            at_own_limit,
            not_started: 5,
        };
        assert_eq!(seen(Version::V2, 1 << 30), strain(3, true));
        assert_eq!(seen(Version::V1, 1 << 30), strain(4, true));
        // Killed where the machine's memory ran out, far below the group's bound.
        assert_eq!(seen(Version::V1, 2 << 30), strain(4, false));
        // One that is not seen from here counts as nobody.
        assert_eq!(group(Version::V1).processes(), [12, 13].map(Pid::from_raw));
    }
}

//! Where the plane listens, and where its data lives when nobody says.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use thiserror::Error;
use url::{Host, Url};

/// Name of the socket inside the data directory.
const SOCKET: &str = "mainloop.sock";
/// The data directory of a plane that root runs.
const ROOT_DATA_DIR: &str = "/var/lib/mainloop";

/// How to reach the plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// HTTP/2, in clear or with TLS.
    Http(Url),
}

/// Why a text is not an address.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum InvalidAddress {
    #[error("the path after `unix:` is empty")]
    NoPath,
    #[error("`{0}` is neither `unix:/path` nor `http(s)://host:port`")]
    Form(String),
}

impl Address {
    /// The socket in the data directory of this user.
    pub(crate) fn local() -> Self {
        Self::Unix(data_dir().join(SOCKET))
    }

    /// True where a secret would cross a network in clear.
    pub(crate) fn in_clear(&self) -> bool {
        let Self::Http(url) = self else { return false };
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        url.scheme() == "http" && !loopback
    }
}

impl std::str::FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(InvalidAddress::NoPath);
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                Ok(Self::Http(url))
            }
            _ => Err(InvalidAddress::Form(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

/// `MAINLOOP_DATA_DIR`, else the system's folder for root, else the user's.
pub(crate) fn data_dir() -> PathBuf {
    choose_data_dir(
        path_from("MAINLOOP_DATA_DIR").as_deref(),
        nix::unistd::geteuid().is_root(),
        path_from("XDG_DATA_HOME").as_deref(),
        path_from("HOME").as_deref(),
    )
}

fn path_from(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn choose_data_dir(
    named: Option<&Path>,
    root: bool,
    xdg: Option<&Path>,
    home: Option<&Path>,
) -> PathBuf {
    match (named, root, xdg) {
        (Some(named), _, _) => named.to_owned(),
        (None, true, _) => PathBuf::from(ROOT_DATA_DIR),
        (None, false, Some(xdg)) => xdg.join("mainloop"),
        (None, false, None) => home.unwrap_or(Path::new(".")).join(".local/share/mainloop"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("unix:/run/m.sock", "unix:/run/m.sock"),
            ("unix:///run/m.sock", "unix:/run/m.sock"),
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("https://plane.example", "https://plane.example"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for text in ["unix:", "plane:50051", "ftp://plane", "http:", ""] {
            assert!(text.parse::<Address>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn only_clear_text_beyond_loopback_is_in_clear() {
        let in_clear = |text: &str| text.parse::<Address>().unwrap().in_clear();
        assert!(in_clear("http://plane.example:50051"));
        assert!(in_clear("http://10.0.0.3:50051"));
        assert!(!in_clear("http://[::1]:50051"));
        assert!(!in_clear("http://localhost:50051"));
        assert!(!in_clear("https://plane.example"));
        assert!(!in_clear("unix:/run/m.sock"));
    }

    #[test]
    fn data_directory_follows_the_documented_order() {
        let choose = |named: Option<&str>, root, xdg: Option<&str>| {
            choose_data_dir(
                named.map(Path::new),
                root,
                xdg.map(Path::new),
                Some(Path::new("/home/ada")),
            )
        };
        assert_eq!(choose(Some("/d"), true, Some("/x")), Path::new("/d"));
        assert_eq!(choose(None, true, Some("/x")), Path::new(ROOT_DATA_DIR));
        assert_eq!(choose(None, false, Some("/x")), Path::new("/x/mainloop"));
        assert_eq!(
            choose(None, false, None),
            Path::new("/home/ada/.local/share/mainloop")
        );
    }
}

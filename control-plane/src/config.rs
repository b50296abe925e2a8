//! What the command line, the environment and the policy file say, checked once and as a whole.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mainloop_github::AppKey;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::Url;

use crate::{
    args::{LogFormat, Options},
    policy::{self, Policy},
};

/// Version of the Claude Code CLI that this plane was made with.
pub const CLAUDE_VERSION: &str = include_str!("../../scripts/claude-version").trim_ascii();

/// Everything that the plane is told from outside.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of everything that is kept.
    pub data_dir: PathBuf,
    /// Where the state lives.
    pub database: Database,
    /// Address for clients with tokens.
    pub listen: Option<Listen>,
    /// Where repositories are.
    pub code_host: CodeHost,
    /// How workers reach the model; none when no credential was given.
    pub model: Option<ModelCredential>,
    /// The Claude Code CLI.
    pub claude: PathBuf,
    /// The worker agent.
    pub agent: PathBuf,
    /// Whether workers run in the sandbox.
    pub sandbox: bool,
    /// Policy for tasks that are made from now on.
    pub policy: Policy,
    /// The file that it was read from; none when it is the default one.
    pub policy_file: Option<PathBuf>,
    /// Workers at the same time.
    pub slots: u32,
    /// How log lines look.
    pub log: LogFormat,
}

/// Where the state lives.
#[derive(Clone)]
pub enum Database {
    /// A private PostgreSQL in the data folder.
    Embedded(crate::postgres::Options),
    /// A server that others run.
    External(Box<tokio_postgres::Config>),
}

/// Address for clients with tokens.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where to listen.
    pub address: SocketAddr,
    /// Certificate chain and key, PEM; always there unless the address is a loopback one.
    pub tls: Option<Tls>,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: SecretString,
}

/// Where repositories are.
#[derive(Clone, Debug)]
pub struct CodeHost {
    /// Base for people and for git, without a slash at its end.
    pub url: Url,
    /// Base of the REST API.
    pub api: Url,
    /// How to get at both; none when no credential was given.
    pub credential: Option<CodeHostCredential>,
}

/// How to get at the code host.
#[derive(Clone, Debug)]
pub enum CodeHostCredential {
    /// One token for everything.
    Token(SecretString),
    /// A GitHub App, which has a token made for each use.
    App {
        /// Its id or client id.
        id: String,
        /// Its private key.
        key: AppKey,
    },
}

/// How workers reach the model.
#[derive(Clone, Debug)]
pub struct ModelCredential {
    /// What kind of secret it is.
    pub kind: ModelKind,
    /// Base of the Messages API.
    pub url: Url,
    /// The secret.
    pub secret: SecretString,
}

/// Kinds of model credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Sent as `x-api-key`.
    ApiKey,
    /// A subscription's token, sent as a bearer token.
    OauthToken,
    /// A gateway's token, sent as a bearer token.
    Gateway,
}

impl ModelKind {
    /// Its word in the contract.
    pub fn word(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::OauthToken => "oauth_token",
            Self::Gateway => "gateway",
        }
    }
}

/// A credential that is not there, with what it is for and where to get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Variable to set.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} is missing: {}. {}",
            self.name, self.purpose, self.source
        )
    }
}

/// Why the configuration is refused.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no folder to default to.
    #[error("no data folder: set MAINLOOP_DATA_DIR, or HOME")]
    NoDataDir,
    /// The path does not start at the root.
    #[error("the data folder {0} is not an absolute path")]
    RelativeDataDir(PathBuf),
    /// The database's URL does not read.
    #[error("DATABASE_URL is not a PostgreSQL URL")]
    DatabaseUrl(#[source] tokio_postgres::Error),
    /// A file that was named could not be read.
    #[error("could not read {what} from {path}")]
    Read {
        /// What it was to hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Tokens would cross the network in the open.
    #[error(
        "--listen {0} is not a loopback address: give --tls-cert and --tls-key as well, for tokens would cross the network in the open"
    )]
    OpenListen(SocketAddr),
    /// A base URL is not one.
    /// Does not say what was given: there may be a credential in it.
    #[error(
        "{0} is not a base URL: it needs http or https, a host, and neither a credential nor a query"
    )]
    BaseUrl(&'static str),
    /// Two credentials that exclude each other.
    #[error("{0} and {1} are both set: keep the one that workers are to use")]
    Ambiguous(&'static str, &'static str),
    /// A GitHub App is its id and its key.
    #[error("a GitHub App needs both: {given} is set, and {missing} is not")]
    HalfApp {
        /// What is there.
        given: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// The id would be no part of a request.
    #[error("GITHUB_APP_ID is neither an App's id nor its client id: both are letters and digits")]
    AppId,
    /// The App's key does not read.
    #[error("{0} holds no usable key")]
    AppKey(&'static str, #[source] Box<mainloop_github::Error>),
    /// The policy file is wrong.
    #[error(transparent)]
    Policy(#[from] policy::Error),
}

impl Config {
    /// Checks everything that was said.
    pub fn load(options: &Options) -> Result<Self, Error> {
        let data_dir = data_dir(options)?;
        let (policy, policy_file) = policy(options, &data_dir)?;
        Ok(Self {
            database: database(options, &data_dir)?,
            listen: listen(options)?,
            code_host: code_host(options)?,
            model: model(options)?,
            claude: options
                .claude
                .clone()
                .unwrap_or_else(|| default_claude(options)),
            agent: options.agent.clone().unwrap_or_else(default_agent),
            sandbox: !options.no_sandbox,
            slots: options.slots.unwrap_or(policy.slots.total),
            policy,
            policy_file,
            log: options.log,
            data_dir,
        })
    }

    /// Credentials that `serve` cannot do without.
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        if self.code_host.credential.is_none() {
            missing.push(Missing {
                name: "GITHUB_TOKEN",
                purpose: "workers read the repository, push branches and open issues and pull requests with it",
                source: "Make a classic token with the scopes `repo` and `workflow` at \
                         https://github.com/settings/tokens/new?scopes=repo,workflow, or name a file with \
                         --github-token-file; or give a GitHub App by GITHUB_APP_ID and \
                         GITHUB_APP_PRIVATE_KEY_FILE",
            });
        }
        if self.model.is_none() {
            missing.push(Missing {
                name: "ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN",
                purpose: "workers run Claude with it",
                source: "Get a key at https://console.anthropic.com/settings/keys, or run `claude setup-token` for a \
                         subscription's token; for a gateway set ANTHROPIC_BASE_URL and ANTHROPIC_AUTH_TOKEN",
            });
        }
        missing
    }

    /// The clients' socket.
    pub fn socket(&self) -> PathBuf {
        self.data_dir.join("mainloop.sock")
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(options) => formatter.debug_tuple("Embedded").field(options).finish(),
            // The configuration holds a password.
            Self::External(_) => formatter.debug_tuple("External").finish_non_exhaustive(),
        }
    }
}

fn data_dir(options: &Options) -> Result<PathBuf, Error> {
    let environment = &options.environment;
    let dir = match &options.data_dir {
        Some(dir) => dir.clone(),
        None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/lib/mainloop"),
        None => match (&environment.xdg_data_home, &environment.home) {
            (Some(data), _) if data.is_absolute() => data.join("mainloop"),
            (_, Some(home)) => home.join(".local/share/mainloop"),
            _ => return Err(Error::NoDataDir),
        },
    };
    if dir.is_absolute() {
        Ok(dir)
    } else {
        Err(Error::RelativeDataDir(dir))
    }
}

fn policy(options: &Options, data_dir: &Path) -> Result<(Policy, Option<PathBuf>), Error> {
    let default = data_dir.join("policy.toml");
    let file = options
        .policy
        .clone()
        .or_else(|| default.exists().then_some(default));
    let policy = match &file {
        Some(file) => Policy::read(file)?,
        None => Policy::default(),
    };
    Ok((policy, file))
}

fn database(options: &Options, data_dir: &Path) -> Result<Database, Error> {
    match &options.database_url {
        Some(url) => url
            .expose_secret()
            .parse()
            .map(|config| Database::External(Box::new(config)))
            .map_err(Error::DatabaseUrl),
        None => Ok(Database::Embedded(crate::postgres::Options {
            data_dir: data_dir.to_owned(),
            binaries: options.postgres_bin.clone(),
            search_path: options.environment.search_path.clone(),
        })),
    }
}

fn listen(options: &Options) -> Result<Option<Listen>, Error> {
    let Some(address) = options.listen else {
        return Ok(None);
    };
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls {
            certificate: read("the certificate", certificate)?,
            key: read("the private key", key)?.into(),
        }),
        _ if address.ip().is_loopback() => None,
        _ => return Err(Error::OpenListen(address)),
    };
    Ok(Some(Listen { address, tls }))
}

fn read(what: &'static str, path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

fn base_url(option: &'static str, text: &str) -> Result<Url, Error> {
    Url::parse(text)
        .ok()
        .filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.host_str().is_some()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        })
        .ok_or(Error::BaseUrl(option))
}

fn code_host(options: &Options) -> Result<CodeHost, Error> {
    let url = base_url("--github-url", &options.github_url)?;
    let api = match &options.github_api_url {
        Some(api) => base_url("--github-api-url", api)?,
        None if url.host_str() == Some("github.com") => {
            Url::parse("https://api.github.com").expect("it is a URL")
        }
        None => {
            let base = url.as_str().trim_end_matches('/');
            base_url("--github-url", &format!("{base}/api/v3"))?
        }
    };
    Ok(CodeHost {
        url,
        api,
        credential: code_host_credential(options)?,
    })
}

/// A secret that is set, and not to nothing.
fn set(secret: Option<&SecretString>) -> Option<SecretString> {
    secret
        .filter(|secret| !secret.expose_secret().trim().is_empty())
        .cloned()
}

fn code_host_credential(options: &Options) -> Result<Option<CodeHostCredential>, Error> {
    let environment = &options.environment;
    let token = match &options.github_token_file {
        Some(file) => {
            let text = read("the code host's token", file)?;
            set(Some(&text.trim().into()))
        }
        None => set(environment.github_token.as_ref()),
    };
    let app = app(options)?;
    match (token, app) {
        (Some(_), Some(_)) => Err(Error::Ambiguous("GITHUB_TOKEN", "GITHUB_APP_ID")),
        (Some(token), None) => Ok(Some(CodeHostCredential::Token(token))),
        (None, app) => Ok(app),
    }
}

fn app(options: &Options) -> Result<Option<CodeHostCredential>, Error> {
    const ID: &str = "GITHUB_APP_ID";
    const KEY: &str = "GITHUB_APP_PRIVATE_KEY";
    const KEY_FILE: &str = "GITHUB_APP_PRIVATE_KEY_FILE";
    let id = options.github_app_id.as_deref().map(str::trim);
    let file = options.github_app_private_key_file.as_deref();
    let file = file.filter(|file| !file.as_os_str().is_empty());
    let (from, key) = match (
        set(options.environment.github_app_private_key.as_ref()),
        file,
    ) {
        (Some(_), Some(_)) => return Err(Error::Ambiguous(KEY, KEY_FILE)),
        (Some(key), None) => (KEY, Some(key)),
        (None, Some(file)) => (KEY_FILE, Some(read("the App's private key", file)?.into())),
        (None, None) => (KEY_FILE, None),
    };
    let (id, key) = match (id.filter(|id| !id.is_empty()), key) {
        (None, None) => return Ok(None),
        (Some(id), Some(key)) => (id, key),
        (given, _) => {
            let (given, missing) = if given.is_some() {
                (ID, KEY_FILE)
            } else {
                (from, ID)
            };
            return Err(Error::HalfApp { given, missing });
        }
    };
    if !id
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
    {
        return Err(Error::AppId);
    }
    let key = AppKey::from_pem(&key).map_err(|error| Error::AppKey(from, error.into()))?;
    Ok(Some(CodeHostCredential::App {
        id: id.to_owned(),
        key,
    }))
}

fn model(options: &Options) -> Result<Option<ModelCredential>, Error> {
    let environment = &options.environment;
    let url = match environment
        .anthropic_base_url
        .as_deref()
        .filter(|url| !url.is_empty())
    {
        Some(text) => base_url("ANTHROPIC_BASE_URL", text)?,
        None => Url::parse("https://api.anthropic.com").expect("it is a URL"),
    };
    let found = [
        (
            ModelKind::Gateway,
            "ANTHROPIC_AUTH_TOKEN",
            set(environment.anthropic_auth_token.as_ref()),
        ),
        (
            ModelKind::ApiKey,
            "ANTHROPIC_API_KEY",
            set(environment.anthropic_api_key.as_ref()),
        ),
        (
            ModelKind::OauthToken,
            "CLAUDE_CODE_OAUTH_TOKEN",
            set(environment.claude_code_oauth_token.as_ref()),
        ),
    ];
    let mut there = found
        .into_iter()
        .filter_map(|(kind, name, secret)| Some((kind, name, secret?)));
    let Some((kind, name, secret)) = there.next() else {
        return Ok(None);
    };
    if let Some((_, other, _)) = there.next() {
        return Err(Error::Ambiguous(name, other));
    }
    Ok(Some(ModelCredential { kind, url, secret }))
}

/// Where `make claude` puts it, wherever the data folder is.
fn default_claude(options: &Options) -> PathBuf {
    let cache = match &options.environment.home {
        Some(home) if !nix::unistd::geteuid().is_root() => home.join(".cache/mainloop"),
        _ => PathBuf::from("/var/lib/mainloop"),
    };
    cache.join("claude").join(CLAUDE_VERSION).join("claude")
}

fn default_agent() -> PathBuf {
    const NAME: &str = "mainloop-worker-agent";
    std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().map(|folder| folder.join(NAME)))
        .unwrap_or_else(|| PathBuf::from(NAME))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::{
        args::{Args, Command},
        testing::app_key,
    };

    /// Options as the command line gives them, and nothing of the environment's secrets.
    fn options(arguments: &[&str]) -> Options {
        let all = ["plane", "serve", "--data-dir", "/nowhere"]
            .into_iter()
            .chain(arguments.iter().copied());
        let Command::Serve(mut options) = Args::try_parse_from(all).unwrap().command else {
            panic!("serve was asked for");
        };
        options.github_app_id = None;
        options.github_app_private_key_file = None;
        let environment = &mut options.environment;
        environment.github_token = None;
        environment.github_app_private_key = None;
        environment.anthropic_api_key = None;
        environment.anthropic_auth_token = None;
        environment.claude_code_oauth_token = None;
        environment.anthropic_base_url = None;
        options
    }

    fn error(options: &Options) -> String {
        Config::load(options).unwrap_err().to_string()
    }

    #[test]
    fn missing_credentials_are_named_with_their_source() {
        let config = Config::load(&options(&[])).unwrap();
        let missing: Vec<String> = config.missing().iter().map(ToString::to_string).collect();
        assert_eq!(missing.len(), 2);
        assert!(
            missing[0].starts_with("GITHUB_TOKEN is missing"),
            "{missing:?}"
        );
        assert!(
            missing[0].contains("https://github.com/settings/tokens"),
            "{missing:?}"
        );
        assert!(missing[1].contains("claude setup-token"), "{missing:?}");
    }

    #[test]
    fn claude_is_where_setup_puts_it_wherever_the_data_folder_is() {
        let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/setup");
        let said = std::process::Command::new(setup)
            .arg("claude-path")
            .env_remove("MAINLOOP_CLAUDE")
            .env("MAINLOOP_DATA_DIR", "/elsewhere")
            .output()
            .unwrap();
        let path = String::from_utf8(said.stdout).unwrap();
        let mut options = options(&[]);
        options.claude = None;
        let config = Config::load(&options).unwrap();
        assert_eq!(config.claude, Path::new(path.trim()));
    }

    #[test]
    fn credentials_that_are_there_are_not_missing_and_not_shown() {
        let mut options = options(&[]);
        options.environment.github_token = Some("ghp_marker".into());
        options.environment.anthropic_api_key = Some("sk-marker".into());
        let config = Config::load(&options).unwrap();
        assert_eq!(config.missing(), []);
        let shown = format!("{config:?} {options:?}");
        assert!(!shown.contains("marker"), "{shown}");
    }

    #[test]
    fn an_app_replaces_the_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), app_key().expose_secret()).unwrap();
        let mut options = options(&[]);
        options.github_app_id = Some("4711".to_owned());
        options.github_app_private_key_file = Some(file.path().to_owned());
        // A variable that is set to nothing is not set.
        options.environment.github_token = Some(String::new().into());
        let config = Config::load(&options).unwrap();
        assert!(
            matches!(&config.code_host.credential, Some(CodeHostCredential::App { id, .. }) if id == "4711"),
            "{config:?}"
        );
        assert!(
            !config
                .missing()
                .iter()
                .any(|missing| missing.name == "GITHUB_TOKEN")
        );

        options.environment.github_token = Some("ghp_marker".into());
        let said = error(&options);
        assert!(said.contains("GITHUB_TOKEN and GITHUB_APP_ID"), "{said}");
        options.environment.github_token = None;
        options.environment.github_app_private_key = Some(app_key());
        let said = error(&options);
        assert!(
            said.contains("GITHUB_APP_PRIVATE_KEY_FILE are both set"),
            "{said}"
        );
    }

    #[test]
    fn half_an_app_is_none() {
        let mut options = options(&[]);
        options.github_app_id = Some("4711".to_owned());
        let said = error(&options);
        assert!(
            said.contains("GITHUB_APP_PRIVATE_KEY_FILE is not"),
            "{said}"
        );
        options.github_app_id = None;
        options.environment.github_app_private_key = Some("marker".into());
        let said = error(&options);
        assert!(said.contains("GITHUB_APP_ID is not"), "{said}");
        options.github_app_id = Some("4711".to_owned());
        let refused = Config::load(&options).unwrap_err();
        let said = crate::errors::chain(&refused);
        assert!(
            said.contains("GITHUB_APP_PRIVATE_KEY holds no usable key"),
            "{said}"
        );
        assert!(!said.contains("marker"), "{said}");
        options.github_app_id = Some("my app".to_owned());
        assert!(error(&options).contains("neither an App's id"));
    }

    #[test]
    fn the_api_follows_the_code_host() {
        let api = |arguments: &[&str]| {
            Config::load(&options(arguments))
                .unwrap()
                .code_host
                .api
                .to_string()
        };
        assert_eq!(api(&[]), "https://api.github.com/");
        assert_eq!(
            api(&["--github-url", "https://git.example"]),
            "https://git.example/api/v3"
        );
        assert_eq!(
            api(&[
                "--github-url",
                "http://127.0.0.1:9",
                "--github-api-url",
                "http://127.0.0.1:9/x"
            ]),
            "http://127.0.0.1:9/x"
        );
    }

    #[test]
    fn an_open_address_needs_a_certificate() {
        assert!(Config::load(&options(&["--listen", "127.0.0.1:7000"])).is_ok());
        assert!(error(&options(&["--listen", "0.0.0.0:7000"])).contains("--tls-cert"));
    }

    #[test]
    fn two_model_credentials_are_one_too_many() {
        let mut options = options(&[]);
        options.environment.anthropic_api_key = Some("a".into());
        options.environment.claude_code_oauth_token = Some("b".into());
        let error = error(&options);
        assert!(
            error.contains("ANTHROPIC_API_KEY") && error.contains("CLAUDE_CODE_OAUTH_TOKEN"),
            "{error}"
        );
    }

    #[test]
    fn a_gateway_is_a_url_and_a_token() {
        let mut options = options(&[]);
        options.environment.anthropic_auth_token = Some("a".into());
        options.environment.anthropic_base_url = Some("https://gateway.example/x".into());
        let model = Config::load(&options).unwrap().model.unwrap();
        assert_eq!(model.kind, ModelKind::Gateway);
        assert_eq!(model.url.as_str(), "https://gateway.example/x");
        options.environment.anthropic_base_url = Some("gateway".into());
        assert!(error(&options).contains("ANTHROPIC_BASE_URL"));
    }

    #[test]
    fn urls_with_credentials_are_refused_without_being_shown() {
        for url in [
            "https://me:secret@github.com",
            "https://secret@github.com",
            "https://github.com/?key=secret",
            "https://me:secret@github.com:port",
            "me:secret",
        ] {
            for option in ["--github-url", "--github-api-url"] {
                let error = error(&options(&[option, url]));
                assert!(
                    error.contains(option) && !error.contains("secret"),
                    "{error}"
                );
            }
            let mut options = options(&[]);
            options.environment.anthropic_base_url = Some(url.to_owned());
            let error = error(&options);
            assert!(
                error.contains("ANTHROPIC_BASE_URL") && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_database_url_replaces_the_private_server_and_is_not_shown() {
        let config =
            Config::load(&options(&["--database-url", "postgres://u:marker@db/x"])).unwrap();
        assert!(matches!(config.database, Database::External(_)));
        assert!(!format!("{config:?}").contains("marker"));
        assert!(error(&options(&["--database-url", "mysql://x"])).contains("DATABASE_URL"));
    }
}

//! TLS on the address for clients with tokens, as the command line asks for it.

use std::{error::Error, path::Path};

use clap::Parser;
use mainloop_proto::v1::{
    GetCallerRequest, GetCallerResponse, access_service_client::AccessServiceClient,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::{
    access::{Sockets, with_token},
    *,
};
use crate::{
    args::{Args, Command},
    config::{Config, Listen},
};

/// An authority that nobody knows yet.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes a certificate for this machine and its key into a folder.
    fn certify(&self, folder: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    }
}

/// Where a plane with these options listens for clients with tokens.
fn listen(folder: &Path) -> Listen {
    let path = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        "plane",
        "serve",
        "--data-dir",
        &path("data"),
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        &path("cert.pem"),
        "--tls-key",
        &path("key.pem"),
    ];
    let Command::Serve(mut options) = Args::try_parse_from(arguments).unwrap().command else {
        panic!("serve was asked for");
    };
    options.policy = None;
    options.environment.anthropic_auth_token = None;
    options.environment.anthropic_api_key = None;
    options.environment.claude_code_oauth_token = None;
    options.environment.anthropic_base_url = None;
    Config::load(&options).unwrap().listen.unwrap()
}

/// Who the plane takes the caller for; `known` is the authority that the caller trusts, none for clear text.
async fn ask(
    plane: &Sockets,
    known: Option<&Authority>,
    secret: &str,
) -> Result<GetCallerResponse, Status> {
    let port = plane.address.port();
    let endpoint = match known {
        Some(authority) => {
            let authority = Certificate::from_pem(&authority.certificate);
            Endpoint::from_shared(format!("https://localhost:{port}"))
                .unwrap()
                .tls_config(ClientTlsConfig::new().ca_certificate(authority))
                .unwrap()
        }
        None => Endpoint::from_shared(format!("http://localhost:{port}")).unwrap(),
    };
    let request = if secret.is_empty() {
        Request::new(GetCallerRequest {})
    } else {
        with_token(GetCallerRequest {}, secret)
    };
    let mut client = AccessServiceClient::new(endpoint.connect_lazy());
    let answer = testing::soon("an answer", client.get_caller(request)).await;
    Ok(answer?.into_inner())
}

#[tokio::test]
async fn a_listener_with_a_certificate_speaks_tls_and_nothing_else() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = testing::folder();
    let (ours, other) = (Authority::new(), Authority::new());
    ours.certify(folder.path());
    let plane = Sockets::listening(listen(folder.path())).await;
    let secret = plane.token("remote", &["read"]).await;

    let caller = ask(&plane, Some(&ours), &secret).await.unwrap();
    assert_eq!((caller.name.as_str(), caller.local), ("remote", false));
    let nobody = ask(&plane, Some(&ours), "").await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    // Neither gets as far as the question who is asking: there is no answer of the plane's.
    for known in [None, Some(&other)] {
        let refused = ask(&plane, known, &secret).await.unwrap_err();
        let cause = refused.source().map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("transport error"), "{refused:?}");
    }
}

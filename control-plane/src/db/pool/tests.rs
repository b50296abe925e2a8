#![allow(clippy::unwrap_used)]
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::testing;

fn parsed(url: &str) -> Config {
    url.parse().unwrap()
}

/// Says that it has no TLS, as a server without a certificate does, or somebody in between; what was sent after that.
async fn answer_no_tls(mut stream: TcpStream) -> Vec<u8> {
    const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    let mut asked = [0; 8];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(asked, REQUEST, "TLS is asked for before anything is said");
    stream.write_all(b"N").await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn a_remote_server_without_tls_is_told_nothing() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // An address that is no loopback one, and reaches this machine all the same.
    let store = Store::new(parsed(&format!(
        "postgres://mainloop:secret@0.0.0.0:{port}/x"
    )));
    let serve = async || answer_no_tls(listener.accept().await.unwrap().0).await;

    let (refused, said) = tokio::join!(
        store.connection("look"),
        testing::soon("a connection", serve())
    );
    let shown = crate::errors::chain(&refused.unwrap_err());
    assert!(shown.contains("TLS"), "{shown}");
    assert!(said.is_empty(), "sent in clear text: {said:?}");

    let (refused, said) = tokio::join!(
        store.listen_connection(),
        testing::soon("a connection", serve())
    );
    assert!(refused.is_err());
    assert!(said.is_empty(), "sent in clear text: {said:?}");
}

#[test]
fn only_a_server_on_this_machine_or_one_whose_url_says_so_goes_without_tls() {
    for (url, plain) in [
        ("postgres:///x?host=/run/postgresql", true),
        ("postgres://localhost/x", true),
        ("postgres://127.0.0.2/x", true),
        ("postgres://[::1]/x", true),
        ("postgres://localhost/x?sslmode=require", false),
        ("postgres://db.example/x", false),
        ("postgres://db.example/x?sslmode=prefer", false),
        ("postgres://db.example/x?sslmode=disable", true),
        ("postgres://localhost,db.example/x", false),
        ("hostaddr=10.0.0.5 user=u", false),
        ("host=localhost hostaddr=10.0.0.5 user=u", false),
        ("host=db.example hostaddr=127.0.0.1 user=u", true),
        ("user=u", false),
    ] {
        assert_eq!(goes_plain(&parsed(url)), plain, "{url}");
    }
}

#[tokio::test]
async fn options_of_the_url_stay() {
    let mut config = testing::store().await.config().clone();
    config.options("-c search_path=elsewhere");
    let client = Store::new(config).connection("look").await.unwrap();
    for (setting, wanted) in [
        ("search_path", "elsewhere"),
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "30s"),
    ] {
        let row = client.query_one(&format!("SHOW {setting}"), &[]).await;
        assert_eq!(row.unwrap().get::<_, &str>(0), wanted);
    }
}

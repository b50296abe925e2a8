use axum::Router;
use axum::extract::Request as Asked;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// A mirror that tells the host and path that it was asked for.
async fn mirror() -> SocketAddr {
    let router = Router::new().fallback(|request: Asked| async move {
        assert!(!request.headers().contains_key("proxy-authorization"));
        format!(
            "{} {}",
            request.headers()["host"].to_str().unwrap(),
            request.uri()
        )
    });
    upstream(router).await
}

async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri)
        .header("host", "lie.example")
        .header("proxy-authorization", "x")
        .body(Full::default())
        .unwrap()
}

fn connect(to: &str) -> Request<Full<Bytes>> {
    Request::connect(to)
        .header("host", to)
        .body(Full::default())
        .unwrap()
}

#[tokio::test]
async fn a_listed_host_is_reached_plainly_and_by_tunnel() {
    let mirror = mirror().await;
    let world = World::new(nowhere().await, |options| {
        options.forward.allow = vec![format!("localhost:{}", mirror.port()).parse().unwrap()];
        options.forward.allow_addresses = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let port = mirror.port();
    let plain = world
        .send(get(&format!("http://localhost:{port}/a?b")))
        .await;
    assert_eq!(text(plain).await, format!("localhost:{port} /a?b"));

    let mut tunnel = UnixStream::connect(&world.socket).await.unwrap();
    let head = format!("CONNECT localhost:{port} HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n");
    tunnel.write_all(head.as_bytes()).await.unwrap();
    tunnel
        .write_all(b"GET /inner HTTP/1.1\r\nhost: inner\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut said = String::new();
    let read = tunnel.read_to_string(&mut said);
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the tunnel did not end")
        .unwrap();
    assert!(
        said.starts_with("HTTP/1.1 200") && said.ends_with("inner /inner"),
        "{said}"
    );
    world.proxy.shutdown().await;
    assert!(!world.socket.exists());
}

#[tokio::test]
async fn what_is_not_listed_or_not_public_is_refused_and_told_once() {
    let mirror = mirror().await;
    let port = mirror.port();
    let code_host = nowhere().await;
    let mut world = World::new(code_host, |options| {
        options.git.upstream = "https://code.example".parse().unwrap();
        options.forward.allow = ["localhost", "127.0.0.1", "code.example", "*.code.example"]
            .into_iter()
            .flat_map(|host| {
                [
                    host.to_owned(),
                    format!("{host}:{port}"),
                    format!("{host}:{}", code_host.port()),
                ]
            })
            .map(|pattern| pattern.parse().unwrap())
            .collect();
    })
    .await;
    for (to, why) in [
        (format!("other.example:{port}"), "not on the allow-list"),
        ("localhost:22".to_owned(), "not on the allow-list"),
        (format!("localhost:{port}"), "not on the public Internet"),
        (format!("LOCALHOST.:{port}"), "not on the public Internet"),
        (format!("127.0.0.1:{port}"), "not on the public Internet"),
        (
            format!("127.0.0.1:{}", code_host.port()),
            "their own proxies only",
        ),
        ("code.example:443".to_owned(), "their own proxies only"),
        ("api.code.example:443".to_owned(), "their own proxies only"),
    ] {
        for request in [connect(&to), connect(&to), get(&format!("http://{to}/"))] {
            let refused = world.send(request).await;
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{to}");
            let said = text(refused).await;
            assert!(said.contains(why), "{to}: {said}");
        }
        match world.event().await {
            Event::HostRefused { host, reason } => {
                assert!(host == to && reason.contains(why), "{host}: {reason}");
            }
            other => panic!("{to} gave {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_request_that_is_no_proxy_request_is_turned_away() {
    let world = World::new(nowhere().await, |_| {}).await;
    assert_eq!(
        world.send(get("https://crates.io/")).await.status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(world.send(get("/")).await.status(), StatusCode::NOT_FOUND);
}

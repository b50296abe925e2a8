//! Serves bare repositories over HTTP by `git http-backend`, a CGI program.
//!
//! It owns the bridge alone: who may read or write is decided by its caller. A backend is killed when its request is
//! given up, and never outlives the server.

use std::path::Path;
use std::process::Stdio;

use axum::body::Body;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::io::ReaderStream;

/// A request for a repository below `root`.
pub struct Cgi<'a> {
    pub root: &'a Path,
    /// The path below `root`: `/owner/name.git/info/refs`.
    pub path: &'a str,
    /// Who is authenticated; empty for nobody.
    pub user: &'a str,
    pub environment: &'a [(&'a str, &'a str)],
    /// Answer only once the backend has ended, so that what it did can be looked at before its caller knows. For pushes.
    pub settle: bool,
}

/// Runs the backend. An error is the bridge's own: git was not found, or broke off.
pub async fn serve(cgi: &Cgi<'_>, request: Request<Incoming>) -> std::io::Result<Response<Body>> {
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .envs(cgi.environment.iter().copied());
    command
        .env("GIT_PROJECT_ROOT", cgi.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", cgi.path);
    command
        .env("REQUEST_METHOD", request.method().as_str())
        .env("QUERY_STRING", request.uri().query().unwrap_or(""));
    if !cgi.user.is_empty() {
        command.env("REMOTE_USER", cgi.user);
    }
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    let pairs = [
        (header::CONTENT_TYPE, "CONTENT_TYPE"),
        // Absent for a chunked body, which the backend then reads to its end.
        (header::CONTENT_LENGTH, "CONTENT_LENGTH"),
        // git compresses requests, and only the backend can tell.
        (header::CONTENT_ENCODING, "HTTP_CONTENT_ENCODING"),
        // Without it there is no protocol v2, and filters do nothing.
        (HeaderName::from_static("git-protocol"), "GIT_PROTOCOL"),
    ];
    for (name, variable) in pairs {
        if let Some(value) = request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
        {
            command.env(variable, value);
        }
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (stdin, stdout) =
        pipes.ok_or_else(|| std::io::Error::other("git http-backend has no pipes"))?;
    let feed = feed(stdin, request.into_body());
    if cgi.settle {
        let ((), answer) = tokio::join!(feed, whole(stdout));
        child.wait().await?;
        return answer;
    }
    // The request and the answer flow at the same time: a large fetch would otherwise stall both.
    let feeding = tokio::spawn(feed);
    let answer = streamed(child, stdout).await;
    if answer.is_err() {
        feeding.abort();
    }
    answer
}

/// Copies the request to the backend. A backend that does not want the rest closes its end, which is no error.
async fn feed(mut stdin: ChildStdin, body: Incoming) {
    let mut body = http_body_util::BodyStream::new(body);
    while let Some(Ok(frame)) = body.next().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if stdin.write_all(&data).await.is_err() {
            return;
        }
    }
    let _ = stdin.shutdown().await;
}

async fn whole(stdout: ChildStdout) -> std::io::Result<Response<Body>> {
    let mut reader = BufReader::new(stdout);
    let (status, headers) = read_head(&mut reader).await?;
    let mut body = Vec::new();
    reader.read_to_end(&mut body).await?;
    Ok(respond(status, headers, Body::from(body)))
}

async fn streamed(child: Child, stdout: ChildStdout) -> std::io::Result<Response<Body>> {
    let mut reader = BufReader::new(stdout);
    let (status, headers) = read_head(&mut reader).await?;
    // The child lives in the stream: it is reaped at its end and killed where the stream is dropped.
    let stream = ReaderStream::new(reader).chain(futures_util::stream::once(async move {
        let mut child = child;
        child.wait().await.map(|_| bytes::Bytes::new())
    }));
    Ok(respond(status, headers, Body::from_stream(stream)))
}

/// The CGI head: header lines up to an empty one, the status among them.
async fn read_head(
    reader: &mut BufReader<ChildStdout>,
) -> std::io::Result<(StatusCode, HeaderMap)> {
    let (mut status, mut headers) = (StatusCode::OK, HeaderMap::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Err(std::io::Error::other(
                "git http-backend ended before its answer",
            ));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok((status, headers));
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value
                .split(' ')
                .next()
                .and_then(|code| code.parse::<StatusCode>().ok());
            status = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) =
            (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
        {
            headers.append(name, value);
        }
    }
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

//! The git proxy: smart HTTP for exactly one repository, and pushes to exactly one branch.
//!
//! It puts the code host's token in. The path upstream is built from the task's repository and never from what the
//! client wrote. A push is read up to the end of its command section before any of it goes on. Where a screen looks at
//! pushes, it is held on disk until the screen has seen all of it; else its pack is streamed. A push counts only when
//! the code host's own report says `ok`. Redirects are neither followed nor
//! passed on: a renamed repository fails with a text that says so.

mod advertise;
mod commands;
mod denied;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod pack;
mod pktline;
mod report;
pub mod screen;
mod spool;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, USER_AGENT, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use url::Url;

use self::commands::{Command, Head};
pub use self::denied::{Denied, LastDenied};
pub use self::gate::PushGate;
use self::report::{Outcome, Report};
pub use self::screen::{HeldChange, Refusal, Screen, WorkflowFiles};
use self::spool::Spool;
use super::body::{Body, BodyError, full, strip_hop_by_hop, text};
use super::event::{Event, Sink, clip};
use super::tasks::Tasks;
use super::upstream::{self, Base, Heard, Upstream};

/// Bytes of a refused push that are read before it is answered: git reads the answer only when it has sent all.
const DRAINED: usize = 64 * 1024 * 1024;

/// How long the report of a push is awaited after its client has gone.
const REPORT_TIMEOUT: Duration = Duration::from_mins(2);

/// The one repository and branch.
#[derive(Clone, Debug)]
pub struct Options {
    /// `https://host[/prefix]`, in front of `/<owner>/<repository>.git`.
    pub upstream: Url,
    /// The repository's owner.
    pub owner: String,
    /// The repository's name, without `.git`.
    pub repository: String,
    /// The task's branch, without `refs/heads/`.
    pub branch: String,
    /// The code host's token; without one, requests go without credentials.
    pub token: Option<SecretString>,
    /// Looks at pushes; without it they pass as they come.
    pub screen: Option<Screening>,
}

/// How pushes are looked at.
#[derive(Clone, Debug)]
pub struct Screening {
    /// What for.
    pub options: screen::Options,
    /// Folder for a push meanwhile. The harness must not see it.
    pub dir: PathBuf,
}

/// The proxy behind `/git/`.
#[derive(Debug)]
pub(super) struct Git {
    base: Base,
    repository: String,
    reference: String,
    token: RwLock<Option<SecretString>>,
    gate: PushGate,
    denied: LastDenied,
    upstream: Arc<Upstream>,
    /// How long no byte may pass.
    silence: Duration,
    tasks: Tasks,
    sink: Sink,
    screen: Option<(Screen, PathBuf)>,
    /// One push at a time is held.
    turns: Arc<Semaphore>,
}

impl Git {
    pub(super) fn new(
        options: Options,
        base: Base,
        (upstream, silence): (Arc<Upstream>, Duration),
        tasks: Tasks,
        sink: Sink,
    ) -> Self {
        Self {
            base,
            repository: format!("/{}/{}.git", options.owner, options.repository),
            reference: format!("refs/heads/{}", options.branch),
            token: RwLock::new(options.token),
            gate: PushGate::default(),
            denied: LastDenied::default(),
            upstream,
            silence,
            tasks,
            sink,
            screen: options
                .screen
                .map(|screening| (Screen::new(screening.options), screening.dir)),
            turns: Arc::new(Semaphore::new(1)),
        }
    }

    pub(super) fn gate(&self) -> PushGate {
        self.gate.clone()
    }

    pub(super) fn denied(&self) -> LastDenied {
        self.denied.clone()
    }

    pub(super) fn screen(&self) -> Option<Screen> {
        self.screen.as_ref().map(|(screen, _)| screen.clone())
    }

    pub(super) fn set_token(&self, token: Option<SecretString>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Answers one request; `path` is what follows `/git`.
    pub(super) async fn serve(&self, path: &str, request: Request<Incoming>) -> Response<Body> {
        let Some(service) = path
            .strip_prefix(self.repository.as_str())
            .filter(|rest| rest.starts_with('/'))
        else {
            self.sink.put(Event::RepositoryRefused { path: clip(path) });
            return text(
                StatusCode::FORBIDDEN,
                "mainloop: only the task's own repository can be reached",
            );
        };
        let (head, body) = request.into_parts();
        match (&head.method, service, head.uri.query().unwrap_or_default()) {
            // What a server has not read of a body it may take for the next request.
            (&Method::GET, _, _) if !body.is_end_stream() => text(
                StatusCode::BAD_REQUEST,
                "mainloop: a GET request has no body",
            ),
            (&Method::GET, "/info/refs", query @ "service=git-upload-pack") => {
                self.pass(
                    Method::GET,
                    service,
                    query,
                    &head.headers,
                    full(Bytes::new()),
                    None,
                )
                .await
            }
            (&Method::GET, "/info/refs", query @ "service=git-receive-pack") => {
                if !self.gate.is_open() {
                    return self.refuse(None, self.closed());
                }
                let answer = self
                    .pass(
                        Method::GET,
                        service,
                        query,
                        &head.headers,
                        full(Bytes::new()),
                        None,
                    )
                    .await;
                match self.screen {
                    Some(_) => advertise::without_thin_packs(answer).await,
                    None => answer,
                }
            }
            (&Method::POST, "/git-upload-pack", "") => {
                let body = body.map_err(Into::into).boxed_unsync();
                self.pass(Method::POST, service, "", &head.headers, body, None)
                    .await
            }
            (&Method::POST, "/git-receive-pack", "") => self.push(&head.headers, body).await,
            _ => text(
                StatusCode::FORBIDDEN,
                "mainloop: the git proxy serves clones, fetches and pushes over smart HTTP only",
            ),
        }
    }

    async fn push(&self, headers: &HeaderMap, mut body: Incoming) -> Response<Body> {
        // Git compresses the requests of a fetch, never those of a push.
        if headers
            .get(CONTENT_ENCODING)
            .is_some_and(|encoding| encoding != "identity")
        {
            return self.refuse(None, "an encoded push cannot be checked");
        }
        let mut chunks = VecDeque::new();
        let mut buffer = Vec::new();
        let command = loop {
            match commands::read(&buffer) {
                Head::Incomplete => match body.frame().await {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            let wanted = data
                                .len()
                                .min((commands::SECTION + 1).saturating_sub(buffer.len()));
                            buffer.extend_from_slice(&data[..wanted]);
                            chunks.push_back(data);
                        }
                    }
                    _ => return self.refuse(None, "the push was cut"),
                },
                Head::Probe => {
                    return self.probe(headers).await;
                }
                Head::Refused { first, reason } => {
                    return self.turn_away(first.as_ref(), reason, body).await;
                }
                Head::Update(command) => break command,
            }
        };
        if command.reference != self.reference {
            return self
                .turn_away(
                    Some(&command),
                    "only the task's own branch may be pushed",
                    body,
                )
                .await;
        }
        if commands::is_zero(&command.new) {
            return self
                .turn_away(Some(&command), "the branch may not be deleted", body)
                .await;
        }
        if !command.answer.report {
            return self
                .turn_away(Some(&command), "a push must ask for a status report", body)
                .await;
        }
        let Some(leave) = self.gate.leave() else {
            return self.turn_away(Some(&command), self.closed(), body).await;
        };
        let whole = match &self.screen {
            Some((screen, dir)) => {
                let section = commands::section(&buffer);
                let held = self.held(screen, dir, section, chunks, &mut body, &command, &leave);
                match held.await {
                    Ok(whole) => whole,
                    Err(reason) => return self.turn_away(Some(&command), &reason, body).await,
                }
            }
            None => Replayed {
                chunks,
                rest: body,
                closed: Box::pin(leave.clone().cancelled_owned()),
            }
            .boxed_unsync(),
        };
        self.pass(
            Method::POST,
            "/git-receive-pack",
            "",
            headers,
            whole,
            Some(Passing { command, leave }),
        )
        .await
    }

    /// Notes that a push did not pass for the gate alone, and says why.
    fn closed(&self) -> &'static str {
        if let Some((screen, _)) = &self.screen {
            screen.note(Refusal::Closed);
        }
        self.gate.words()
    }

    /// Takes all of a push and has it looked at. Why it does not pass otherwise.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the parts of one push that is half read"
    )]
    async fn held(
        &self,
        screen: &Screen,
        dir: &Path,
        section: usize,
        mut chunks: VecDeque<Bytes>,
        rest: &mut Incoming,
        command: &Command,
        leave: &CancellationToken,
    ) -> Result<Body, String> {
        screen.begin();
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = Arc::new(turn.map_err(|_| self.closed())?);
        let head = commands::split(&mut chunks, section);
        let unreadable = |words: String| {
            screen.note(Refusal::Unreadable(words.clone()));
            words
        };
        let taken = Spool::take(dir, Arc::clone(&turn), head, chunks, rest, leave).await;
        let spool = taken.map_err(|error| match error {
            spool::Error::TooLarge => unreadable(error.to_string()),
            spool::Error::Closed => self.closed().to_owned(),
            other => other.to_string(),
        })?;
        let read = spool.pack().await.map_err(|error| error.to_string())?;
        let pack = read.map_err(|error| unreadable(error.to_string()))?;
        screen.check(command, pack, &turn).await?;
        if leave.is_cancelled() {
            return Err(self.closed().to_owned());
        }
        let body = spool.body(leave.clone()).await;
        let body = body.map_err(|error| error.to_string())?;
        Ok(body.boxed_unsync())
    }

    /// Only the flush itself goes on, whatever came after it.
    async fn probe(&self, headers: &HeaderMap) -> Response<Body> {
        if !self.gate.is_open() {
            return self.refuse(None, self.closed());
        }
        self.pass(
            Method::POST,
            "/git-receive-pack",
            "",
            headers,
            full(pktline::FLUSH),
            None,
        )
        .await
    }

    async fn pass(
        &self,
        method: Method,
        service: &str,
        query: &str,
        from: &HeaderMap,
        body: Body,
        push: Option<Passing>,
    ) -> Response<Body> {
        let question = if query.is_empty() { "" } else { "?" };
        let Some(uri) = self
            .base
            .join(&format!("{}{service}{question}{query}", self.repository))
        else {
            return text(
                StatusCode::BAD_GATEWAY,
                "mainloop: the repository's address is not valid",
            );
        };
        let mut request = Request::new(body);
        let is_read_here = push.is_some() || query == "service=git-receive-pack";
        *request.headers_mut() = self.headers(from, &method, is_read_here);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let answer = match &push {
            Some(push) => self.send_push(request, push.command.clone()).await,
            None => self
                .upstream
                .send(request, self.silence)
                .await
                .map(|response| response.map(Answered::Plain)),
        };
        match answer {
            Ok(response) => self.answer(response, push.map(|push| push.command)).await,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the code host gave no answer"
                );
                if let Some(push) = push {
                    let is_closed = push.leave.is_cancelled();
                    let reason = if is_closed {
                        self.closed()
                    } else {
                        "the code host gave no answer"
                    };
                    self.lost(Some(push.command), reason);
                    if is_closed {
                        return text(StatusCode::FORBIDDEN, &format!("mainloop: {reason}"));
                    }
                }
                match error {
                    upstream::Error::Silent { .. } => text(
                        StatusCode::GATEWAY_TIMEOUT,
                        "mainloop: the code host does not answer",
                    ),
                    _ => text(
                        StatusCode::BAD_GATEWAY,
                        "mainloop: the code host cannot be reached",
                    ),
                }
            }
        }
    }

    /// Sends a push from a task of its own, so that its outcome is seen even when the client has gone by then.
    async fn send_push(
        &self,
        request: Request<Body>,
        command: Command,
    ) -> Result<Response<Answered>, upstream::Error> {
        let (give, take) = oneshot::channel();
        let (upstream, silence, tasks, sink) = (
            Arc::clone(&self.upstream),
            self.silence,
            self.tasks.clone(),
            self.sink.clone(),
        );
        self.tasks.spawn(async move {
            let answer = upstream.send(request, silence).await.map(|response| {
                let accepted = response.status().is_success();
                response.map(|inner| {
                    if !accepted {
                        return Answered::Plain(inner);
                    }
                    let watch = Watch {
                        report: Report::new(command.answer),
                        command,
                        sink,
                    };
                    Answered::Watched(Watched(Some((inner, watch)), tasks))
                })
            });
            // A client that has gone drops the answer, which then reads itself to its end.
            drop(give.send(answer));
        });
        take.await.unwrap_or(Err(upstream::Error::Stopped))
    }

    /// The headers that go on. Never those that frame a body: its length is what the body says of itself, for a head
    /// and a body that disagree would let the client write a request of its own behind this one.
    fn headers(&self, from: &HeaderMap, method: &Method, is_read_here: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let protocol = HeaderName::from_static("git-protocol");
        let always = [
            ACCEPT,
            ACCEPT_ENCODING,
            ACCEPT_LANGUAGE,
            USER_AGENT,
            protocol,
        ];
        let of_body = [CONTENT_ENCODING, CONTENT_TYPE];
        let of_body = of_body.into_iter().filter(|_| method == Method::POST);
        for name in always.into_iter().chain(of_body) {
            if let Some(value) = from.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        if is_read_here {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.as_ref() {
            let pair = STANDARD.encode(format!("x-access-token:{}", token.expose_secret()));
            let mut value = HeaderValue::try_from(format!("Basic {pair}"))
                .expect("base64 is valid in a header");
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    async fn answer(
        &self,
        response: Response<Answered>,
        command: Option<Command>,
    ) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        if head.status.is_redirection() {
            self.lost(command, "the code host answered with a redirect");
            return text(
                StatusCode::BAD_GATEWAY,
                "mainloop: the code host answered with a redirect; was the repository renamed?",
            );
        }
        if matches!(head.status.as_u16(), 401 | 403) {
            let status = head.status.as_u16();
            self.sink.put(Event::GitUnauthorized { status });
            let words = match body {
                Answered::Plain(body) => denied::words(body).await,
                Answered::Watched(_) => String::new(),
            };
            let denied = Denied { status, words };
            let said = denied.to_string();
            self.lost(command, &said);
            self.denied.set(Some(denied));
            // Not 401: git would ask for a password.
            return text(StatusCode::FORBIDDEN, &format!("mainloop: {said}"));
        }
        self.denied.set(None);
        strip_hop_by_hop(&mut head.headers);
        head.headers.remove(SET_COOKIE);
        head.headers.remove(WWW_AUTHENTICATE);
        head.headers
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let body = match body {
            Answered::Plain(inner) => {
                self.lost(command, &format!("the code host answered {}", head.status));
                inner.boxed_unsync()
            }
            Answered::Watched(watched) => watched.boxed_unsync(),
        };
        Response::from_parts(head, body)
    }

    fn lost(&self, command: Option<Command>, reason: &str) {
        if let Some(command) = command {
            let reference = Some(clip(&command.reference));
            self.sink.put(Event::PushRefused {
                reference,
                reason: reason.to_owned(),
            });
        }
    }

    /// Refuses with a text, which git prints for its first request.
    fn refuse(&self, reference: Option<&str>, reason: &str) -> Response<Body> {
        self.sink.put(Event::PushRefused {
            reference: reference.map(clip),
            reason: reason.to_owned(),
        });
        text(StatusCode::FORBIDDEN, &format!("mainloop: {reason}"))
    }

    /// Refuses with a report, which git prints beside the ref; the pack is read and thrown away first.
    async fn turn_away(
        &self,
        command: Option<&Command>,
        reason: &str,
        mut body: Incoming,
    ) -> Response<Body> {
        let refused = self.refuse(command.map(|command| command.reference.as_str()), reason);
        let mut drained = 0;
        while drained < DRAINED
            && let Some(Ok(frame)) = body.frame().await
        {
            drained += frame.data_ref().map_or(0, Bytes::len);
        }
        let Some(report) =
            command.and_then(|command| report::refusal(command, &format!("mainloop: {reason}")))
        else {
            return refused;
        };
        let mut response = Response::new(full(report));
        let kind = HeaderValue::from_static("application/x-git-receive-pack-result");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// A push on its way, and the leave that it has.
struct Passing {
    command: Command,
    leave: CancellationToken,
}

/// A push of which the first chunks were read already. It fails when the gate closes before its end.
struct Replayed {
    chunks: VecDeque<Bytes>,
    rest: Incoming,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl hyper::body::Body for Replayed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(gate::CLOSED.into())));
        }
        if let Some(chunk) = self.chunks.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        Pin::new(&mut self.rest).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self.chunks.iter().map(Bytes::len).sum();
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + read as u64),
            None => SizeHint::default(),
        }
    }
}

/// An answer of the code host.
enum Answered {
    Plain(Heard),
    Watched(Watched),
}

/// The code host's answer to a push that it took; when the client goes before the end, it is read to its end without it.
struct Watched(Option<(Heard, Watch)>, Tasks);

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some((inner, watch)) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    watch.report.feed(data);
                }
            }
            // Dropping the watch tells the outcome.
            Poll::Ready(_) => self.0 = None,
            Poll::Pending => {}
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |(inner, _)| inner.size_hint())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some((mut inner, mut watch)) = self.0.take() {
            self.1.spawn(async move {
                let read = async {
                    while let Some(Ok(frame)) = inner.frame().await {
                        if let Some(data) = frame.data_ref() {
                            watch.report.feed(data);
                        }
                    }
                };
                // What was read until then decides.
                let _ = tokio::time::timeout(REPORT_TIMEOUT, read).await;
                drop(watch);
            });
        }
    }
}

/// Says what came of a push when it is dropped.
struct Watch {
    report: Report,
    command: Command,
    sink: Sink,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let outcome = self.report.outcome(&self.command.reference);
        let reference = std::mem::take(&mut self.command.reference);
        let refused = |reason: String| Event::PushRefused {
            reference: Some(clip(&reference)),
            reason: clip(&reason),
        };
        let event = match outcome {
            Outcome::Rejected(reason) => refused(reason),
            Outcome::Unknown => {
                refused("the code host did not report what came of the push".to_owned())
            }
            Outcome::Ok => Event::Pushed {
                reference,
                old: std::mem::take(&mut self.command.old),
                new: std::mem::take(&mut self.command.new),
            },
        };
        self.sink.put(event);
    }
}

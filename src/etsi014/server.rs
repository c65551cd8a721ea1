//! The key manager's service: HTTP/1.1 over TLS, both ends with certificates.
//!
//! Everything that a caller can make grow is bounded: connections, the time of a handshake, of a
//! header and of a body, their lengths, and the time that a request waits for other key managers.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::identity::SaeId;
use super::message::{self, KeyRequest, NamedKey};
use super::name::KeyId;
use super::refusal::Refusal;
use super::tls::Credentials;
use super::{Error, Kme, OPENAPI};
use crate::base::Secret;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a request's line and headers.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// What is read, and for how long, of a body that is too long.
const DRAIN_BYTES_MAX: usize = 1 << 20;
const DRAIN: Duration = Duration::from_secs(1);
/// How long a handshake, a body, or the next request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a request waits for other key managers.
const ANSWER: Duration = Duration::from_secs(20);

const PREFIX: &str = "/api/v1/keys/";

/// A service that runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    /// Begins to serve applications where the settings of `kme` say.
    pub fn start(kme: Kme) -> Result<Self, Error> {
        let settings = kme.settings();
        let credentials = Credentials {
            certificate: &settings.certificate,
            private_key: &settings.private_key,
            authority: &settings.authority,
        };
        let acceptor = TlsAcceptor::from(credentials.server()?);
        let (connections, listen) = (settings.connections, settings.listen.clone());
        let failed = |source| Error::Serve { address: listen.clone(), source };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if settings.threads > 0 {
            builder.worker_threads(settings.threads);
        }
        let runtime = builder.enable_all().thread_name("kme").build().map_err(failed)?;
        let listener = runtime.block_on(TcpListener::bind(&listen)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        runtime.spawn(accept(listener, acceptor, Arc::new(kme), connections));
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, kme: Arc<Kme>, connections: usize) {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No more files, or a caller that is gone: later it may work.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (acceptor, kme) = (acceptor.clone(), Arc::clone(&kme));
        tokio::spawn(async move {
            // What goes wrong on a connection concerns the caller alone, who sees it.
            let _ = serve(stream, acceptor, kme).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, kme: Arc<Kme>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let tls = timeout(PATIENCE, acceptor.accept(stream)).await??;
    let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    // A certificate that identifies nobody is good for TLS and for no key.
    let caller = shown.and_then(|der| SaeId::of_certificate(der).ok()).map(Arc::new);
    let service = service_fn(move |request| {
        let (kme, caller) = (Arc::clone(&kme), caller.clone());
        async move { Ok::<_, Infallible>(answer(&kme, caller.as_deref(), request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(tls), service);
    connection.await.map_err(io::Error::other)
}

type Answer = Response<Full<Bytes>>;

async fn answer(kme: &Kme, caller: Option<&SaeId>, request: Request<Incoming>) -> Answer {
    let answered = async {
        let caller = caller.ok_or(Refusal::Unauthorized)?;
        route(kme, caller, request).await
    };
    answered.await.unwrap_or_else(|refusal| refused(&refusal))
}

async fn route(kme: &Kme, caller: &SaeId, request: Request<Incoming>) -> Result<Answer, Refusal> {
    kme.permit(caller)?;
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if path == "/api/v1/openapi.json" && head.method == Method::GET {
        return Ok(json(Bytes::from_static(OPENAPI.as_bytes())));
    }
    let (segment, resource) = path
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('/'))
        .ok_or(Refusal::NoResource)?;
    let allow = match resource {
        "status" => "GET",
        "enc_keys" | "dec_keys" => "GET, POST",
        _ => return Err(Refusal::NoResource),
    };
    let posted = match head.method {
        Method::GET => None,
        Method::POST if resource != "status" => Some(body),
        _ => return Err(Refusal::Method { allow }),
    };
    let other =
        SaeId::from_segment(segment).map_err(|_| Refusal::bad("the path has what is no SAE ID"))?;
    let query = head.uri.query();
    match resource {
        "status" => {
            let status = kme.status(caller, &other)?;
            Ok(json(serde_json::to_vec(&status).expect("a status is plain data").into()))
        }
        "enc_keys" => {
            let wanted: KeyRequest = match posted {
                Some(body) => message::parse_key_request(&read(body).await?)?,
                None => message::parse_key_query(query)?,
            };
            Ok(container(&within_time(kme.enc_keys(caller, &other, &wanted)).await?))
        }
        _ => {
            let ids: Vec<KeyId> = match posted {
                Some(body) => message::parse_key_ids(&read(body).await?)?,
                None => message::parse_key_id_query(query)?,
            };
            Ok(container(&kme.dec_keys(caller, &other, &ids)?))
        }
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    match timeout(PATIENCE, collect(&mut body)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            // Whoever is still writing when the connection is closed would not see the answer.
            let _ = timeout(DRAIN, drain(&mut body)).await;
            let message = format!("the body is longer than {BODY_BYTES_MAX} bytes").into();
            Err(Refusal::BadRequest { message, detail: None })
        }
        _ => Err(Refusal::bad("the body did not come to its end")),
    }
}

/// The whole body; `None` when it is too long.
async fn collect(body: &mut Incoming) -> Result<Option<Vec<u8>>, hyper::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Ok(None);
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(Some(bytes))
}

async fn drain(body: &mut Incoming) {
    let mut left = DRAIN_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}

async fn within_time<T>(work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let late = Refusal::unavailable("the KME of a slave SAE did not answer in time");
    timeout(ANSWER, work).await.unwrap_or(Err(late))
}

/// A body that is wiped when it was sent.
struct Wiped(Secret<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

fn container(keys: &[NamedKey]) -> Answer {
    json(Bytes::from_owner(Wiped(message::write_container(keys))))
}

fn json(body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn refused(refusal: &Refusal) -> Answer {
    let body = refusal.body();
    let mut answer = Response::new(Full::new(Bytes::new()));
    if !body.is_empty() {
        answer = json(body.into());
    }
    *answer.status_mut() = refusal.status();
    if let Refusal::Method { allow } = refusal {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    answer
}

//! A client of any key manager, which believes none of them.
//!
//! An answer counts when it came to its end in time, has status 200, is the document that the
//! standard describes, and has just what was asked for. Everything else is an error, and nothing
//! of it is used. Redirections are not followed, answers are not decompressed, no other
//! certificates are believed than those of the authority that was given. Answers are wiped where
//! they are ours; the buffers of the HTTP and TLS libraries are not.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroize;

use super::Error;
use super::identity::SaeId;
use super::message::{self, Defect, NamedKey, Status};
use super::name::KeyId;

/// Bytes of an answer without keys, and of what surrounds each key.
const SMALL_BYTES: usize = 16 << 10;
const AROUND_KEY_BYTES: usize = 1 << 10;
/// Characters of a refusal that are shown.
const SHOWN_MAX: usize = 200;

/// Where a key manager is and how to talk to it.
#[derive(Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    deadline: Duration,
}

impl Endpoint {
    /// The key manager at `url`, `https://host` or `https://host:port`. Each exchange takes
    /// `deadline` at most.
    pub fn new(url: &str, tls: Arc<ClientConfig>, deadline: Duration) -> Result<Self, Error> {
        let refused = || Error::Url { url: url.chars().take(SHOWN_MAX).collect() };
        let uri: Uri = url.parse().map_err(|_| refused())?;
        let bare = matches!(uri.path_and_query().map_or("/", |path| path.as_str()), "/" | "");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("https") || host.is_empty() || !bare || user {
            return Err(refused());
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| refused())?;
        Ok(Self { host: host.into(), port: uri.port_u16().unwrap_or(443), name, tls, deadline })
    }

    fn address(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(_)) => format!("[{}]:{}", self.host, self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// A connection, its certificates checked.
    pub async fn connect(&self) -> Result<Channel, Error> {
        let connected = timeout(self.deadline, self.handshake()).await;
        connected.unwrap_or_else(|_| Err(self.slow()))
    }

    async fn handshake(&self) -> Result<Channel, Error> {
        let failed = |source| Error::Unreachable { address: self.address(), source };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let tls = connector.connect(self.name.clone(), stream).await.map_err(failed)?;
        let broken = |source| Error::Broken { address: self.address(), source };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(SMALL_BYTES)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(broken)?;
        // How it ends is told to whoever waits for an answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Channel { endpoint: self.clone(), sender })
    }

    fn slow(&self) -> Error {
        Error::Slow { address: self.address(), deadline: self.deadline }
    }
}

/// A connection to a key manager, for one request after the other. Not to be used after an error.
pub struct Channel {
    endpoint: Endpoint,
    sender: SendRequest<Full<Bytes>>,
}

impl Channel {
    /// What there is for us and `slave`.
    pub async fn status(&mut self, slave: &SaeId) -> Result<Status, Error> {
        let path = path(slave, "status");
        let body = self.exchange(Method::GET, &path, None, SMALL_BYTES).await?;
        message::parse_status(body.bytes()).map_err(|source| self.defective(source))
    }

    /// `number` fresh keys of `bits` bits that `slave` can fetch.
    pub async fn enc_keys(
        &mut self,
        slave: &SaeId,
        number: usize,
        bits: u64,
    ) -> Result<Vec<NamedKey>, Error> {
        let request = serde_json::json!({"number": number, "size": bits});
        let most = SMALL_BYTES + number * (AROUND_KEY_BYTES + bits as usize / 6);
        let body =
            self.exchange(Method::POST, &path(slave, "enc_keys"), Some(request), most).await?;
        let keys = message::parse_container(body.bytes())
            .and_then(|keys| check(keys, number, bits))
            .map_err(|source| self.defective(source))?;
        Ok(keys)
    }

    /// The keys called `ids`, of `bits` bits, that `master` shares with us, in the order of `ids`.
    pub async fn dec_keys(
        &mut self,
        master: &SaeId,
        ids: &[KeyId],
        bits: u64,
    ) -> Result<Vec<NamedKey>, Error> {
        let names: Vec<_> =
            ids.iter().map(|id| serde_json::json!({"key_ID": id.to_string()})).collect();
        let request = serde_json::json!({"key_IDs": names});
        let most = SMALL_BYTES + ids.len() * (AROUND_KEY_BYTES + bits as usize / 6);
        let body =
            self.exchange(Method::POST, &path(master, "dec_keys"), Some(request), most).await?;
        let keys = message::parse_container(body.bytes())
            .and_then(|keys| check(keys, ids.len(), bits))
            .and_then(|keys| in_order(keys, ids))
            .map_err(|source| self.defective(source))?;
        Ok(keys)
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
        bytes_max: usize,
    ) -> Result<Received, Error> {
        let deadline = self.endpoint.deadline;
        let exchanged = timeout(deadline, self.send(method, path, body, bytes_max)).await;
        exchanged.unwrap_or_else(|_| Err(self.endpoint.slow()))
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
        bytes_max: usize,
    ) -> Result<Received, Error> {
        let address = self.endpoint.address();
        let broken = |source| Error::Broken { address: address.clone(), source };
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &address)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Error::Url { url: path.to_owned() })?;
        self.sender.ready().await.map_err(broken)?;
        let (head, body) = self.sender.send_request(request).await.map_err(broken)?.into_parts();
        let bytes_max = if head.status == StatusCode::OK { bytes_max } else { SMALL_BYTES };
        let received = match Limited::new(body, bytes_max).collect().await {
            Ok(body) => Received::new(&body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Error::TooLong { address, bytes: bytes_max });
            }
            Err(error) => {
                return Err(match error.downcast() {
                    Ok(error) => broken(*error),
                    Err(_) => self.defective(Defect::Json),
                });
            }
        };
        match head.status {
            StatusCode::OK => Ok(received),
            status if status.is_redirection() => {
                Err(Error::Redirected { address, status: status.as_u16() })
            }
            status => {
                let message = said(received.bytes());
                Err(Error::Refused { address, status: status.as_u16(), message })
            }
        }
    }

    fn defective(&self, source: Defect) -> Error {
        Error::Defective { address: self.endpoint.address(), source }
    }
}

/// A body that is wiped on drop.
struct Received(Vec<u8>);

impl Received {
    fn new(body: &Bytes) -> Self {
        Self(body.to_vec())
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn path(other: &SaeId, resource: &str) -> String {
    format!("/api/v1/keys/{}/{resource}", other.to_segment())
}

fn check(keys: Vec<NamedKey>, number: usize, bits: u64) -> Result<Vec<NamedKey>, Defect> {
    if keys.len() != number {
        return Err(Defect::Number { wanted: number, found: keys.len() });
    }
    for key in &keys {
        let found = key.bytes.expose().len() as u64 * 8;
        if found != bits {
            return Err(Defect::Size { wanted: bits, found });
        }
    }
    Ok(keys)
}

fn in_order(mut keys: Vec<NamedKey>, ids: &[KeyId]) -> Result<Vec<NamedKey>, Defect> {
    for (place, id) in ids.iter().enumerate() {
        let found = keys[place..].iter().position(|key| key.id == *id);
        keys.swap(place, place + found.ok_or(Defect::ForeignId)?);
    }
    Ok(keys)
}

/// What a refusal says, fit to be shown: whoever wrote it is not trusted.
fn said(body: &[u8]) -> String {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::new();
    };
    let Some(message) = document.get("message").and_then(|message| message.as_str()) else {
        return String::new();
    };
    let shown = message.chars().filter(|c| !c.is_control()).take(SHOWN_MAX);
    std::iter::once(": ").map(String::from).chain(shown.map(String::from)).collect()
}

/// A client that waits for its answers.
pub struct Client {
    endpoint: Endpoint,
    runtime: Runtime,
    channel: Option<Channel>,
}

impl Client {
    /// A client of the key manager at `endpoint`; calls it when something is asked.
    pub fn new(endpoint: Endpoint) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let failed = |source| Error::Serve { address: endpoint.address(), source };
        let runtime = runtime.map_err(failed)?;
        Ok(Self { endpoint, runtime, channel: None })
    }

    /// Where the key manager is.
    pub fn address(&self) -> String {
        self.endpoint.address()
    }

    /// [`Channel::status`].
    pub fn status(&mut self, slave: &SaeId) -> Result<Status, Error> {
        self.ask(async |channel| channel.status(slave).await)
    }

    /// [`Channel::enc_keys`].
    pub fn enc_keys(
        &mut self,
        slave: &SaeId,
        number: usize,
        bits: u64,
    ) -> Result<Vec<NamedKey>, Error> {
        self.ask(async |channel| channel.enc_keys(slave, number, bits).await)
    }

    /// [`Channel::dec_keys`].
    pub fn dec_keys(
        &mut self,
        master: &SaeId,
        ids: &[KeyId],
        bits: u64,
    ) -> Result<Vec<NamedKey>, Error> {
        self.ask(async |channel| channel.dec_keys(master, ids, bits).await)
    }

    /// Asks on the connection that there is, or on a new one after an error or when the key manager
    /// has closed it. A request is never repeated: it may have cost keys.
    fn ask<T>(
        &mut self,
        request: impl AsyncFnOnce(&mut Channel) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (endpoint, before) = (&self.endpoint, self.channel.take());
        let (answer, channel) = self.runtime.block_on(async {
            // Lets the connection notice that it was closed.
            tokio::task::yield_now().await;
            let mut channel = match before.filter(|channel| !channel.sender.is_closed()) {
                Some(channel) => channel,
                None => endpoint.connect().await?,
            };
            let answer = request(&mut channel).await?;
            Ok::<_, Error>((answer, channel))
        })?;
        self.channel = Some(channel);
        Ok(answer)
    }
}

//! Connections: TCP, and TLS over it from the first octet (RFC 6733 §2.1).
//!
//! Start at [`Transport`], the seam where another way to carry messages would be put (SCTP, memory), and [`run`], which
//! moves the messages of one connection between it and whoever owns it. Knows no message beyond its length.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::codec::{FrameError, Framer};
use super::peer::LinkId;
use super::settings::{PeerAddress, TlsFiles};

/// A peer that takes nothing for that long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// How long the peer's half is waited for after ours is closed.
const HALF_CLOSED: Duration = Duration::from_secs(5);
/// Octets read at a time.
const READ: usize = 16 * 1024;

/// Something later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection that is up.
pub struct Opened {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Our addresses on it.
    pub addresses: Vec<IpAddr>,
    /// Makes its end a reset.
    pub abort: Option<Abort>,
}

impl Opened {
    /// A connection over whatever carries octets both ways.
    pub fn over(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        addresses: Vec<IpAddr>,
    ) -> Self {
        opened(stream, addresses, None)
    }
}

/// A second hold on a socket, to end it by RST.
pub struct Abort(socket2::Socket);

impl Abort {
    fn of(stream: &TcpStream) -> Option<Self> {
        socket2::SockRef::from(stream).try_clone().ok().map(Self)
    }

    fn reset(self) {
        // Without it the connection ends by FIN, which is all that is lost.
        let _ = self.0.set_linger(Some(Duration::ZERO));
    }
}

/// How connections are opened.
pub trait Transport: Send + Sync + 'static {
    /// A connection ready for the first message.
    fn open(&self, to: PeerAddress) -> Later<io::Result<Opened>>;
}

/// TCP, with TLS if there are certificates.
pub struct Tcp {
    tls: Option<TlsConnector>,
    accept: Option<TlsAcceptor>,
    nodelay: bool,
}

impl Tcp {
    /// # Errors
    /// A file that cannot be read or used, and why.
    pub fn new(files: Option<&TlsFiles>, nodelay: bool) -> Result<Self, String> {
        let (tls, accept) = match files {
            None => (None, None),
            Some(files) => {
                let (client, server) = material(files)?;
                (
                    Some(TlsConnector::from(Arc::new(client))),
                    server.map(|server| TlsAcceptor::from(Arc::new(server))),
                )
            }
        };
        Ok(Self { tls, accept, nodelay })
    }

    /// Prepares a connection that a peer opened.
    pub async fn accepted(self: Arc<Self>, stream: TcpStream) -> io::Result<Opened> {
        self.prepare(&stream)?;
        let addresses = stream.local_addr().map(|local| local.ip()).into_iter().collect();
        let abort = Abort::of(&stream);
        if self.tls.is_none() {
            return Ok(opened(stream, addresses, abort));
        }
        let acceptor = self.accept.as_ref().ok_or_else(|| {
            io::Error::other("a certificate of our own is needed to take connections by TLS")
        })?;
        Ok(opened(acceptor.accept(stream).await?, addresses, abort))
    }

    /// SH-008 (RFC 3539 §3.2): Nagle's algorithm stays on unless it is switched off.
    fn prepare(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(self.nodelay)
    }
}

impl Transport for Arc<Tcp> {
    fn open(&self, to: PeerAddress) -> Later<io::Result<Opened>> {
        let this = Self::clone(self);
        Box::pin(async move {
            let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
            this.prepare(&stream)?;
            let addresses = stream.local_addr().map(|local| local.ip()).into_iter().collect();
            let abort = Abort::of(&stream);
            // SH-003 (RFC 6733 §2.1): TLS, if at all, before CER.
            let Some(connector) = &this.tls else { return Ok(opened(stream, addresses, abort)) };
            let name = ServerName::try_from(to.identity.unwrap_or(to.host))
                .map_err(|_| io::Error::other("the peer's name fits no certificate"))?;
            Ok(opened(connector.connect(name, stream).await?, addresses, abort))
        })
    }
}

fn opened(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    addresses: Vec<IpAddr>,
    abort: Option<Abort>,
) -> Opened {
    let (reader, writer) = tokio::io::split(stream);
    Opened { reader: Box::new(reader), writer: Box::new(writer), addresses, abort }
}

fn material(files: &TlsFiles) -> Result<(ClientConfig, Option<ServerConfig>), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for one in certificates(&files.ca)? {
        roots.add(one).map_err(|error| wrong(&files.ca, &error))?;
    }
    let roots = Arc::new(roots);
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(Arc::clone(&roots));
    let Some((certificate, key)) = &files.own else {
        return Ok((client.with_no_client_auth(), None));
    };
    let chain = certificates(certificate)?;
    let own = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let client = client
        .with_client_auth_cert(chain.clone(), own.clone_key())
        .map_err(|error| wrong(certificate, &error))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| wrong(&files.ca, &error))?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, own)
        .map_err(|error| wrong(certificate, &error))?;
    Ok((client, Some(server)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(path, &error))?;
    if all.is_empty() {
        return Err(format!("{}: holds no certificate", path.display()));
    }
    Ok(all)
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

/// What a connection tells whoever owns it.
#[derive(Debug)]
pub enum Event {
    /// A connection asked for is up, or not.
    Opened {
        peer: usize,
        link: LinkId,
        addresses: Vec<IpAddr>,
    },
    Unreachable {
        peer: usize,
        error: String,
    },
    Received {
        link: LinkId,
        octets: Bytes,
    },
    /// The stream made no sense and has been reset.
    Broken {
        link: LinkId,
        error: FrameError,
    },
    Lost {
        link: LinkId,
    },
}

/// The owner's hold on a connection. Dropping it closes once everything given is sent.
pub struct Handle {
    sender: mpsc::Sender<Bytes>,
    reset: oneshot::Sender<()>,
}

/// The other end of a [`Handle`].
pub struct Work {
    queue: mpsc::Receiver<Bytes>,
    reset: oneshot::Receiver<()>,
}

/// A handle for a connection, and its other end for [`run`]. So many messages may wait to be sent.
pub fn handle(queue: usize) -> (Handle, Work) {
    let (sender, receiver) = mpsc::channel(queue.max(1));
    let (reset, asked) = oneshot::channel();
    (Handle { sender, reset }, Work { queue: receiver, reset: asked })
}

impl Handle {
    /// Takes a message to send; `false` if too many wait, so that the peer takes nothing.
    pub fn send(&self, octets: Bytes) -> bool {
        self.sender.try_send(octets).is_ok()
    }

    /// Ends the connection at once.
    pub fn reset(self) {
        // It has ended by itself if nobody listens.
        let _ = self.reset.send(());
    }
}

/// Moves messages until the connection ends, which is told last.
///
/// `first` bounds the wait for the first message (SH-006), `limit` the length of any (SH-018).
pub async fn run(
    link: LinkId,
    opened: Opened,
    work: Work,
    events: mpsc::Sender<Event>,
    limit: usize,
    first: Option<Duration>,
) {
    let Opened { reader, writer, abort, .. } = opened;
    let Work { queue, reset } = work;
    let read = read(link, reader, &events, limit, first);
    let write = write(writer, queue);
    tokio::pin!(read, write);
    let broken = tokio::select! {
        end = &mut read => end,
        written = &mut write => match written {
            // SH-011: our half is closed; what the peer still has to say is not needed.
            Ok(()) => timeout(HALF_CLOSED, &mut read).await.unwrap_or(Ok(())),
            Err(_) => Ok(()),
        },
        Ok(()) = reset => {
            if let Some(abort) = abort {
                abort.reset();
            }
            // The owner knows.
            let _ = events.send(Event::Lost { link }).await;
            return;
        }
    };
    let end = match broken {
        // SH-007 (RFC 6733 §3).
        Err(error) => {
            if let Some(abort) = abort {
                abort.reset();
            }
            Event::Broken { link, error }
        }
        Ok(()) => Event::Lost { link },
    };
    // Nobody is left to hear it after a shutdown.
    let _ = events.send(end).await;
}

async fn read(
    link: LinkId,
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    events: &mpsc::Sender<Event>,
    limit: usize,
    first: Option<Duration>,
) -> Result<(), FrameError> {
    let mut framer = Framer::new(limit);
    let mut buffer = vec![0; READ];
    let mut first = first.map(|first| tokio::time::Instant::now() + first);
    loop {
        let read = reader.read(&mut buffer);
        let read = match first {
            Some(until) => match tokio::time::timeout_at(until, read).await {
                Ok(read) => read,
                Err(_) => return Ok(()),
            },
            None => read.await,
        };
        match read {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => framer.push(&buffer[..length]),
        }
        while let Some(octets) = framer.next()? {
            first = None;
            if events.send(Event::Received { link, octets }).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// SH-008: one message, one write.
async fn write(
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
    mut queue: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    while let Some(octets) = queue.recv().await {
        timeout(STALLED, async {
            writer.write_all(&octets).await?;
            writer.flush().await
        })
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    timeout(HALF_CLOSED, writer.shutdown())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Takes connections of peers and hands them out; so many at a time may be on their way to their first message.
pub async fn listen(
    listener: TcpListener,
    tcp: Arc<Tcp>,
    patience: Duration,
    taken: mpsc::Sender<(Opened, SocketAddr)>,
) {
    /// Handshakes at a time.
    const HANDSHAKES: usize = 64;
    let places = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, remote) = match listener.accept().await {
            Ok(arrived) => arrived,
            Err(error) => {
                // Out of descriptors, for one: whatever it is, it does not get better at once.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tcp, taken) = (Arc::clone(&tcp), taken.clone());
        tokio::spawn(async move {
            let opened = timeout(patience, tcp.accepted(stream)).await;
            if let Ok(Ok(opened)) = opened {
                // Nobody takes it after a shutdown.
                let _ = taken.send((opened, remote)).await;
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves SH-008: both ways, connections have Nagle's algorithm unless `sh.nodelay` says otherwise.
    #[tokio::test]
    async fn nagle_stays_on_unless_it_is_switched_off() {
        for nodelay in [false, true] {
            let tcp = Tcp::new(None, nodelay).expect("no certificates to read");
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let address = listener.local_addr().expect("bound");
            let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
            for stream in [ours.expect("connected"), theirs.expect("accepted").0] {
                stream.set_nodelay(!nodelay).expect("a socket");
                tcp.prepare(&stream).expect("a socket");
                assert_eq!(stream.nodelay().expect("a socket"), nodelay);
            }
        }
    }
}

//! `Server`: listeners for HTTP and gRPC, with TLS, and draining.
//!
//! | file | what |
//! | --- | --- |
//! | `tls` | certificates of the server and of clients |
//! | `connection` | accepted connections: their number, and clients that do not read |

mod connection;
pub(crate) mod tls;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::DefaultAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use self::connection::Connections;
use self::tls::Tls;
use crate::service::Service;

/// Time in which the last responses are sent when all calls have ended.
const FLUSH: Duration = Duration::from_secs(5);
/// Interval of pings on connections of HTTP/2. A client that answers none within the same time is gone.
const PING: Duration = Duration::from_secs(20);

/// Serves a [`Service`] over HTTP and gRPC.
///
/// ```no_run
/// use std::time::Duration;
///
/// use ray_zerocopy_serve::{ModelRepository, Server, Service, Tls};
///
/// # async fn example(service: Service) -> std::io::Result<()> {
/// Server::new(service)
///     .http("0.0.0.0:8000")
///     .grpc("0.0.0.0:8001")
///     .tls(Tls::new("server.pem", "server.key").client_ca("clients.pem"))
///     .drain(Duration::from_secs(5), Duration::from_secs(60))
///     .run() // until SIGTERM or SIGINT; calls in flight end first
///     .await
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    service: Service,
    http: Option<String>,
    grpc: Option<String>,
    tls: Option<Tls>,
    app: Router,
    delay: Duration,
    drain: Duration,
}

impl Server {
    /// Creates a server without listeners.
    pub fn new(service: Service) -> Self {
        let (delay, drain) = (Duration::ZERO, Duration::from_secs(30));
        Self { service, http: None, grpc: None, tls: None, app: Router::new(), delay, drain }
    }

    /// Listens for HTTP at an address: `0.0.0.0:8000`. Port 0 is any free one.
    #[must_use]
    pub fn http(self, address: impl Into<String>) -> Self {
        Self { http: Some(address.into()), ..self }
    }

    /// Listens for gRPC at an address: `0.0.0.0:8001`.
    #[must_use]
    pub fn grpc(self, address: impl Into<String>) -> Self {
        Self { grpc: Some(address.into()), ..self }
    }

    /// Serves both over TLS. Default: without.
    #[must_use]
    pub fn tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Adds routes of yours to those of HTTP. They need no token.
    #[must_use]
    pub fn merge(self, routes: Router) -> Self {
        Self { app: self.app.merge(routes), ..self }
    }

    /// Sets how the server ends. It is not ready for `delay`, in which load balancers notice that and calls
    /// are still taken. Then calls are refused, and those in flight have `timeout` to end. Default: no delay, and 30
    /// seconds.
    #[must_use]
    pub fn drain(self, delay: Duration, timeout: Duration) -> Self {
        Self { delay, drain: timeout, ..self }
    }

    /// Starts to listen, on the tokio runtime of the caller.
    ///
    /// # Errors
    /// If an address is not free, or a certificate cannot be read. The error names it.
    pub fn start(self) -> io::Result<Running> {
        let Self { service, http, grpc, tls, app, delay, drain } = self;
        let config = tls.as_ref().map(Tls::config).transpose()?.map(RustlsConfig::from_config);
        let mut running = Running { service, tls: tls.zip(config), delay, drain, listeners: Vec::new() };
        let rest = running.service.router().merge(running.service.grpc_router()).merge(app);
        if let Some(address) = http {
            running.listen("http", &address, rest)?;
        }
        if let Some(address) = grpc {
            running.listen("grpc", &address, running.service.grpc_router())?;
        }
        Ok(running)
    }

    /// Serves until the process gets SIGTERM or SIGINT, and drains.
    ///
    /// # Errors
    /// As [`start`](Self::start), or if a listener fails.
    pub async fn run(self) -> io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut running = self.start()?;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            failed = running.failed() => return Err(failed),
        }
        running.shut_down().await;
        Ok(())
    }
}

struct Listener {
    kind: &'static str,
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    task: JoinHandle<io::Result<()>>,
}

/// A server that listens.
pub struct Running {
    service: Service,
    tls: Option<(Tls, RustlsConfig)>,
    delay: Duration,
    drain: Duration,
    listeners: Vec<Listener>,
}

impl Running {
    fn listen(&mut self, kind: &'static str, address: &str, routes: Router) -> io::Result<()> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"));
        let addresses: Vec<_> = address.to_socket_addrs().map_err(failed)?.collect();
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let handle = Handle::new();
        let limits = self.service.admission().limits();
        let (most, patience) = (limits.connections, limits.receive);
        let mut server = axum_server::from_tcp(listener)?.handle(handle.clone());
        let builder = server.http_builder();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.receive);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
        // Windows of a few megabytes, since tensors are large.
        builder.http2().initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
        let routes = routes.into_make_service();
        let task = match &self.tls {
            None => {
                tokio::spawn(server.acceptor(Connections::new(DefaultAcceptor::new(), most, patience)).serve(routes))
            }
            Some((_, config)) => {
                let acceptor = RustlsAcceptor::new(config.clone()).handshake_timeout(patience);
                tokio::spawn(server.acceptor(Connections::new(acceptor, most, patience)).serve(routes))
            }
        };
        self.listeners.push(Listener { kind, address: local, handle, task });
        Ok(())
    }

    /// The address of HTTP, with the port that was chosen.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.address("http")
    }

    /// The address of gRPC.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.address("grpc")
    }

    fn address(&self, kind: &str) -> Option<SocketAddr> {
        self.listeners.iter().find(|listener| listener.kind == kind).map(|listener| listener.address)
    }

    /// Reads the certificates again. New connections get them.
    ///
    /// # Errors
    /// If a file cannot be read. The old certificates stay.
    pub fn reload_certificates(&self) -> io::Result<()> {
        if let Some((tls, config)) = &self.tls {
            config.reload_from_config(tls.config()?);
        }
        Ok(())
    }

    /// Waits until a listener fails, which is the error.
    pub async fn failed(&mut self) -> io::Error {
        if self.listeners.is_empty() {
            return std::future::pending().await;
        }
        let ends = self.listeners.iter_mut().map(|listener| &mut listener.task);
        match futures_util::future::select_all(ends).await.0 {
            Ok(Err(error)) => error,
            Ok(Ok(())) => io::Error::other("a listener has ended"),
            Err(error) => io::Error::other(error),
        }
    }

    /// Drains and ends: readiness goes first, then calls are refused, and those in flight end. Returns the number of calls
    /// that did not end in time, which are cancelled.
    pub async fn shut_down(self) -> usize {
        self.service.start_draining();
        tokio::time::sleep(self.delay).await;
        let left = self.service.drain(self.drain).await;
        for Listener { handle, .. } in &self.listeners {
            handle.graceful_shutdown(Some(if left == 0 { FLUSH } else { Duration::from_millis(100) }));
        }
        for Listener { task, .. } in self.listeners {
            // An error now is that of a listener which was ending anyway.
            let _ = task.await;
        }
        left
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("http", &self.http_address())
            .field("grpc", &self.grpc_address())
            .finish_non_exhaustive()
    }
}

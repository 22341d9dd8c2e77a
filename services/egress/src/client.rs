use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderValue, header::ACCEPT_ENCODING};
use llama_stack_core::{Context, Error, Result, manifest::Egress};
use reqwest::redirect::Policy;
use tokio::net::TcpStream;
use url::{Host, Url};

use crate::{
    Lookup, Request, Response, SystemDns, body, failure,
    guard::{Guard, Port},
    redirect,
    resolver::Resolver,
};

/// How much one request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To connect. Default 5 s.
    pub connect: Duration,
    /// For all of it: redirects and the body too. Default 30 s.
    pub total: Duration,
    /// Of a body, unpacked. Default 4 MiB.
    pub max_bytes: usize,
    /// Default 5.
    pub max_redirects: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), total: Duration::from_secs(30), max_bytes: 4 << 20, max_redirects: 5 }
    }
}

/// HTTP for tools: keeps to the manifest's `egress`, whatever a URL, a name server or a redirect says. Cheap to clone.
///
/// Proxies of the environment are not used: one would resolve names itself, and connect on our behalf to what is refused here.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    guard: Arc<Guard>,
    lookup: Arc<dyn Lookup>,
    limits: Limits,
    /// By port, as the resolver sees them; made when they are needed, since each reads the machine's certificates.
    clients: BTreeMap<Port, OnceLock<reqwest::Client>>,
}

impl Client {
    pub fn new(egress: Egress, limits: Limits) -> Self {
        Self::with_lookup(egress, limits, Arc::new(SystemDns))
    }

    /// With another source of addresses. What it returns is checked like any.
    pub fn with_lookup(egress: Egress, limits: Limits, lookup: Arc<dyn Lookup>) -> Self {
        let ports = egress.named_ports().map(Some).chain([None]);
        let clients = ports.map(|port| (port, OnceLock::new())).collect();
        Self(Arc::new(Inner { guard: Arc::new(Guard(egress)), lookup, limits, clients }))
    }

    /// What came back, whatever its status, and after redirects.
    ///
    /// # Errors
    /// `PermissionDenied` (`egress_refused`) for what may not be reached, at any hop; says what and how the manifest would
    /// allow it · `FailedPrecondition` (`egress_refused`) for a redirect that is not safe · `Unavailable` for no answer, one
    /// that cannot be read, or too many redirects · `DeadlineExceeded` by the caller's deadline or the limit.
    pub async fn send(&self, cx: &Context, request: Request) -> Result<Response> {
        let total = self.0.limits.total;
        let first = request.url.clone();
        let work =
            async { tokio::time::timeout(total, self.follow(request)).await.unwrap_or_else(|_| Err(failure::too_long(&first, total))) };
        cx.within(work).await
    }

    /// Whether a URL may be opened, as far as can be told without asking anyone: its scheme, its host, its address.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn permits(&self, url: &Url) -> Result<()> {
        self.0.guard.url(url).map_err(|why| failure::refused(url, &why))
    }

    /// As [`Client::permits`], and resolves the name. What it resolves to later is checked when it is connected to.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn check(&self, url: &Url) -> Result<()> {
        self.addresses(url).await.map(drop)
    }

    /// A connection to where `url` leads now, for libraries that speak over one themselves.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn connect(&self, url: &Url) -> Result<TcpStream> {
        let port = url.port_or_known_default().unwrap_or_default();
        let addresses: Vec<SocketAddr> = self.addresses(url).await?.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        let connected = async {
            let stream = TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        };
        connected.await.map_err(|error| {
            let message = format!("{} cannot be connected to", failure::host(url));
            Error::unavailable(message).with_reason("upstream_unreachable").with_source(error)
        })
    }

    /// Those that may be reached.
    async fn addresses(&self, url: &Url) -> Result<Vec<IpAddr>> {
        self.permits(url)?;
        let name = match url.host() {
            Some(Host::Domain(name)) => name,
            Some(Host::Ipv4(address)) => return Ok(vec![address.into()]),
            Some(Host::Ipv6(address)) => return Ok(vec![address.into()]),
            // Nothing without a host is permitted.
            None => return Ok(Vec::new()),
        };
        let resolved = self.resolver(self.class(url)).permitted(name).await;
        resolved.map_err(|error| match error.downcast_ref() {
            Some(why) => failure::refused(url, why),
            None => Error::unavailable(format!("{name} has no address that is known here"))
                .with_reason("upstream_unreachable")
                .with_source(error),
        })
    }

    /// A plain client for libraries that speak HTTP themselves: for the origin of `url` alone. It resolves names through the
    /// guard, follows no redirect, and uses no proxy; it does not bound bodies or time, and it does not check addresses
    /// that are written out in other URLs.
    ///
    /// # Errors
    /// As [`Client::permits`].
    pub fn for_origin(&self, url: &Url) -> Result<reqwest::Client> {
        self.permits(url)?;
        self.http(url).cloned()
    }

    async fn follow(&self, mut request: Request) -> Result<Response> {
        let first = request.url.clone();
        for _ in 0..=self.0.limits.max_redirects {
            let response = self.once(&request).await?;
            match redirect::next(&request, response.status().as_u16(), response.headers())? {
                Some(next) => request = next,
                None => return self.read(request.url, response).await,
            }
        }
        Err(failure::too_many(&first, self.0.limits.max_redirects))
    }

    async fn once(&self, request: &Request) -> Result<reqwest::Response> {
        self.permits(&request.url)?;
        let mut built = self.http(&request.url)?.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        built = built.header(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if !request.body.is_empty() {
            built = built.body(request.body.clone());
        }
        built.send().await.map_err(|error| failure::no_answer(&request.url, error))
    }

    async fn read(&self, mut url: Url, response: reqwest::Response) -> Result<Response> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = body::read(response, self.0.limits.max_bytes).await.map_err(|failed| match failed {
            body::Failure::Broken(error) => failure::broken(&url, error),
            body::Failure::Unreadable(what) => failure::unreadable(&url, &what),
        })?;
        // An http URL has a place for both.
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| Error::internal("a URL without a host was opened"))?;
        Ok(Response { status, url, headers, body: body.bytes, complete: body.complete })
    }

    /// The port of a URL as rules tell ports apart.
    fn class(&self, url: &Url) -> Port {
        url.port_or_known_default().filter(|port| self.0.clients.contains_key(&Some(*port)))
    }

    fn http(&self, url: &Url) -> Result<&reqwest::Client> {
        let class = self.class(url);
        let slot = self.0.clients.get(&class).ok_or_else(|| Error::internal("no client for this port"))?;
        match slot.get() {
            Some(client) => Ok(client),
            None => {
                let client = self.build(class)?;
                Ok(slot.get_or_init(|| client))
            }
        }
    }

    fn resolver(&self, port: Port) -> Resolver {
        Resolver { guard: self.0.guard.clone(), lookup: self.0.lookup.clone(), port }
    }

    fn build(&self, class: Port) -> Result<reqwest::Client> {
        reqwest::Client::builder()
            .user_agent(concat!("llama-stack/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .dns_resolver(Arc::new(self.resolver(class)))
            .connect_timeout(self.0.limits.connect)
            .pool_idle_timeout(Duration::from_secs(15))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| Error::internal("the HTTP client could not be set up").with_source(error))
    }
}

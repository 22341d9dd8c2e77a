//! Names to addresses, without those that may not be reached.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::guard::{Guard, Port, Refused};

/// Where names are looked up.
#[async_trait::async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of a host.
    ///
    /// # Errors
    /// Where there are none.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// As this machine does it.
pub struct SystemDns;

#[async_trait::async_trait]
impl Lookup for SystemDns {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// The HTTP client connects to nothing but what this returns. It is not told the port, so there is one for each that a
/// rule names, and one for all others.
#[derive(Clone)]
pub(crate) struct Resolver {
    pub(crate) guard: Arc<Guard>,
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) port: Port,
}

impl Resolver {
    /// # Errors
    /// [`Refused`] where none of the addresses may be reached, or what the lookup found.
    pub(crate) async fn permitted(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        // Nobody is asked about a name that is not wanted: the question itself may carry a message.
        self.guard.name(name, self.port)?;
        let (mut permitted, mut refused): (Vec<IpAddr>, Option<Refused>) = (Vec::new(), None);
        for address in self.lookup.lookup(name).await? {
            match self.guard.address(Some(name), address, self.port) {
                Ok(()) => permitted.push(address),
                Err(why) => refused = refused.or(Some(why)),
            }
        }
        match refused {
            Some(why) if permitted.is_empty() => Err(why.into()),
            None if permitted.is_empty() => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses").into()),
            _ => Ok(permitted),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let addresses = this.permitted(name.as_str()).await?;
            // Port 0: the URL's.
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

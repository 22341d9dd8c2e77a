//! A list that another process gave, believed for a while.

use std::{
    future::Future,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use llama_stack_core::{Error, Result};

/// What the last attempt to list came to, until it is old or proves to be wrong.
pub(crate) struct Kept<T> {
    place: RwLock<Place<T>>,
    /// How long listing may take.
    limit: Duration,
    /// How long its outcome is believed.
    age: Duration,
}

struct Place<T> {
    said: Option<(Instant, Said<T>)>,
    /// Grows with every [`Kept::forget`], so that an answer which was asked for before is not kept after it.
    forgotten: u64,
}

#[derive(Clone)]
enum Said<T> {
    List(T),
    /// It took long and failed: for a while nobody waits for that again.
    Hung,
}

impl<T: Clone> Kept<T> {
    pub(crate) fn new(limit: Duration, age: Duration) -> Self {
        Self { place: RwLock::new(Place { said: None, forgotten: 0 }), limit, age }
    }

    /// The list: the kept one, or what `ask` gives.
    ///
    /// # Errors
    /// `Unavailable` (`upstream_timeout`) where it takes too long, or did a moment ago · those of `ask`.
    pub(crate) async fn get(&self, ask: impl Future<Output = Result<T>>) -> Result<T> {
        let (said, forgotten) = self.kept();
        match said {
            Some(Said::List(list)) => return Ok(list),
            Some(Said::Hung) => return Err(hung()),
            None => {}
        }
        let asked = Instant::now();
        let answer = self.limited(ask).await;
        let said = match &answer {
            Ok(list) => Some(Said::List(list.clone())),
            Err(_) if asked.elapsed() >= self.limit / 2 => Some(Said::Hung),
            Err(_) => None,
        };
        let mut place = self.write();
        if place.forgotten == forgotten {
            place.said = said.map(|said| (Instant::now(), said));
        }
        answer
    }

    /// What `ask` gives, if it comes in time; nothing is kept.
    pub(crate) async fn limited(&self, ask: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.limit, ask).await.unwrap_or_else(|_| Err(hung()))
    }

    /// The list is wrong: it is asked for again, and an answer that is on its way is not kept.
    pub(crate) fn forget(&self) {
        let mut place = self.write();
        place.said = None;
        place.forgotten += 1;
    }

    /// Whoever hung answers now: nobody has to wait until that is forgotten by itself.
    pub(crate) fn wake(&self) {
        let mut place = self.write();
        if matches!(place.said, Some((_, Said::Hung))) {
            place.said = None;
        }
    }

    fn kept(&self) -> (Option<Said<T>>, u64) {
        let place = self.read();
        let said = place.said.as_ref().filter(|(since, _)| since.elapsed() < self.age).map(|(_, said)| said.clone());
        (said, place.forgotten)
    }

    fn read(&self) -> RwLockReadGuard<'_, Place<T>> {
        self.place.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Place<T>> {
        self.place.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hung() -> Error {
    Error::unavailable("the provider did not list its tools in time").with_reason("upstream_timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept<u32> {
        within(Duration::from_secs(600))
    }

    fn within(limit: Duration) -> Kept<u32> {
        Kept::new(limit, Duration::from_secs(600))
    }

    async fn never() -> Result<u32> {
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_list_is_asked_for_once_until_it_is_forgotten() {
        let kept = kept();
        assert_eq!(kept.get(async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(kept.get(async { Ok(2) }).await.unwrap(), 1);
        kept.forget();
        assert_eq!(kept.get(async { Ok(3) }).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn an_answer_from_before_a_change_is_not_kept() {
        let kept = kept();
        let ask = async {
            kept.forget();
            Ok(1)
        };
        assert_eq!(kept.get(ask).await.unwrap(), 1);
        assert_eq!(kept.get(async { Ok(2) }).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn nobody_waits_twice_for_what_hangs_until_it_wakes() {
        let kept = within(Duration::from_millis(50));
        assert_eq!(kept.get(never()).await.unwrap_err().reason(), Some("upstream_timeout"));
        assert_eq!(kept.get(async { Ok(1) }).await.unwrap_err().reason(), Some("upstream_timeout"));
        kept.wake();
        assert_eq!(kept.get(async { Ok(2) }).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_quick_failure_is_tried_again() {
        let kept = kept();
        assert!(kept.get(async { Err(Error::unavailable("down")) }).await.is_err());
        assert_eq!(kept.get(async { Ok(1) }).await.unwrap(), 1);
    }
}

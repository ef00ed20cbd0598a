//! The places of connections that have not shown a certificate: few for one address, and a new one takes the oldest's when all
//! are taken, so that nobody keeps others out by holding connections open.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Places in all.
const MAX_STRANGERS: usize = 256;
/// Places of one address. Handshakes are short: also many nodes behind one address get their turn.
const MAX_OF_ADDRESS: usize = 64;

/// The places, in the order in which they were taken.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    places: BTreeMap<u64, (IpAddr, watch::Sender<bool>)>,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    strangers: Arc<Strangers>,
    lost: watch::Receiver<bool>,
}

impl Strangers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; none if the address has its share already.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut state = self.state();
        let own = state.places.values().filter(|(of, _)| *of == address).count();
        if own >= MAX_OF_ADDRESS {
            return None;
        }
        if state.places.len() >= MAX_STRANGERS
            && let Some((_, (_, lose))) = state.places.pop_first()
        {
            lose.send_replace(true);
        }
        let (lose, lost) = watch::channel(false);
        let number = state.next;
        state.next += 1;
        state.places.insert(number, (address, lose));
        Some(Place { number, strangers: self.clone(), lost })
    }
}

impl Place {
    /// Waits until a newer connection has taken the place.
    pub(crate) async fn lost(&mut self) {
        if self.lost.wait_for(|is_lost| *is_lost).await.is_err() {
            // The place was not taken: its entry is gone with this very place only.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.strangers.state().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_only_and_gets_it_back() {
        let strangers = Arc::new(Strangers::default());
        let one = IpAddr::from([10, 0, 0, 1]);
        let mut places: Vec<Place> = (0..MAX_OF_ADDRESS).map(|_| strangers.take(one).unwrap()).collect();
        assert!(strangers.take(one).is_none());
        assert!(strangers.take(IpAddr::from([10, 0, 0, 2])).is_some());
        places.pop();
        assert!(strangers.take(one).is_some());
    }

    #[tokio::test]
    async fn when_all_are_taken_the_oldest_loses_its_place() {
        let strangers = Arc::new(Strangers::default());
        let address = |index: usize| IpAddr::from([10, 0, 0, u8::try_from(index / MAX_OF_ADDRESS).unwrap()]);
        let mut places: Vec<Place> = (0..MAX_STRANGERS).map(|index| strangers.take(address(index)).unwrap()).collect();
        assert!(places.iter().all(|place| !*place.lost.borrow()));
        let newest = strangers.take(IpAddr::from([10, 0, 1, 0])).unwrap();
        places[0].lost().await;
        assert!(!*places[1].lost.borrow() && !*newest.lost.borrow());
        drop(places);
        assert_eq!(strangers.state().places.len(), 1);
    }
}

//! What a node does with public keys in a session, once each.

use rand_core::Rng as _;
use secagg::channel::Channels;
use secagg::lom::check_offers;
use secagg::session::Rules;

use crate::clock::{median, timed};
use crate::federation::{Federation, id, key};
use crate::tell;

const RUNS: usize = 201;

pub(crate) fn measure() {
    let mut federation = Federation::new(2, Rules { min_parties: 2, max_colluders: Some(0) });
    let key = key(0);
    let channels = Channels::new(federation.experiment.clone(), id(0), &mut federation.rng);
    let mut sign = Vec::new();
    let mut check = Vec::new();
    for _ in 0..RUNS {
        federation.rng.next_u64();
        let (offer, seconds) = timed(|| channels.offer(&key));
        sign.push(seconds);
        let offers = [(id(0), offer)].into();
        let (checked, seconds) = timed(|| check_offers(&federation.experiment, &federation.roster, &offers));
        checked.unwrap();
        check.push(seconds);
    }
    tell("signature", median(sign));
    tell("check of a signature", median(check));
}

//! Masks of ten parties beside the raw key stream of the same cipher, on one core.

use std::hint::black_box;

use aes::Aes128;
use aes::cipher::{Block, InnerIvInit, KeyInit, StreamCipherCore};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use secagg::lom::ResearcherSession;
use secagg::mask::Modulus;
use secagg::session::Rules;

use crate::clock::{median, timed};
use crate::federation::{Federation, TERMS, UPDATE, id};
use crate::tell;

const PARTIES: usize = 10;
/// The vector: 10⁶ elements of 32 bits.
const BYTES: usize = 4_000_000;
/// What the key stream is written to again and again; half of the smallest first-level cache.
const BUFFER: usize = 16 << 10;
const RUNS: usize = 101;

pub(crate) fn measure() {
    let mut federation = Federation::new(PARTIES, Rules::default());
    let spec = federation.spec(1, 3, None);
    let mut researcher = ResearcherSession::new(spec.clone(), &federation.roster).unwrap();
    for (index, node) in federation.nodes.iter_mut().enumerate() {
        researcher.accept_preparation(&id(index), node.prepare(&spec, &mut federation.rng).unwrap()).unwrap();
    }
    let inbound = researcher.close_preparations().unwrap();
    let masker = federation.nodes[0].masker(&spec.id(), TERMS, &inbound[&id(0)]).unwrap();
    let mut stream = CtrCore::<Aes128, Ctr128BE>::inner_iv_init(Aes128::new(&[1; 16].into()), &[0; 16].into());
    let mut buffer = vec![0_u8; BUFFER];
    let mut data = vec![0_u8; BYTES];
    // The key stream and the masks by turns, so that both see the machine in the same state.
    let (mut raw, mut masked) = (Vec::new(), [const { Vec::new() }; 3]);
    for _ in 0..RUNS {
        let blocks = Block::<Aes128>::slice_as_chunks_mut(&mut buffer).0;
        let fill = || (0..BYTES / BUFFER).for_each(|_| stream.write_keystream_blocks(black_box(&mut *blocks)));
        raw.push((BYTES / BUFFER * BUFFER) as f64 / 1e9 / timed(fill).1);
        for (modulus, rates) in [Modulus::Bits32, Modulus::Bits64, Modulus::Bits128].into_iter().zip(&mut masked) {
            let seconds = timed(|| masker.add(UPDATE, modulus, 0, &mut data).unwrap()).1;
            rates.push((PARTIES * BYTES) as f64 / 1e9 / seconds);
        }
    }
    let raw = median(raw);
    tell("key stream", raw);
    for (name, rates) in ["masks of 32 bits", "masks of 64 bits", "masks of 128 bits"].iter().zip(masked) {
        tell(name, median(rates));
    }
}

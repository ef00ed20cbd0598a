//! Who masks with whom: everybody with everybody, or the neighbours in a ring shuffled by a seed that nobody chose
//! (Bell et al. 2020, §3 and §4; specification §8).
//!
//! Why a sparse graph keeps a lying researcher from more than the sum. Write H(j) for a party and its k neighbours, and `c_k` for
//! the colluders in it, bounded by a hypergeometric tail, since nobody chose the graph and the colluders were there before it. Let
//! `t_k` be the smallest number with 2·`t_k` > k + 1 + `c_k`. Then, besides the quorum of t among all that makes the list of survivors
//! unique:
//! - fewer than `t_k` colluders in every H(j) hold shares of one secret: they cannot rebuild it;
//! - a node masks only with `t_k` of H (itself counted), and reveals only when every survivor j has `t_k` signers in H(j): the two
//!   groups share an honest signer, with whom j's mask is mutual and never revealed;
//! - any two separate stretches of k/2 places of the ring hold more than c signers together: so the honest signers cannot be
//!   parted, since parting a ring in which k/2 in each direction are neighbours takes two stretches without an honest one.
//!
//! So no sum over fewer than all honest survivors is ever free of masks, whatever the researcher told whom.

use aes::Aes128;
use aes::cipher::{Block, InnerIvInit, KeyInit, StreamCipherCore};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::party::{Experiment, Parties};
use crate::problem::Problem;
use crate::threshold::threshold;
use crate::wire::{Fixed, Joined};

/// Is log2 of the most probability that a graph is bad for anybody: 2^−40.
const SIGMA: i32 = 40;

/// Says who masks with whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Graph {
    /// Everybody with everybody.
    Complete,
    /// Each with the k/2 before and after it in a ring shuffled by the seed that all parties of the session opened.
    Sparse { neighbours: u32, seed: Fixed<32> },
}

impl Graph {
    /// Gives k and the seed as the session's id has them.
    pub(crate) fn numbers(&self, parties: u32) -> (u32, Fixed<32>) {
        match self {
            Self::Complete => (parties - 1, Fixed([0; 32])),
            Self::Sparse { neighbours, seed } => (*neighbours, *seed),
        }
    }

    /// Checks that the neighbours are an even number, fewer than all others.
    pub(crate) fn check(&self, parties: u32) -> Result<(), Problem> {
        match self {
            Self::Sparse { neighbours, .. }
                if *neighbours == 0 || !neighbours.is_multiple_of(2) || *neighbours > parties.saturating_sub(2) =>
            {
                Err(Problem::Neighbours { neighbours: *neighbours, parties })
            }
            _ => Ok(()),
        }
    }
}

/// Gives the hash of what all parties opened: the seed of the graph.
pub fn graph_seed(experiment: &Experiment, parties: &Parties, seeds: &[Fixed<32>]) -> Fixed<32> {
    let start = Joined::label("graph").prefixed(experiment.as_bytes()).u32(parties.count());
    let joined =
        parties.iter().zip(seeds).fold(start, |joined, (party, seed)| joined.prefixed(party.as_bytes()).raw(&seed.0));
    Fixed(joined.sha256())
}

/// Gives the most colluders that a party's k neighbours hold, except with probability 2^−40 over all n parties: the smallest x with
/// n · P(X > x) ≤ 2^−40, X hypergeometric: k drawn from the n − 1 others, c of which collude.
pub fn neighbourhood_colluders(parties: u32, colluders: u32, neighbours: u32) -> u32 {
    if neighbours >= parties - 1 {
        return colluders;
    }
    let drawn = Hypergeometric::new(parties - 1, colluders, neighbours);
    let mut tail = 0.0;
    let most = colluders.min(neighbours);
    for x in (0..=most).rev() {
        tail += drawn.probability(x);
        if f64::from(parties) * tail > bound() {
            return x;
        }
    }
    0
}

/// Gives k, the least even number of neighbours for which random losses of d parties leave a session able to end, except with
/// probability 2^−40; none if that needs the complete graph. Losses are bounded by union over all parties: `t_k` survivors in each
/// H(j), a lost j included, and, by union over pairs of stretches, more than c in any two stretches of k/2.
pub fn neighbours(parties: u32, colluders: u32, losses: u32) -> Option<u32> {
    let most = parties.saturating_sub(2);
    (1..=most / 2).map(|half| 2 * half).find(|k| {
        let share_threshold = threshold(k + 1, neighbourhood_colluders(parties, colluders, *k));
        let n = f64::from(parties);
        let near = Hypergeometric::new(parties - 1, losses, *k);
        let two_stretches = Hypergeometric::new(parties, losses, *k);
        share_threshold <= *k
            && colluders < *k
            && n * near.above(k - share_threshold) <= bound()
            && n * n / 2.0 * two_stretches.above(k - colluders - 1) <= bound()
    })
}

/// Is 2^−40, less what rounding of the sums below could add.
fn bound() -> f64 {
    2.0_f64.powi(-SIGMA) * (1.0 - 1e-6)
}

/// Is the number of marked among `drawn` items taken from `items`, of which `marked` are marked.
struct Hypergeometric {
    items: u32,
    marked: u32,
    drawn: u32,
    /// Holds ln(m!) for m up to `items`, each within 1e-12 relative of the exact one.
    factorials: Vec<f64>,
}

impl Hypergeometric {
    fn new(items: u32, marked: u32, drawn: u32) -> Self {
        let factorials = std::iter::once(0.0)
            .chain((1..=items).scan(0.0, |sum, m| {
                *sum += f64::from(m).ln();
                Some(*sum)
            }))
            .collect();
        Self { items, marked: marked.min(items), drawn: drawn.min(items), factorials }
    }

    fn ln_choose(&self, n: u32, k: u32) -> f64 {
        self.factorials[n as usize] - self.factorials[k as usize] - self.factorials[(n - k) as usize]
    }

    /// Gives P(X = x).
    fn probability(&self, x: u32) -> f64 {
        if x > self.marked || x > self.drawn || self.drawn - x > self.items - self.marked {
            return 0.0;
        }
        let ln = self.ln_choose(self.marked, x) + self.ln_choose(self.items - self.marked, self.drawn - x)
            - self.ln_choose(self.items, self.drawn);
        ln.exp()
    }

    /// Gives P(X > x).
    fn above(&self, x: u32) -> f64 {
        (x + 1..=self.marked.min(self.drawn)).rev().map(|value| self.probability(value)).sum()
    }
}

/// Holds the graph of one session by index of party.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    parties: usize,
    neighbours: usize,
    /// Is c of the session.
    colluders: usize,
    /// Is `t_k`: how many shares give a secret.
    share_threshold: u32,
    /// Holds the parties in the order of the ring, and the place of each; none in the complete graph.
    ring: Option<(Vec<usize>, Vec<usize>)>,
}

impl Layout {
    pub(crate) fn new(graph: &Graph, parties: u32, colluders: u32, session_threshold: u32) -> Self {
        let count = parties as usize;
        match graph {
            Graph::Complete => Self {
                parties: count,
                neighbours: count - 1,
                colluders: colluders as usize,
                share_threshold: session_threshold,
                ring: None,
            },
            Graph::Sparse { neighbours, seed } => {
                let order = ring(count, seed);
                let mut place = vec![0; count];
                for (at, party) in order.iter().enumerate() {
                    place[*party] = at;
                }
                let near = neighbourhood_colluders(parties, colluders, *neighbours);
                Self {
                    parties: count,
                    neighbours: *neighbours as usize,
                    colluders: colluders as usize,
                    share_threshold: threshold(neighbours + 1, near),
                    ring: Some((order, place)),
                }
            }
        }
    }

    /// Returns how many shares give a secret.
    pub(crate) fn share_threshold(&self) -> u32 {
        self.share_threshold
    }

    /// Lists a party's neighbours in rising order.
    pub(crate) fn neighbours(&self, party: usize) -> Vec<usize> {
        let Some(ring) = &self.ring else { return (0..self.parties).filter(|other| *other != party).collect() };
        let mut near: Vec<usize> = self.beside(ring, party).collect();
        near.sort_unstable();
        near
    }

    /// Lists the neighbours of a party in a ring: none twice, for there are fewer than others.
    fn beside<'ring>(
        &self,
        (order, place): &'ring (Vec<usize>, Vec<usize>),
        party: usize,
    ) -> impl Iterator<Item = usize> + 'ring {
        let (at, parties) = (place[party], self.parties);
        let sides = move |step: usize| [at + step, at + parties - step];
        (1..=self.neighbours / 2).flat_map(sides).map(move |at| order[if at < parties { at } else { at - parties }])
    }

    /// Tells whether two parties are neighbours.
    pub(crate) fn are_neighbours(&self, one: usize, other: usize) -> bool {
        let Some((_, place)) = &self.ring else { return one != other };
        let apart = place[one].abs_diff(place[other]);
        one != other && apart.min(self.parties - apart) <= self.neighbours / 2
    }

    /// Counts the members of a group among a party and its neighbours.
    fn near(&self, party: usize, group: &[bool]) -> usize {
        let Some(ring) = &self.ring else { return group.iter().filter(|member| **member).count() };
        usize::from(group[party]) + self.beside(ring, party).filter(|other| group[*other]).count()
    }

    /// Tells whether the group holds `t_k` of each survivor's neighbourhood, and more than c in any two separate stretches of k/2
    /// places: what signers must. In the complete graph the session's threshold says all of it.
    pub(crate) fn is_quorum(&self, group: &[bool], survivors: &[bool]) -> bool {
        let Some((order, _)) = &self.ring else { return true };
        let enough_near = (0..self.parties)
            .filter(|party| survivors[*party])
            .all(|party| self.near(party, group) >= self.share_threshold as usize);
        enough_near && self.least_in_two_stretches(order, group) > self.colluders
    }

    /// Leaves out members of a quorum, at most down to `least`, while the rest is one. Not the smallest quorum there is: the member that
    /// is missed least goes first.
    pub(crate) fn thinned(&self, quorum: &[bool], survivors: &[bool], least: usize) -> Vec<bool> {
        let mut left = quorum.iter().filter(|member| **member).count();
        let mut thinned = quorum.to_vec();
        // How many more than they need the survivors have near them; the complete graph asks for nothing but `least`.
        let spare = |party| self.near(party, quorum).saturating_sub(self.share_threshold as usize);
        let is_bound = |party: &usize| self.ring.is_some() && survivors[*party];
        let spare = |party| if is_bound(&party) { spare(party) } else { usize::MAX };
        let mut spare: Vec<usize> = (0..self.parties).map(spare).collect();
        let around = |party| self.neighbours(party).into_iter().chain([party]).filter(is_bound).collect();
        let around: Vec<Vec<usize>> = (0..self.parties).map(around).collect();
        while left > least {
            let members = (0..self.parties).filter(|party| thinned[*party]);
            let least_missed = |party: &usize| around[*party].iter().map(|other| spare[*other]).min();
            let Some(party) = members.rev().max_by_key(least_missed).filter(|party| least_missed(party) != Some(0)) else {
                break;
            };
            thinned[party] = false;
            left -= 1;
            around[party].iter().for_each(|other| spare[*other] -= 1);
        }
        // What two stretches hold is looked at in the end: random losses rarely come near to that bound.
        if self.is_quorum(&thinned, survivors) { thinned } else { quorum.to_vec() }
    }

    /// Finds how few members two separate stretches of k/2 places of the ring hold together.
    fn least_in_two_stretches(&self, order: &[usize], group: &[bool]) -> usize {
        let (n, half) = (self.parties, self.neighbours / 2);
        let is_member = |at: usize| usize::from(group[order[at % n]]);
        let mut in_stretch = (0..half).map(is_member).sum();
        let mut held: Vec<usize> = Vec::with_capacity(n);
        for start in 0..n {
            held.push(in_stretch);
            in_stretch = in_stretch + is_member(start + half) - is_member(start);
        }
        let mut least = usize::MAX;
        for one in 0..n {
            for apart in half..=n - half {
                least = least.min(held[one] + held[(one + apart) % n]);
            }
        }
        least
    }
}

/// Shuffles the indices by Fisher and Yates with u64 little-endian words of the seed's key stream, rejecting what would be biased.
pub(crate) fn ring(parties: usize, seed: &Fixed<32>) -> Vec<usize> {
    let mut key = [0; 16];
    Hkdf::<Sha256>::from_prk(&seed.0)
        .expect("a seed is as long as a hash")
        .expand(Joined::label("shuffle").as_ref(), &mut key)
        .expect("a key is shorter than a hash");
    let mut stream: CtrCore<Aes128, Ctr128BE> = CtrCore::inner_iv_init(Aes128::new(&key.into()), &[0; 16].into());
    let mut block = Block::<Aes128>::default();
    let mut words = std::iter::repeat_with(move || {
        stream.write_keystream_block(&mut block);
        let (words, _) = block.as_chunks::<8>();
        [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
    })
    .flatten();
    let mut order: Vec<usize> = (0..parties).collect();
    for last in (1..parties).rev() {
        let choices = last as u64 + 1;
        let biased = (u64::MAX % choices + 1) % choices;
        let word = words.by_ref().find(|word| *word <= u64::MAX - biased).expect("the key stream does not end");
        let chosen = usize::try_from(word % choices).expect("below the number of parties");
        order.swap(last, chosen);
    }
    order
}

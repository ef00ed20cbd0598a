//! What comes as bytes in Joye and Libert's scheme: ciphertexts, stored masks, a modulus.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use rand::SeedableRng;
use rand::rngs::StdRng;
use secagg::channel::{Channels, Roster};
use secagg::identity::IdentityKey;
use secagg::joye_libert::{Fold, Group, KeySpec, Masks, Node, Researcher, ServerKey, Vector};
use secagg::mask::{Modulus, VectorName};
use secagg::party::{Experiment, Parties, PartyId};
use secagg::session::{Context, Rules, Terms};
use secagg::wire::Fixed;

const TERMS: Terms = Terms(Fixed([5; 32]));
const VECTOR: VectorName<'_> = VectorName { index: 0, purpose: "model", name: "w" };
/// More than one ciphertext holds.
const ELEMENTS: usize = 70;
const GENERATION: u32 = 0;

/// Takes ciphertexts and then masks from the bytes; adds the former to a sum, opens it with the latter. Any of it may be a modulus.
pub fn check(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Group::from_text(text));
    }
    let Some((ciphertexts, masks)) = super::split(bytes) else { return };
    WORLD.with(|world| {
        let mut fold = world.fold();
        let added = fold.add(&world.ids[0], ciphertexts);
        assert_eq!(fold.add(&world.ids[0], &world.honest).is_ok(), added.is_err(), "once, and a refusal changes nothing");
        fold.add(&world.ids[1], &world.honest).expect("ciphertexts of an honest node");
        let Ok(masks) = Masks::from_bytes(&world.group, masks) else { return };
        let written = masks.to_bytes();
        let again = Masks::from_bytes(&world.group, &written).unwrap_or_else(|problem| panic!("{problem}"));
        assert!(*again.to_bytes() == *written, "masks that were written read back as they were");
        if let Ok(sum) = fold.finish(&masks) {
            assert_eq!(sum.len(), 4 * ELEMENTS);
        }
    });
}

/// Two nodes with keys; what the first one sends, and what opens its sum with itself or with the other.
struct World {
    group: Group,
    key: ServerKey,
    context: Context,
    ids: [PartyId; 2],
    honest: Vec<u8>,
    masks: Vec<u8>,
}

thread_local! {
    static WORLD: World = negotiate();
}

impl World {
    fn fold(&self) -> Fold {
        Fold::new(&self.group, &self.key, &self.context, TERMS, VECTOR, Modulus::Bits32, ELEMENTS)
            .expect("the key's experiment")
    }
}

/// Gives a node's ciphertexts and the researcher's masks, and a modulus as text.
pub fn seeds() -> [(&'static str, Vec<u8>); 2] {
    let sum = WORLD.with(|world| {
        let length = u16::try_from(world.honest.len()).expect("two ciphertexts").to_le_bytes();
        [&length, world.honest.as_slice(), &world.masks].concat()
    });
    [("sum", sum), ("modulus", b"0xc7970ceedcc3b0754490201a7aa613cd".to_vec())]
}

fn negotiate() -> World {
    let mut rng = StdRng::seed_from_u64(5);
    let experiment = Experiment::new("e").expect("a short text");
    let ids = ["a", "b"].map(|id| PartyId::new(id).expect("a short text"));
    let keys = [[1; 32], [2; 32]].map(|scalar| IdentityKey::from_scalar(&scalar).expect("a small number"));
    let roster: Roster = ids.iter().cloned().zip(keys.iter().map(IdentityKey::public)).collect();
    let mut channels = ids.clone().map(|id| Channels::new(experiment.clone(), id, &mut rng));
    let offers: BTreeMap<_, _> =
        ids.iter().cloned().zip(channels.iter().zip(&keys).map(|(own, key)| own.offer(key))).collect();
    let parties = Parties::new(ids.clone()).expect("two different ones");
    let spec = KeySpec { experiment: experiment.clone(), generation: GENERATION, parties, threshold: 2, colluders: 0 };
    let (group, rules) = (Group::rsa_2048(), Rules { min_parties: 2, max_colluders: None });
    let mut researcher = Researcher::new(experiment.clone());
    let good = "keys of honest nodes";
    researcher.begin(&group, &spec).expect(good);
    let mut nodes = [Node::new(), Node::new()];
    for ((id, node), own) in ids.iter().zip(&mut nodes).zip(&mut channels) {
        own.agree(&roster, &offers).expect(good);
        let shares = node.share_keys(own, &group, &spec, &rules, &mut rng).expect(good);
        researcher.accept_shares(GENERATION, id, shares).expect(good);
    }
    for ((id, node), own) in ids.iter().zip(&mut nodes).zip(&mut channels) {
        let sum = node.take_shares(own, GENERATION, &researcher.inbound(GENERATION, id).expect(good)).expect(good);
        researcher.accept_sum(GENERATION, id, sum).expect(good);
    }
    let key = researcher.server_key(GENERATION).expect(good);
    let context = Context { experiment, round: 1, attempt: 0, phase: 0 };
    let mut world = World { group, key, context, ids, honest: Vec::new(), masks: Vec::new() };
    let fold = world.fold();
    let compute = |masker: secagg::joye_libert::Masker| {
        let mut masks = masker.begin(fold.label());
        masker.extend(fold.label(), &mut masks, fold.ciphertexts(), NonZeroUsize::MIN, &|| true).expect(good);
        masks
    };
    let own = compute(nodes[0].masker(&world.group, GENERATION).expect(good));
    let vector = Vector { name: VECTOR, modulus: Modulus::Bits32, elements: &[1; 4 * ELEMENTS] };
    world.honest = nodes[0].encrypt(&world.group, GENERATION, &world.context, TERMS, vector, &own).expect(good);
    world.masks = compute(world.key.masker(&world.group).expect(good)).to_bytes().to_vec();
    world
}

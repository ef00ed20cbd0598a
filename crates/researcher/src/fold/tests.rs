use proptest::prelude::*;
use protocol::{Encoding, Scalars, Tensor, Tensors, Width};
use rand::SeedableRng;
use rand::rngs::StdRng;
use secagg::channel::Roster;
use secagg::identity::IdentityKey;
use secagg::lom::{NodeRole, ResearcherSession};
use secagg::party::{Experiment as Name, Parties, PartyId};
use secagg::session::{Context, Rules, SessionSpec, Terms};
use secagg::wire::Fixed;

use super::*;

fn spec(purpose: Purpose, name: &str, len: usize, encoding: Encoding) -> VectorSpec {
    VectorSpec { purpose, name: name.into(), shape: vec![len], encoding }
}

fn layout(len: usize) -> Vec<VectorSpec> {
    vec![
        spec(Purpose::Weight, "weight", 1, Encoding::COUNT),
        spec(Purpose::Model, "w", len, Encoding { width: Width::Bits32, exponent: 12 }),
        spec(Purpose::Model, "b", 2, Encoding::REAL),
        spec(Purpose::Loss, "loss", 1, Encoding::REAL),
    ]
}

/// Writes a contribution: weight, then differences times weight.
fn contribution(path: &PathBuf, layout: &[VectorSpec], weight: f64, w: &[f64], b: [f64; 2]) {
    let mut bytes = Vec::new();
    layout[0].encoding.encode([weight].into_iter(), &mut bytes).unwrap();
    layout[1].encoding.encode(w.iter().map(|value| value * weight), &mut bytes).unwrap();
    layout[2].encoding.encode(b.iter().map(|value| value * weight), &mut bytes).unwrap();
    layout[3].encoding.encode([0.25 * weight].into_iter(), &mut bytes).unwrap();
    std::fs::write(path, bytes).unwrap();
}

struct World {
    dir: tempfile::TempDir,
    job: FoldJob,
}

fn model(len: usize) -> Tensors {
    Tensors::new(vec![
        Tensor::new("w", vec![len], Scalars::F32(vec![1.0; len])).unwrap(),
        Tensor::new("b", vec![2], Scalars::F64(vec![-1.0, 2.0])).unwrap(),
        Tensor::new("standardise.mean", vec![1], Scalars::F64(vec![7.0])).unwrap(),
    ])
    .unwrap()
}

fn world(len: usize, contributions: &[(f64, f64)]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(len);
    let models = dir.path().join("rounds");
    let blob = write_model(&models, &model(len)).unwrap().blob;
    let mut paths = Vec::new();
    for (index, (weight, size)) in contributions.iter().enumerate() {
        let path = dir.path().join(index.to_string());
        let w: Vec<f64> = (0..len).map(|place| size * (place % 7) as f64).collect();
        contribution(&path, &layout, *weight, &w, [*size, -*size]);
        paths.push(path);
    }
    let model = Some(crate::files::model_in(&models, blob));
    World { dir, job: FoldJob { layout, contributions: paths, model, models, unmasking: None } }
}

fn folded_model(world: &World, folded: &Folded) -> Tensors {
    let path = crate::files::model_in(&world.job.models, folded.model.unwrap());
    Tensors::from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_model_moves_by_the_weighted_mean_and_keeps_its_other_tensors() {
    let world = world(10, &[(100.0, 0.5), (300.0, -0.25)]);
    let folded = fold(&world.job).unwrap().0;
    assert_eq!(folded.sums[0].values, [400.0]);
    assert_eq!(folded.sums[1].values, [100.0]);
    // (100 · 0.5 - 300 · 0.25) / 400 = -0.0625 for each unit.
    let model = folded_model(&world, &folded);
    let expected: Vec<f32> = [0_u8, 1, 2, 3, 4, 5, 6, 0, 1, 2].map(|unit| 1.0 - 0.0625 * f32::from(unit)).to_vec();
    assert_eq!(model.get("w").unwrap().scalars(), &Scalars::F32(expected));
    assert_eq!(model.get("b").unwrap().scalars(), &Scalars::F64(vec![-1.0625, 2.0625]));
    assert_eq!(model.get("standardise.mean").unwrap().scalars(), &Scalars::F64(vec![7.0]));
    assert_eq!(folded.largest, BTreeMap::from([("w".into(), 150.0), ("b".into(), 25.0)]));
}

#[test]
fn many_files_and_windows_give_what_a_plain_sum_gives() {
    let len = 2 * WINDOW + 3;
    let contributions: Vec<(f64, f64)> = (1..=u8::try_from(MAX_OPEN).unwrap() + 3).map(|n| (f64::from(n), 0.125)).collect();
    let world = world(len, &contributions);
    let folded = fold(&world.job).unwrap().0;
    let model = folded_model(&world, &folded);
    let expected: Vec<f32> = (0..len).map(|place| 1.0 + 0.125 * (place % 7) as f32).collect();
    assert_eq!(model.get("w").unwrap().scalars(), &Scalars::F32(expected));
}

#[test]
fn a_short_file_and_an_element_beyond_its_width_are_named() {
    let world = world(4, &[(1.0, 0.5), (1.0, 0.5), (1.0, 0.5)]);
    let whole = std::fs::read(&world.job.contributions[1]).unwrap();
    std::fs::write(&world.job.contributions[1], &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(fold(&world.job), Err(FoldError::Spoiled(1))));
    let mut beyond = whole.clone();
    beyond[..8].copy_from_slice(&(1_i64 << 50).to_le_bytes());
    std::fs::write(&world.job.contributions[1], beyond).unwrap();
    assert!(matches!(fold(&world.job), Err(FoldError::Spoiled(1))));
    std::fs::write(&world.job.contributions[1], whole).unwrap();
    assert!(fold(&world.job).is_ok());
}

#[test]
fn a_fold_that_fails_leaves_no_file() {
    let world = world(2 * WINDOW, &[(1.0, 0.5), (1.0, 0.5)]);
    let whole = std::fs::read(&world.job.contributions[1]).unwrap();
    std::fs::write(&world.job.contributions[1], &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(fold(&world.job), Err(FoldError::Spoiled(1))));
    assert_eq!(std::fs::read_dir(&world.job.models).unwrap().count(), 1, "the old model");
}

#[test]
fn weights_of_zero_give_no_model() {
    let world = world(4, &[(0.0, 0.5), (0.0, 1.0)]);
    assert!(matches!(fold(&world.job), Err(FoldError::NoWeight)));
    assert_eq!(std::fs::read_dir(&world.job.models).unwrap().count(), 1, "the old model");
}

#[test]
fn float32_parameters_are_rounded_to_the_nearest() {
    let world = world(2, &[(3.0, 0.1)]);
    let folded = fold(&world.job).unwrap().0;
    // Three tenths are 1229 steps of 2^-12.
    let expected = 1.0 + f64::from(1229_u16) / 4096.0 / 3.0;
    let model = folded_model(&world, &folded);
    let Scalars::F32(values) = model.get("w").unwrap().scalars() else { panic!("float32 stays float32") };
    let error = (f64::from(values[1]) - expected).abs();
    assert!(error > 0.0 && error <= f64::from(f32::EPSILON) / 2.0, "{error}");
}

#[test]
fn an_average_that_float32_cannot_hold_is_a_divergence() {
    let mut world = world(2, &[(1.0, 1.0)]);
    world.job.layout[1].encoding.exponent = -120;
    assert!(matches!(fold(&world.job), Err(FoldError::Diverged(name)) if name == "w"));
    assert_eq!(std::fs::read_dir(&world.job.models).unwrap().count(), 1, "the old model");
}

#[test]
fn a_layout_that_is_not_the_models_gives_no_model() {
    let other: [fn(&mut VectorSpec); 2] = [|spec| spec.shape = vec![3], |spec| spec.name = "v".into()];
    for change in other {
        let mut world = world(4, &[(1.0, 0.5)]);
        change(&mut world.job.layout[1]);
        let result = fold(&world.job);
        assert!(matches!(result, Err(FoldError::Model(_))), "{result:?}");
    }
}

#[test]
fn a_negative_weight_spoils_the_contribution_that_has_it() {
    let world = world(4, &[(100.0, 0.5), (-99.0, 0.5), (50.0, 0.5)]);
    assert!(matches!(fold(&world.job), Err(FoldError::Spoiled(1))));
}

#[test]
fn a_statistic_has_no_model() {
    let mut world = world(4, &[(5.0, 0.5)]);
    world.job.model = None;
    let folded = fold(&world.job).unwrap().0;
    assert_eq!((folded.model, folded.sums.len()), (None, 2));
    assert!(world.dir.path().exists());
}

/// Masks the files of the contributions, as their nodes do, and gives what takes the masks off their sum.
fn hide(world: &World, terms: [u8; 32]) -> Unmasking {
    let mut rng = StdRng::seed_from_u64(3);
    let name = Name::new("e").unwrap();
    let parties: Vec<PartyId> = (0..world.job.contributions.len()).map(|n| PartyId::new(format!("n{n}")).unwrap()).collect();
    let keys: Vec<IdentityKey> =
        (0..parties.len()).map(|n| IdentityKey::from_scalar(&[u8::try_from(n).unwrap() + 1; 32]).unwrap()).collect();
    let rules = Rules { min_parties: 2, max_colluders: Some(0) };
    let mut roles: Vec<NodeRole> =
        parties.iter().map(|party| NodeRole::new(name.clone(), party.clone(), rules, &mut rng)).collect();
    let roster: Roster = parties.iter().cloned().zip(keys.iter().map(IdentityKey::public)).collect();
    let offers = parties.iter().cloned().zip(roles.iter().zip(&keys).map(|(role, key)| role.offer(key))).collect();
    let context = Context { experiment: name, round: 0, attempt: 0, phase: 0 };
    let spec = SessionSpec::new(context, Parties::new(parties.clone()).unwrap(), 0, 2);
    let (id, terms) = (spec.id(), Terms(Fixed(terms)));
    let mut session = ResearcherSession::new(spec.clone(), &roster).unwrap();
    for (role, party) in roles.iter_mut().zip(&parties) {
        role.agree(&roster, &offers).unwrap();
        session.accept_preparation(party, role.prepare(&spec, &mut rng).unwrap()).unwrap();
    }
    let inbound = session.close_preparations().unwrap();
    for ((role, party), path) in roles.iter_mut().zip(&parties).zip(&world.job.contributions) {
        let masker = role.masker(&id, terms, &inbound[party]).unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_mut_slice();
        for (index, spec) in world.job.layout.iter().enumerate() {
            let (vector, after) = rest.split_at_mut(spec.byte_len().unwrap());
            masker.add(masked::vector_name(index, spec), modulus(spec), 0, vector).unwrap();
            rest = after;
        }
        std::fs::write(path, bytes).unwrap();
    }
    session.fix_survivors(parties.clone()).unwrap();
    for ((role, key), party) in roles.iter_mut().zip(&keys).zip(&parties) {
        session.accept_attestation(party, role.attest(&id, &parties, key).unwrap()).unwrap();
    }
    let attestations = session.attestations().unwrap().clone();
    for (role, party) in roles.iter_mut().zip(&parties) {
        session.accept_revelation(party, role.reveal(&id, &parties, &attestations).unwrap()).unwrap();
    }
    Unmasking { opening: Opening::Lom(session.unmasker(terms).unwrap()), most_weight: Some(1024) }
}

#[test]
fn hidden_contributions_give_the_same_bits_as_plain_ones() {
    let mut world = world(WINDOW + 3, &[(100.0, 0.5), (300.0, -0.25), (1.0, 0.125)]);
    let plain = fold(&world.job).unwrap();
    let bytes = std::fs::read(&world.job.contributions[0]).unwrap();
    world.job.unmasking = Some(hide(&world, [5; 32]));
    assert_ne!(std::fs::read(&world.job.contributions[0]).unwrap(), bytes);
    assert_eq!(fold(&world.job).unwrap(), plain);
}

#[test]
fn a_hidden_sum_that_cannot_be_is_refused() {
    for weights in [[1000.0, 100.0], [1.0, -2.0]] {
        let mut world = world(4, &weights.map(|weight| (weight, 0.5)));
        world.job.unmasking = Some(hide(&world, [5; 32]));
        assert!(matches!(fold(&world.job), Err(FoldError::Impossible(name)) if name == "weight"));
    }
    let mut world = world(4, &[(1.0, 0.5), (2.0, 0.5)]);
    world.job.unmasking = Some(hide(&world, [5; 32]));
    let whole = std::fs::read(&world.job.contributions[1]).unwrap();
    std::fs::write(&world.job.contributions[1], &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(fold(&world.job), Err(FoldError::Spoiled(1))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_order_gives_the_same_bits(
        contributions in proptest::collection::vec((1.0_f64..1000.0, -1.0_f64..1.0), 2..9),
        turn in 0_usize..9,
    ) {
        let contributions: Vec<(f64, f64)> = contributions.into_iter().map(|(weight, size)| (weight.round(), size)).collect();
        let mut world = world(33, &contributions);
        let first = fold(&world.job).unwrap();
        world.job.contributions.rotate_left(turn % contributions.len());
        world.job.contributions.reverse();
        prop_assert_eq!(fold(&world.job).unwrap(), first);
    }
}

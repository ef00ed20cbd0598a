//! The published vectors of `testdata/joye_libert.json`, computed by the independent reference in Python.

use std::num::NonZeroUsize;

use serde_json::Value;

use super::cipher::{self, Product, Side};
use super::group::Exponent;
use super::keys::{KEY_BITS, Prime4241};
use super::tests::Draws;
use super::*;
use crate::party::{Experiment, Parties, Point};
use crate::session::{Context, Terms};
use crate::shamir::{self, Polynomial};
use crate::wire::{Blob, Secret};

fn cases(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../testdata/joye_libert.json")).unwrap();
    let of_kind: Vec<Value> = all["cases"].as_array().unwrap().iter().filter(|case| case["kind"] == kind).cloned().collect();
    assert!(!of_kind.is_empty(), "{kind}");
    of_kind
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn size(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::from_value::<Blob>(value.clone()).unwrap().0
}

/// Reads hexadecimal digits without leading zeros into the bytes of a share.
fn share(value: &Value) -> [u8; SHARE_BYTES] {
    bytes(&Value::String(format!("{:0>1062}", text(value)))).try_into().unwrap()
}

/// The inputs of a session.
struct Case {
    group: Group,
    spec: KeySpec,
    context: Context,
    terms: Terms,
    keys: Vec<Vec<u8>>,
    inputs: Value,
    outputs: Value,
}

impl Case {
    fn read(case: &Value) -> Self {
        let inputs = case["inputs"].clone();
        let experiment = Experiment::new(text(&inputs["experiment"])).unwrap();
        let parties = list(&inputs["parties"]).iter().map(|party| PartyId::new(text(party)).unwrap());
        Self {
            group: Group::from_text(&format!("0x{}", text(&inputs["modulus"]))).unwrap(),
            spec: KeySpec {
                experiment: experiment.clone(),
                generation: number(&inputs["generation"]),
                parties: Parties::new(parties).unwrap(),
                threshold: number(&inputs["t"]),
                colluders: 0,
            },
            context: Context {
                experiment,
                round: number(&inputs["round"]),
                attempt: number(&inputs["attempt"]),
                phase: u16::try_from(number(&inputs["phase"])).unwrap(),
            },
            terms: serde_json::from_value(inputs["terms"].clone()).unwrap(),
            keys: list(&inputs["nodes"]).iter().map(|node| bytes(&node["key"])).collect(),
            outputs: case["outputs"].clone(),
            inputs,
        }
    }

    fn label(&self, at: usize) -> Label {
        let vector = &self.inputs["vectors"][at];
        let (index, purpose, name) = (u32::try_from(at).unwrap(), text(&vector["purpose"]), text(&vector["name"]));
        Label::new(self.spec.id(&self.group), &self.context, self.terms, VectorName { index, purpose, name })
    }

    fn modulus(&self, at: usize) -> Modulus {
        match number(&self.inputs["vectors"][at]["w"]) {
            32 => Modulus::Bits32,
            64 => Modulus::Bits64,
            128 => Modulus::Bits128,
            other => panic!("{other} bits"),
        }
    }

    fn packing(&self, at: usize) -> Packing {
        Packing::new(self.modulus(at), self.spec.parties.count())
    }

    fn length(&self, at: usize) -> usize {
        size(&self.inputs["vectors"][at]["length"])
    }

    fn masks(&self, at: usize, key: &[u8], bits: u32, side: Side) -> Masks {
        let masker = Masker { group: self.group.clone(), exponent: Exponent::from_be_bytes(key, bits), side };
        let label = self.label(at);
        let mut masks = masker.begin(&label);
        let count = self.packing(at).ciphertexts(self.length(at));
        masker.extend(&label, &mut masks, count, NonZeroUsize::MIN, &|| true).unwrap();
        masks
    }

    /// Gives signed decimal numbers as elements.
    fn elements(&self, at: usize, values: &Value) -> Vec<u8> {
        let element =
            |value: &Value| text(value).parse::<i128>().unwrap().to_le_bytes()[..self.modulus(at).bytes()].to_vec();
        list(values).iter().flat_map(element).collect()
    }
}

#[test]
fn key_shares_and_their_sums_are_those_of_the_reference() {
    for case in cases("joye-libert") {
        let case = Case::read(&case);
        assert_eq!(case.spec.id(&case.group).0.0[..], bytes(&case.outputs["keys_id"]));
        let points: Vec<Point> = (0..case.keys.len()).map(Point::of_index).collect();
        let mut sums = vec![shamir::Element::<Prime4241, _>::ZERO; points.len()];
        for (party, node) in case.spec.parties.iter().zip(list(&case.inputs["nodes"])) {
            let mut draws = Draws(bytes(&node["draws"]));
            let polynomial =
                Polynomial::<Prime4241, _>::draw(&bytes(&node["key"]), case.spec.threshold, &mut draws).unwrap();
            assert!(draws.0.is_empty());
            for ((point, sum), expected) in points.iter().zip(&mut sums).zip(list(&case.outputs["shares"][party.as_str()])) {
                let share = polynomial.share(*point);
                assert_eq!(*share, bytes(expected));
                *sum = sum.add(&shamir::read(&share).unwrap());
            }
        }
        for (party, sum) in case.spec.parties.iter().zip(&sums) {
            assert_eq!(*shamir::write(sum), bytes(&case.outputs["share_sums"][party.as_str()]));
        }
    }
}

#[test]
fn hashes_ciphertexts_and_sums_are_those_of_the_reference() {
    for case in cases("joye-libert") {
        let case = Case::read(&case);
        for at in 0..list(&case.inputs["vectors"]).len() {
            let (label, packing, expected) = (case.label(at), case.packing(at), &case.outputs["vectors"][at]);
            for (index, ciphertext) in (0..).zip(list(&expected["ciphertexts"])) {
                let element = case.group.bytes(&label.hash(&case.group, index));
                assert_eq!(element[..], bytes(&ciphertext["element"]));
            }
            let mut product = Product::new(case.group.clone(), packing, case.length(at));
            for (party, key) in case.keys.iter().enumerate() {
                let masks = case.masks(at, key, KEY_BITS, Side::Node);
                let elements = case.elements(at, &case.inputs["nodes"][party]["values"][at]);
                let ciphertexts = cipher::encrypt(&case.group, &packing, &label, &elements, &masks).unwrap();
                let of_party = list(&expected["ciphertexts"]).iter().map(|each| bytes(&each["ciphertexts"][party]));
                assert_eq!(ciphertexts, of_party.collect::<Vec<_>>().concat(), "vector {at}, party {party}");
                product.multiply(&ciphertexts).unwrap();
            }
            let masks = case.masks(at, &share(&case.outputs["key_sum"]), 4248, Side::Researcher);
            assert_eq!(product.aggregate(&label, &masks).unwrap(), case.elements(at, &expected["sums"]));
        }
    }
}

#[test]
fn what_the_reference_does_not_open_does_not_open_here() {
    let sessions = cases("joye-libert");
    for open in cases("joye-libert-open") {
        let inputs = &open["inputs"];
        let case = Case::read(sessions.iter().find(|session| session["name"] == inputs["session"]).unwrap());
        let (at, index) = (size(&inputs["vector"]), size(&inputs["index"]));
        assert_eq!((index, case.packing(at).ciphertexts(case.length(at))), (0, 1), "a vector of one ciphertext");
        let ciphertexts = &case.outputs["vectors"][at]["ciphertexts"][index]["ciphertexts"];
        let given = list(&inputs["from"]).iter().map(|party| &ciphertexts[size(party)]).chain(list(&inputs["further"]));
        let mut key_sum = share(&case.outputs["key_sum"]);
        key_sum[SHARE_BYTES - 1] =
            key_sum[SHARE_BYTES - 1].checked_add(u8::try_from(number(&inputs["added_to_key_sum"])).unwrap()).unwrap();
        let mut product = Product::new(case.group.clone(), case.packing(at), case.length(at));
        let all_in = given.map(|ciphertext| product.multiply(&bytes(ciphertext))).collect::<Option<Vec<()>>>();
        let masks = case.masks(at, &key_sum, 4248, Side::Researcher);
        let opened = all_in.ok_or("ciphertext").and_then(|_| product.aggregate(&case.label(at), &masks).map_err(|_| "keys"));
        let expected = match open.get("refusal").map(text) {
            None => Ok(case.elements(at, &case.outputs["vectors"][at]["sums"])),
            Some("keys-do-not-fit") => Err("keys"),
            Some("ciphertext-range" | "truncated") => Err("ciphertext"),
            Some(other) => panic!("{other}"),
        };
        assert_eq!(opened, expected, "{}", open["name"]);
    }
}

#[test]
fn sums_of_shares_give_the_key_of_the_reference_or_are_refused() {
    for case in cases("joye-libert-key") {
        let inputs = &case["inputs"];
        let shares = list(&inputs["shares"]);
        let party = |point: &Value| PartyId::new(format!("{:04}", number(point))).unwrap();
        let experiment = Experiment::new("e").unwrap();
        let parties = Parties::new((1..=3).map(|point| party(&Value::from(point)))).unwrap();
        let threshold = number(&inputs["threshold"]);
        let spec = KeySpec { experiment: experiment.clone(), generation: 0, parties, threshold, colluders: 0 };
        let mut researcher = Researcher::new(experiment);
        let keys = researcher.begin(&Group::rsa_2048(), &spec).unwrap();
        let accepted: Result<Vec<()>, Problem> = shares
            .iter()
            .map(|share| {
                let sum = SumShare { keys, share: Secret::new(bytes(&share[1]).try_into().unwrap()) };
                researcher.accept_sum(0, &party(&share[0]), sum)
            })
            .collect();
        let key = accepted.and_then(|_| researcher.server_key(0));
        match case.get("refusal").map(text) {
            None => assert_eq!(*key.unwrap().sum.expose(), share(&case["outputs"]["key_sum"])),
            Some("shares-disagree") => assert!(matches!(key, Err(Problem::WrongSums { .. })), "{}", case["name"]),
            Some("share-range") => assert!(matches!(key, Err(Problem::Share { .. })), "{}", case["name"]),
            Some(other) => panic!("{other}"),
        }
    }
}

//! What the published vectors of whole sessions refuse is refused here for the same reason, one word of theirs for one problem of ours.

use std::collections::BTreeMap;

use secagg::channel::Sealed;
use secagg::lom::{Attestation, InboundPreparation, Revelation};
use secagg::party::PartyId;
use secagg::problem::Problem;
use secagg::wire::Blob;
use serde_json::{Value, json};

use crate::sessions::{Masked, mask, unhex};

/// Runs the cases of a kind, each with the session that it leans on, its inputs, its outputs and the word of its refusal.
#[expect(clippy::print_stdout, reason = "shown where a test fails")]
fn each(kind: &str, mut check: impl FnMut(&Value, &Value, &Value, Option<&str>)) {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/lom.json")).unwrap();
    let content: Value = serde_json::from_str(&file).unwrap();
    let cases = content["cases"].as_array().unwrap();
    let of_kind: Vec<&Value> = cases.iter().filter(|case| case["kind"] == kind).collect();
    assert!(of_kind.len() >= 3, "{kind}");
    for case in of_kind {
        let session = cases.iter().find(|other| other["name"] == case["inputs"]["session"]).unwrap();
        println!("{}", case["name"]);
        check(session, &case["inputs"], &case["outputs"], case["refusal"].as_str());
    }
}

fn party(value: &Value) -> PartyId {
    serde_json::from_value(value.clone()).unwrap()
}

fn parties(value: &Value) -> Vec<PartyId> {
    serde_json::from_value(value.clone()).unwrap()
}

fn stranger(name: &str) -> Problem {
    Problem::NotAParty { party: PartyId::new(name).unwrap() }
}

#[test]
fn lists_of_survivors_are_signed_or_refused_as_published() {
    each("attest", |session, inputs, outputs, refused| {
        let Masked { spec, mut roles, identities, .. } = mask(&session["inputs"], None);
        let party = party(&inputs["party"]);
        let role = roles.get_mut(&party).unwrap();
        let lists = inputs["lists"].as_array().unwrap();
        let answers: Vec<_> =
            lists.iter().map(|list| role.attest(&spec.id(), &parties(list), &identities[&party])).collect();
        let (last, before) = answers.split_last().unwrap();
        assert!(before.iter().all(Result::is_ok));
        let problem = match refused {
            None => {
                let signatures: Vec<_> = answers.iter().map(|answer| answer.clone().unwrap().signature).collect();
                return assert_eq!(json!(signatures), outputs["signatures"]);
            }
            Some("second-list") => Problem::SecondList,
            Some("not-listed") => Problem::NotASurvivor,
            Some("too-few-survivors") => Problem::TooFewSurvivors { got: 2, least: 3 },
            Some("unordered-parties") => Problem::Malformed { what: "list of survivors" },
            Some("unknown-party") => stranger("stranger"),
            Some(other) => panic!("{other}"),
        };
        assert_eq!(*last, Err(problem));
    });
}

#[test]
fn shares_are_revealed_or_not_as_published() {
    each("reveal", |session, inputs, outputs, refused| {
        let Masked { spec, mut roles, identities, .. } = mask(&session["inputs"], None);
        let (id, party) = (spec.id(), party(&inputs["party"]));
        let role = roles.get_mut(&party).unwrap();
        let signed = parties(&inputs["signed"]);
        if !signed.is_empty() {
            role.attest(&id, &signed, &identities[&party]).unwrap();
        }
        let signatures = inputs["signatures"].as_array().unwrap().iter();
        let shown: BTreeMap<PartyId, Attestation> = signatures
            .map(|pair| {
                let signature = serde_json::from_value(pair[1].clone()).unwrap();
                (serde_json::from_value(pair[0].clone()).unwrap(), Attestation { signature })
            })
            .collect();
        let answer = role.reveal(&id, &parties(&inputs["survivors"]), &shown);
        let own = inputs["signed"].as_array().is_some_and(Vec::is_empty);
        let problem = match refused {
            None => {
                let revelation = answer.ok().unwrap();
                // The published ones are those of the node itself, which was given nothing by others there.
                let own = spec.parties.index_of(&party).unwrap();
                let is_in = |shares: &Value| shares.as_array().unwrap().contains(&json!(own));
                assert_eq!(revelation.self_shares.contains_key(&party), is_in(&outputs["self"]));
                return assert_eq!(revelation.pair_shares.contains_key(&party), is_in(&outputs["mask"]));
            }
            Some("too-few-signatures") => Problem::TooFewSignatures { got: u32::try_from(shown.len()).unwrap(), least: 3 },
            Some("bad-signature") => {
                let liar = if own { "node-1" } else { "node-2" };
                Problem::Signature { what: "list of survivors", party: PartyId::new(liar).unwrap() }
            }
            Some("unknown-signer") => stranger("node-10"),
            Some("second-list") => Problem::SecondList,
            Some(other) => panic!("{other}"),
        };
        assert_eq!(answer.map(drop), Err(problem));
    });
}

#[test]
fn preparations_are_taken_or_refused_as_published() {
    each("take", |session, inputs, _, refused| {
        let [party, from] = ["party", "from"].map(|name| party(&inputs[name]));
        let Masked { spec, terms, mut roles, mut inbound, .. } = mask(&session["inputs"], Some(&party));
        let given = inbound.get_mut(&party).unwrap();
        let mask_public = serde_json::from_value(inputs["published"].clone()).unwrap();
        let sealed = Sealed(Blob(unhex(inputs["sealed"].as_str().unwrap())));
        given.insert(from.clone(), InboundPreparation { mask_public, sealed });
        let answer = roles.get_mut(&party).unwrap().masker(&spec.id(), terms, given).map(drop);
        let problem = match refused {
            None => return assert_eq!(answer, Ok(())),
            Some("key-mismatch") => Problem::Commitment { what: "masking key", party: from },
            Some("not-authentic") => Problem::Sealed { party: from },
            Some("low-order-key") => Problem::PublicKey { what: "preparation", party: from },
            Some(other) => panic!("{other}"),
        };
        assert_eq!(answer, Err(problem));
    });
}

#[test]
fn sums_are_opened_or_not_as_published() {
    each("unmask", |session, inputs, _, refused| {
        let Masked { terms, mut researcher, .. } = mask(&session["inputs"], None);
        let survivors = parties(&session["inputs"]["survivors"]);
        researcher.fix_survivors(survivors).unwrap();
        for (party, signature) in session["outputs"]["signatures"].as_object().unwrap() {
            let signature = serde_json::from_value(signature.clone()).unwrap();
            researcher.accept_attestation(&PartyId::new(party).unwrap(), Attestation { signature }).unwrap();
        }
        for holder in parties(&inputs["holders"]) {
            let given = &session["outputs"]["revealed"][holder.as_str()];
            let mut shares = json!({ "self_shares": given["self"], "pair_shares": given["mask"] });
            for changed in inputs["shares"].as_array().unwrap().iter().filter(|share| share["holder"] == holder.as_str()) {
                let kind = if changed["kind"] == "self" { "self_shares" } else { "pair_shares" };
                shares[kind][changed["owner"].as_str().unwrap()] = changed["share"].clone();
            }
            let revelation: Revelation = serde_json::from_value(shares).unwrap();
            researcher.accept_revelation(&holder, revelation).unwrap();
        }
        let owner = |name: &str| PartyId::new(name).unwrap();
        let problem = match refused {
            None => return assert!(researcher.unmasker(terms).is_ok()),
            Some("below-threshold") => Problem::TooFewShares { party: owner("node-1"), got: 2, least: 3 },
            Some("wrong-self-seed") => Problem::WrongShares { party: owner("node-1"), liars: Vec::new() },
            Some("wrong-mask-key") => Problem::WrongShares { party: owner("node-10"), liars: Vec::new() },
            Some(other) => panic!("{other}"),
        };
        assert_eq!(researcher.unmasker(terms).map(drop), Err(problem));
    });
}

//! Keys that the nodes bring themselves.

use protocol::KeyNegotiation;
use secagg::exchange::DirectRequest;

use super::*;

fn direct() -> SecureSpec {
    SecureSpec { key_negotiation: KeyNegotiation::Direct, ..lom() }
}

/// The offer that a hospital answers a task with.
fn offer(federation: &mut Federation, task: &Task) -> (SecureMessage, Fingerprint) {
    let hospital = federation.hospitals.get_mut(&task.node).unwrap();
    let key = hospital.key();
    let Answer::Message(said) = hospital.answer(task, &federation.name, &mut federation.rng) else { unreachable!() };
    (said, key)
}

/// All that are asked for keys bring them.
fn bring(federation: &mut Federation) {
    for task in federation.open.clone() {
        let (said, key) = offer(federation, &task);
        federation.experiment.check_heard(&task.node, &said, &key).unwrap();
        federation.apply(Event::Heard { node: task.node.clone(), said, key });
    }
}

#[test]
fn the_parties_are_told_who_they_are_and_the_model_is_the_relayed_one() {
    let mut relayed = Federation::begun(standardised(), 2, lom(), 4);
    assert_eq!(relayed.experiment.negotiation(), None);
    relayed.finish();
    relayed.check_finished();
    let mut federation = Federation::begun(standardised(), 2, direct(), 4);
    federation.until(|federation| federation.is_at(0, AGREE));
    let negotiation = federation.experiment.negotiation().unwrap();
    assert_eq!((negotiation.round, negotiation.nodes.clone()), (0, federation.nodes()));
    for task in &federation.open {
        let Work::Secure { message, .. } = &task.work else { unreachable!() };
        let request: DirectRequest = decode("request", message.as_bytes()).unwrap();
        assert_eq!((encode(&request), request.parties.len()), (negotiation.says.clone(), 4));
    }
    bring(&mut federation);
    // What was heard survives the researcher's end, and the negotiation goes on after it.
    federation.crash();
    assert_eq!(federation.experiment.negotiation(), Some(negotiation));
    federation.until(|federation| federation.is_at(0, PREPARE));
    assert_eq!(federation.experiment.negotiation(), None, "it is over");
    federation.finish();
    federation.check_finished();
    assert_eq!(federation.model(), relayed.model());
}

#[test]
fn who_did_not_bring_its_keys_or_brought_others_is_refused() {
    let mut federation = Federation::begun(standardised(), 1, direct(), 4);
    federation.until(|federation| federation.is_at(0, AGREE));
    bring(&mut federation);
    let task = federation.open.front().unwrap().clone();
    let (said, key) = offer(&mut federation, &task);
    let other = federation.open.back().unwrap().node.clone();
    assert!(federation.experiment.check_heard(&other, &said, &key).is_err(), "of another node");
    assert!(federation.experiment.check_heard(&task.node, &said, &Fingerprint::from_bytes([0; 32])).is_err());
    let stranger = NodeId::random(&mut federation.rng);
    assert!(federation.experiment.check_heard(&stranger, &said, &key).is_err(), "no party");
    // It answers with a channel key that nobody has heard.
    let hospital = federation.hospitals.get_mut(&task.node).unwrap();
    let party = PartyId::new(task.node.as_str()).unwrap();
    let role = NodeRole::new(federation.name.clone(), party, hospital.rules, &mut federation.rng);
    let answer = AgreeAnswer { identity: hospital.identity.public(), offer: role.offer(&hospital.identity) };
    let answer = SecureMessage::new(encode(&answer)).unwrap();
    federation.apply(Event::Answered { node: task.node.clone(), task: task.id.clone(), answer, key });
    let participant = &federation.experiment.participants()[&task.node];
    let reason = format!("{:?}", participant.dropped);
    assert!(reason.contains("other keys than those that it brought"), "{reason}");
    // The negotiation of an experiment that needs none is not listened to.
    federation.finish();
    assert!(federation.experiment.check_heard(&other, &said, &key).is_err());
}

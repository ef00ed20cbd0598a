//! The end of an experiment: its keys go, and what was summed stays known.

use protocol::ExperimentId;

use super::*;

impl Hospital {
    async fn hear_over(&mut self, experiment: &ExperimentId) {
        self.session.say(ResearcherMessage::Over { experiment: experiment.clone() }).await;
        // A search is answered after what came before it.
        let request = protocol::RequestId::random(&mut StdRng::seed_from_u64(6));
        self.session.say(ResearcherMessage::Search { request: request.clone(), tags: None }).await;
        while !matches!(self.session.hear().await, NodeMessage::Found { request: answered, .. } if answered == request) {}
    }

    fn kept(&self) -> (Vec<u8>, bool) {
        let connection = rusqlite::Connection::open(self.world.folder.database_file()).unwrap();
        connection.query_row("SELECT content, is_over FROM secure_state", (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn keys_go_when_an_experiment_is_over_and_no_round_is_summed_twice_with_others() {
    let mut federation = federation(3, &[]).await;
    let plan = plan(Precision::Float64);
    let spec = federation.spec((1, 0), 3);
    let (mut session, inbound) = federation.prepare(&spec).await;
    let mut asked = None;
    for hospital in &mut federation.hospitals {
        let task = hospital.masked(&plan, (1, 0), &mask_request(&session, &inbound, hospital));
        hospital.upload(&task).await;
        asked = Some(task);
    }
    let mut next = spec.clone();
    next.context.round = 2;
    federation.end(&mut session, terms(&asked.unwrap()), Some(next.clone())).await;
    let experiment = federation.hospitals[0].world.experiment.clone();

    // Nothing is known of another one.
    let stranger = ExperimentId::random(&mut StdRng::seed_from_u64(5));
    let first = &mut federation.hospitals[0];
    let before = first.kept();
    first.hear_over(&stranger).await;
    assert_eq!(first.kept(), before);
    assert!(serde_json::from_slice::<serde_json::Value>(&before.0).is_err(), "it does not lie there in clear");
    assert!(!before.1 && !first.events().contains(&"secure.ended".to_owned()));
    first.restart(|_| {}).await;
    assert_eq!(first.session.hello.keyed, std::slice::from_ref(&experiment), "whoever connects says what it keeps");
    first.hear_over(&stranger).await;

    for hospital in &mut federation.hospitals {
        hospital.hear_over(&experiment).await;
        let after = hospital.kept();
        assert!(after.1);
        hospital.hear_over(&experiment).await;
        assert_eq!(hospital.kept(), after, "said again, it changes nothing");
        assert_eq!(hospital.events().iter().filter(|event| *event == "secure.ended").count(), 1);
    }
    let first = &mut federation.hospitals[0];
    first.restart(|_| {}).await;
    assert_eq!(first.session.hello.keyed, []);
    first.hear_over(&stranger).await;
    // What was prepared is gone.
    let request = AttestRequest { session: next.id(), survivors: next.parties.iter().cloned().collect() };
    let refusal = first.step(SecureStep::Attest, (2, 0), &request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::SecureAggregationFailed, "{refusal}");

    // It goes on with other keys: the round that was revealed has no second sum, the next one has a later attempt.
    let offers = federation.offers.clone();
    federation.agree().await;
    assert!(federation.offers.iter().all(|(party, offer)| offers[party] != *offer), "all keys are others");
    let first = &federation.hospitals[0];
    assert!(!first.kept().1);
    for (round, attempt, sentence) in [(1, 1, "an earlier attempt was revealed"), (2, 0, "forgotten expected")] {
        let request = federation.request(&federation.spec((round, attempt), 3));
        let refusal = federation.hospitals[0].step(SecureStep::Prepare, (round, attempt), &request).await.unwrap_err();
        assert!(refusal.sentence.contains(sentence), "{refusal}");
    }
    federation.prepare(&federation.spec((2, 1), 3)).await;
}

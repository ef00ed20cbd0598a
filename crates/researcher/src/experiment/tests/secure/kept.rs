//! How the state of hidden sums is kept.

use super::*;

#[test]
fn a_row_of_the_first_schema_holds_the_state_of_hidden_sums_itself() {
    let mut federation = Federation::begun(standardised(), 1, lom(), 3);
    federation.until(|federation| federation.is_at(0, ATTEST));
    let mut row = serde_json::to_value(&federation.experiment).unwrap();
    assert!(row.get("secure").is_none(), "it lies beside the row");
    row["secure"] = serde_json::from_str(&federation.experiment.secure_state().unwrap()).unwrap();
    assert_eq!(serde_json::from_value::<Experiment>(row).unwrap(), federation.experiment);
}

#[test]
fn answers_are_added_and_the_rest_is_written_where_an_exchange_ends() {
    let mut federation = Federation::begun(standardised(), 1, lom(), 4);
    federation.until(|federation| federation.is_at(0, PREPARE));
    let hospitals = federation.hospitals.len();
    for answered in 1..=hospitals {
        let task = federation.open.pop_front().unwrap();
        let hospital = federation.hospitals.get_mut(&task.node).unwrap();
        let key = hospital.key();
        let Answer::Message(answer) = hospital.answer(&task, &federation.name, &mut federation.rng) else { panic!() };
        let event = Event::Answered { node: task.node.clone(), task: task.id.clone(), answer, key };
        assert!(SecureChange::is_small(&event));
        let actions = federation.experiment.apply(event, federation.now, &mut federation.rng);
        match SecureChange::of(true, &actions) {
            SecureChange::Answers(answers) => assert_eq!((answers.len(), answered < hospitals), (1, true)),
            SecureChange::Whole => assert_eq!(answered, hospitals),
        }
    }
}

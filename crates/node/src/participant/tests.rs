use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const NOW: u64 = 1_000;

fn task() -> TaskId {
    "task_00000000-0000-4000-8000-000000000001".parse().unwrap()
}

fn held() -> Held {
    Held { digest: Digest::of(b"contribution"), bytes: 12, report: Some(Report::default()) }
}

fn refusal(code: RefusalCode) -> Refusal {
    Refusal::new(code, "no")
}

fn apply(participant: &mut Participant, event: Event) -> Vec<Action> {
    participant.apply(event, Timestamp::from_millis(NOW), &mut StdRng::seed_from_u64(7))
}

fn new() -> Participant {
    Participant::new(task(), Timestamp::from_millis(0))
}

/// A connected participant after these events.
fn after(events: &[Event]) -> Participant {
    let mut participant = new();
    for event in events {
        apply(&mut participant, event.clone());
    }
    participant
}

fn all_events() -> Vec<Event> {
    vec![
        Event::Admitted,
        Event::Denied(refusal(RefusalCode::TooFewSamples)),
        Event::Restarted,
        Event::TurnCame,
        Event::Computed(held()),
        Event::Overflowed { exponents: vec![1] },
        Event::Failed(refusal(RefusalCode::Internal)),
        Event::Connected,
        Event::Disconnected,
        Event::Repeated,
        Event::Delivered,
        Event::UploadBroke,
        Event::UploadRefused(refusal(RefusalCode::Late)),
        Event::Cancelled(refusal(RefusalCode::Cancelled)),
        Event::Stopped(refusal(RefusalCode::StoppedByHospital)),
        Event::Settled,
    ]
}

#[test]
fn a_task_goes_its_way() {
    let mut participant = new();
    let accepted = Action::Say(NodeMessage::Accepted { task: task() });
    assert_eq!(apply(&mut participant, Event::Admitted), [Action::Store { lazy: false }, accepted, Action::Compute]);
    assert_eq!(apply(&mut participant, Event::TurnCame), []);
    let upload = Action::Upload { after: Duration::ZERO };
    assert_eq!(apply(&mut participant, Event::Computed(held())), [Action::Store { lazy: false }, upload]);
    assert_eq!(participant.upload_header().unwrap().digest, held().digest);
    assert_eq!(apply(&mut participant, Event::Delivered), [Action::Store { lazy: true }]);
    let end = [Action::StopUpload, Action::Store { lazy: true }, Action::RemoveFiles];
    assert_eq!(apply(&mut participant, Event::Settled), end);
    assert_eq!(participant.state(), &State::Settled);
}

#[test]
fn the_journal_comes_before_every_word_and_every_upload_of_a_new_state() {
    for first in all_events() {
        for second in all_events() {
            for third in all_events() {
                let mut participant = after(&[first.clone(), second.clone()]);
                let before = participant.state().clone();
                let actions = apply(&mut participant, third.clone());
                let is_stored_state = |state: &State| !matches!(state, State::New | State::Running | State::Accepted);
                let stored = actions.iter().position(|action| matches!(action, Action::Store { .. }));
                let left = actions.iter().position(|action| matches!(action, Action::Say(_) | Action::Upload { .. }));
                if *participant.state() != before && is_stored_state(participant.state()) {
                    assert!(stored.is_some(), "{first:?} {second:?} {third:?}: {actions:?}");
                    assert!(left.is_none_or(|left| stored.unwrap() < left), "{actions:?}");
                }
            }
        }
    }
}

#[test]
fn a_known_task_is_not_computed_again() {
    for last in [Event::Admitted, Event::TurnCame, Event::Computed(held()), Event::Delivered, Event::Settled] {
        let mut participant = after(&[Event::Admitted, Event::TurnCame, Event::Computed(held()), last]);
        let actions = apply(&mut participant, Event::Repeated);
        assert!(!actions.contains(&Action::Compute), "{actions:?}");
        assert!(!apply(&mut participant, Event::Admitted).contains(&Action::Compute));
    }
}

#[test]
fn after_a_restart_work_goes_on_and_what_was_computed_is_sent_only() {
    let restart = |state| {
        let mut participant = Participant::restored(task(), state, Timestamp::from_millis(0));
        let mut actions = apply(&mut participant, Event::Restarted);
        actions.extend(apply(&mut participant, Event::Connected));
        actions
    };
    assert_eq!(restart(State::Accepted), [Action::Compute]);
    assert_eq!(restart(State::Computed(held())), [Action::Upload { after: Duration::ZERO }]);
    assert_eq!(restart(State::Delivered(held())), []);
}

#[test]
fn a_refusal_is_said_after_each_connection_until_it_is_settled() {
    let refusal = refusal(RefusalCode::OneClass);
    let said = Action::Say(NodeMessage::Refused { task: task(), refusal: refusal.clone() });
    let mut participant = after(&[Event::Admitted, Event::TurnCame]);
    let actions = apply(&mut participant, Event::Failed(refusal));
    assert_eq!(actions, [Action::Store { lazy: false }, said.clone(), Action::RemoveFiles]);
    for _ in 0..2 {
        apply(&mut participant, Event::Disconnected);
        assert_eq!(apply(&mut participant, Event::Connected), std::slice::from_ref(&said));
    }
    apply(&mut participant, Event::Settled);
    assert_eq!(apply(&mut participant, Event::Connected), []);
}

#[test]
fn what_ended_while_away_is_said_at_the_next_connection() {
    let mut participant = after(&[Event::Admitted, Event::TurnCame, Event::Disconnected]);
    let actions = apply(&mut participant, Event::Overflowed { exponents: vec![3] });
    assert_eq!(actions, [Action::Store { lazy: false }, Action::RemoveFiles]);
    let said = Action::Say(NodeMessage::OutOfRange { task: task(), exponents: vec![3] });
    assert_eq!(apply(&mut participant, Event::Connected), [said]);
}

#[test]
fn a_hospital_stops_everything_but_what_has_left() {
    let stopped = Event::Stopped(refusal(RefusalCode::StoppedByHospital));
    let mut running = after(&[Event::Admitted, Event::TurnCame]);
    assert_eq!(apply(&mut running, stopped.clone())[0], Action::StopComputing);
    assert!(matches!(running.state(), State::Refused(_)));
    assert_eq!(apply(&mut running, Event::Computed(held())), [Action::RemoveFiles], "the last steps ran on");
    let mut computed = after(&[Event::Admitted, Event::TurnCame, Event::Computed(held())]);
    assert_eq!(apply(&mut computed, stopped.clone())[0], Action::StopUpload);
    assert!(matches!(computed.state(), State::Refused(_)));
    let mut delivered = after(&[Event::Admitted, Event::TurnCame, Event::Computed(held()), Event::Delivered]);
    assert_eq!(apply(&mut delivered, stopped), []);
}

#[test]
fn a_broken_upload_is_tried_again_within_a_second_while_connected() {
    let mut participant = after(&[Event::Admitted, Event::TurnCame, Event::Computed(held())]);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        match apply(&mut participant, Event::UploadBroke)[..] {
            [Action::Upload { after }] => pauses.push(after),
            ref actions => panic!("{actions:?}"),
        }
    }
    assert!(pauses[0] >= Duration::from_millis(100) && pauses[0] <= Duration::from_millis(200), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(1)));
    apply(&mut participant, Event::Disconnected);
    assert_eq!(apply(&mut participant, Event::UploadBroke), []);
}

#[test]
fn an_exchange_is_not_acknowledged_and_its_answer_waits_for_the_disk() {
    let mut participant = new().of_exchange();
    assert_eq!(apply(&mut participant, Event::Admitted), [Action::Store { lazy: true }, Action::Compute]);
    assert_eq!(apply(&mut participant, Event::Repeated), []);
    apply(&mut participant, Event::TurnCame);
    let answer = SecureMessage::new(vec![7]).unwrap();
    let said = Action::Say(NodeMessage::Answered { task: task(), answer: answer.clone() });
    let actions = apply(&mut participant, Event::Answered { answer });
    assert_eq!(actions, [Action::Store { lazy: false }, said, Action::RemoveFiles]);
}

//! Who is let in.

use std::time::Duration;

use protocol::{NodeId, RefusalCode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use researcher::command::{InvitationState, NodeState};
use transport::address::Address;
use transport::identity::NodeIdentity;
use transport::link::LinkError;

use crate::world::{World, enrol};

fn code(error: LinkError) -> RefusalCode {
    match error {
        LinkError::Refused(refusal) => refusal.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_once_until_it_expires_or_is_revoked() {
    let mut world = World::new();
    let researcher = world.start().await;
    let address = || Address::parse("researcher.example.org:1234").unwrap();
    let identity = |seed| NodeIdentity::create(NodeId::random(&mut StdRng::seed_from_u64(seed)));
    let invite = async |lasts| researcher.invite("North", address(), lasts).await.unwrap();
    let (used, late, revoked) =
        (invite(Duration::from_mins(9)).await, invite(Duration::from_mins(1)).await, invite(Duration::from_mins(9)).await);
    assert_eq!(used.address, "researcher.example.org:1234");
    let too_long = researcher.invite("North", address(), Duration::from_hours(3651 * 24)).await.unwrap_err();
    assert!(too_long.to_string().contains("ten years"), "{too_long}");
    enrol(&researcher, &identity(1), &used.token).await.unwrap();
    researcher.revoke_invitation(&revoked.id).await.unwrap();
    assert!(researcher.revoke_invitation(&used.id).await.is_err());
    tokio::time::sleep(Duration::from_mins(2)).await;
    let expected =
        [(&used, RefusalCode::TokenUsed), (&late, RefusalCode::TokenExpired), (&revoked, RefusalCode::TokenRevoked)];
    for (invited, expected) in expected {
        assert_eq!(enrol(&researcher, &identity(2), &invited.token).await.unwrap_err().code, expected);
    }
    let states: Vec<InvitationState> = researcher.invitations().await.unwrap().into_iter().map(|row| row.state).collect();
    assert_eq!(states.iter().filter(|state| **state == InvitationState::Used).count(), 1);
    assert_eq!((world.audited("node.enrolled"), world.audited("enrolment.refused")), (1, 3));
    assert_eq!(researcher.enrolled_nodes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_node_is_cut_off_at_once_and_stays_out_over_restarts() {
    let mut world = World::new();
    let researcher = world.start().await;
    let node = world.node(&researcher, 1).await;
    let mut session = node.connect(vec![]).await.unwrap();
    let row = &researcher.nodes().await.unwrap()[0];
    assert_eq!((row.name.as_str(), row.state), ("hospital 1", NodeState::Connected), "the name is that of the invitation");
    researcher.revoke("hospital 1", "ada").await.unwrap();
    assert!(session.inbox.recv().await.is_none_or(|message| message.is_err()), "the connection has ended");
    assert_eq!(code(node.connect(vec![]).await.unwrap_err()), RefusalCode::NodeRevoked);
    world.server.stop();
    researcher.stop().await.unwrap();
    let researcher = world.start().await;
    assert_eq!(code(node.connect(vec![]).await.unwrap_err()), RefusalCode::NodeRevoked);
    assert_eq!(researcher.nodes().await.unwrap()[0].state, NodeState::Revoked);
    assert_eq!(world.audited("node.revoked"), 1);
    assert!(world.audited("peer.rejected") >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_newer_connection_takes_the_place_of_the_older_one() {
    let mut world = World::new();
    let researcher = world.start().await;
    let node = world.node(&researcher, 1).await;
    let _first = node.connect(vec![]).await.unwrap();
    let again = world.again(&node);
    let _second = again.connect(vec![]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(researcher.connected_nodes(), 1);
    again.link.cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let row = &researcher.nodes().await.unwrap()[0];
    assert_eq!(row.state, NodeState::Away);
    assert!(row.last_seen.is_some());
}

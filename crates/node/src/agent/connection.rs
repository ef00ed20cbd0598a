//! Staying connected with one researcher.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Capability, HeldTask, Hello, MAX_KEYED_EXPERIMENTS, ProtocolVersion, RefusalCode, ResearcherId};
use serde_json::json;
use transport::link::{Link, LinkError, Session};
use transport::retry::Backoff;

use super::{AgentHandle, Incoming};
use crate::handle::NodeHandle;
use crate::store::StoreError;

/// The pause where a person has to act first.
const PAUSE_WHEN_REFUSED: Duration = Duration::from_mins(5);

/// Whether trying again is of no use before somebody acted, here or at the researcher.
fn needs_a_person(error: &LinkError) -> bool {
    match error {
        LinkError::Identity(_) => true,
        LinkError::Refused(refusal) => !matches!(refusal.code, RefusalCode::Unavailable | RefusalCode::Internal),
        LinkError::Unreachable(_) | LinkError::Broken(_) | LinkError::Spool(_) => false,
    }
}

/// Connects, passes on what the researcher says, and connects again.
pub(super) async fn stay_connected<L: Link>(
    link: Arc<L>,
    node: Arc<NodeHandle>,
    researcher: ResearcherId,
    agent: AgentHandle,
) {
    let (mut with_work, mut without) = (Backoff::transfer(), Backoff::patient());
    // Why the researcher refused last, as the audit log has it.
    let mut noted = None;
    loop {
        let reason = match connect(link.as_ref(), &node, &researcher).await {
            Ok(session) => {
                with_work.reset();
                without.reset();
                noted = None;
                tracing::info!(%researcher, "connected");
                agent.update(|state| "connected".clone_into(&mut state.connection));
                listen(session, &agent).await
            }
            Err(error) => error,
        };
        let needs_a_person = needs_a_person(&reason);
        if needs_a_person {
            tracing::error!(%researcher, %reason, "the researcher cannot be used; somebody has to act");
            let reason = reason.to_string();
            if noted.as_ref() != Some(&reason) {
                // What cannot be written is in the log, and is tried again.
                let written = node.audit("researcher.refused", json!({ "researcher": researcher, "reason": reason }));
                noted = written.is_ok().then_some(reason);
            }
        } else {
            tracing::warn!(%researcher, %reason, "not connected");
        }
        agent.update(|state| state.connection = format!("connecting: {reason}"));
        let backoff = if agent.state().open > 0 { &mut with_work } else { &mut without };
        let pause = if needs_a_person { PAUSE_WHEN_REFUSED } else { node.draw(|rng| backoff.wait(rng)) };
        tokio::time::sleep(pause).await;
    }
}

fn hello(node: &NodeHandle, researcher: &ResearcherId) -> Result<Hello, StoreError> {
    let held = node.store().open_tasks(researcher)?.into_iter().map(|record| HeldTask { task: record.task.id }).collect();
    Ok(Hello {
        protocol: ProtocolVersion::CURRENT,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: Capability::current(),
        name: node.name().to_owned(),
        held,
        keyed: node.store().keyed_experiments(researcher, MAX_KEYED_EXPERIMENTS)?,
    })
}

async fn connect<L: Link>(link: &L, node: &NodeHandle, researcher: &ResearcherId) -> Result<Session, LinkError> {
    let hello = hello(node, researcher).map_err(|error| LinkError::Spool(error.to_string()))?;
    let session = link.connect(hello).await?;
    if session.welcome.researcher != *researcher {
        return Err(LinkError::Identity("another researcher answers than the one of the enrolment".to_owned()));
    }
    Ok(session)
}

/// Passes on what the researcher says, until the connection ends; says why it did.
async fn listen(session: Session, agent: &AgentHandle) -> LinkError {
    let Session { outbox, mut inbox, .. } = session;
    let closed = || LinkError::Broken("the agent ended".to_owned());
    if agent.incoming.send(Incoming::Connected(outbox)).await.is_err() {
        return closed();
    }
    let reason = loop {
        match inbox.recv().await {
            Some(Ok(message)) => {
                if agent.incoming.send(Incoming::Said(message)).await.is_err() {
                    return closed();
                }
            }
            Some(Err(error)) => break error,
            None => break LinkError::Broken("the researcher closed the connection".to_owned()),
        }
    };
    let _ = agent.incoming.send(Incoming::Disconnected).await;
    reason
}

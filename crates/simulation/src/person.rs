//! The person who asks, at a researcher that may die at any moment.

use std::sync::Arc;
use std::time::Duration;

use protocol::{ExperimentId, ExperimentSpec, Requester};
use researcher::command::{Ended, Reply};
use researcher::{CommandError, Researcher};
use tokio::task::JoinError;

use crate::life::Killed;
use crate::world::{RunningResearcher, World};

impl World {
    /// Does something with the researcher; `None` if it died meanwhile, and the something may be done or not.
    pub async fn try_with<T, Answer>(&self, command: impl FnOnce(Arc<Researcher>) -> Answer) -> Option<T>
    where
        T: Send + 'static,
        Answer: Future<Output = T> + Send + 'static,
    {
        let RunningResearcher { researcher, life } = self.running().await;
        let mut task = tokio::spawn(command(researcher));
        tokio::select! {
            biased;
            () = life.over() => {
                task.abort();
                None
            }
            done = &mut task => unless_killed(done),
        }
    }

    /// Does something with the researcher, again until it is done; for what may be done twice.
    pub async fn with<T, Answer>(&self, command: impl Fn(Arc<Researcher>) -> Answer) -> Result<T, String>
    where
        T: Send + 'static,
        Answer: Future<Output = Result<T, CommandError>> + Send + 'static,
    {
        loop {
            match self.try_with(&command).await {
                Some(Ok(done)) => return Ok(done),
                Some(Err(CommandError::Refused(sentence))) => return Err(sentence),
                // The disk is full or the daemon has just died.
                Some(Err(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
                None => {}
            }
        }
    }

    /// Starts an experiment, whose name must be new. Whoever lost the researcher meanwhile looks whether it was started.
    pub async fn run(&self, spec: &ExperimentSpec) -> ExperimentId {
        loop {
            let (wanted, requester) = (spec.clone(), Requester { user: "ada".to_owned() });
            let begun = self.try_with(|researcher| async move { researcher.run(wanted, requester).await }).await;
            if let Some(Ok(id)) = begun {
                return id;
            }
            let rows = self.with(|researcher| async move { researcher.experiments().await }).await.unwrap_or_default();
            if let Some(row) = rows.into_iter().find(|row| row.name == spec.name()) {
                return row.id;
            }
        }
    }

    /// Waits until an experiment is over.
    pub async fn end(&self, id: &ExperimentId) -> Ended {
        loop {
            let wanted = id.clone();
            let ended = self.try_with(|researcher| async move {
                let mut follower = researcher.follow(&wanted).await?;
                while let Some(reply) = follower.next().await? {
                    if let Reply::Ended { ended } = reply {
                        return Ok::<_, CommandError>(Some(*ended));
                    }
                }
                Ok(None)
            });
            match ended.await {
                Some(Ok(Some(ended))) => return ended,
                Some(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                None => {}
            }
        }
    }
}

fn unless_killed<T>(done: Result<T, JoinError>) -> Option<T> {
    match done {
        Ok(done) => Some(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) if !panic.is::<Killed>() => std::panic::resume_unwind(panic),
            _ => None,
        },
    }
}

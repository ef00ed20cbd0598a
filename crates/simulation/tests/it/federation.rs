//! Running one experiment in a world, and looking at what came of it.

use std::sync::Arc;

use protocol::{ExperimentId, ExperimentSpec, RawExperimentSpec};
use researcher::command::{Ended, ExperimentDetails, NodeProgress, NodeRecord, RoundKind, RoundRecord};
use simulation::life::LifePlan;
use simulation::outcome::{self, Outcome};
use simulation::template::Template;
use simulation::time::{Stuck, in_time, in_virtual_time};
use simulation::world::{Place, World};

/// A world, an experiment in it that is over, and nothing wrong with either.
pub(crate) struct Finished {
    pub(crate) world: World,
    pub(crate) ended: Ended,
    pub(crate) outcome: Outcome,
    pub(crate) records: Vec<RoundRecord>,
}

impl Finished {
    /// The closed rounds of one kind.
    pub(crate) fn rounds(&self, kind: RoundKind) -> Vec<&RoundRecord> {
        self.records.iter().filter(|record| record.kind == kind).collect()
    }

    /// What the world's log says, for a message.
    pub(crate) fn log(&self) -> String {
        self.world.log().text()
    }
}

/// A node's line in a closed round.
pub(crate) fn node<'record>(record: &'record RoundRecord, name: &str) -> &'record NodeRecord {
    record.nodes.iter().find(|node| node.name == name).unwrap()
}

/// How each node ended a round.
pub(crate) fn states(record: &RoundRecord) -> Vec<(&str, NodeProgress)> {
    record.nodes.iter().map(|node| (node.name.as_str(), node.state)).collect()
}

/// What the log holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What the world does.
    Little,
    /// What the daemons trace too.
    All,
}

/// Plays a story in all detail.
pub(crate) fn tell<Story: Future<Output = ()>>(
    template: &Arc<Template>,
    spec: RawExperimentSpec,
    set_up: impl FnOnce(&World),
    story: impl FnOnce(World, ExperimentId) -> Story,
) -> Finished {
    play(Detail::All, template, spec, set_up, story)
}

/// Plays a story: sets the world up, runs the experiment while the story goes on beside it, waits until all is settled, and checks
/// what must hold after any run.
pub(crate) fn play<Story: Future<Output = ()>>(
    detail: Detail,
    template: &Arc<Template>,
    spec: RawExperimentSpec,
    set_up: impl FnOnce(&World),
    story: impl FnOnce(World, ExperimentId) -> Story,
) -> Finished {
    in_virtual_time(async {
        let world = World::new(template, 1);
        let _listening = (detail == Detail::All).then(|| world.log().listen());
        set_up(&world);
        let spec = ExperimentSpec::new(spec).unwrap();
        let played = async {
            let id = in_time("the experiment is begun", world.run(&spec)).await?;
            let story = story(world.clone(), id.clone());
            let story = in_time("the story is told", story);
            let (over, told) = tokio::join!(in_time("the experiment is over", world.end(&id)), story);
            over.and(told)?;
            // The story may have resumed it.
            let ended = in_time("the experiment is over", world.end(&id)).await?;
            world.calm_down();
            in_time("the nodes have let go of all tasks", world.settle()).await?;
            Ok::<_, Stuck>(ended)
        };
        let played = played.await;
        world.stop();
        let ended = played.unwrap_or_else(|stuck| panic!("{stuck}\n{}", world.log().text()));
        let (outcome, records) = outcome::read(&world, &ended);
        let violations = outcome::violations(&world, &ended.experiment_id, &records);
        assert!(violations.is_empty(), "{violations:#?}\n{}", world.log().text());
        Finished { world, ended, outcome, records }
    })
}

/// The experiment as it goes when nothing happens.
pub(crate) fn undisturbed(template: &Arc<Template>, spec: &RawExperimentSpec) -> Finished {
    tell(template, spec.clone(), World::start_all, |_, _| async {})
}

/// Starts everybody, each site's work lasting so long.
pub(crate) fn start_with_work(world: &World, seconds: &[f64]) {
    world.keep(Place::Researcher, Vec::new());
    for (site, seconds) in seconds.iter().enumerate() {
        world.start(Place::Site(site), working(*seconds));
    }
}

/// A quiet life in which work lasts so long.
pub(crate) fn working(seconds: f64) -> LifePlan {
    LifePlan { work: std::time::Duration::from_secs_f64(seconds), ..LifePlan::default() }
}

/// An experiment as its researcher sees it now.
pub(crate) async fn details(world: &World, id: &ExperimentId) -> ExperimentDetails {
    let id = id.clone();
    let shown = world.with(move |researcher| {
        let id = id.clone();
        async move { researcher.experiment(&id).await }
    });
    shown.await.unwrap()
}

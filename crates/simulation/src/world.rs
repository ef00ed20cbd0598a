//! The world: components on copies of the template's folders, their lives, and the links between them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use component::audit::AuditLog;
use component::blocking::Blocking;
use component::folder::{ComponentFolder, Kind};
use node::agent::{Agent, AgentHandle};
use node::handle::{NodeHandle, Surroundings};
use node::workshop::Workshop;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use researcher::files::Files;
use researcher::store::Store;
use researcher::{Parts, Researcher};
use tempfile::TempDir;
use tokio::sync::watch;
use transport::memory::{Faults, MemoryLink, MemoryServer};

use crate::life::{Life, LifePlan};
use crate::log::Log;
use crate::mortal::{Mortal, Seen};
use crate::template::{Template, temporary_folder};
use crate::time::take_panics;

/// How long a daemon that ended by itself stays away before somebody starts it again.
const RESTART: Duration = Duration::from_secs(1);
/// The pause of a node's supervisor after the agent's disk failed.
const AGENT_PAUSE: Duration = Duration::from_secs(5);

/// Somebody in the world, by place in the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Researcher,
    Site(usize),
}

/// A node that runs.
#[derive(Clone)]
pub struct RunningNode {
    pub handle: Arc<NodeHandle>,
    pub agent: AgentHandle,
}

/// A researcher that runs, as long as its life lasts.
#[derive(Clone)]
pub(crate) struct RunningResearcher {
    pub(crate) researcher: Arc<Researcher>,
    pub(crate) life: Arc<Life>,
}

/// Who runs, and how links are.
#[derive(Default)]
struct Table {
    lives: BTreeMap<Place, Arc<Life>>,
    /// How often each was started.
    starts: BTreeMap<Place, u32>,
    nodes: BTreeMap<usize, RunningNode>,
    links: BTreeMap<usize, Arc<MemoryLink<Mortal>>>,
    faults: BTreeMap<usize, Faults>,
}

struct Inner {
    template: Arc<Template>,
    folder: TempDir,
    seed: u64,
    server: MemoryServer<Mortal>,
    seen: Seen,
    log: Log,
    calm: Arc<AtomicBool>,
    researcher: watch::Sender<Option<RunningResearcher>>,
    table: Mutex<Table>,
}

/// A federation.
#[derive(Clone)]
pub struct World(Arc<Inner>);

impl World {
    /// Makes a world in which nobody runs yet. All its chance comes from `seed`.
    ///
    /// # Panics
    /// If the machine's disk fails.
    pub fn new(template: &Arc<Template>, seed: u64) -> Self {
        let folder = temporary_folder().expect("a temporary folder can be made");
        template.copy_to(folder.path()).expect("a template can be copied");
        let log = Log::begin();
        Self(Arc::new(Inner {
            template: template.clone(),
            folder,
            seed,
            server: MemoryServer::default(),
            seen: Seen::new(log.clone()),
            log,
            calm: Arc::default(),
            researcher: watch::Sender::new(None),
            table: Mutex::default(),
        }))
    }

    pub fn log(&self) -> &Log {
        &self.0.log
    }

    pub fn template(&self) -> &Template {
        &self.0.template
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.0.seen
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, place: Place) -> &str {
        match place {
            Place::Researcher => "researcher",
            Place::Site(site) => &self.0.template.sites[site].name,
        }
    }

    /// A component's folder.
    ///
    /// # Panics
    /// If somebody removed it.
    pub fn folder(&self, place: Place) -> ComponentFolder {
        let kind = if place == Place::Researcher { Kind::Researcher } else { Kind::Node };
        ComponentFolder::open(&self.path(place), kind).expect("the world has the folders of all components")
    }

    fn path(&self, place: Place) -> std::path::PathBuf {
        self.0.folder.path().join(self.name(place))
    }

    /// Everybody's place.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        [Place::Researcher].into_iter().chain((0..self.0.template.sites.len()).map(Place::Site))
    }

    // Lives.

    /// Says how a node's way is from its next start on.
    pub fn set_faults(&self, site: usize, faults: Faults) {
        self.table().faults.insert(site, faults);
    }

    /// Starts a component that does not run.
    pub fn start(&self, place: Place, plan: LifePlan) {
        drop(self.begin(place, plan));
    }

    /// Starts everybody.
    pub fn start_all(&self) {
        self.places().for_each(|place| self.start(place, LifePlan::default()));
    }

    /// Kills a component that runs.
    pub fn kill(&self, place: Place) {
        let life = self.table().lives.remove(&place);
        if let Some(life) = life {
            life.kill("from outside");
        }
    }

    /// Lets a component live these lives, one after the other, and then one without an end.
    pub fn keep(&self, place: Place, plans: Vec<LifePlan>) {
        let world = self.clone();
        tokio::spawn(async move {
            let quiet = || LifePlan { away: RESTART, ..plans.last().map_or_else(LifePlan::default, LifePlan::without_end) };
            for plan in plans.iter().cloned().chain(std::iter::repeat_with(quiet)) {
                let life = world.begin(place, plan);
                let burning = async {
                    life.burn_down().await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    biased;
                    () = life.over() => {}
                    () = burning => {}
                }
                tokio::time::sleep(life.plan().away).await;
            }
        });
    }

    fn begin(&self, place: Place, plan: LifePlan) -> Arc<Life> {
        let (number, earlier) = {
            let mut table = self.table();
            let starts = table.starts.entry(place).or_default();
            *starts += 1;
            (*starts, table.lives.remove(&place))
        };
        assert!(earlier.is_none_or(|life| life.is_over()), "{} runs already", self.name(place));
        let name = format!("{} {number}", self.name(place));
        let life = Life::new(name, plan, self.0.log.clone(), self.0.calm.clone());
        self.table().lives.insert(place, life.clone());
        // One generator for each life, so that the draws of one do not depend on what others do.
        let place_number = match place {
            Place::Researcher => 0,
            Place::Site(site) => site as u64 + 1,
        };
        let rng = StdRng::seed_from_u64(self.0.seed ^ (u64::from(number) << 48) ^ (place_number << 40));
        match place {
            Place::Researcher => self.begin_researcher(&life, rng),
            Place::Site(site) => self.begin_node(site, &life, rng),
        }
        life
    }

    fn begin_researcher(&self, life: &Arc<Life>, rng: StdRng) {
        let (world, alive) = (self.clone(), life.clone());
        let task = tokio::spawn(async move {
            match world.open_researcher(&alive, rng).await {
                Ok(researcher) => {
                    let researcher = Arc::new(researcher);
                    let mortal = Mortal::new(researcher.service().clone(), alive.clone(), world.0.seen.clone());
                    world.0.server.start(Arc::new(mortal));
                    world.0.researcher.send_replace(Some(RunningResearcher { researcher, life: alive }));
                }
                Err(error) => alive.kill(&error),
            }
        });
        let world = self.clone();
        life.on_end(move || {
            world.0.server.stop();
            task.abort();
            if let Some(RunningResearcher { researcher, .. }) = world.0.researcher.send_replace(None) {
                researcher.kill();
            }
        });
    }

    async fn open_researcher(&self, life: &Arc<Life>, rng: StdRng) -> Result<Researcher, String> {
        let folder = self.folder(Place::Researcher);
        let mut store = Store::open_for_simulation(&folder.database_file()).map_err(|error| error.to_string())?;
        store.watch_commits(life.commit_watch());
        let template = &self.0.template;
        let parts = Parts {
            id: template.researcher.clone(),
            store,
            files: Files::of(&folder),
            audit: AuditLog::open(&folder.audit_file()).map_err(|error| error.to_string())?,
            ca: template.ca(),
            task_key: template.task_key(),
            certificate_validity: Duration::from_hours(90 * 24),
            spool_quota_bytes: 1_000_000_000,
            modulus: None,
            negotiating: None,
            clock: life.clock(),
            blocking: Blocking::Inline,
            rng,
        };
        Researcher::start(parts).await.map_err(|error| error.to_string())
    }

    fn begin_node(&self, site: usize, life: &Arc<Life>, mut rng: StdRng) {
        let here = &self.0.template.sites[site];
        let faults = self.table().faults.get(&site).cloned().unwrap_or_default();
        let link_rng = StdRng::seed_from_u64(rng.next_u64());
        let link = Arc::new(self.0.server.link(here.node.clone(), here.key_fingerprint, faults, link_rng));
        self.table().links.insert(site, link.clone());
        let (world, alive, way) = (self.clone(), life.clone(), link.clone());
        let task = tokio::spawn(async move {
            let ended = world.run_node(site, &alive, way, rng).await;
            alive.kill(&ended);
        });
        let world = self.clone();
        life.on_end(move || {
            link.cut();
            task.abort();
            world.table().nodes.remove(&site);
        });
    }

    /// What a node's daemon does, with one researcher and without local commands. Returns why it ended.
    async fn run_node(&self, site: usize, life: &Arc<Life>, link: Arc<MemoryLink<Mortal>>, rng: StdRng) -> String {
        let surroundings = Surroundings { clock: life.clock(), rng, env: &|_| None, waits_for_disk: false };
        let handle = match NodeHandle::open_in(&self.folder(Place::Site(site)), surroundings) {
            Ok(handle) => Arc::new(handle),
            Err(error) => return error.to_string(),
        };
        handle.store().watch_commits(life.commit_watch());
        if std::fs::read_dir(handle.folder().experiments()).is_ok_and(|folders| folders.count() > 0) {
            self.0.log.write(format!("{} finds a checkpoint", self.name(Place::Site(site))));
        }
        if let Err(error) = handle.tidy() {
            return error.to_string();
        }
        let workshop = Arc::new(Workshop::for_simulation(life.plan().work));
        loop {
            let enrolment = match handle.store().enrolment(&self.0.template.researcher) {
                Ok(Some(enrolment)) => enrolment,
                other => return format!("no enrolment: {other:?}"),
            };
            let agent = Agent::new(handle.clone(), enrolment, link.clone(), workshop.clone());
            self.table().nodes.insert(site, RunningNode { handle: handle.clone(), agent: agent.handle() });
            if let Err(error) = agent.run().await {
                self.0.log.write(format!("the agent of {} begins again: {error}", self.name(Place::Site(site))));
            }
            tokio::time::sleep(AGENT_PAUSE).await;
        }
    }

    /// The node at a site, if it runs.
    pub fn node(&self, site: usize) -> Option<RunningNode> {
        self.table().nodes.get(&site).cloned()
    }

    /// Cuts a node's connection; it comes back by itself.
    pub fn cut(&self, site: usize) {
        let link = self.table().links.get(&site).cloned();
        if let Some(link) = link {
            self.0.log.write(format!("the connection of {} is cut", self.name(Place::Site(site))));
            link.cut();
        }
    }

    /// Blocks a node's way to the researcher, or opens it again.
    pub fn block(&self, site: usize, is_blocked: bool) {
        let link = self.table().links.get(&site).cloned();
        if let Some(link) = link {
            let word = if is_blocked { "blocked" } else { "open" };
            self.0.log.write(format!("the way of {} is {word}", self.name(Place::Site(site))));
            link.set_blocked(is_blocked);
        }
    }

    /// From now on nobody is killed and no disk is full.
    pub fn calm_down(&self) {
        self.0.log.write("all calms down");
        self.0.calm.store(true, Ordering::SeqCst);
    }

    /// The researcher, once it runs.
    pub(crate) async fn running(&self) -> RunningResearcher {
        let mut running = self.0.researcher.subscribe();
        let running = running.wait_for(Option::is_some).await.expect("the world holds the sender");
        running.clone().expect("this was waited for")
    }

    /// Waits until everybody runs, is connected, has let go of all tasks and of what was reserved for them, and keeps no keys of
    /// hidden sums: all experiments are over.
    pub async fn settle(&self) {
        let sites = self.0.template.sites.len();
        loop {
            let is_settled = |node: RunningNode| {
                let open = node.handle.store().open_tasks(&self.0.template.researcher);
                let is_idle = open.is_ok_and(|tasks| tasks.is_empty()) && node.handle.ledger().open_reservations() == 0;
                // The end of an experiment may still be on its way.
                let keyed = node.handle.store().keyed_experiments(&self.0.template.researcher, 1);
                let is_told = keyed.is_ok_and(|keyed| keyed.is_empty());
                is_idle && is_told && node.agent.state().connection == "connected"
            };
            let is_up = self.0.researcher.borrow().is_some();
            if is_up && (0..sites).all(|site| self.node(site).is_some_and(is_settled)) {
                // What was said last may still be on its way to a disk.
                tokio::time::sleep(Duration::from_secs(1)).await;
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Ends everybody. What is left is on the disk.
    pub fn stop(&self) {
        for place in self.places() {
            self.kill(place);
        }
    }

    /// What must not have happened while the world ran.
    pub(crate) fn violations(&self) -> Vec<String> {
        let panics = take_panics();
        panics.into_iter().map(|panic| format!("a task panicked: {panic}")).chain(self.0.seen.violations()).collect()
    }

    /// Renames a component's spool away and back, as a disk that fails for a while.
    pub async fn lose_spool(&self, place: Place, lasts: Duration) {
        let spool = self.folder(place).spool();
        let away = spool.with_extension("away");
        let rename =
            |from: &Path, to: &Path| std::fs::rename(from, to).expect("the world has the folders of all components");
        self.0.log.write(format!("the spool of {} fails", self.name(place)));
        rename(&spool, &away);
        tokio::time::sleep(lasts).await;
        rename(&away, &spool);
        self.0.log.write(format!("the spool of {} is back", self.name(place)));
    }
}

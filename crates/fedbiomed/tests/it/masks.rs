//! The masks themselves: what left a node, less what it hides. What is hidden is known from a plain run of the same experiment,
//! whose numbers are the same to the last bit, or from the data.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Tag};
use protocol::{Digest, Encoding, Plan, Purpose, Task, VectorSpec, Width, Work};
use rustix::fs::inotify;
use serde_json::{Value, json};

use crate::secagg::{THREE, begin, caught, federation, parameters};
use crate::world::{HEART, World, ok};

const FEATURES: [&str; 5] = ["age", "sex", "trestbps", "thalach", "oldpeak"];
/// The nodes whose contributions are looked at.
const SEEN: [&str; 2] = ["hungarian", "va"];

/// Keeps what the researcher's spool holds for a moment: a second name for each file, made as soon as the file is there.
struct Keeper {
    spool: PathBuf,
    kept: PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// A file of this name in the spool ends the watch.
const END: &str = "end-of-watch";

impl Keeper {
    fn new(world: &World) -> Self {
        let (spool, kept) = (world.folder().join("researcher/var/spool"), world.folder().join("kept"));
        fs::create_dir_all(&kept).expect("a folder");
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("the system can watch folders");
        let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, &spool, events).expect("the spool can be watched");
        let (from, to) = (spool.clone(), kept.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(watch, &mut buffer);
            while let Ok(event) = reader.next() {
                let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
                if name == END {
                    return;
                }
                // Too late is no harm: there are more.
                drop(fs::hard_link(from.join(name), to.join(name)));
            }
        });
        Self { spool, kept, thread: Some(thread) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if fs::write(self.spool.join(END), "").is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
            drop(fs::remove_file(self.spool.join(END)));
        }
    }
}

/// A contribution, as the node said in its audit log that it left, and as the researcher had it.
struct Left {
    task: String,
    work: String,
    bytes: Vec<u8>,
}

/// The contributions of one node that were kept, by round and attempt.
fn left(world: &World, keeper: &Keeper, node: &str, experiment: &str) -> BTreeMap<(u64, u64), Left> {
    let log = fs::read_to_string(world.folder().join(node).join("log/audit.jsonl")).expect("an audit log");
    let (mut admitted, mut found) = (BTreeMap::new(), BTreeMap::new());
    for entry in log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let facts = &entry["facts"];
        let task = facts["task"].as_str().unwrap_or_default();
        if entry["event"] == "task.admitted" && facts["experiment"] == experiment {
            admitted.insert(task.to_owned(), facts.clone());
        }
        if entry["event"] == "contribution.released"
            && let Some(asked) = admitted.get(task)
            && let Ok(bytes) = fs::read(keeper.kept.join(task))
            && facts["digest"] == json!(Digest::of(&bytes))
        {
            let number = |key: &str| asked[key].as_u64().expect("a number");
            let work = asked["work"].as_str().expect("a name").to_owned();
            found.insert((number("round"), number("attempt")), Left { task: task.to_owned(), work, bytes });
        }
    }
    found
}

/// Subtracts modulo two to the elements' width.
fn difference(width: Width, masked: &[u8], plain: &[u8]) -> Vec<u8> {
    macro_rules! words {
        ($word:ty, $bytes:literal) => {{
            let pairs = masked.as_chunks::<$bytes>().0.iter().zip(plain.as_chunks::<$bytes>().0);
            let word = |bytes: &[u8; $bytes]| <$word>::from_le_bytes(*bytes);
            pairs.flat_map(|(masked, plain)| word(masked).wrapping_sub(word(plain)).to_le_bytes()).collect()
        }};
    }
    match width {
        Width::Bits32 => words!(u32, 4),
        Width::Bits64 => words!(u64, 8),
        Width::Bits128 => words!(u128, 16),
    }
}

/// The mask of each vector of a contribution.
fn masks(layout: &[VectorSpec], masked: &[u8], plain: &[u8]) -> Vec<Vec<u8>> {
    let mut plain = plain.to_vec();
    if layout.last().is_some_and(|spec| spec.purpose == Purpose::Clipped) {
        // Nothing is: the models would differ.
        plain.extend([0; 8]);
    }
    assert_eq!(masked.len(), plain.len());
    let mut start = 0;
    let mut mask = |spec: &VectorSpec| {
        let range = start..start + spec.byte_len().expect("a short vector");
        start = range.end;
        difference(spec.encoding.width, &masked[range.clone()], &plain[range])
    };
    let masks = layout.iter().map(&mut mask).collect();
    assert_eq!(start, masked.len(), "the layout is that of the contribution");
    masks
}

/// What a node's own disk says of a contribution that is masked and not revealed yet: the task, and the record of its session with
/// the secrets.
fn secrets(folder: &Path, task: &str) -> (Task, Value) {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(folder.join("var/store.sqlite"), flags).expect("the node's store");
    let (researcher, document): (String, String) = store
        .query_row("SELECT researcher, document FROM task WHERE id = ?1", [task], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("the task is in the journal");
    let document: Task = serde_json::from_str(&document).expect("a task");
    let experiment = document.key.experiment.to_string();
    let sealed: Vec<u8> = store
        .query_row(
            "SELECT content FROM secure_state WHERE researcher = ?1 AND experiment = ?2",
            [&researcher, &experiment],
            |row| row.get(0),
        )
        .expect("the experiment has secrets");
    let state = opened(folder, &researcher, &experiment, &sealed);
    let sessions = state["sessions"].as_object().expect("sessions");
    let (session, _) = sessions.iter().find(|(_, session)| session["contribution"] == task).expect("the task's session");
    (document, state["role"]["records"][session].clone())
}

/// Whether nothing is left of an experiment's secrets: a node hears that it is over, and keeps which sums it took part in.
fn is_forgotten(folder: &Path, experiment: &str) -> bool {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let store = rusqlite::Connection::open_with_flags(folder.join("var/store.sqlite"), flags).expect("the node's store");
    let (researcher, sealed, is_over): (String, Vec<u8>, bool) = store
        .query_row("SELECT researcher, content, is_over FROM secure_state WHERE experiment = ?1", [experiment], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .expect("the experiment had secrets");
    let state = opened(folder, &researcher, experiment, &sealed);
    let records = state["role"]["records"].as_object().expect("records");
    let is_empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
    is_over
        && records.values().all(|record| record["step"]["forgotten"].is_object())
        && is_empty(&state["sessions"])
        && is_empty(&state["identities"])
        && is_empty(&state["role"]["channels"]["peers"])
}

/// Opens what the node sealed for itself: AES-256-GCM, bound to the file of the key.
fn opened(folder: &Path, researcher: &str, experiment: &str, sealed: &[u8]) -> Value {
    use std::os::unix::fs::MetadataExt as _;
    let path = folder.join("etc/keys/secure-storage.key");
    let key = unhex(fs::read_to_string(&path).expect("the key").trim());
    let inode = fs::metadata(&path).expect("the key").ino();
    let associated = format!("fedbiomed secure state v1\0{researcher}\0{experiment}\0{inode}");
    let (nonce, sealed) = sealed.split_first_chunk::<12>().expect("a nonce");
    let (sealed, tag) = sealed.split_last_chunk::<16>().expect("a tag");
    let mut bytes = sealed.to_vec();
    Aes256Gcm::new_from_slice(&key)
        .expect("32 bytes")
        .decrypt_inout_detached(nonce.into(), associated.as_bytes(), bytes.as_mut_slice().into(), &Tag::from(*tag))
        .expect("it opens in its own folder");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().as_chunks::<2>().0;
    pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("digits")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The case of the Python reference that gives these masks from the node's secrets. `None` instead of a mask: not looked at.
fn case(task: &Task, record: &Value, masks: &[Option<Vec<u8>>]) -> Value {
    let (spec, masked) = (&record["spec"], &record["step"]["masked"]);
    assert_eq!(masked["received"]["terms"], hex(&task.terms()), "masks are bound to what was asked");
    assert_eq!(spec["graph"], "complete");
    let held = masked["received"]["held"].as_object().expect("neighbours");
    let publics: BTreeMap<&String, &Value> = held.iter().map(|(party, held)| (party, &held["mask_public"])).collect();
    let numbered = || task.layout.iter().zip(masks).enumerate();
    let vectors: Vec<Value> = numbered()
        .filter(|(_, (_, mask))| mask.is_some())
        .map(|(number, (spec, _))| {
            json!({
                "number": number, "purpose": spec.purpose.name(), "name": spec.name,
                "w": 8 * spec.encoding.width.bytes(), "length": spec.elements(),
            })
        })
        .collect();
    let stated: Vec<String> = masks.iter().flatten().map(|mask| hex(mask)).collect();
    let context = &spec["context"];
    json!({
        "name": format!("{} {}", task.node, task.key), "kind": "node-masks",
        "inputs": {
            "experiment": context["experiment"], "round": context["round"], "attempt": context["attempt"],
            "phase": context["phase"], "t": spec["threshold"], "c": spec["colluders"], "min_parties": spec["min_parties"],
            "parties": spec["parties"], "k": spec["parties"].as_array().expect("parties").len() - 1, "seed": hex(&[0; 32]),
            "party": task.node, "mask_secret": masked["own"]["mask_secret"], "self_seed": masked["own"]["self_secret"],
            "mask_publics": publics, "terms": hex(&task.terms()), "vectors": vectors,
        },
        "outputs": { "masks": stated },
    })
}

/// Has the independent reference compute cases again.
fn check_by_reference(world: &World, cases: &[Value]) {
    const PYTHON: &str = "FEDBIOMED_TEST_PYTHON";
    let python = std::env::var_os(PYTHON).unwrap_or_else(|| {
        panic!("{PYTHON} is not set: run `cargo xtask test`, or set it to a Python with the packages numpy and cryptography")
    });
    let file = world.experiment("cases.json", &json!({ "cases": cases }).to_string());
    let check = concat!(env!("CARGO_MANIFEST_DIR"), "/../secagg/tests/reference/check.py");
    let said = ok(&Command::new(python).args(["-B", check, &file]).output().expect("Python starts"));
    assert!(said.contains(&format!("{} cases, 0 differences", cases.len())), "{said}");
}

/// The first blocks of each mask, once in all: where a key stream was used twice, from its beginning or a little shifted, it is found
/// again here.
#[derive(Default)]
struct Blocks {
    seen: BTreeMap<[u8; 8], String>,
    kinds: BTreeSet<(String, u64)>,
}

/// Blocks of a mask that are looked at.
const BLOCKS: usize = 4;

impl Blocks {
    /// A weight is one element of 8 bytes: of any block no more is compared.
    fn add(&mut self, node: &str, (round, attempt): (u64, u64), layout: &[VectorSpec], masks: &[Vec<u8>]) {
        for (spec, mask) in layout.iter().zip(masks) {
            let purpose = spec.purpose.name();
            for (number, block) in mask.chunks(16).take(BLOCKS).enumerate() {
                let Some(beginning) = block.first_chunk() else { continue };
                let place = format!("{node} round {round} attempt {attempt} {purpose} {} block {number}", spec.name);
                if let Some(other) = self.seen.insert(*beginning, place.clone()) {
                    panic!("{place} and {other} have one mask");
                }
            }
            self.kinds.insert((purpose.to_owned(), attempt));
        }
    }
}

fn training(secagg: &str, rounds: u32, precision: &str, learning_rate: &str) -> String {
    format!(
        "name = \"Masks\"\ntags = [\"heart\"]\nrounds = {rounds}\nmin_nodes = 3\nsecagg = \"{secagg}\"\n\n[plan]\n\
         model = \"logistic\"\nstandardise = true\nprecision = \"{precision}\"\nfeatures = {FEATURES:?}\ntarget = \"target\"\n\n\
         [optimizer]\ntype = \"sgd\"\nlearning_rate = {learning_rate}\n\n\
         [training]\nepochs = 3\nbatch_size = 16\ntest_ratio = 0.25\nseed = 3\n"
    )
}

/// Waits without asking again and again, and returns all about a finished experiment.
fn followed(world: &mut World, id: &str) -> Value {
    ok(&world.researcher(&["experiments", "follow", id]));
    world.finished(id)
}

/// How many rounds of a training must be seen; each vector of each of them counts.
const SEEN_ROUNDS: usize = 100;

/// A beginning of 8 bytes is found again by chance with a probability below m² / 2^65 for m of them: 3 · 10^-12 for the 10,000 and
/// fewer of this test. Everything else in it is certain.
#[test]
fn masks_are_those_of_the_reference_and_none_is_used_twice() {
    const ROUNDS: u32 = 110;
    let mut world = federation(&THREE);
    let keeper = Keeper::new(&world);
    let plain = begin(&world, &training("none", ROUNDS, "float64", "0.1"));
    let plain_end = followed(&mut world, &plain);
    let hidden = begin(&world, &training("lom", ROUNDS, "float64", "0.1"));
    let (_, round) = caught(&mut world, &hidden, "cleveland", 2);
    let mut cases = Vec::new();
    let mut plan = None;
    let mut trained = Vec::new();
    for node in SEEN {
        let masked = &left(&world, &keeper, node, &hidden)[&(round, 0)];
        let (task, record) = secrets(&world.folder().join(node), &masked.task);
        if let Some(plain) = left(&world, &keeper, node, &plain).get(&(round, 0)) {
            let masks = masks(&task.layout, &masked.bytes, &plain.bytes).into_iter().map(Some).collect::<Vec<_>>();
            cases.push(case(&task, &record, &masks));
        }
        trained.clone_from(&task.layout);
        plan = Some(task.plan);
    }
    assert!(!cases.is_empty(), "the plain contributions of the round were seen");
    check_by_reference(&world, &cases);
    world.resume("cleveland");
    let hidden_end = followed(&mut world, &hidden);
    assert_eq!(parameters(&hidden_end), parameters(&plain_end), "the same bits");

    for node in THREE {
        let folder = world.folder().join(node);
        world.eventually("the secrets are forgotten", |_| is_forgotten(&folder, &hidden));
    }

    let Some(Plan::Training(plan)) = plan else { panic!("a training plan") };
    let layout = |work: &str| match work {
        "train" => trained.clone(),
        "validate" => learning::validation_layout(&plan),
        "sums" => analytics::moments::layout(&Work::Sums, FEATURES.len()).expect("a layout"),
        _ => analytics::moments::layout(&Work::SquaredDifferences { means: Vec::new() }, FEATURES.len()).expect("a layout"),
    };
    let mut blocks = Blocks::default();
    for node in SEEN {
        let (masked, plain) = (left(&world, &keeper, node, &hidden), left(&world, &keeper, node, &plain));
        let mut seen = 0;
        for (place, masked) in &masked {
            let Some(plain) = plain.get(place) else { continue };
            assert_eq!(masked.work, plain.work);
            let layout = layout(&masked.work);
            blocks.add(node, *place, &layout, &masks(&layout, &masked.bytes, &plain.bytes));
            seen += usize::from(masked.work == "train");
        }
        assert!(seen >= SEEN_ROUNDS, "{node}: {seen} trainings of {ROUNDS} were seen");
    }
    check_default_precision(&mut world, &keeper, &plain);
    add_attempts(&mut world, &keeper, &mut blocks);
    let purposes: BTreeSet<&str> = blocks.kinds.iter().map(|(purpose, _)| purpose.as_str()).collect();
    assert!(purposes.is_superset(&["weight", "model", "loss", "validation_global", "statistic"].into()), "{purposes:?}");
    assert!(blocks.kinds.iter().any(|(_, attempt)| *attempt == 2), "{:?}", blocks.kinds);
}

/// Elements of 32 bits: a step so short that no difference is seen leaves zeros to hide, and the weight is that of the other plan.
fn check_default_precision(world: &mut World, keeper: &Keeper, plain: &str) {
    let hidden = begin(world, &training("lom", 500, "float32", "1e-30"));
    let (_, round) = caught(world, &hidden, "cleveland", 2);
    let case = |node: &str| {
        let masked = &left(world, keeper, node, &hidden)[&(round, 0)];
        let plain = left(world, keeper, node, plain);
        let weight = &plain.values().find(|plain| plain.work == "train").expect("a training").bytes[..8];
        let (task, record) = secrets(&world.folder().join(node), &masked.task);
        let mut start = 0;
        let mask = |spec: &VectorSpec| {
            let range = start..start + spec.byte_len().expect("a short vector");
            start = range.end;
            let masked = &masked.bytes[range];
            match spec.purpose {
                Purpose::Weight => Some(difference(spec.encoding.width, masked, weight)),
                Purpose::Model | Purpose::Clipped => Some(masked.to_vec()),
                _ => None,
            }
        };
        let masks: Vec<Option<Vec<u8>>> = task.layout.iter().map(mask).collect();
        assert!(task.layout.iter().any(|spec| spec.encoding.width == Width::Bits32));
        case(&task, &record, &masks)
    };
    check_by_reference(world, &SEEN.map(case));
    world.resume("cleveland");
    ok(&world.researcher(&["experiments", "cancel", &hidden]));
}

/// A round that is repeated twice, since one node's sum fits only the third scale. What the others hide is known from their data.
fn add_attempts(world: &mut World, keeper: &Keeper, blocks: &mut Blocks) {
    let columns = ["age", "chol"];
    let table = fs::read_to_string(format!("{HEART}/cleveland.csv")).expect("the example");
    let mut lines: Vec<&str> = table.lines().take(41).collect();
    let header: Vec<&str> = lines[0].split(',').collect();
    let at = columns.map(|name| header.iter().position(|column| *column == name).expect("a column"));
    let mut last: Vec<&str> = lines[40].split(',').collect();
    last[at[1]] = "1e28";
    let last = last.join(",");
    lines[40] = &last;
    let csv = world.experiment("huge.csv", &format!("{}\n", lines.join("\n")));
    world.admit("huge", Path::new(&csv));
    world.connected(4);
    let id = begin(
        world,
        &format!(
            "name = \"Sums\"\ntags = [\"heart\"]\nmin_nodes = 4\nsecagg = \"lom\"\n\n[plan]\nstatistic = \"moments\"\n\
             columns = {columns:?}\n"
        ),
    );
    world.eventually("the statistic is over", |world| !world.shown(&id)["ended"].is_null());
    for node in SEEN {
        let table = fs::read_to_string(format!("{HEART}/{node}.csv")).expect("the example");
        let cells = |at: usize| table.lines().skip(1).filter_map(move |line| line.split(',').nth(at)?.parse::<f64>().ok());
        let counts = at.map(|at| cells(at).count() as f64);
        // Whole numbers: any order gives this sum.
        let sums = at.map(|at| cells(at).sum::<f64>());
        let contributions = left(world, keeper, node, &id);
        assert!(contributions.contains_key(&(0, 2)), "{node}: {:?}", contributions.keys());
        for (place, masked) in contributions.iter().filter(|((round, _), _)| *round == 0) {
            let exponent = [64, 31, -2][usize::try_from(place.1).expect("a small number")];
            let mut layout = analytics::moments::layout(&Work::Sums, columns.len()).expect("a layout");
            layout[1].encoding = Encoding { exponent, ..layout[1].encoding };
            let mut plain = Vec::new();
            layout[0].encoding.encode(counts.into_iter(), &mut plain).expect("small numbers");
            layout[1].encoding.encode(sums.into_iter(), &mut plain).expect("small numbers");
            blocks.add(node, *place, &layout, &masks(&layout, &masked.bytes, &plain));
        }
    }
}

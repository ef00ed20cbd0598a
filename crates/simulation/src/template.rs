//! Component folders as they are before the first experiment: made once in a process, copied for each world.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use component::folder::{ComponentFolder, Kind};
use component::keystore::{KeyStore, Secret};
use node::command::NewDataset;
use node::handle::{NodeHandle, Surroundings, create_with};
use protocol::{DataType, Digest, NodeId, ResearcherId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use researcher::store::{Enrolment, Invitation, Store};
use tempfile::TempDir;
use transport::address::Address;
use transport::clock::ManualClock;
use transport::identity::{FederationCa, NodeIdentity, SecretKey, TaskKey};
use transport::secret::SecretText;

use crate::life::dawn;

/// The tag of every site's dataset.
pub const TAG: &str = "cohort";
/// How long certificates are good: longer than any simulation.
const VALIDITY: Duration = Duration::from_hours(10 * 365 * 24);

/// A hospital of the template.
#[derive(Debug, Clone)]
pub struct Site {
    pub name: String,
    pub node: NodeId,
    pub rows: u64,
    pub(crate) key_fingerprint: [u8; 32],
}

/// A federation whose nodes are enrolled and have their data.
pub struct Template {
    folder: TempDir,
    pub researcher: ResearcherId,
    pub sites: Vec<Site>,
    ca: (String, SecretText),
    task_key: SecretText,
}

/// A temporary folder in memory where the machine has one.
pub(crate) fn temporary_folder() -> io::Result<TempDir> {
    let builder = || tempfile::Builder::new();
    builder().prefix("simulation-").tempdir_in("/dev/shm").or_else(|_| builder().prefix("simulation-").tempdir())
}

/// Three features, a class that depends on them, and a real outcome of a much larger size.
fn table(rows: u64, rng: &mut StdRng) -> String {
    let mut text = "x1,x2,x3,class,outcome\n".to_owned();
    for _ in 0..rows {
        let [x1, x2, x3] = [(); 3].map(|()| rng.random_range(-2.0..2.0_f64));
        let noise = rng.random_range(-1.0..1.0_f64);
        let class = u8::from(1.5 * x1 - x2 + 0.5 * x3 + noise > 0.0);
        let outcome = 4_000.0 * x1 - 2_500.0 * x2 + 900.0 * noise;
        text = format!("{text}{x1},{x2},{x3},{class},{outcome}\n");
    }
    text
}

/// Copies a folder with all that is in it.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl Template {
    /// Makes the folders of a researcher and of sites with these names and numbers of rows.
    ///
    /// # Panics
    /// If the machine's disk or entropy fails.
    pub fn make(sites: &[(&str, u64)]) -> Self {
        Self::build(sites.iter().map(|(name, rows)| (*name, |rng: &mut StdRng| table(*rows, rng))))
    }

    /// Makes the folders of a researcher and of sites with these names and CSV files.
    ///
    /// # Panics
    /// If the machine's disk or entropy fails, or a file is no dataset.
    pub fn of_files(sites: &[(&str, String)]) -> Self {
        Self::build(sites.iter().map(|(name, file)| (*name, |_: &mut StdRng| file.clone())))
    }

    fn build<'name, File: FnOnce(&mut StdRng) -> String>(sites: impl Iterator<Item = (&'name str, File)>) -> Self {
        let mut rng = StdRng::seed_from_u64(20_260_101);
        let folder = temporary_folder().expect("a temporary folder can be made");
        let id = ResearcherId::random(&mut rng);
        let ca = FederationCa::create(&id, dawn(), VALIDITY, &mut rng).expect("an authority can be made");
        let task_key = SecretKey::generate();
        let root = ComponentFolder::create(&folder.path().join("researcher"), Kind::Researcher, false);
        let root = root.expect("the researcher's folder can be made");
        let mut store = Store::open_for_simulation(&root.database_file()).expect("the researcher's store can be made");
        fs::create_dir(folder.path().join("data")).expect("a folder can be made");
        let mut template = Self {
            ca: (ca.certificate().to_pem(), ca.key_pem()),
            task_key: task_key.to_pem(),
            researcher: id,
            sites: Vec::new(),
            folder,
        };
        let task_key = TaskKey::from_point(task_key.public_point()).expect("a key has a point");
        for (name, file) in sites {
            let site = template.add_site(name, file, &ca, &task_key, &mut store, &mut rng);
            template.sites.push(site);
        }
        template
    }

    fn add_site(
        &self,
        name: &str,
        file: impl FnOnce(&mut StdRng) -> String,
        ca: &FederationCa,
        task_key: &TaskKey,
        store: &mut Store,
        rng: &mut StdRng,
    ) -> Site {
        let root = self.folder.path().join(name);
        let node = create_with(&root, name, rng).expect("a node's folder can be made");
        let identity = NodeIdentity::create(node.clone());
        let request = identity.signing_request().expect("a key can sign its request");
        let certificate = ca.issue_node(&request, &node, dawn(), VALIDITY, rng).expect("an authority can sign");
        let key_fingerprint = *certificate.key_fingerprint().as_bytes();
        let secret_hash = Digest::of(name.as_bytes());
        let invitation = Invitation {
            id: name.to_owned(),
            name: name.to_owned(),
            secret_hash,
            created: dawn(),
            expires: dawn().saturating_add(VALIDITY),
        };
        let enrolment = Enrolment { node: node.clone(), key_fingerprint, certificate_expires: certificate.not_after() };
        store.invite(&invitation).expect("the store can be written");
        store.enrol(secret_hash, &enrolment, dawn()).expect("the store can be written").expect("the invitation is good");
        let data = self.folder.path().join("data").join(format!("{name}.csv"));
        let file = file(rng);
        let rows = file.lines().skip(1).count() as u64;
        fs::write(&data, file).expect("a file can be written");
        let folder = ComponentFolder::open(&root, Kind::Node).expect("the folder was made");
        // As an enrolment keeps it: named by the federation and the first 16 digits of the key's fingerprint.
        let digits = certificate.key_fingerprint().to_string().replace(' ', "").to_lowercase();
        let key_name = format!("{}.{}.key", self.researcher, &digits[..16]);
        let key = Secret::new(identity.key_pem().expose().to_owned());
        KeyStore::new(folder.keys()).write(&key_name, &key).expect("a key can be written");
        let clock = Arc::new(ManualClock::at(dawn()));
        let surroundings = Surroundings { clock, rng: StdRng::from_rng(rng), env: &|_| None, waits_for_disk: false };
        let handle = NodeHandle::open_in(&folder, surroundings).expect("the node can be opened");
        let enrolment = node::store::Enrolment {
            researcher: self.researcher.clone(),
            address: Address::new("researcher.invalid", 50_051).expect("a host and a port"),
            authority: ca.certificate().clone(),
            certificate,
            task_key: task_key.clone(),
            allowed: true,
            enrolled: dawn(),
        };
        handle.store().save_enrolment(&enrolment).expect("the store can be written");
        let dataset = NewDataset {
            name: format!("cohort of {name}"),
            path: data,
            data_type: DataType::Csv,
            tags: vec![TAG.to_owned()],
            description: "simulated".to_owned(),
            parameters: serde_json::Value::Null,
            visible_to: Vec::new(),
        };
        handle.add_dataset(&dataset, &AtomicBool::default()).expect("the table is fine");
        Site { name: name.to_owned(), node, rows, key_fingerprint }
    }

    /// Copies the components' folders; the data stays where it is.
    pub(crate) fn copy_to(&self, world: &Path) -> io::Result<()> {
        let names = self.sites.iter().map(|site| site.name.as_str()).chain(["researcher"]);
        for name in names {
            copy_folder(&self.folder.path().join(name), &world.join(name))?;
        }
        Ok(())
    }

    pub(crate) fn ca(&self) -> FederationCa {
        FederationCa::from_pem(&self.ca.0, &self.ca.1).expect("this was written from an authority")
    }

    pub(crate) fn task_key(&self) -> SecretKey {
        SecretKey::from_pem(&self.task_key).expect("this was written from a key")
    }

    /// A site's data file.
    pub fn data_file(&self, site: &Site) -> PathBuf {
        self.folder.path().join("data").join(format!("{}.csv", site.name))
    }
}

//! What the tests need on a machine: found in the PATH, or installed into the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::project::{self, Problem, Project};

/// A program that cargo can install, with the version that is installed where there is none.
struct Tool {
    name: &'static str,
    version: &'static str,
    /// Further arguments of `cargo install`.
    arguments: &'static [&'static str],
}

const TOOLS: [Tool; 3] = [
    Tool {
        name: "cargo-nextest",
        version: "0.9.143",
        arguments: &["--no-default-features", "--features", "default-no-update"],
    },
    Tool { name: "cargo-deny", version: "0.20.2", arguments: &[] },
    // Search stays: the built book has it. The file watcher and the web server go.
    Tool { name: "mdbook", version: "0.5.4", arguments: &["--no-default-features", "--features", "search"] },
];

/// A Python environment in the cache.
pub(crate) struct Venv {
    name: &'static str,
    packages: &'static [&'static str],
}

/// Other people's readers of what we write: the tests open our files with them.
pub(crate) const TEST_VENV: Venv = Venv {
    name: "venv-test",
    packages: &["cryptography==50.0.2", "numpy==2.4.6", "safetensors==0.8.0", "setuptools==80.9.0", "tensorboard==2.21.0"],
};

/// What the benchmarks compare with.
pub(crate) const BENCH_VENV: Venv = Venv { name: "venv-bench", packages: &["numpy==2.4.6", "scikit-learn==1.9.1"] };

/// Finds or installs everything the tests need; names what it cannot install.
pub(crate) fn run(project: &Project) -> Result<(), Problem> {
    let mut missing = Vec::new();
    for tool in &TOOLS {
        if let Err(problem) = tool.provide(project) {
            eprintln!("error: {problem}");
            missing.push(tool.name.to_owned());
        }
    }
    if let Err(problem) = TEST_VENV.provide(project) {
        eprintln!("error: {problem}");
        missing.push(format!("the Python packages {}", TEST_VENV.packages.join(" ")));
    }
    if let Err(problem) = provide_postgresql(project) {
        eprintln!("error: {problem}");
        missing.push("PostgreSQL's server (Debian's package postgresql)".to_owned());
    }
    if missing.is_empty() { Ok(()) } else { Err(Problem::NotInstalled(missing)) }
}

impl Tool {
    fn provide(&self, project: &Project) -> Result<(), Problem> {
        if let Some(path) = self.find(project) {
            println!("{}: {}", self.name, path.display());
            return Ok(());
        }
        let mut install = project.cargo();
        install.args(["install", "--locked", "--root"]).arg(project.cache());
        install.args([self.name, "--version", self.version]).args(self.arguments);
        // A tool that runs for seconds is not worth minutes of optimising.
        install.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        project::run(&mut install)
    }

    fn find(&self, project: &Project) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([project.cache().join("bin")]);
        folders.map(|folder| folder.join(self.name)).find(|program| program.is_file())
    }
}

impl Venv {
    pub(crate) fn python(&self, project: &Project) -> PathBuf {
        project.cache().join(self.name).join("bin/python")
    }

    /// Makes the environment unless it is there with just these packages.
    pub(crate) fn provide(&self, project: &Project) -> Result<(), Problem> {
        let folder = project.cache().join(self.name);
        let stamp = folder.join("installed.txt");
        let wanted = self.packages.join("\n");
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && works(&self.python(project)) {
            println!("{}: {}", self.name, folder.display());
            return Ok(());
        }
        make(project, &folder)?;
        let mut pip = project.command(self.python(project));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]).args(self.packages);
        project::run(&mut pip)?;
        std::fs::write(&stamp, wanted).map_err(|source| Problem::File { path: stamp, source })
    }
}

fn works(python: &Path) -> bool {
    Command::new(python).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn make(project: &Project, folder: &Path) -> Result<(), Problem> {
    let venv = || {
        let mut command = project.command("python3");
        command.args(["-m", "venv", "--clear"]).arg(folder);
        command
    };
    match project::run(&mut venv()) {
        // Debian keeps venv in a package of its own.
        Err(_) if is_root() => {
            apt(project, &["python3", "python3-venv"])?;
            project::run(&mut venv())
        }
        result => result,
    }
}

/// Where Debian keeps the programs of each version of PostgreSQL, out of the PATH.
const POSTGRESQL: &str = "/usr/lib/postgresql";

/// Finds or installs the server that the tests of `data` start.
fn provide_postgresql(project: &Project) -> Result<(), Problem> {
    if !has_postgresql() {
        apt(project, &["postgresql"])?;
    }
    println!("postgresql: {POSTGRESQL}");
    Ok(())
}

fn has_postgresql() -> bool {
    let mut versions = std::fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
    versions.any(|version| version.path().join("bin/initdb").is_file())
}

/// Installs Debian packages by name. Only as root: nothing asks for a password.
fn apt(project: &Project, packages: &[&str]) -> Result<(), Problem> {
    project::run(project.command("apt-get").args(["update", "--quiet"]))?;
    let mut install = project.command("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
    project::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Whether the process may install packages.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

//! `fedbiomed demo`: four hospitals train one model, with real processes, connections and data, in a few seconds.

mod baseline;
pub(crate) mod federation;
mod hospital;
mod outcome;

use std::fs;
use std::path::{Path, PathBuf};

use node::command::{NewDataset, ResultRow};
use protocol::{
    DataType, ExperimentSpec, Family, Missing, ModelSpec, OptimizerSpec, Patience, Plan, Precision, RawExperimentSpec,
    RawTrainingPlan, Secagg, SecureSpec, Selection, Tags, TrainingArguments, TrainingPlan, Validation,
};
use researcher::command::{Ended, Request};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{DemoArgs, SecaggChoice};
use crate::commands::researcher::{OnInterrupt, stream};
use crate::demo::federation::Federation;
use crate::demo::hospital::{FEATURES, HOSPITALS, SPLIT, TARGET};
use crate::error::{Failure, Outcome};
use crate::live::Live;
use crate::output::{note, print, print_json};

/// Runs the demo. On any way out all processes end; without `--keep` only the artefacts stay.
pub(crate) async fn run(args: DemoArgs) -> Outcome {
    #[expect(clippy::disallowed_methods, reason = "the demo is a program that tells how long it took")]
    let started = std::time::Instant::now();
    let (root, _temporary) = if let Some(path) = &args.keep {
        if path.exists() {
            return Err(Failure::new(format!("{} exists; name a new folder", path.display())));
        }
        let failed = |error| Failure::new(format!("cannot make {}: {error}", path.display()));
        fs::create_dir_all(path).map_err(failed)?;
        (path.canonicalize()?, None)
    } else {
        let temporary = tempfile::Builder::new().prefix("fedbiomed-demo-").tempdir()?;
        (temporary.path().to_owned(), Some(temporary))
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut federation = None;
    let result = tokio::select! {
        // The first: what else ended may have ended by the same key.
        biased;
        _ = interrupt.recv() => Err(Failure::interrupted("interrupted")),
        _ = terminate.recv() => Err(Failure::interrupted("told to stop")),
        _ = hangup.recv() => Err(Failure::interrupted("the terminal closed")),
        result = federate(&root, &args, &mut federation) => result,
    };
    let mut components = Vec::new();
    if let Some(federation) = federation {
        components = federation.components();
        federation.dissolve().await;
    }
    let (ended, sites) = match result {
        Ok(finished) => finished,
        Err(failure) => {
            if args.keep.is_some() {
                fs::remove_dir_all(&root)?;
            }
            return Err(failure);
        }
    };
    let artifacts = if args.keep.is_some() { outcome::Artifacts::of(&ended)? } else { set_aside(&ended)? };
    let baseline = baseline::train(&plan()?, args.rounds, &root.join("data"))?;
    let outcome = outcome::Outcome::new(&ended, &sites, &baseline, artifacts, started.elapsed().as_secs_f64());
    if args.json {
        print_json(&outcome);
    } else {
        print(outcome.to_string());
        if args.keep.is_some() {
            print(format!("\nThe components are kept in {}. To play with them:", root.display()));
            for (role, folder) in components {
                print(format!("  fedbiomed {role} -p {} start --background", folder.display()));
            }
        }
    }
    Ok(())
}

/// How it ended, and what each hospital's own node knows of its last round.
type Finished = (Ended, Vec<Option<ResultRow>>);

async fn federate(root: &Path, args: &DemoArgs, slot: &mut Option<Federation>) -> Result<Finished, Failure> {
    let say = |sentence: &str| {
        if !args.json {
            note(sentence);
        }
    };
    say("A researcher starts; four hospitals make their nodes and enrol.");
    let federation = slot.insert(Federation::found(root).await?);
    for hospital in &HOSPITALS {
        let path = root.join("data").join(hospital.file);
        fs::create_dir_all(root.join("data"))?;
        fs::write(&path, hospital.csv)?;
        let dataset = NewDataset {
            name: format!("Heart disease, {}", hospital.name),
            data_type: DataType::Csv,
            path,
            tags: vec!["heart".into(), "uci".into()],
            description: "UCI heart disease, complete rows of the ten attributes that all hospitals have".into(),
            parameters: serde_json::Value::Null,
            visible_to: Vec::new(),
        };
        let folder_name = format!("node-{}", hospital.file.trim_end_matches(".csv"));
        federation.admit(&folder_name, hospital.name, dataset).await?;
    }
    federation.connected().await?;
    if args.keep.is_some() {
        federation.settle_port().await?;
    }
    say("They train together; no row leaves its hospital.");
    let live = if args.json { Live::silent() } else { Live::new(false).without_summary() };
    let request = Request::Run { spec: Box::new(experiment(args)?) };
    let (ended, _) = stream(federation.researcher(), request, false, OnInterrupt::NotMine, live)
        .await?
        .ok_or_else(|| Failure::interrupted("the terminal closed"))?;
    // The researcher does not know what one hospital measured.
    let results = federation.results(&ended.experiment_id).await?;
    let last = |rows: Vec<ResultRow>| rows.into_iter().max_by_key(|row| (row.round, row.attempt));
    Ok((ended, results.into_iter().map(last).collect()))
}

fn plan() -> Result<TrainingPlan, Failure> {
    Ok(TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(Family::Logistic, 0.0)?,
        precision: Precision::Float32,
        features: FEATURES.map(str::to_owned).to_vec(),
        target: TARGET.into(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 0.2, momentum: 0.0 },
        arguments: TrainingArguments {
            // Full batches: a run then does not depend on the nodes' ids, which are drawn anew, and prints what the docs show.
            epochs: Some(3),
            batch_size: 0,
            split_column: Some(SPLIT.into()),
            missing: Missing::Refuse,
            ..TrainingArguments::default()
        },
        standardise: true,
        validation: Validation { on_global: true, on_local: false },
    })?)
}

fn experiment(args: &DemoArgs) -> Result<ExperimentSpec, Failure> {
    let patience = Patience { min_nodes: 4, ..Patience::default() };
    let secagg = match args.secagg {
        SecaggChoice::Lom => Secagg::Lom,
        SecaggChoice::JoyeLibert => Secagg::JoyeLibert,
        SecaggChoice::None => Secagg::None,
    };
    Ok(ExperimentSpec::new(RawExperimentSpec {
        name: "Heart disease in four hospitals".into(),
        selection: Selection::Tags(Tags::new(["heart"])?),
        nodes: None,
        plan: Plan::Training(plan()?),
        rounds: args.rounds,
        patience,
        secure: SecureSpec { secagg, ..SecureSpec::default() },
    })?)
}

/// Copies the artefacts to a new folder below the present one (or the system's temporary folder), before the components go.
fn set_aside(ended: &Ended) -> Result<outcome::Artifacts, Failure> {
    let places = [std::env::current_dir()?, std::env::temp_dir()];
    let fresh = |place: &PathBuf| {
        let names = std::iter::once("fedbiomed-demo".to_owned()).chain((2..1000).map(|n| format!("fedbiomed-demo-{n}")));
        names.map(|name| place.join(name)).find(|path| fs::create_dir(path).is_ok())
    };
    let target = places.iter().find_map(fresh).ok_or_else(|| Failure::new("no folder for the artefacts can be made"))?;
    copy_folder(&ended.folder, &target)?;
    outcome::Artifacts::of(ended)?.moved(&ended.folder, &target)
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

//! `fedbiomed node …`: what is typed becomes a request, to the daemon if one runs and to the folder itself if not.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use component::folder::{ComponentFolder, Kind};
use node::command::{DatasetChanges, NewDataset, Reply, Request, TokenText};
use protocol::{DatasetId, ResearcherId, TaskId};

use crate::cli::{
    ConfigCommand, DatasetAddArgs, DatasetCommand, EnrolmentCommand, Format, NodeArgs, NodeCommand, TasksCommand,
};
use crate::commands::shared::{done, unexpected};
use crate::commands::{certificate, daemon, peers, shared};
use crate::error::{Failure, Outcome};
use crate::live::Waiting;
use crate::output::{print_record, print_rows};

/// Runs one command.
pub(crate) async fn run(args: NodeArgs) -> Outcome {
    let folder = match &args.command {
        NodeCommand::Start(_) | NodeCommand::Dataset(DatasetCommand::Add(_)) => {
            shared::open_or_create(&args.path, Kind::Node)?
        }
        _ => shared::open(&args.path, Kind::Node)?,
    };
    match args.command {
        NodeCommand::Enroll { token } => done(ask(&folder, Request::Enrol { token: TokenText(token) }).await?),
        NodeCommand::Enrolment(command) => enrolment(&folder, command, args.yes).await,
        NodeCommand::Certificate(command) => certificate::at_node(&folder, command, args.yes).await,
        NodeCommand::Start(start) => daemon::start(&folder, &start).await,
        NodeCommand::Stop => daemon::stop(&folder).await,
        NodeCommand::Restart(start) => daemon::restart(&folder, &start).await,
        NodeCommand::Status(Format { json }) => {
            let Reply::Status { status } = ask(&folder, Request::Status).await? else { return unexpected() };
            print_record(&status, json, &["ca_fingerprint", "enrolled", "allowed"]);
            Ok(())
        }
        NodeCommand::Dataset(command) => dataset(&folder, command, args.yes).await,
        NodeCommand::Tasks(command) => tasks(&folder, command).await,
        NodeCommand::Peers(command) => peers::run(&folder, command).await,
        NodeCommand::Results { experiment, format } => peers::results(&folder, experiment, format).await,
        NodeCommand::Pause => done(ask(&folder, Request::Pause).await?),
        NodeCommand::Resume => done(ask(&folder, Request::Resume).await?),
        NodeCommand::Audit(command) => shared::audit(&folder, &command),
        NodeCommand::Config(ConfigCommand::Show(Format { json })) => {
            shared::config_show(&folder, node::config::SETTINGS, json)
        }
    }
}

pub(crate) async fn ask(folder: &ComponentFolder, request: Request) -> Result<Reply, Failure> {
    Ok(node::command::run(folder, request).await?)
}

/// The fewest digits that name something: fewer may be a slip of the hand.
const FEWEST_DIGITS: usize = 4;

/// Takes a whole id, or the first digits of the only one that begins so (with or without its prefix).
pub(crate) fn resolve<Id: FromStr + Clone + ToString>(typed: &str, prefix: &str, ids: &[Id]) -> Result<Id, Failure> {
    if let Ok(id) = typed.parse() {
        return Ok(id);
    }
    let digits = typed.strip_prefix(prefix).unwrap_or(typed);
    if digits.len() < FEWEST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::new(format!("{typed:?} is too short; give at least {FEWEST_DIGITS} digits of the id")));
    }
    let begins = |id: &&Id| id.to_string().strip_prefix(prefix).is_some_and(|rest| rest.starts_with(digits));
    match ids.iter().filter(begins).collect::<Vec<_>>().as_slice() {
        [id] => Ok((*id).clone()),
        [] => Err(Failure::new(format!("nothing here is called {typed}; `list` shows all"))),
        many => Err(Failure::new(format!("{} ids begin with {typed}; write more of it", many.len()))),
    }
}

async fn enrolment(folder: &ComponentFolder, command: EnrolmentCommand, yes: bool) -> Outcome {
    let Reply::Enrolments { rows } = ask(folder, Request::Enrolments).await? else { return unexpected() };
    let ids: Vec<ResearcherId> = rows.iter().map(|row| row.researcher.clone()).collect();
    let resolve = |typed: &str| resolve(typed, ResearcherId::PREFIX, &ids);
    match command {
        EnrolmentCommand::List(Format { json }) => {
            print_rows(&rows, json, &["ca_fingerprint"], "enrolled with nobody; ask a researcher for a token");
            Ok(())
        }
        EnrolmentCommand::Allow { researcher } => {
            done(ask(folder, Request::Allow { researcher: resolve(&researcher)?, allowed: true }).await?)
        }
        EnrolmentCommand::Forbid { researcher } => {
            done(ask(folder, Request::Allow { researcher: resolve(&researcher)?, allowed: false }).await?)
        }
        EnrolmentCommand::Delete { researcher } => {
            let researcher = resolve(&researcher)?;
            shared::confirm(&format!("Leave the federation of {researcher}, with all its open tasks?"), yes)?;
            done(ask(folder, Request::Forget { researcher }).await?)
        }
    }
}

async fn tasks(folder: &ComponentFolder, command: TasksCommand) -> Outcome {
    match command {
        TasksCommand::List { all, format: Format { json } } => {
            let Reply::Tasks { rows } = ask(folder, Request::Tasks { all }).await? else { return unexpected() };
            print_rows(&rows, json, &["researcher", "attempt", "dataset", "updated"], "no open tasks");
            Ok(())
        }
        TasksCommand::Cancel { all: true, .. } => done(ask(folder, Request::CancelAllTasks).await?),
        TasksCommand::Cancel { task, .. } => {
            let Reply::Tasks { rows } = ask(folder, Request::Tasks { all: false }).await? else { return unexpected() };
            let ids: Vec<TaskId> = rows.into_iter().map(|row| row.task).collect();
            let task = resolve(&task.unwrap_or_default(), TaskId::PREFIX, &ids)?;
            done(ask(folder, Request::CancelTask { task }).await?)
        }
    }
}

async fn dataset(folder: &ComponentFolder, command: DatasetCommand, yes: bool) -> Outcome {
    if let DatasetCommand::Add(args) = command {
        let dataset = described(folder, args)?;
        let _waiting = Waiting::for_data(&dataset.path);
        return show(ask(folder, Request::AddDataset { dataset }).await?, false);
    }
    let Reply::Datasets { rows } = ask(folder, Request::Datasets).await? else { return unexpected() };
    let ids: Vec<DatasetId> = rows.iter().map(|row| row.id.clone()).collect();
    let resolve = |typed: &str| match rows.iter().filter(|row| row.name == typed).collect::<Vec<_>>().as_slice() {
        [row] => Ok(row.id.clone()),
        _ => resolve(typed, DatasetId::PREFIX, &ids),
    };
    match command {
        DatasetCommand::Add(_) => unexpected(),
        DatasetCommand::List(Format { json }) => {
            print_rows(&rows, json, &["description"], "no datasets; add one with `node dataset add`");
            Ok(())
        }
        DatasetCommand::Show { dataset, format } => {
            show(ask(folder, Request::Dataset { dataset: resolve(&dataset)? }).await?, format.json)
        }
        DatasetCommand::Update { dataset, name, tags, description, data, visible_to } => {
            let visible_to = visible_to.map(|ids| {
                ids.iter()
                    .filter(|id| !id.is_empty())
                    .map(|id| Ok(id.parse::<ResearcherId>()?))
                    .collect::<Result<_, Failure>>()
            });
            let path = data.map(std::path::absolute).transpose()?;
            let changes = DatasetChanges { name, tags, description, path, visible_to: visible_to.transpose()? };
            let _waiting = changes.path.as_deref().map(Waiting::for_data);
            show(ask(folder, Request::UpdateDataset { dataset: resolve(&dataset)?, changes }).await?, false)
        }
        DatasetCommand::Refresh { dataset } => {
            let dataset = resolve(&dataset)?;
            let path = rows.iter().find(|row| row.id == dataset).map(|row| row.path.as_path());
            let _waiting = path.map(Waiting::for_data);
            show(ask(folder, Request::RefreshDataset { dataset }).await?, false)
        }
        DatasetCommand::Delete { all: true, .. } => {
            shared::confirm(&format!("Take all {} datasets off the list?", rows.len()), yes)?;
            done(ask(folder, Request::DeleteAllDatasets).await?)
        }
        DatasetCommand::Delete { dataset, .. } => {
            let dataset = resolve(&dataset.unwrap_or_default())?;
            shared::confirm(&format!("Take {dataset} off the list?"), yes)?;
            done(ask(folder, Request::DeleteDataset { dataset }).await?)
        }
    }
}

fn show(reply: Reply, json: bool) -> Outcome {
    match reply {
        Reply::Dataset { detail } => {
            let has_parameters = detail.parameters.as_object().is_some_and(|given| given.values().any(is_given));
            print_record(&detail, json, if has_parameters { &[] } else { &["parameters"] });
            Ok(())
        }
        _ => unexpected(),
    }
}

/// Whether somebody gave this parameter a value.
fn is_given(value: &serde_json::Value) -> bool {
    !value.is_null() && value.as_object().is_none_or(|fields| !fields.is_empty())
}

/// Makes a dataset's description from a file, from flags, or from answers.
fn described(folder: &ComponentFolder, args: DatasetAddArgs) -> Result<NewDataset, Failure> {
    if let Some(file) = &args.file {
        return from_file(folder, file);
    }
    if let Some(place) = args.mnist {
        let path = place.unwrap_or_else(|| folder.root().join("data"));
        return Ok(NewDataset::mnist(&std::path::absolute(path)?));
    }
    let interactive = io::stdin().is_terminal();
    let answer = |given: Option<String>, flag: &str, question: &str| match given {
        Some(given) => Ok(given),
        None if interactive => shared::ask(question),
        None => Err(Failure::new(format!("give {flag}, or --file, or run this on a terminal"))),
    };
    let data_type = serde_json::from_value(args.data_type.clone().into())
        .map_err(|_| Failure::new(format!("--data-type takes csv or default, found {:?}", args.data_type)))?;
    let name = answer(args.name, "--name", "Name:")?;
    let tags = answer(args.tags.map(|tags| tags.join(",")), "--tags", "Tags, separated by commas:")?;
    let description = answer(args.description, "--description", "Description:")?;
    let path = answer(args.data.map(|path| path.to_string_lossy().into_owned()), "--data", "Path of the data:")?;
    Ok(NewDataset {
        name,
        data_type,
        path: std::path::absolute(PathBuf::from(path))?,
        tags: tags.split(',').map(|tag| tag.trim().to_owned()).collect(),
        description,
        parameters: serde_json::Value::Null,
        visible_to: Vec::new(),
    })
}

fn from_file(folder: &ComponentFolder, file: &Path) -> Result<NewDataset, Failure> {
    let bytes = std::fs::read(file).map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?;
    let mut dataset = NewDataset::from_file(&bytes, folder.root(), &|name| std::env::var(name).ok())
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    dataset.path = std::path::absolute(dataset.path)?;
    Ok(dataset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 2] =
        ["RESEARCHER_beef0000-0000-4000-8000-000000000001", "RESEARCHER_cafe0000-0000-4000-8000-000000000002"];

    #[test]
    fn an_id_is_named_by_enough_of_its_digits() {
        let ids = IDS.map(|id| id.parse::<ResearcherId>().unwrap());
        let resolve = |typed: &str, ids: &[ResearcherId]| resolve(typed, ResearcherId::PREFIX, ids);
        for typed in ["beef", "beef0000-0", "RESEARCHER_beef", IDS[0]] {
            assert_eq!(resolve(typed, &ids).unwrap(), ids[0], "{typed}");
        }
        for typed in ["", "b", "bee", "RESEARCHER_", "RESEARCHER_bee", "RESEARCHER", "R", "-", "000", "dead", "BEEF"] {
            assert!(resolve(typed, &ids[..1]).is_err(), "{typed:?} names nothing, however few there are");
        }
        let both = ["RESEARCHER_beef0000-0000-4000-8000-000000000003".parse().unwrap(), ids[0].clone()];
        assert!(resolve("beef0000", &both).unwrap_err().to_string().contains("2 ids begin with"));
    }

    #[test]
    fn parameters_that_nobody_gave_are_told_apart() {
        assert!(is_given(&"tab".into()) && is_given(&serde_json::json!({ "age": "real" })));
        assert!(!is_given(&serde_json::Value::Null) && !is_given(&serde_json::json!({})));
    }
}

//! `fedbiomed researcher stats …`: words become a question, the question an experiment, its answer a table.

use component::folder::ComponentFolder;
use protocol::statistic::{
    Against, Anova, BetweenSites, Category, Confidence, Correlation, Count, Cox, Describe, DescribedNumber, Errors, Glm,
    GlmFamily, Link, Meta, MetaModel, NumberColumns, Pca, PcaOf, Range, RawDescribe, Statistic, Strata, Survival, TTest,
    Table, TableTest, Ties, TimeResolution,
};
use protocol::{Expression, Formula, Question, Secagg, Tags};
use researcher::command::{Answer, DatasetRow, Reply, Request};
use researcher::question::{Among, Catalogue, experiment};
use serde_json::{Map, Value, json};

use crate::cli::{Asking, FamilyArg, GlmArgs, LinkArg, StatsCommand, StrataArg, TableTestArg, TiesArg};
use crate::commands::researcher::{OnInterrupt, ask, stream};
use crate::commands::shared::unexpected;
use crate::error::{Failure, Outcome};
use crate::live::Live;
use crate::output::{note, print, print_json};
use crate::picture;
use crate::tables;

/// Runs one command.
pub(crate) async fn run(folder: &ComponentFolder, command: StatsCommand) -> Outcome {
    if let StatsCommand::Schema { tags, format } = command {
        let datasets = datasets(folder, tags, &[]).await?;
        tables::print_schema(&datasets, format.json);
        return Ok(());
    }
    let asking = asking(&command).clone();
    let datasets = datasets(folder, asking.tags.clone(), &asking.nodes).await?;
    let catalogue = Catalogue::new(datasets, &asking.levels)?;
    let filter: Option<Expression> = asking.filter.as_deref().map(|text| parsed("--where", text)).transpose()?;
    if let Some(filter) = &filter {
        catalogue.check(filter.columns())?;
    }
    let statistic = statistic(&command, &catalogue)?;
    if let Some(file) = &asking.plot {
        picture::check(file, statistic.name())?;
        if asking.per_site {
            return Err(Failure::new("--plot draws one answer; leave --per-site out"));
        }
    }
    let question = Question { statistic, filter, minimum: asking.minimum };
    match question.statistic {
        _ if asking.per_site => per_site(folder, &asking, &catalogue, &question).await,
        _ => pooled(folder, &asking, &catalogue, question).await,
    }
}

fn asking(command: &StatsCommand) -> &Asking {
    match command {
        StatsCommand::Describe { asking, .. }
        | StatsCommand::Count { asking }
        | StatsCommand::Table { asking, .. }
        | StatsCommand::Corr { asking, .. }
        | StatsCommand::Ttest { asking, .. }
        | StatsCommand::Anova { asking, .. }
        | StatsCommand::Glm { asking, .. }
        | StatsCommand::Survival { asking, .. }
        | StatsCommand::Cox { asking, .. }
        | StatsCommand::Pca { asking, .. }
        | StatsCommand::Meta { asking, .. } => asking,
        StatsCommand::Schema { .. } => unreachable!("the schema asks no question"),
    }
}

/// Reads a text, with the flag in the error.
fn parsed<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Failure::new(format!("{flag} {text:?}: {error}")))
}

/// The datasets that a question is about.
async fn datasets(folder: &ComponentFolder, tags: Vec<String>, nodes: &[String]) -> Result<Vec<DatasetRow>, Failure> {
    let tags = Tags::new(tags)?;
    let Reply::Datasets { datasets, silent } = ask(folder, Request::Datasets { tags: Some(tags.clone()) }).await? else {
        return Err(unexpected().err().unwrap_or_else(|| Failure::new("the daemon gave no answer")));
    };
    for name in silent {
        note(format!("{name} is connected but did not answer in time"));
    }
    let is_meant =
        |row: &DatasetRow| nodes.is_empty() || nodes.iter().any(|node| *node == row.node || *node == row.node_id.as_str());
    let datasets: Vec<DatasetRow> = datasets.into_iter().filter(is_meant).collect();
    if datasets.is_empty() {
        return Err(Failure::new(format!(
            "no connected node offers a dataset with the tags {tags}; `researcher datasets` shows what there is"
        )));
    }
    Ok(datasets)
}

fn expression(catalogue: &Catalogue, flag: &str, text: &str) -> Result<Expression, Failure> {
    // A name that is no plain word, as one with a hyphen, is a column if there is one.
    let expression = if catalogue.columns().contains(&text) { Expression::column(text) } else { parsed(flag, text)? };
    catalogue.number(&expression)?;
    Ok(expression)
}

fn expressions(catalogue: &Catalogue, columns: &[String]) -> Result<NumberColumns, Failure> {
    let columns = columns.iter().map(|text| expression(catalogue, "--columns", text)).collect::<Result<Vec<_>, _>>()?;
    Ok(NumberColumns::new(columns)?)
}

/// What was asked for, as a plan.
fn statistic(command: &StatsCommand, catalogue: &Catalogue) -> Result<Statistic, Failure> {
    Ok(match command {
        StatsCommand::Describe { asking, columns, range, quantiles, bins, minmax } => {
            let (numbers, categories) = described(catalogue, columns, range)?;
            Statistic::Describe(Describe::new(RawDescribe {
                numbers,
                categories,
                quantiles: quantiles.clone(),
                bins: *bins,
                minmax: *minmax,
                minimum_rows: asking.minimum,
            })?)
        }
        StatsCommand::Count { .. } => Statistic::Count(Count::default()),
        StatsCommand::Table { rows, cols, test, .. } => {
            let test = match test {
                TableTestArg::Chi2 => TableTest::Chi2,
                TableTestArg::Yates => TableTest::Yates,
                TableTestArg::Fisher => TableTest::Fisher,
            };
            Statistic::Table(Table::new(catalogue.category(rows)?, catalogue.category(cols)?, test)?)
        }
        StatsCommand::Corr { columns, pairwise, .. } => {
            use protocol::statistic::Blanks;
            let blanks = if *pairwise { Blanks::Pairwise } else { Blanks::Listwise };
            Statistic::Correlation(Correlation { columns: expressions(catalogue, columns)?, blanks })
        }
        StatsCommand::Ttest { value, by, mean, student, confidence, .. } => {
            let against = match (by, mean) {
                (Some(by), _) if *student => Against::Student(catalogue.category(by)?),
                (Some(by), _) => Against::Welch(catalogue.category(by)?),
                (None, mean) => Against::Mean(mean.unwrap_or(0.0)),
            };
            let value = expression(catalogue, "--value", value)?;
            Statistic::TTest(TTest::new(value, against, Confidence::new(*confidence)?)?)
        }
        StatsCommand::Anova { value, by, .. } => {
            Statistic::Anova(Anova::new(expression(catalogue, "--value", value)?, catalogue.category(by)?)?)
        }
        StatsCommand::Glm { model, .. } => Statistic::Glm(glm(catalogue, model)?),
        StatsCommand::Meta { model, .. } => {
            Statistic::Meta(Meta { model: MetaModel::Glm(glm(catalogue, model)?), between: BetweenSites::default() })
        }
        StatsCommand::Survival { time, event, by, exact, events, confidence, .. } => Statistic::Survival(Survival {
            time: expression(catalogue, "--time", time)?,
            event: expression(catalogue, "--event", event)?,
            by: by.as_deref().map(|by| catalogue.category(by)).transpose()?,
            resolution: if *exact { TimeResolution::Exact } else { TimeResolution::Events(*events) },
            confidence: Confidence::new(*confidence)?,
            interval: protocol::statistic::SurvivalInterval::default(),
            horizon: None,
        }),
        StatsCommand::Cox { formula, ties, strata, exact, events, confidence, .. } => {
            let formula: Formula = parsed("--formula", formula)?;
            Statistic::Cox(Cox {
                categories: catalogue.categories(&formula)?,
                formula,
                ties: match ties {
                    TiesArg::Efron => Ties::Efron,
                    TiesArg::Breslow => Ties::Breslow,
                },
                strata: match strata {
                    StrataArg::Site => Strata::Site,
                    StrataArg::None => Strata::None,
                },
                resolution: if *exact { TimeResolution::Exact } else { TimeResolution::Events(*events) },
                ridge: 0.0,
                confidence: Confidence::new(*confidence)?,
            })
        }
        StatsCommand::Pca { columns, components, covariance, .. } => Statistic::Pca(Pca {
            columns: expressions(catalogue, columns)?,
            components: *components,
            of: if *covariance { PcaOf::Covariance } else { PcaOf::Correlation },
        }),
        StatsCommand::Schema { .. } => unreachable!("the schema asks no question"),
    })
}

/// Numbers and categories of `describe`: as named, or all that can be described.
fn described(
    catalogue: &Catalogue,
    columns: &[String],
    ranges: &[String],
) -> Result<(Vec<DescribedNumber>, Vec<Category>), Failure> {
    let all: Vec<String> = catalogue.columns().into_iter().map(str::to_owned).collect();
    let (mut numbers, mut categories, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for name in if columns.is_empty() { &all } else { columns } {
        let is_column = all.contains(name);
        match is_column.then(|| catalogue.kind(name)) {
            Some(Ok(kind)) if !kind.is_numeric() => match catalogue.category(name) {
                Ok(category) => categories.push(category),
                Err(error) if columns.is_empty() => left_out.push(error.to_string()),
                Err(error) => return Err(error.into()),
            },
            Some(Err(error)) if columns.is_empty() => left_out.push(error.to_string()),
            kind => {
                let column = expression(catalogue, "--columns", name)?;
                let whole = matches!(kind, Some(Ok(protocol::ColumnKind::Integer)));
                numbers.push(DescribedNumber { whole, ..DescribedNumber::new(column) });
            }
        }
    }
    for reason in left_out {
        note(format!("left out: {reason}"));
    }
    for text in ranges {
        let wrong = || Failure::new(format!("--range takes COLUMN=LOW:HIGH, found {text:?}"));
        let (name, bounds) = text.split_once('=').ok_or_else(wrong)?;
        let (low, high) = bounds.split_once(':').ok_or_else(wrong)?;
        let (low, high) = (low.trim().parse().map_err(|_| wrong())?, high.trim().parse().map_err(|_| wrong())?);
        let number =
            numbers.iter_mut().find(|number| number.column.to_string() == name || number.column.as_column() == Some(name));
        let number = number.ok_or_else(|| Failure::new(format!("--range: no number {name:?} is described")))?;
        number.range = Some(Range::new(low, high)?);
    }
    Ok((numbers, categories))
}

fn glm(catalogue: &Catalogue, args: &GlmArgs) -> Result<Glm, Failure> {
    let formula: Formula = parsed("--formula", &args.formula)?;
    let mut categories = catalogue.categories(&formula)?;
    let errors = match args.errors.as_str() {
        "model" => Errors::Model,
        "hc0" => Errors::Hc0,
        "hc1" => Errors::Hc1,
        "hc2" => Errors::Hc2,
        "hc3" => Errors::Hc3,
        "site" => Errors::ClusterBySite,
        other => {
            let column = other.strip_prefix("column:").ok_or_else(|| {
                Failure::new(format!("--errors takes model, hc0, hc1, hc2, hc3, site or column:NAME, found {other:?}"))
            })?;
            let category = catalogue.category(column)?;
            if categories.iter().all(|known| known.column() != column) {
                categories.push(category);
            }
            Errors::ClusterBy(column.to_owned())
        }
    };
    Ok(Glm {
        formula,
        family: match args.family {
            FamilyArg::Gaussian => GlmFamily::Gaussian,
            FamilyArg::Binomial => GlmFamily::Binomial,
            FamilyArg::Poisson => GlmFamily::Poisson,
            FamilyArg::Gamma => GlmFamily::Gamma,
        },
        link: args.link.map(|link| match link {
            LinkArg::Identity => Link::Identity,
            LinkArg::Logit => Link::Logit,
            LinkArg::Log => Link::Log,
            LinkArg::Inverse => Link::Inverse,
        }),
        weights: args.weights.as_deref().map(|text| expression(catalogue, "--weights", text)).transpose()?,
        categories,
        errors,
        confidence: Confidence::new(args.confidence)?,
    })
}

/// Asks one question of some nodes.
async fn answer(
    folder: &ComponentFolder,
    asking: &Asking,
    question: Question,
    nodes: Vec<String>,
    secagg: Secagg,
) -> Result<Answer, Failure> {
    let among = Among { tags: Tags::new(asking.tags.clone())?, nodes, secagg, min_parties: asking.min_parties };
    let spec = experiment(question, &among)?;
    let live = if asking.format.json { Live::silent() } else { Live::new(false).without_summary() };
    let ended = stream(folder, Request::Run { spec: Box::new(spec) }, false, OnInterrupt::Cancel, live).await?;
    let (ended, _) = ended.ok_or_else(|| Failure::new("the terminal closed; the question itself goes on"))?;
    ended.answer.ok_or_else(|| Failure::new("the question ended without an answer"))
}

/// An answer as scripts read it: its numbers, and whose rows are in them.
fn whole(answer: &Answer) -> Value {
    let mut keys = match &answer.numbers {
        Value::Object(keys) => keys.clone(),
        other => Map::from_iter([("answer".to_owned(), other.clone())]),
    };
    keys.insert("sites_used".to_owned(), json!(answer.sites_used));
    keys.insert("sites_left_out".to_owned(), json!(answer.sites_left_out));
    Value::Object(keys)
}

async fn pooled(folder: &ComponentFolder, asking: &Asking, catalogue: &Catalogue, question: Question) -> Outcome {
    let sites = catalogue.datasets().len();
    let secagg = match asking.secagg.as_deref() {
        Some(word) => parsed("--secagg", word)?,
        None if sites >= 3 => Secagg::Lom,
        None => {
            return Err(Failure::new(format!(
                "{sites} {} answer, and a sum over fewer than three is not hidden; --secagg none asks without hiding it",
                if sites == 1 { "site would" } else { "sites would" }
            )));
        }
    };
    let name = question.statistic.name();
    let answer = answer(folder, asking, question, asking.nodes.clone(), secagg).await?;
    if let Some(file) = &asking.plot {
        picture::draw(file, name, &answer.numbers)?;
    }
    if asking.format.json {
        print_json(&whole(&answer));
    } else {
        tables::print_answer(name, &answer.numbers);
        tables::print_sites(&answer);
    }
    Ok(())
}

/// Asks each site by itself.
async fn each(
    folder: &ComponentFolder,
    asking: &Asking,
    catalogue: &Catalogue,
    question: &Question,
) -> Result<Vec<(String, Result<Answer, String>)>, Failure> {
    if asking.secagg.as_deref().is_some_and(|word| word != "none") {
        return Err(Failure::new("an answer of one site cannot be hidden; leave --secagg out"));
    }
    let mut answers = Vec::new();
    for dataset in catalogue.datasets() {
        let nodes = vec![dataset.node_id.to_string()];
        let answer = answer(folder, asking, question.clone(), nodes, Secagg::None).await;
        answers.push((dataset.node.clone(), answer.map_err(|failure| failure.to_string())));
    }
    Ok(answers)
}

async fn per_site(folder: &ComponentFolder, asking: &Asking, catalogue: &Catalogue, question: &Question) -> Outcome {
    let answers = each(folder, asking, catalogue, question).await?;
    let name = question.statistic.name();
    if asking.format.json {
        let of = |(site, answer): &(String, Result<Answer, String>)| {
            let value = match answer {
                Ok(answer) => answer.numbers.clone(),
                Err(reason) => json!({ "left_out": reason }),
            };
            (site.clone(), value)
        };
        print_json(&json!({ "sites": answers.iter().map(of).collect::<Map<_, _>>() }));
    } else {
        for (site, answer) in &answers {
            print(format!("\n{site}"));
            match answer {
                Ok(answer) => tables::print_answer(name, &answer.numbers),
                Err(reason) => print(format!("  left out: {reason}")),
            }
        }
    }
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return Err(Failure::new("no site answered"));
    }
    Ok(())
}

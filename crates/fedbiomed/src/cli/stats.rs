//! Arguments of `fedbiomed researcher stats …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Format;

/// What every statistic is asked with.
#[derive(Debug, Clone, Args)]
pub(crate) struct Asking {
    /// Datasets with all of these tags, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    pub tags: Vec<String>,
    /// Only rows for which this holds, as "age > 50 and sex = 1".
    #[arg(long = "where", value_name = "CONDITION")]
    pub filter: Option<String>,
    /// The levels of a category, where the hospitals do not show them: sex=0,1.
    #[arg(long, value_name = "COLUMN=LEVELS")]
    pub levels: Vec<String>,
    /// Only these nodes, by id or name.
    #[arg(long, value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// How sums are hidden: lom, joye-libert or none; lom if absent, which needs three sites.
    #[arg(long)]
    pub secagg: Option<String>,
    /// The fewest nodes that a hidden sum may be of.
    #[arg(long, default_value_t = 3)]
    pub min_parties: u32,
    /// Pooled counts below it are not told; a hospital may want more.
    #[arg(long, default_value_t = 5)]
    pub minimum: u64,
    /// Ask each site for its own answer, in clear; a hospital may refuse that.
    #[arg(long)]
    pub per_site: bool,
    /// Draw a picture to this file: .svg or .html.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TableTestArg {
    Chi2,
    Yates,
    Fisher,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FamilyArg {
    Gaussian,
    Binomial,
    Poisson,
    Gamma,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LinkArg {
    Identity,
    Logit,
    Log,
    Inverse,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TiesArg {
    Efron,
    Breslow,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StrataArg {
    /// Each site has a baseline of its own.
    Site,
    /// All sites share one baseline.
    None,
}

/// What is fitted by `glm`, and by `meta` at each site.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlmArgs {
    /// As "target ~ age + sex + C(cp)".
    #[arg(long)]
    pub formula: String,
    #[arg(long, value_enum, default_value_t = FamilyArg::Gaussian)]
    pub family: FamilyArg,
    /// The family's own if absent.
    #[arg(long, value_enum)]
    pub link: Option<LinkArg>,
    /// An expression that says how much each row counts.
    #[arg(long)]
    pub weights: Option<String>,
    /// Standard errors: model, hc0, hc1, hc2, hc3, site, or column:NAME for clusters.
    #[arg(long, default_value = "model")]
    pub errors: String,
    /// The probability of the confidence intervals.
    #[arg(long, default_value_t = 0.95)]
    pub confidence: f64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StatsCommand {
    /// Count, missing, mean, standard deviation, quantiles and histogram of columns; counts of categories.
    #[command(
        after_help = "Examples:\n  fedbiomed researcher stats describe --tags heart\n  fedbiomed researcher stats describe --tags heart --columns age,chol --range age=0:120 --plot ages.svg"
    )]
    Describe {
        #[command(flatten)]
        asking: Asking,
        /// Columns or expressions, separated by commas; all columns that can be described if absent.
        #[arg(long, value_delimiter = ',')]
        columns: Vec<String>,
        /// Where values are expected, by which quantiles are found more finely: COLUMN=LOW:HIGH.
        #[arg(long, value_name = "COLUMN=LOW:HIGH")]
        range: Vec<String>,
        #[arg(long, value_delimiter = ',', default_values_t = [0.25, 0.5, 0.75])]
        quantiles: Vec<f64>,
        /// Bins of the histograms; 0 for none.
        #[arg(long, default_value_t = 10)]
        bins: usize,
        /// Ask for the smallest and the largest value, which a hospital may refuse.
        #[arg(long)]
        minmax: bool,
    },
    /// How many rows there are: whether a study is feasible.
    #[command(after_help = "Example:\n  fedbiomed researcher stats count --tags heart --where \"age > 50 and sex = 1\"")]
    Count {
        #[command(flatten)]
        asking: Asking,
    },
    /// How often each pair of levels occurs, with a test of independence.
    #[command(after_help = "Example:\n  fedbiomed researcher stats table --tags heart --rows sex --cols target --test chi2")]
    Table {
        #[command(flatten)]
        asking: Asking,
        #[arg(long)]
        rows: String,
        #[arg(long)]
        cols: String,
        #[arg(long, value_enum, default_value_t = TableTestArg::Chi2)]
        test: TableTestArg,
    },
    /// Pearson's correlations and covariances.
    #[command(after_help = "Example:\n  fedbiomed researcher stats corr --tags heart --columns age,chol,thalach")]
    Corr {
        #[command(flatten)]
        asking: Asking,
        #[arg(long, value_delimiter = ',', required = true)]
        columns: Vec<String>,
        /// For each pair of columns the rows where both have a value, instead of rows where all have one.
        #[arg(long)]
        pairwise: bool,
    },
    /// Compare a mean with another group's (Welch), or with a number.
    #[command(
        after_help = "Examples:\n  fedbiomed researcher stats ttest --tags heart --value thalach --by target\n  fedbiomed researcher stats ttest --tags heart --value \"after - before\" --mean 0"
    )]
    Ttest {
        #[command(flatten)]
        asking: Asking,
        /// A column or an expression.
        #[arg(long)]
        value: String,
        /// A column with two levels.
        #[arg(long, required_unless_present = "mean", conflicts_with = "mean")]
        by: Option<String>,
        #[arg(long, allow_negative_numbers = true)]
        mean: Option<f64>,
        /// Take the variances of both groups as equal.
        #[arg(long, conflicts_with = "mean")]
        student: bool,
        #[arg(long, default_value_t = 0.95)]
        confidence: f64,
    },
    /// Compare the means of several groups.
    #[command(after_help = "Example:\n  fedbiomed researcher stats anova --tags heart --value chol --by cp")]
    Anova {
        #[command(flatten)]
        asking: Asking,
        #[arg(long)]
        value: String,
        #[arg(long)]
        by: String,
    },
    /// A generalised linear model.
    #[command(
        after_help = "Example:\n  fedbiomed researcher stats glm --tags heart --formula \"target ~ age + sex + C(cp)\" --family binomial"
    )]
    Glm {
        #[command(flatten)]
        asking: Asking,
        #[command(flatten)]
        model: GlmArgs,
    },
    /// Survival curves, and the log-rank test of groups.
    #[command(after_help = "Example:\n  fedbiomed researcher stats survival --tags breast --time t --event d --by arm")]
    Survival {
        #[command(flatten)]
        asking: Asking,
        #[arg(long)]
        time: String,
        /// 1 where the event happened, 0 where the time is censored.
        #[arg(long)]
        event: String,
        #[arg(long)]
        by: Option<String>,
        /// Every time on its own, which every hospital must allow.
        #[arg(long)]
        exact: bool,
        /// The fewest events of a step, if not exact.
        #[arg(long, default_value_t = 5)]
        events: u32,
        #[arg(long, default_value_t = 0.95)]
        confidence: f64,
    },
    /// Cox's proportional hazards model.
    #[command(
        after_help = "Example:\n  fedbiomed researcher stats cox --tags breast --formula \"Surv(t, d) ~ age + grade\""
    )]
    Cox {
        #[command(flatten)]
        asking: Asking,
        #[arg(long)]
        formula: String,
        #[arg(long, value_enum, default_value_t = TiesArg::Efron)]
        ties: TiesArg,
        #[arg(long, value_enum, default_value_t = StrataArg::Site)]
        strata: StrataArg,
        /// With `--strata none`: every time on its own, which every hospital must allow.
        #[arg(long)]
        exact: bool,
        /// With `--strata none`: the fewest events of a step of time, if not exact.
        #[arg(long, default_value_t = 5)]
        events: u32,
        #[arg(long, default_value_t = 0.95)]
        confidence: f64,
    },
    /// Principal components.
    #[command(
        after_help = "Example:\n  fedbiomed researcher stats pca --tags heart --columns age,chol,thalach --components 2"
    )]
    Pca {
        #[command(flatten)]
        asking: Asking,
        #[arg(long, value_delimiter = ',', required = true)]
        columns: Vec<String>,
        #[arg(long)]
        components: Option<usize>,
        /// Of the columns as they are, not divided by their standard deviations.
        #[arg(long)]
        covariance: bool,
    },
    /// Fit a model at each site alone and combine the estimates, where the hospitals allow it.
    #[command(
        after_help = "Example:\n  fedbiomed researcher stats meta --tags heart --formula \"target ~ age + sex\" --family binomial --plot forest.svg"
    )]
    Meta {
        #[command(flatten)]
        asking: Asking,
        #[command(flatten)]
        model: GlmArgs,
    },
    /// Which columns the sites have: kinds and levels, side by side.
    #[command(after_help = "Example:\n  fedbiomed researcher stats schema --tags heart")]
    Schema {
        /// Datasets with all of these tags, separated by commas.
        #[arg(long, value_delimiter = ',', required = true)]
        tags: Vec<String>,
        #[command(flatten)]
        format: Format,
    },
}

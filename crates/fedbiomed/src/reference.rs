//! `fedbiomed reference …` (hidden): the reference pages of the docs, written from what the program really takes.

use std::fmt::Write as _;

use clap::CommandFactory;
use component::config::Setting;

use crate::cli::{Cli, ReferencePage};

/// Writes a page as Markdown.
pub(crate) fn page(page: ReferencePage) -> String {
    match page {
        ReferencePage::Commands => commands(),
        ReferencePage::Configuration => configuration(),
    }
}

fn commands() -> String {
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut text = String::from("# Commands\n");
    describe(&mut root, &mut text);
    text
}

fn describe(command: &mut clap::Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(text, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        describe(sub, text);
    }
}

fn configuration() -> String {
    let mut text = String::from(
        "# Configuration\n\nEach key stands in `etc/config.toml` of the component's folder and can be overridden ",
    );
    text.push_str("by the environment\nvariable `FBM_<SECTION>_<KEY>`. Unknown keys are refused. `config show` prints each value and where it came from.\n");
    table(&mut text, "Node", node::config::SETTINGS);
    table(&mut text, "Researcher", researcher::config::SETTINGS);
    text
}

fn table(text: &mut String, title: &str, settings: &[Setting]) {
    let _ = write!(text, "\n## {title}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n");
    for setting in settings {
        let Setting { section, key, takes, default, doc } = setting;
        let _ = writeln!(text, "| `{section}.{key}` | {takes} | `{default}` | {doc} |");
    }
}

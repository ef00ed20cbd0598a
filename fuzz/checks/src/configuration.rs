//! The components' configuration files.

use node::config::NodeConfig;
use researcher::config::Settings;

/// Reads a text as both files, and its first line as a value of every variable of the environment besides.
pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let lines = text.lines().count().max(1);
    let environment = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
    let by_environment = |name: &str| {
        let (key, value) = environment.split_once('=')?;
        name.ends_with(key).then(|| value.to_owned())
    };
    match NodeConfig::load(text, by_environment) {
        Ok(config) => {
            assert!(node::config::is_name(&config.name));
            for (_, shown, origin) in config.layers().entries() {
                let _ = (shown.to_string(), origin.to_string());
            }
        }
        Err(error) => check_sentence(&error.to_string(), lines),
    }
    if let Err(error) = Settings::load(text, by_environment) {
        check_sentence(&error.to_string(), lines);
    }
}

/// A line that a complaint names is one of the file.
fn check_sentence(sentence: &str, lines: usize) {
    let named = sentence.strip_prefix("line ").and_then(|rest| rest.split_once(':')?.0.parse::<usize>().ok());
    // What ends too early is missed after the last line.
    assert!(named.is_none_or(|line| (1..=lines + 1).contains(&line)), "{sentence} of {lines} lines");
}

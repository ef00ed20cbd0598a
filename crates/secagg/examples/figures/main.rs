//! Measures what masked sums cost, in processor time, and prints the figures as JSON, one object a line; `cargo xtask bench secagg`
//! puts the bars beside them.
//!
//! `cargo run --release -p secagg --example figures -- masks | signatures | nodes | joye-libert PARAMETERS`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for the terminal")]

mod clock;
mod encryption;
mod federation;
mod masks;
mod nodes;
mod signatures;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["masks"] => masks::measure(),
        ["signatures"] => signatures::measure(),
        ["nodes"] => nodes::measure(),
        ["joye-libert", parameters] => encryption::measure(parameters.parse().unwrap()),
        _ => panic!("usage: figures masks | signatures | nodes | joye-libert PARAMETERS"),
    }
}

/// Prints a figure.
fn tell(name: &str, value: f64) {
    println!("{}", serde_json::json!({ "name": name, "value": value }));
}

//! The page for security officers states what the crate computes.

use secagg::threshold::{default_colluders, least_survivors, threshold};

/// What a node's owner demands unless they say otherwise.
const MIN_PARTIES: u32 = 3;

fn row(parties: u32) -> String {
    let colluders = default_colluders(parties);
    let signers = threshold(parties, colluders);
    let survivors = least_survivors(signers, MIN_PARTIES);
    if survivors > parties {
        return format!("| {parties} | {colluders} | {signers} | refused | – | – |");
    }
    let (lost, honest) = (parties - survivors, survivors - colluders);
    format!("| {parties} | {colluders} | {signers} | {survivors} | {lost} | {honest} |")
}

#[test]
fn the_page_on_secure_aggregation_has_the_thresholds_of_the_crate() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/src/secure-aggregation.md")).unwrap();
    let rows: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).collect();
    let expected: Vec<String> = (2..=10).map(row).collect();
    assert_eq!(rows, expected);
}

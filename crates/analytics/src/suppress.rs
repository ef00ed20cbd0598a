//! Which counts of a table must be hidden, so that small ones do not follow from the rest.
//!
//! A count above 0 and below the limit is small. Hiding it alone is no use: it follows from its row's total. Others are hidden with
//! it, so that who knows every count that is shown, all shown totals, and that hidden counts are above 0, can still think of more than one
//! value for each small one.
//!
//! The table is a flow: from a source through the rows to the columns and on to a sink, the totals being the first and last arcs. Counts that
//! agree with what is shown differ by flows around circles of hidden arcs. A small count is safe if one unit more or less of
//! it can flow around such a circle, without an arc on it becoming 0 (Gusfield 1988, "A graph theoretic approach to statistical data security",
//! SIAM Journal on Computing 17; there without the bound). Arcs are hidden along the circle that hides the fewest people, found by the algorithm of
//! Dijkstra 1959; empty cells are never hidden.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is hidden of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    pub cells: Vec<Vec<bool>>,
    /// Totals of rows.
    pub rows: Vec<bool>,
    pub columns: Vec<bool>,
}

impl Hidden {
    pub fn nothing(rows: usize, columns: usize) -> Self {
        Self { cells: vec![vec![false; columns]; rows], rows: vec![false; rows], columns: vec![false; columns] }
    }

    fn everything(rows: usize, columns: usize) -> Self {
        Self { cells: vec![vec![true; columns]; rows], rows: vec![true; rows], columns: vec![true; columns] }
    }
}

/// An arc of the flow, with its count.
#[derive(Debug, Clone, Copy)]
struct Arc {
    from: usize,
    to: usize,
    count: u64,
    is_hidden: bool,
}

/// Says what to hide of a table whose grand total is known, so that no count from 1 to `minimum` - 1 can be found out.
///
/// If nothing else could be hidden, as in a table with one row that is not empty, everything is.
pub fn suppress(counts: &[Vec<u64>], minimum: u64) -> Hidden {
    let (n_rows, n_columns) = (counts.len(), counts.first().map_or(0, Vec::len));
    let (source, sink) = (n_rows + n_columns, n_rows + n_columns + 1);
    let mut arcs = Vec::with_capacity(n_rows * n_columns + n_rows + n_columns);
    let arc = |from, to, count| Arc { from, to, count, is_hidden: count > 0 && count < minimum };
    for (row, counts) in counts.iter().enumerate() {
        arcs.extend(counts.iter().enumerate().map(|(column, count)| arc(row, n_rows + column, *count)));
    }
    arcs.extend(counts.iter().enumerate().map(|(row, counts)| arc(source, row, counts.iter().sum())));
    let total = |column: usize| counts.iter().map(|row| row[column]).sum();
    arcs.extend((0..n_columns).map(|column| arc(n_rows + column, sink, total(column))));

    if !hide_circles(&mut arcs, sink + 1) {
        return Hidden::everything(n_rows, n_columns);
    }
    let mut hidden = arcs.iter().map(|arc| arc.is_hidden);
    let mut take = |n: usize| hidden.by_ref().take(n).collect::<Vec<bool>>();
    Hidden { cells: (0..n_rows).map(|_| take(n_columns)).collect(), rows: take(n_rows), columns: take(n_columns) }
}

/// Says which of some counts to hide, whose total is known.
pub fn suppress_list(counts: &[u64], minimum: u64) -> Vec<bool> {
    // Arcs from a source to a sink, side by side.
    let mut arcs: Vec<Arc> = counts
        .iter()
        .map(|count| Arc { from: 0, to: 1, count: *count, is_hidden: *count > 0 && *count < minimum })
        .collect();
    if hide_circles(&mut arcs, 2) { arcs.iter().map(|arc| arc.is_hidden).collect() } else { vec![true; counts.len()] }
}

/// Hides arcs until each that was hidden at first is on a circle of hidden ones. False if one of them is on none.
fn hide_circles(arcs: &mut [Arc], nodes: usize) -> bool {
    let small: Vec<usize> = (0..arcs.len()).filter(|at| arcs[*at].is_hidden).collect();
    for at in small {
        let Arc { from, to, count, .. } = arcs[at];
        // One more through this arc returns from its head to its tail; one less goes around the other way.
        let more = path(arcs, nodes, at, to, from);
        let less = if count > 1 { path(arcs, nodes, at, from, to) } else { None };
        let cheaper = match (more, less) {
            (Some(more), Some(less)) => Some(if more.0 <= less.0 { more } else { less }),
            (more, less) => more.or(less),
        };
        let Some((_, path)) = cheaper else { return false };
        for at in path {
            arcs[at].is_hidden = true;
        }
    }
    true
}

/// The path on which one unit can flow that hides the fewest people, and how many those are. Arcs are passed forwards, which makes
/// their counts larger, or backwards, which must leave 1.
fn path(arcs: &[Arc], nodes: usize, without: usize, start: usize, end: usize) -> Option<(u64, Vec<usize>)> {
    let mut neighbours: Vec<Vec<(usize, usize)>> = vec![Vec::new(); nodes];
    for (at, arc) in arcs.iter().enumerate().filter(|(at, arc)| *at != without && arc.count > 0) {
        neighbours[arc.from].push((arc.to, at));
        if arc.count > 1 {
            neighbours[arc.to].push((arc.from, at));
        }
    }
    // The cost, and the arc by which a node is reached cheapest; among equals the one with fewer arcs.
    let mut reached: Vec<Option<(u64, usize, usize)>> = vec![None; nodes];
    let mut costs = vec![(u64::MAX, usize::MAX); nodes];
    costs[start] = (0, 0);
    let mut queue = BinaryHeap::from([Reverse(((0_u64, 0_usize), start))]);
    while let Some(Reverse((cost, node))) = queue.pop() {
        if cost > costs[node] {
            continue;
        }
        for (next, at) in &neighbours[node] {
            let price = if arcs[*at].is_hidden { 0 } else { arcs[*at].count };
            let next_cost = (cost.0.saturating_add(price), cost.1 + 1);
            if next_cost < costs[*next] {
                costs[*next] = next_cost;
                reached[*next] = Some((next_cost.0, *at, node));
                queue.push(Reverse((next_cost, *next)));
            }
        }
    }
    let (total, ..) = reached[end]?;
    let (mut path, mut node) = (Vec::new(), end);
    while node != start {
        let (_, at, before) = reached[node]?;
        path.push(at);
        node = before;
    }
    Some((total, path))
}

#[cfg(test)]
mod tests;

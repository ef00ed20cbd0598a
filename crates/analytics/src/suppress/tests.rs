use proptest::prelude::*;

use super::*;

/// All tables that agree with what is shown: the grand total, shown totals, shown cells, and hidden ones above 0.
fn possible(counts: &[Vec<u64>], hidden: &Hidden) -> Vec<Vec<u64>> {
    let (n_rows, n_columns) = (counts.len(), counts[0].len());
    let total: u64 = counts.iter().flatten().sum();
    let is_hidden: Vec<bool> = hidden.cells.iter().flatten().copied().collect();
    let truth: Vec<u64> = counts.iter().flatten().copied().collect();
    let mut found = Vec::new();
    let mut table = truth.clone();
    fill(0, &truth, &is_hidden, total, &mut table, &mut |table| {
        let row = |row: usize| table[row * n_columns..(row + 1) * n_columns].iter().sum::<u64>();
        let column = |column: usize| (0..n_rows).map(|row| table[row * n_columns + column]).sum::<u64>();
        let true_row = |row: usize| counts[row].iter().sum::<u64>();
        let true_column = |column: usize| counts.iter().map(|row| row[column]).sum::<u64>();
        let rows_agree = (0..n_rows).all(|at| if hidden.rows[at] { row(at) > 0 } else { row(at) == true_row(at) });
        let columns_agree =
            (0..n_columns).all(|at| if hidden.columns[at] { column(at) > 0 } else { column(at) == true_column(at) });
        if rows_agree && columns_agree && table.iter().sum::<u64>() == total {
            found.push(table.to_vec());
        }
    });
    found
}

fn fill(at: usize, truth: &[u64], is_hidden: &[bool], left: u64, table: &mut Vec<u64>, found: &mut impl FnMut(&[u64])) {
    if at == truth.len() {
        found(table);
        return;
    }
    let range = if is_hidden[at] { 1..=left } else { truth[at]..=truth[at] };
    for count in range.filter(|count| *count <= left) {
        table[at] = count;
        fill(at + 1, truth, is_hidden, left - count, table, found);
    }
}

fn check_safe(counts: &[Vec<u64>], minimum: u64) {
    let hidden = suppress(counts, minimum);
    let is_small = |count: u64| count > 0 && count < minimum;
    let everything = Hidden::everything(counts.len(), counts[0].len());
    if hidden == everything {
        return;
    }
    let tables = possible(counts, &hidden);
    let n_columns = counts[0].len();
    for (row, cells) in counts.iter().enumerate() {
        for (column, count) in cells.iter().enumerate().filter(|(_, count)| is_small(**count)) {
            assert!(hidden.cells[row][column]);
            let values: Vec<u64> = tables.iter().map(|table| table[row * n_columns + column]).collect();
            assert!(values.iter().any(|value| value != count), "{counts:?} {hidden:?}: {row}, {column} follows");
        }
        let total: u64 = cells.iter().sum();
        if is_small(total) {
            let found = |table: &Vec<u64>| table[row * n_columns..(row + 1) * n_columns].iter().sum::<u64>();
            assert!(hidden.rows[row] && tables.iter().any(|table| found(table) != total), "{counts:?}: total {row} follows");
        }
    }
    // No empty cell is hidden: it would be said not to be empty.
    assert!(counts.iter().flatten().zip(hidden.cells.iter().flatten()).all(|(count, hidden)| *count > 0 || !hidden));
}

#[test]
fn a_small_cell_of_four_hides_all_four() {
    let hidden = suppress(&[vec![3, 40], vec![50, 60]], 5);
    assert_eq!(hidden.cells, [[true, true], [true, true]]);
    assert_eq!((hidden.rows, hidden.columns), (vec![false; 2], vec![false; 2]));
}

#[test]
fn the_circle_with_the_fewest_people_is_hidden() {
    let hidden = suppress(&[vec![3, 40, 900], vec![50, 60, 900], vec![700, 800, 900]], 5);
    assert_eq!(hidden.cells, [[true, true, false], [true, true, false], [false; 3]]);
}

#[test]
fn two_small_cells_of_a_row_whose_total_gives_them_away_are_not_enough() {
    // 1 + 1 = 2: who knows that neither is 0 knows both.
    check_safe(&[vec![1, 1, 10], vec![9, 9, 10]], 5);
    let hidden = suppress(&[vec![1, 1, 10], vec![9, 9, 10]], 5);
    assert!(hidden.cells[0][2]);
}

#[test]
fn nothing_is_hidden_where_nothing_is_small() {
    let counts = vec![vec![5, 0, 7], vec![0, 9, 100]];
    assert_eq!(suppress(&counts, 5), Hidden::nothing(2, 3));
    assert_eq!(suppress(&counts, 0), Hidden::nothing(2, 3));
}

#[test]
fn what_cannot_be_hidden_otherwise_is_hidden_altogether() {
    // The one column of the one row: its count is the grand total.
    assert_eq!(suppress(&[vec![3]], 5), Hidden::everything(1, 1));
    assert_eq!(suppress_list(&[3, 0, 0], 5), [true; 3]);
}

#[test]
fn a_list_hides_the_smallest_other_count() {
    assert_eq!(suppress_list(&[3, 100, 20, 0], 5), [true, false, true, false]);
    assert_eq!(suppress_list(&[1, 1, 20, 0, 7], 5), [true, true, false, false, true]);
    assert_eq!(suppress_list(&[9, 100], 5), [false, false]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn small_counts_do_not_follow_from_what_is_shown(
        counts in proptest::collection::vec(proptest::collection::vec(0_u64..6, 3), 2..4),
        minimum in 2_u64..5,
    ) {
        prop_assume!(counts.iter().flatten().sum::<u64>() <= 18);
        check_safe(&counts, minimum);
    }

    #[test]
    fn small_counts_of_a_list_do_not_follow(counts in proptest::collection::vec(0_u64..8, 2..6), minimum in 2_u64..5) {
        let hidden = suppress_list(&counts, minimum);
        prop_assume!(!hidden.iter().all(|hidden| *hidden));
        // As a table with one row whose column totals are not shown.
        let left: u64 = counts.iter().zip(&hidden).filter(|(_, hidden)| **hidden).map(|(count, _)| count).sum();
        let n_hidden = hidden.iter().filter(|hidden| **hidden).count() as u64;
        for (count, hidden) in counts.iter().zip(&hidden) {
            prop_assert!(*hidden || *count == 0 || *count >= minimum);
            // Others may take all but 1 of each.
            prop_assert!(!hidden || left > n_hidden && n_hidden > 1);
        }
    }
}

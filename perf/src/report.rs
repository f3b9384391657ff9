//! How a report looks: the machine, tables, remarks, and what disturbed it.

use std::path::Path;

use comfy_table::{CellAlignment, Table, TableComponent, presets};

use crate::machine::{Noise, describe};

/// A report that is being printed, piece by piece as results come.
pub struct Report {
    noise: Noise,
}

impl Report {
    /// Prints the head. `dir` is where the data will be, or any directory if there is none.
    pub fn begin(dir: &Path) -> Report {
        for (key, text) in describe(dir) {
            println!("{key:<9}{text}");
        }
        println!();
        Report { noise: Noise::watch() }
    }

    /// Prints a table under a title; all columns but the first are numbers.
    pub fn table(&self, title: &str, header: &[&str], rows: Vec<Vec<String>>) {
        println!("{title}\n{}\n", render(header, rows));
    }

    /// Prints a remark.
    pub fn note(&self, text: &str) {
        println!("{text}");
    }

    /// Prints how quiet the machine was.
    pub fn end(self) {
        println!("\nload     {}", self.noise.describe());
    }
}

fn render(header: &[&str], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for line in [
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::LeftBorderIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        table.remove_style(line);
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `measured` against `target`: `at_least` or at most that much, with a word for it.
pub fn verdict(measured: f64, target: f64, at_least: bool) -> &'static str {
    match (measured >= target, at_least) {
        (true, true) | (false, false) => "reached",
        _ if measured == target => "reached",
        _ => "MISSED",
    }
}

/// The cells of a row.
#[macro_export]
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($cell.to_string()),*] };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_cells_and_a_target_its_verdict() {
        let text = render(&["a", "b"], vec![row!["one", 1], row!["two", 22]]).to_string();
        assert!(text.contains("one") && text.contains("22"));
        assert_eq!(verdict(0.9, 0.9, true), "reached");
        assert_eq!(verdict(0.89, 0.9, true), "MISSED");
        assert_eq!(verdict(0.5, 0.5, false), "reached");
        assert_eq!(verdict(0.51, 0.5, false), "MISSED");
    }
}

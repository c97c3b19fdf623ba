//! A CSV file, whole or in parts, with the lines that its rows came from.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Rows of text under named columns.
#[derive(Clone, Debug)]
pub struct Table {
    /// The file's name, for errors.
    pub name: String,
    /// Names of the columns, in order.
    pub columns: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    line: u64,
    cells: Vec<String>,
}

/// A CSV source, read in parts.
pub struct Source<R> {
    name: String,
    columns: Vec<String>,
    reader: csv::Reader<R>,
}

impl<R: std::io::Read> Source<R> {
    /// Reads the line that names the columns; `name` stands in errors.
    pub fn open(source: R, name: String) -> anyhow::Result<Self> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let header = reader.headers().map_err(|error| unreadable(error, &name))?;
        let columns: Vec<String> =
            header.iter().map(|column| column.trim_start_matches('\u{feff}').to_owned()).collect();
        if columns.iter().all(String::is_empty) {
            bail!("{name} is empty: it needs a first line that names the columns, and rows below it");
        }
        if columns.iter().all(|column| column.parse::<f64>().is_ok()) {
            bail!(
                "the first line of {name} holds numbers, not the names of its columns; add a line with names above it"
            );
        }
        let mut seen = HashSet::new();
        if let Some(column) = columns.iter().find(|column| !seen.insert(*column)) {
            bail!("{name} has two columns named {column:?}; rename one");
        }
        Ok(Self { name, columns, reader })
    }

    /// The next rows, `limit` at most; none at the end.
    pub fn read(&mut self, limit: usize) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for record in self.reader.records().take(limit) {
            let record = record.map_err(|error| unreadable(error, &self.name))?;
            let line = record.position().map_or(0, csv::Position::line);
            rows.push(Row { line, cells: record.iter().map(str::to_owned).collect() });
        }
        Ok(Table { name: self.name.clone(), columns: self.columns.clone(), rows })
    }
}

impl Table {
    /// Reads a file.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let reader = std::fs::File::open(file).with_context(|| format!("cannot read {name}"))?;
        Self::parse(reader, name)
    }

    /// Reads CSV; `name` stands in errors.
    pub fn parse(source: impl std::io::Read, name: String) -> anyhow::Result<Self> {
        let table = Source::open(source, name)?.read(usize::MAX)?;
        if table.rows.is_empty() {
            bail!("{} names its columns but has no rows", table.name);
        }
        Ok(table)
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The index of a column; an error that offers the nearest name where there is none of this one.
    pub fn column(&self, name: &str) -> anyhow::Result<usize> {
        if let Some(index) = self.columns.iter().position(|column| column == name) {
            return Ok(index);
        }
        let similarity = |column: &&String| (strsim::jaro_winkler(column, name) * 1e6) as u64;
        let nearest = self.columns.iter().max_by_key(similarity).map_or("", String::as_str);
        bail!("{} has no column {name:?}; did you mean {nearest:?}?", self.name)
    }

    /// The line of the file that a row came from.
    pub fn line(&self, row: usize) -> u64 {
        self.rows[row].line
    }

    /// The text of a cell.
    pub fn text(&self, row: usize, column: usize) -> &str {
        &self.rows[row].cells[column]
    }

    /// A cell as a finite number; `None` where it is not one.
    pub fn number(&self, row: usize, column: usize) -> Option<f64> {
        self.text(row, column).parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// A cell that has to be a number.
    pub fn required_number(&self, row: usize, column: usize) -> anyhow::Result<f64> {
        let Some(number) = self.number(row, column) else {
            let (line, text) = (self.rows[row].line, self.text(row, column));
            let (file, name) = (&self.name, &self.columns[column]);
            let problem = if text.is_empty() { "is empty".to_owned() } else { format!("has {text:?}") };
            bail!("{file}, line {line}, column {name:?} {problem}, but a finite number is needed there");
        };
        Ok(number)
    }
}

/// What a person can do about a line that cannot be read.
fn unreadable(error: csv::Error, name: &str) -> anyhow::Error {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos: Some(place), expected_len, len } => anyhow::anyhow!(
            "{name}, line {}: {len} cells, but the first line names {expected_len} columns; a comma too many or too few?",
            place.line()
        ),
        csv::ErrorKind::Utf8 { pos: Some(place), .. } => {
            anyhow::anyhow!("{name}, line {}: not UTF-8; save the file with that encoding", place.line())
        }
        _ => anyhow::Error::new(error).context(format!("{name} is not CSV")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> anyhow::Result<Table> {
        Table::parse(text.as_bytes(), "t.csv".into())
    }

    #[test]
    fn a_cell_that_is_no_number_is_told_with_its_line_and_column() {
        let table = table("a,b\n1,2\n3,x\n").unwrap();
        assert_eq!(table.required_number(0, 1).unwrap(), 2.0);
        let error = table.required_number(1, 1).unwrap_err().to_string();
        assert_eq!(error, "t.csv, line 3, column \"b\" has \"x\", but a finite number is needed there");
    }

    #[test]
    fn a_column_that_is_not_there_is_answered_with_the_nearest_name() {
        let table = table("sepal_length,species\n1,a\n").unwrap();
        let error = table.column("specis").unwrap_err().to_string();
        assert!(error.ends_with("did you mean \"species\"?"), "{error}");
    }

    #[test]
    fn what_is_no_table_is_refused_with_words() {
        assert!(table("").unwrap_err().to_string().contains("is empty"));
        assert!(table("a,b\n").unwrap_err().to_string().contains("no rows"));
        assert!(table("a,a\n1,2\n").unwrap_err().to_string().contains("two columns"));
        assert!(format!("{:#}", table("a,b\n1\n").unwrap_err()).contains("line 2: 1 cells"));
    }
}

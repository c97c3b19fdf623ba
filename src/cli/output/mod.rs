//! What commands print: tables for people, JSON for machines, curves of one line.

pub(in crate::cli) mod file;
mod sparkline;

use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;
use comfy_table::{CellAlignment, ContentArrangement, Table};

pub(super) use sparkline::sparkline;

use crate::rpc::{json, pb};

/// Nobody reads standard output any more, as after `| head`.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output")]
pub(super) struct NobodyReads;

/// Prints a line to standard output.
pub(super) fn print(line: &str) -> anyhow::Result<()> {
    print_bytes(format!("{line}\n").as_bytes())
}

/// Prints text as it is.
pub(super) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        written => written.context("standard output cannot be written"),
    }
}

/// Prints a message of the contract as one line of JSON, as grpcurl would.
pub(super) fn print_json(message: &impl json::Named) -> anyhow::Result<()> {
    print(&json::line(message)?)
}

/// Columns that line up: text to the left, and numbers, those named in `numbers`, to the right.
pub(super) fn table(header: &[&str], numbers: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec()).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// The losses of an epoch, in words.
pub(super) fn losses(report: &pb::EpochReport) -> String {
    match report.validation_loss {
        Some(validation) => format!("loss {:.4}  validation {validation:.4}", report.loss),
        None => format!("loss {:.4}", report.loss),
    }
}

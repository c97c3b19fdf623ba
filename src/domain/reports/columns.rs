//! The same reports seen as columns, each with a number that is stored: a column is one field of all reports.

use super::{FIXED, HAS_VALIDATION_METRICS, LAYER_WORDS, LAYERS_SHIFT, METRICS, VALIDATION_LOSS, VALIDATION_METRICS};
use super::{Reports, bits, layers_of, optional_count, row_words};
use crate::domain::Metrics;
use crate::limits::LAYERS_MAX;

/// Columns that every report has: epoch, loss, learning rate, elapsed microseconds and samples per second are 0 to 4.
const ALWAYS: u16 = FIXED as u16 - 1;
const VALIDATION_LOSS_COLUMN: u16 = ALWAYS;
/// Whether there are metrics of validation rows, of which each may be missing.
const HAS_VALIDATION_METRICS_COLUMN: u16 = 6;
/// The first metric in the order of [`Metrics::for_each_word`].
const METRICS_COLUMN: u16 = 32;
/// The first of the validation rows.
const VALIDATION_METRICS_COLUMN: u16 = 96;
/// The first number of the first layer.
const LAYERS_COLUMN: u16 = 256;

const LAYER_COLUMNS: u16 = LAYER_WORDS as u16;
const METRICS_END: u16 = METRICS_COLUMN + Metrics::COUNT as u16;
const VALIDATION_METRICS_END: u16 = VALIDATION_METRICS_COLUMN + Metrics::COUNT as u16;
const LAYERS_END: u16 = LAYERS_COLUMN + LAYER_COLUMNS * LAYERS_MAX as u16;

const _: () = assert!(METRICS_END <= VALIDATION_METRICS_COLUMN && VALIDATION_METRICS_END <= LAYERS_COLUMN);

/// Where a column lies in a row.
#[derive(Clone, Copy)]
enum Place {
    Always(usize),
    Optional(u32),
    /// A layer, and which of its numbers.
    Layer(usize, usize),
}

impl Place {
    fn of(column: u16) -> Option<Self> {
        Some(match column {
            0..ALWAYS => Self::Always(1 + usize::from(column)),
            VALIDATION_LOSS_COLUMN => Self::Optional(VALIDATION_LOSS),
            HAS_VALIDATION_METRICS_COLUMN => Self::Optional(HAS_VALIDATION_METRICS),
            METRICS_COLUMN..METRICS_END => Self::Optional(METRICS + u32::from(column - METRICS_COLUMN)),
            VALIDATION_METRICS_COLUMN..VALIDATION_METRICS_END => {
                Self::Optional(VALIDATION_METRICS + u32::from(column - VALIDATION_METRICS_COLUMN))
            }
            LAYERS_COLUMN..LAYERS_END => {
                let number = usize::from(column - LAYERS_COLUMN);
                Self::Layer(number / LAYER_WORDS, number % LAYER_WORDS)
            }
            _ => return None,
        })
    }

    /// Where in a row of a shape that has it.
    fn offset(self, shape: u64) -> usize {
        match self {
            Self::Always(word) => word,
            Self::Optional(bit) => FIXED + optional_count(shape & ((1 << bit) - 1)),
            Self::Layer(layer, word) => FIXED + optional_count(shape) + layer * LAYER_WORDS + word,
        }
    }

    /// Whether a row has it, by the row's first word.
    fn is_in(self, has: u64) -> bool {
        match self {
            Self::Always(_) => true,
            Self::Optional(bit) => has >> bit & 1 == 1,
            Self::Layer(layer, _) => layer < layers_of(has),
        }
    }

    /// What a row is, too, that has it.
    fn add_to(self, has: u64) -> u64 {
        match self {
            Self::Always(_) => has,
            Self::Optional(bit) => has | 1 << bit,
            Self::Layer(layer, _) if layer < layers_of(has) => has,
            Self::Layer(layer, _) => has & super::OPTIONAL_MASK | (layer as u64 + 1) << LAYERS_SHIFT,
        }
    }
}

/// The column of an optional word.
fn column_of(bit: u32) -> u16 {
    match bit {
        VALIDATION_LOSS => VALIDATION_LOSS_COLUMN,
        HAS_VALIDATION_METRICS => HAS_VALIDATION_METRICS_COLUMN,
        METRICS..VALIDATION_METRICS => METRICS_COLUMN + (bit - METRICS) as u16,
        _ => VALIDATION_METRICS_COLUMN + (bit - VALIDATION_METRICS) as u16,
    }
}

impl Reports {
    /// The columns that any report has a number in, in order.
    pub fn columns(&self) -> impl Iterator<Item = u16> + use<> {
        let optional = bits(self.shape).map(column_of);
        let layers = LAYERS_COLUMN..LAYERS_COLUMN + LAYER_COLUMNS * layers_of(self.shape).min(LAYERS_MAX) as u16;
        (0..ALWAYS).chain(optional).chain(layers)
    }

    /// The numbers of a column, by their bits, of the reports that have one; and whether each has.
    pub fn column(&self, column: u16) -> impl Iterator<Item = Option<u64>> + '_ {
        let place = Place::of(column).filter(|place| place.is_in(self.shape));
        let offset = place.map_or(0, |place| place.offset(self.shape));
        let value = move |row: &[u64]| place.filter(|place| place.is_in(row[0])).map(|_| row[offset]);
        self.words.chunks_exact(row_words(self.shape)).map(value)
    }

    /// Whether a number is that of a column.
    pub fn has_column(column: u16) -> bool {
        Place::of(column).is_some()
    }

    /// So many reports from their columns, each as long; columns of other numbers are of a newer epochd, and left out. `None` where one is
    /// missing that every report has.
    pub fn from_columns(len: usize, columns: &[(u16, Vec<Option<u64>>)]) -> Option<Self> {
        let known = || columns.iter().filter_map(|(column, values)| Some((Place::of(*column)?, values)));
        let is_always = |(place, values): (Place, &Vec<Option<u64>>)| match place {
            Place::Always(word) if values.len() == len && values.iter().all(Option::is_some) => Some(1 << word),
            _ => None,
        };
        let always = known().filter_map(is_always).fold(1, |words: u64, word: u64| words | word);
        if always != (1 << FIXED) - 1 {
            return None;
        }
        let has_any = |values: &[Option<u64>]| values.iter().any(Option::is_some);
        let told = known().filter(|(_, values)| has_any(values));
        let shape = told.fold(0, |shape, (place, _)| place.add_to(shape));
        let width = row_words(shape);
        let mut words = vec![0; len * width];
        for (place, values) in known().filter(|(_, values)| has_any(values)) {
            let offset = place.offset(shape);
            for (row, value) in words.chunks_exact_mut(width).zip(values) {
                if let Some(value) = value {
                    row[0] = place.add_to(row[0]);
                    row[offset] = *value;
                }
            }
        }
        Some(Self { shape, words, len })
    }
}

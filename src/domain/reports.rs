//! Reports one after another, in few bytes: a job that trains two million epochs a second keeps as many of them.
//!
//! A report is a row of words, what every report has and then what these have: most metrics are told by no report of a job, and one
//! that is told by one is told by almost all. Where a training's reports are alike, each is written where it stays.

mod columns;

use std::fmt;
use std::ops::Range;

use super::report::{EpochReport, LayerDiagnostics, Metrics};
use crate::limits::LAYERS_MAX;

/// Words that every row begins with: what the report has, and what every report has.
const FIXED: usize = 6;
/// Optional words at most: the validation loss, whether there are validation metrics, and twice the metrics.
const OPTIONAL_MAX: usize = 2 + 2 * Metrics::COUNT;
const LAYER_WORDS: usize = 4;
/// Where in the first word the number of layers with diagnostics begins; below it is a bit for each optional word.
const LAYERS_SHIFT: u32 = 40;
const OPTIONAL_MASK: u64 = (1 << LAYERS_SHIFT) - 1;

const VALIDATION_LOSS: u32 = 0;
const HAS_VALIDATION_METRICS: u32 = 1;
const METRICS: u32 = 2;
const VALIDATION_METRICS: u32 = METRICS + Metrics::COUNT as u32;

const _: () = assert!(OPTIONAL_MAX <= LAYERS_SHIFT as usize);

/// A list of reports that grows at its end.
#[derive(Clone, Default)]
pub struct Reports {
    /// What the rows have room for: what any of the reports has.
    shape: u64,
    words: Vec<u64>,
    len: usize,
}

/// One of them, as it lies there.
#[derive(Clone, Copy)]
pub struct ReportRow<'a> {
    shape: u64,
    words: &'a [u64],
}

impl Reports {
    /// None, and room for so many without validation, of a few metrics.
    pub fn with_capacity(count: usize) -> Self {
        Self { words: Vec::with_capacity(count * (FIXED + 2)), ..Self::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that they take in memory.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>() + size_of::<Self>()
    }

    /// Adds one behind the others.
    pub fn push(&mut self, report: &EpochReport) {
        debug_assert!(report.diagnostics.len() <= LAYERS_MAX);
        let start = self.words.len();
        let has = push_head(report, &mut self.words);
        if self.is_empty() {
            self.shape = has;
        } else if self.shape != has {
            self.fit(has, start);
        }
        self.len += 1;
        let layers = report.diagnostics.iter();
        self.words.extend(layers.flat_map(layer_words));
        let missing = layers_of(self.shape) - report.diagnostics.len();
        self.words.extend(std::iter::repeat_n(0, missing * LAYER_WORDS));
    }

    /// Adds those at some places of other reports, as far as there are any.
    pub fn append(&mut self, reports: &Self, places: Range<usize>) {
        if self.is_empty() {
            self.shape = reports.shape;
        }
        if self.shape != reports.shape {
            return (reports.rows().take(places.end).skip(places.start)).for_each(|row| self.push(&row.report()));
        }
        let (words, count) = reports.words_at(places);
        self.words.extend_from_slice(words);
        self.len += count;
    }

    /// Leaves none, and keeps the room.
    pub fn clear(&mut self) {
        self.words.clear();
        self.len = 0;
    }

    /// Puts the words of a report whose shape is another, from `start` on, where they belong.
    fn fit(&mut self, has: u64, start: usize) {
        let mut row = [0; FIXED + OPTIONAL_MAX];
        let row = &mut row[..self.words.len() - start];
        row.copy_from_slice(&self.words[start..]);
        self.words.truncate(start);
        self.widen(has);
        self.push_scattered(has, row);
    }

    /// The words of a report that may have less than others.
    fn push_scattered(&mut self, has: u64, row: &[u64]) {
        self.words.extend_from_slice(&row[..FIXED]);
        let mut values = row[FIXED..].iter();
        for bit in bits(self.shape) {
            let value = if has >> bit & 1 == 1 { values.next().copied() } else { None };
            self.words.push(value.unwrap_or(0));
        }
    }

    /// Makes room for what a report has and those before it have not.
    fn widen(&mut self, has: u64) {
        let layers = layers_of(self.shape).max(layers_of(has)) as u64;
        let shape = ((self.shape | has) & OPTIONAL_MASK) | layers << LAYERS_SHIFT;
        if shape == self.shape {
            return;
        }
        let mut wider = Self { shape, words: Vec::with_capacity(row_words(shape) * (self.len + 1)), len: self.len };
        for row in self.rows() {
            wider.words.extend_from_slice(&row.words[..FIXED]);
            wider.words.extend(bits(shape).map(|bit| row.optional(bit).unwrap_or(0)));
            let first = FIXED + optional_count(row.shape);
            wider.words.extend_from_slice(&row.words[first..]);
            let missing = layers as usize - layers_of(row.shape);
            wider.words.extend(std::iter::repeat_n(0, missing * LAYER_WORDS));
        }
        *self = wider;
    }

    /// All of them, in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = ReportRow<'_>> {
        (0..self.len).map(|index| self.row_at(index))
    }

    /// One of them, by its place from 0.
    pub fn row(&self, index: usize) -> Option<ReportRow<'_>> {
        (index < self.len).then(|| self.row_at(index))
    }

    fn row_at(&self, index: usize) -> ReportRow<'_> {
        let width = row_words(self.shape);
        ReportRow { shape: self.shape, words: &self.words[index * width..(index + 1) * width] }
    }

    /// One of them, by its place from 0.
    pub fn get(&self, index: usize) -> Option<EpochReport> {
        self.row(index).map(|row| row.report())
    }

    /// The one that came last.
    pub fn last(&self) -> Option<EpochReport> {
        self.get(self.len.checked_sub(1)?)
    }

    /// Those at some places, as far as there are any.
    pub fn part(&self, places: Range<usize>) -> Self {
        let (words, len) = self.words_at(places);
        Self { shape: self.shape, words: words.to_vec(), len }
    }

    /// The words of those at some places, and how many they are.
    fn words_at(&self, places: Range<usize>) -> (&[u64], usize) {
        let (end, width) = (places.end.min(self.len), row_words(self.shape));
        let start = places.start.min(end);
        (&self.words[start * width..end * width], end - start)
    }

    /// Leaves out those before an epoch: epochs rise from one to the next.
    pub fn skip_before(&mut self, epoch: u32) {
        let before = self.rows().take_while(|row| row.epoch() < epoch).count();
        if before > 0 {
            *self = self.part(before..self.len);
        }
    }
}

impl<'a> ReportRow<'a> {
    /// See [`EpochReport::epoch`].
    pub fn epoch(&self) -> u32 {
        self.words[1] as u32
    }

    /// See [`EpochReport::loss`].
    pub fn loss(&self) -> f64 {
        f64::from_bits(self.words[2])
    }

    /// See [`EpochReport::learning_rate`].
    pub fn learning_rate(&self) -> f64 {
        f64::from_bits(self.words[3])
    }

    /// See [`EpochReport::elapsed_micros`].
    pub fn elapsed_micros(&self) -> u64 {
        self.words[4]
    }

    /// See [`EpochReport::samples_per_second`].
    pub fn samples_per_second(&self) -> f64 {
        f64::from_bits(self.words[5])
    }

    /// See [`EpochReport::validation_loss`].
    pub fn validation_loss(&self) -> Option<f64> {
        self.optional(VALIDATION_LOSS).map(f64::from_bits)
    }

    /// The metrics that were told, by their places in [`Metrics::for_each_word`].
    pub fn metrics(&self) -> impl Iterator<Item = (usize, u64)> + Clone + use<'a> {
        self.told(METRICS)
    }

    /// The same of the validation rows, where there were any.
    pub fn validation_metrics(&self) -> Option<impl Iterator<Item = (usize, u64)> + Clone + use<'a>> {
        self.optional(HAS_VALIDATION_METRICS).map(|_| self.told(VALIDATION_METRICS))
    }

    /// See [`EpochReport::diagnostics`].
    pub fn diagnostics(&self) -> impl ExactSizeIterator<Item = LayerDiagnostics> + use<'a> {
        let first = FIXED + optional_count(self.shape);
        let words = &self.words[first..first + layers_of(self.words[0]) * LAYER_WORDS];
        words.chunks_exact(LAYER_WORDS).map(|words| LayerDiagnostics {
            gradient_norm: f64::from_bits(words[0]),
            weight_norm: f64::from_bits(words[1]),
            update_ratio: f64::from_bits(words[2]),
            dead_units: f64::from_bits(words[3]),
        })
    }

    /// All of it.
    pub fn report(&self) -> EpochReport {
        EpochReport {
            epoch: self.epoch(),
            loss: self.loss(),
            validation_loss: self.validation_loss(),
            metrics: Metrics::from_words(self.metrics()),
            validation_metrics: self.validation_metrics().map(Metrics::from_words),
            learning_rate: self.learning_rate(),
            elapsed_micros: self.elapsed_micros(),
            samples_per_second: self.samples_per_second(),
            diagnostics: self.diagnostics().collect(),
        }
    }

    fn optional(&self, bit: u32) -> Option<u64> {
        (self.words[0] >> bit & 1 == 1).then(|| self.words[FIXED + optional_count(self.shape & ((1 << bit) - 1))])
    }

    fn told(&self, first: u32) -> impl Iterator<Item = (usize, u64)> + Clone + use<'a> {
        let range = |shape: u64| shape >> first & ((1 << Metrics::COUNT) - 1);
        let (has, room) = (range(self.words[0]), range(self.shape));
        let words = &self.words[FIXED + optional_count(self.shape & ((1 << first) - 1))..];
        bits(room).zip(words).filter(move |(bit, _)| has >> bit & 1 == 1).map(|(bit, &word)| (bit as usize, word))
    }
}

impl<'a> FromIterator<&'a EpochReport> for Reports {
    fn from_iter<I: IntoIterator<Item = &'a EpochReport>>(reports: I) -> Self {
        let mut all = Self::default();
        reports.into_iter().for_each(|report| all.push(report));
        all.words.shrink_to_fit();
        all
    }
}

/// The same reports in the same order, bit for bit, whatever the rows have room for.
impl PartialEq for Reports {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(one, other): (ReportRow<'_>, ReportRow<'_>)| {
            one.words[..FIXED] == other.words[..FIXED]
                && bits(one.words[0]).all(|bit| one.optional(bit) == other.optional(bit))
                && one.layer_words() == other.layer_words()
        };
        self.len == other.len && self.rows().zip(other.rows()).all(is_same)
    }
}

impl ReportRow<'_> {
    fn layer_words(&self) -> &[u64] {
        let first = FIXED + optional_count(self.shape);
        &self.words[first..first + layers_of(self.words[0]) * LAYER_WORDS]
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.rows().map(|row| row.report())).finish()
    }
}

/// Adds a report's words but for its layers; what it has.
fn push_head(report: &EpochReport, words: &mut Vec<u64>) -> u64 {
    let start = words.len();
    let [loss, learning_rate, speed] = [report.loss, report.learning_rate, report.samples_per_second].map(f64::to_bits);
    words.extend_from_slice(&[0, u64::from(report.epoch), loss, learning_rate, report.elapsed_micros, speed]);
    let mut has = (report.diagnostics.len() as u64) << LAYERS_SHIFT;
    let mut add = |bit: u32, word: u64| {
        has |= 1 << bit;
        words.push(word);
    };
    if let Some(loss) = report.validation_loss {
        add(VALIDATION_LOSS, loss.to_bits());
    }
    if report.validation_metrics.is_some() {
        add(HAS_VALIDATION_METRICS, 1);
    }
    report.metrics.for_each_word(|place, word| add(METRICS + place as u32, word));
    if let Some(metrics) = &report.validation_metrics {
        metrics.for_each_word(|place, word| add(VALIDATION_METRICS + place as u32, word));
    }
    words[start] = has;
    has
}

fn layer_words(layer: &LayerDiagnostics) -> [u64; LAYER_WORDS] {
    [layer.gradient_norm, layer.weight_norm, layer.update_ratio, layer.dead_units].map(f64::to_bits)
}

fn layers_of(shape: u64) -> usize {
    (shape >> LAYERS_SHIFT) as usize
}

fn optional_count(shape: u64) -> usize {
    (shape & OPTIONAL_MASK).count_ones() as usize
}

fn row_words(shape: u64) -> usize {
    FIXED + optional_count(shape) + layers_of(shape) * LAYER_WORDS
}

/// The optional words that a shape has, in order.
fn bits(shape: u64) -> impl Iterator<Item = u32> + Clone {
    let mut left = shape & OPTIONAL_MASK;
    std::iter::from_fn(move || {
        (left != 0).then(|| {
            let bit = left.trailing_zeros();
            left &= left - 1;
            bit
        })
    })
}

#[cfg(test)]
mod tests;

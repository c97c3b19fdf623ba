//! Losses that users write, as a short tape of operations on vectors.
//!
//! | file | subject |
//! |---|---|
//! | `compile` | from the tree to the tape: constants folded, what is the same computed once, buffers laid out |
//! | `kernel` | the operations: value beside derivative, the formula above both |
//!
//! The tape runs forward, and then in reverse for the exact gradient, over blocks of rows that fit the processor's
//! nearest cache, in float64 whatever the network computes in. Each loss is computed from its own row alone and in one
//! order, so neither blocks nor other rows change a bit of it.
//!
//! In the reverse pass a product with 0 is 0, also where the other factor is not finite. So nothing leaks from the
//! branch that a `where` did not take, and a kink's derivative 0 stays 0: that of √(x²) at 0, too.

mod compile;
mod kernel;

use super::element::Element;
use super::loss::TargetRows;
use crate::domain::expression::Expression;
use compile::{Op, Step};
use kernel::{Forward, Reverse};

/// Numbers in a block, or one row where that is longer: some 2 KiB a buffer.
const BLOCK_NUMBERS: usize = 256;

/// An expression, compiled for a number of outputs.
#[derive(Clone, Debug)]
pub struct Tape {
    steps: Vec<Step>,
    /// Outputs of the network.
    units: usize,
    /// Numbers that depend on one another: a row's outputs where something is summed over them, otherwise one.
    width: usize,
    /// Groups of `width` numbers in a block.
    block_groups: usize,
    is_row_loss: bool,
    values_len: usize,
    adjoints_len: usize,
}

/// The buffers of one thread that runs a [`Tape`]; only of the tape that made them.
#[derive(Clone, Debug)]
pub struct Slots {
    values: Vec<f64>,
    adjoints: Vec<f64>,
}

/// What each loss counts in the gradient Σ seed · ∂loss/∂y_pred.
#[derive(Clone, Copy, Debug)]
pub enum Seeds<'a> {
    /// All the same.
    Uniform(f64),
    /// One a loss.
    Each(&'a [f64]),
}

impl Seeds<'_> {
    fn at(&self, loss: usize) -> f64 {
        match self {
            Self::Uniform(seed) => *seed,
            Self::Each(seeds) => seeds[loss],
        }
    }
}

/// A loss that cannot be learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// The row, from 0.
    pub row: usize,
    /// Which of both it is; the value where it is both.
    pub quantity: Quantity,
}

/// What is computed from a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The loss.
    Value,
    /// Its gradient, as the network's element type holds it.
    Derivative,
}

/// A block of rows, or of single outputs where rows do not matter.
#[derive(Clone, Copy)]
struct Block {
    /// The first output and the one after the last, counted through all rows.
    start: usize,
    end: usize,
    /// How many groups of the tape's width those are.
    groups: usize,
}

impl Tape {
    /// Compiles an expression for a network with this many outputs.
    pub fn new(expression: &Expression, units: usize) -> Self {
        compile::compile(expression, units)
    }

    /// Whether there is one loss a row; otherwise there is one for each output.
    pub fn is_row_loss(&self) -> bool {
        self.is_row_loss
    }

    /// How many losses some rows have.
    pub fn loss_count(&self, rows: usize) -> usize {
        if self.is_row_loss { rows } else { rows * self.units }
    }

    /// Bytes of its [`Slots`].
    pub fn slots_bytes(&self) -> usize {
        (self.values_len + self.adjoints_len) * size_of::<f64>()
    }

    /// Buffers to run it in, for any number of rows.
    pub fn slots(&self) -> Slots {
        let mut values = vec![0.0; self.values_len];
        for step in &self.steps {
            if let Op::Constant(constant) = step.op {
                values[step.value..][..self.block_groups * self.width].fill(constant.get());
            }
        }
        Slots { values, adjoints: vec![0.0; self.adjoints_len] }
    }

    /// The losses of some rows, and the gradient Σ seed · ∂loss/∂y_pred.
    ///
    /// - `y_pred` and `gradient` are `[rows, units]`; class targets stand for one-hot rows.
    /// - `each_block` gets the losses block by block and in order, each time with the index of the first of them.
    ///
    /// Allocates nothing.
    ///
    /// # Panics
    /// Where the lengths do not fit one another.
    pub fn evaluate<T: Element>(
        &self,
        slots: &mut Slots,
        y_pred: &[T],
        y_true: TargetRows<'_, T>,
        seeds: Seeds<'_>,
        mut each_block: impl FnMut(usize, &[f64]),
        gradient: &mut [T],
    ) {
        for block in self.blocks(y_pred.len()) {
            self.forward(slots, y_pred, y_true, block);
            each_block(self.first_loss(block), self.losses_of(slots, block));
            self.reverse(slots, seeds, block);
            let gradient = &mut gradient[block.start..block.end];
            match self.gradient_of(slots, block) {
                Some(adjoints) => gradient.iter_mut().zip(adjoints).for_each(|(g, &a)| *g = T::from_f64(a).flush()),
                None => gradient.fill(T::ZERO),
            }
        }
    }

    /// The losses of some rows alone, as [`evaluate`](Self::evaluate) gives them.
    pub fn values<T: Element>(
        &self,
        slots: &mut Slots,
        y_pred: &[T],
        y_true: TargetRows<'_, T>,
        mut each_block: impl FnMut(usize, &[f64]),
    ) {
        for block in self.blocks(y_pred.len()) {
            self.forward(slots, y_pred, y_true, block);
            each_block(self.first_loss(block), self.losses_of(slots, block));
        }
    }

    /// The first row whose loss or gradient is not finite, of those that count: what has the seed 0 may be anything.
    pub fn first_fault<T: Element>(
        &self,
        slots: &mut Slots,
        y_pred: &[T],
        y_true: TargetRows<'_, T>,
        seeds: Seeds<'_>,
    ) -> Option<NotFinite> {
        self.blocks(y_pred.len()).find_map(|block| {
            self.forward(slots, y_pred, y_true, block);
            self.reverse(slots, seeds, block);
            self.fault_in::<T>(slots, seeds, block)
        })
    }

    fn fault_in<T: Element>(&self, slots: &Slots, seeds: Seeds<'_>, block: Block) -> Option<NotFinite> {
        let first_loss = self.first_loss(block);
        let outputs_a_loss = if self.is_row_loss { self.units } else { 1 };
        let mut losses = self.losses_of(slots, block).iter().enumerate();
        let value = losses.position(|(index, loss)| !loss.is_finite() && seeds.at(first_loss + index) != 0.0);
        let value = value.map(|index| (first_loss + index) * outputs_a_loss / self.units);
        let mut adjoints = self.gradient_of(slots, block).unwrap_or(&[]).iter();
        let derivative = adjoints.position(|&it| !T::from_f64(it).is_finite());
        let derivative = derivative.map(|index| (block.start + index) / self.units);
        match (value, derivative) {
            (Some(row), Some(other)) if other < row => Some(NotFinite { row: other, quantity: Quantity::Derivative }),
            (Some(row), _) => Some(NotFinite { row, quantity: Quantity::Value }),
            (None, Some(row)) => Some(NotFinite { row, quantity: Quantity::Derivative }),
            (None, None) => None,
        }
    }

    fn blocks(&self, outputs: usize) -> impl Iterator<Item = Block> + use<> {
        let (width, step) = (self.width, self.block_groups * self.width);
        (0..outputs).step_by(step).map(move |start| {
            let end = outputs.min(start + step);
            Block { start, end, groups: (end - start) / width }
        })
    }

    fn first_loss(&self, block: Block) -> usize {
        if self.is_row_loss { block.start / self.units } else { block.start }
    }

    fn losses_of<'a>(&self, slots: &'a Slots, block: Block) -> &'a [f64] {
        let losses = if self.is_row_loss { block.groups } else { block.end - block.start };
        &slots.values[self.root().value..][..losses]
    }

    /// The gradient; `None` where it is 0 everywhere.
    fn gradient_of<'a>(&self, slots: &'a Slots, block: Block) -> Option<&'a [f64]> {
        let prediction = self.steps.iter().find(|step| step.op == Op::Prediction)?;
        Some(&slots.adjoints[prediction.adjoint?..][..block.end - block.start])
    }

    fn root(&self) -> &Step {
        &self.steps[self.steps.len() - 1]
    }

    /// Runs the tape: each step's values from those of steps before it.
    fn forward<T: Element>(&self, slots: &mut Slots, y_pred: &[T], y_true: TargetRows<'_, T>, block: Block) {
        for step in &self.steps {
            let (known, rest) = slots.values.split_at_mut(step.value);
            let out = &mut rest[..step.len(block.groups, self.width)];
            match step.op {
                Op::Constant(_) => {}
                Op::Prediction => widen(&y_pred[block.start..block.end], out),
                Op::Target => self.load_targets(y_true, block, out),
                op => {
                    let operands = step.operand_values(known, block.groups, self.width);
                    kernel::run(op, operands, self.width, Forward { out });
                }
            }
        }
    }

    fn load_targets<T: Element>(&self, y_true: TargetRows<'_, T>, block: Block, out: &mut [f64]) {
        match y_true {
            TargetRows::Values(values) => widen(&values[block.start..block.end], out),
            TargetRows::Classes(classes) => {
                out.fill(0.0);
                let rows = block.start / self.units..block.end.div_ceil(self.units);
                for (row, &class) in rows.clone().zip(&classes[rows]) {
                    let one = row * self.units + class as usize;
                    // A block of single outputs may begin and end within a row.
                    if (block.start..block.end).contains(&one) {
                        out[one - block.start] = 1.0;
                    }
                }
            }
        }
    }

    /// Runs the tape backwards: each step's adjoint, ∂Σ/∂value, into those of its operands.
    fn reverse(&self, slots: &mut Slots, seeds: Seeds<'_>, block: Block) {
        let root = self.root();
        if let Some(adjoint) = root.adjoint {
            let adjoints = &mut slots.adjoints[adjoint..][..root.len(block.groups, self.width)];
            match seeds {
                Seeds::Uniform(seed) => adjoints.fill(seed),
                Seeds::Each(seeds) => adjoints.copy_from_slice(&seeds[self.first_loss(block)..][..adjoints.len()]),
            }
        }
        for step in self.steps.iter().rev() {
            let Some(adjoint) = step.adjoint else { continue };
            let (below, rest) = slots.adjoints.split_at_mut(adjoint);
            let adjoint = &rest[..step.len(block.groups, self.width)];
            let operands = step.operand_values(&slots.values, block.groups, self.width);
            let value = &slots.values[step.value..][..adjoint.len()];
            for (side, operand) in step.operands.iter().enumerate() {
                let Some(flow) = operand.flow else { continue };
                let into = &mut below[flow.adjoint..][..operand.len(block.groups, self.width)];
                let pass = Reverse { value, adjoint, side, into, is_first: flow.is_first };
                kernel::run(step.op, operands, self.width, pass);
            }
        }
    }
}

fn widen<T: Element>(from: &[T], to: &mut [f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f64());
}

#[cfg(test)]
mod tests;

//! From an expression's tree to its tape.

use std::collections::HashMap;

use super::kernel::{self, Forward};
use super::{BLOCK_NUMBERS, Tape};
use crate::domain::expression::{Binary, Expression, Node, OverRow, Unary};

/// Powers up to this one are products, which is much quicker than `pow` and as exact.
const PRODUCT_POWER_MAX: i32 = 16;

/// A float by its bits, so that equal constants are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bits(u64);

impl Bits {
    fn new(value: f64) -> Self {
        Self(value.to_bits())
    }

    /// The float.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A number, which lies in its buffer from the start.
    Constant(Bits),
    /// `y_pred`
    Prediction,
    /// `y_true`
    Target,
    /// A function of one number.
    Unary(Unary),
    /// x^n
    IntegerPower(i32),
    /// x^(n + ½), with n of at least 1
    HalfPower(i32),
    /// x^c
    ConstantPower(Bits),
    /// An operator, or a function of two numbers.
    Binary(Binary),
    /// `where(condition, a, b)`
    Where,
    /// A row's value, once for each output.
    Spread,
    /// One number from all of a row's outputs.
    OverRow(OverRow),
}

/// One operation on vectors.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it computes.
    pub op: Op,
    /// From what; those that the operation does not have are empty.
    pub operands: [Operand; 3],
    /// One number a row instead of one for each output.
    is_per_row: bool,
    /// Where its numbers begin.
    pub value: usize,
    /// Where their adjoints begin, if the gradient needs them.
    pub adjoint: Option<usize>,
}

/// An earlier step's numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operand {
    is_used: bool,
    is_per_row: bool,
    value: usize,
    /// Where the adjoint goes, if the gradient depends on it.
    pub flow: Option<Flow>,
}

/// The way of an adjoint to an operand.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Where the operand's adjoints begin.
    pub adjoint: usize,
    /// Nothing was added to it yet.
    pub is_first: bool,
}

impl Step {
    /// Its numbers in a block.
    pub fn len(&self, groups: usize, width: usize) -> usize {
        if self.is_per_row { groups } else { groups * width }
    }

    /// The numbers of its operands; empty where it has fewer than three.
    pub fn operand_values<'a>(&self, values: &'a [f64], groups: usize, width: usize) -> [&'a [f64]; 3] {
        self.operands.map(|it| &values[it.value..][..it.len(groups, width)])
    }
}

impl Operand {
    /// Its numbers in a block.
    pub fn len(&self, groups: usize, width: usize) -> usize {
        match (self.is_used, self.is_per_row) {
            (false, _) => 0,
            (true, true) => groups,
            (true, false) => groups * width,
        }
    }
}

/// An operation before it has its place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Draft {
    op: Op,
    /// Earlier drafts, from the first on.
    operands: [Option<usize>; 3],
    is_per_row: bool,
}

impl Draft {
    fn operands(&self) -> impl Iterator<Item = usize> {
        self.operands.into_iter().flatten()
    }

    /// Whether the value changes with an operand other than in steps.
    fn has_slope(&self, side: usize) -> bool {
        match self.op {
            Op::Unary(Unary::Sign) => false,
            Op::Binary(operator) => !is_comparison(operator),
            Op::Where => side != 0,
            _ => true,
        }
    }
}

fn is_comparison(operator: Binary) -> bool {
    use Binary::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    matches!(operator, Less | LessOrEqual | Greater | GreaterOrEqual | Equal | NotEqual)
}

/// Operations in order, each of them once.
struct Builder {
    units: usize,
    drafts: Vec<Draft>,
    known: HashMap<Draft, usize>,
}

/// The tape of an expression for a network with this many outputs.
pub fn compile(expression: &Expression, units: usize) -> Tape {
    let mut builder = Builder { units, drafts: Vec::new(), known: HashMap::new() };
    let mut places = Vec::with_capacity(expression.nodes().len());
    for node in expression.nodes() {
        let place = builder.add(node, &places);
        places.push(place);
    }
    let mut root = places[places.len() - 1];
    if !expression.is_row_loss() {
        // Folding may have left a number a row where the text says one for each output: sum(y_pred) + y_pred^0.
        root = builder.spread(root);
    }
    let has_rows = expression.nodes().iter().any(|node| matches!(node, Node::OverRow(..)));
    let width = if has_rows { units } else { 1 };
    lay_out(live(&builder.drafts, root), units, width, expression.is_row_loss())
}

impl Builder {
    /// Adds a node whose operands are at `places`.
    fn add(&mut self, node: &Node, places: &[usize]) -> usize {
        match *node {
            Node::Number(value) => self.constant(value),
            Node::Prediction => self.leaf(Op::Prediction),
            Node::Target => self.leaf(Op::Target),
            Node::Unary(function, x) => self.element_wise(Op::Unary(function), &[places[x]]),
            Node::Binary(Binary::Power, base, exponent) => self.power(places[base], places[exponent]),
            Node::Binary(operator, a, b) => self.element_wise(Op::Binary(operator), &[places[a], places[b]]),
            Node::Where(condition, a, b) => match self.constant_at(places[condition]) {
                Some(condition) => places[if condition != 0.0 { a } else { b }],
                None => self.element_wise(Op::Where, &[places[condition], places[a], places[b]]),
            },
            Node::Clip(x, low, high) => {
                let raised = self.element_wise(Op::Binary(Binary::Max), &[places[x], places[low]]);
                self.element_wise(Op::Binary(Binary::Min), &[raised, places[high]])
            }
            Node::OverRow(function, x) => self.over_row(function, places[x]),
        }
    }

    fn push(&mut self, draft: Draft) -> usize {
        *self.known.entry(draft).or_insert_with(|| {
            self.drafts.push(draft);
            self.drafts.len() - 1
        })
    }

    fn leaf(&mut self, op: Op) -> usize {
        self.push(Draft { op, operands: [None; 3], is_per_row: false })
    }

    fn constant(&mut self, value: f64) -> usize {
        self.leaf(Op::Constant(Bits::new(value)))
    }

    fn constant_at(&self, place: usize) -> Option<f64> {
        match self.drafts[place].op {
            Op::Constant(bits) => Some(bits.get()),
            _ => None,
        }
    }

    /// A number for each output from numbers for each output; a number a row where all of them are that or constants.
    fn element_wise(&mut self, op: Op, operands: &[usize]) -> usize {
        let constants: Option<Vec<f64>> = operands.iter().map(|&it| self.constant_at(it)).collect();
        if let Some(constants) = constants {
            return self.constant(folded(op, &constants));
        }
        let is_per_row = operands.iter().all(|&it| self.drafts[it].is_per_row || self.constant_at(it).is_some());
        let mut places = [None; 3];
        for (place, &operand) in places.iter_mut().zip(operands) {
            *place = Some(if is_per_row { operand } else { self.spread(operand) });
        }
        // a + b is b + a to the bit.
        if matches!(op, Op::Binary(Binary::Add | Binary::Multiply)) {
            places[..2].sort();
        }
        self.push(Draft { op, operands: places, is_per_row })
    }

    /// For each output, what may be a number a row.
    fn spread(&mut self, place: usize) -> usize {
        if !self.drafts[place].is_per_row {
            return place;
        }
        self.push(Draft { op: Op::Spread, operands: [Some(place), None, None], is_per_row: false })
    }

    fn power(&mut self, base: usize, exponent: usize) -> usize {
        let Some(exponent_value) = self.constant_at(exponent) else {
            return self.element_wise(Op::Binary(Binary::Power), &[base, exponent]);
        };
        let op = match exponent_value {
            0.0 => return self.constant(1.0),
            1.0 => return base,
            0.5 => Op::Unary(Unary::Sqrt),
            value if value.abs() > f64::from(PRODUCT_POWER_MAX) => Op::ConstantPower(Bits::new(value)),
            value if value.fract() == 0.0 => Op::IntegerPower(value as i32),
            value if value > 0.0 && value.fract() == 0.5 => Op::HalfPower(value as i32),
            value => Op::ConstantPower(Bits::new(value)),
        };
        self.element_wise(op, &[base])
    }

    /// Over a row whose outputs all have the same value there is nothing to add up.
    fn over_row(&mut self, function: OverRow, x: usize) -> usize {
        if !self.drafts[x].is_per_row && self.constant_at(x).is_none() {
            let op = Op::OverRow(function);
            return self.push(Draft { op, operands: [Some(x), None, None], is_per_row: true });
        }
        match function {
            OverRow::Mean | OverRow::Max => x,
            OverRow::Sum => {
                let units = self.constant(self.units as f64);
                self.element_wise(Op::Binary(Binary::Multiply), &[x, units])
            }
        }
    }
}

/// The value of an operation on constants, by the same code that would compute it in a step.
fn folded(op: Op, constants: &[f64]) -> f64 {
    let mut out = [0.0];
    let mut operands: [&[f64]; 3] = [&[]; 3];
    for (operand, constant) in operands.iter_mut().zip(constants) {
        *operand = std::slice::from_ref(constant);
    }
    kernel::run(op, operands, 1, Forward { out: &mut out });
    out[0]
}

/// The drafts that `root` is made of, which folding may have left fewer, in their order; `root` is the last.
fn live(drafts: &[Draft], root: usize) -> Vec<Draft> {
    let mut is_live = vec![false; root + 1];
    is_live[root] = true;
    for index in (0..=root).rev() {
        if is_live[index] {
            drafts[index].operands().for_each(|operand| is_live[operand] = true);
        }
    }
    let mut places = vec![0; root + 1];
    let mut kept = Vec::new();
    for index in (0..=root).filter(|&index| is_live[index]) {
        places[index] = kept.len();
        let operands = drafts[index].operands.map(|it| it.map(|operand| places[operand]));
        kept.push(Draft { operands, ..drafts[index] });
    }
    kept
}

/// Which drafts' adjoints the gradient needs: those that change with y_pred and that the loss changes with.
fn needed_adjoints(drafts: &[Draft]) -> Vec<bool> {
    let mut changes = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let changes_with = |(side, operand): (usize, &Option<usize>)| {
            operand.is_some_and(|operand: usize| draft.has_slope(side) && changes[operand])
        };
        changes.push(draft.op == Op::Prediction || draft.operands.iter().enumerate().any(changes_with));
    }
    let mut needed = vec![false; drafts.len()];
    needed[drafts.len() - 1] = changes[drafts.len() - 1];
    for index in (0..drafts.len()).rev() {
        if needed[index] {
            for (side, operand) in drafts[index].operands.iter().enumerate() {
                let Some(operand) = *operand else { continue };
                needed[operand] |= drafts[index].has_slope(side) && changes[operand];
            }
        }
    }
    needed
}

/// Gives each draft its buffers, in their order, so that a step's are always behind those of its operands.
fn lay_out(drafts: Vec<Draft>, units: usize, width: usize, is_row_loss: bool) -> Tape {
    let block_groups = (BLOCK_NUMBERS / width).max(1);
    let needed = needed_adjoints(&drafts);
    let (mut values_len, mut adjoints_len) = (0, 0);
    let mut steps: Vec<Step> = Vec::with_capacity(drafts.len());
    for (draft, &is_needed) in drafts.iter().zip(&needed) {
        let operands = draft.operands.map(|it| it.map_or_else(Operand::default, |place| operand_at(&steps, place)));
        let adjoint = is_needed.then_some(adjoints_len);
        let operands = if draft.is_per_row && !matches!(draft.op, Op::OverRow(_)) {
            // A constant has a number for each output, of which a step a row reads one a row.
            operands.map(|it| Operand { is_per_row: true, ..it })
        } else {
            operands
        };
        steps.push(Step { op: draft.op, operands, is_per_row: draft.is_per_row, value: values_len, adjoint });
        let len = steps[steps.len() - 1].len(block_groups, width);
        values_len += len;
        adjoints_len += if is_needed { len } else { 0 };
    }
    direct_flows(&drafts, &mut steps);
    Tape { steps, units, width, block_groups, is_row_loss, values_len, adjoints_len }
}

fn operand_at(steps: &[Step], place: usize) -> Operand {
    Operand { is_used: true, is_per_row: steps[place].is_per_row, value: steps[place].value, flow: None }
}

/// Where each step's adjoint flows to, in the order of the reverse pass: the first to come overwrites what was there.
fn direct_flows(drafts: &[Draft], steps: &mut [Step]) {
    let mut is_first = vec![true; steps.len()];
    for index in (0..steps.len()).rev() {
        for side in 0..3 {
            if steps[index].adjoint.is_none() {
                continue;
            }
            let Some(place) = drafts[index].operands[side] else { continue };
            let Some(adjoint) = steps[place].adjoint.filter(|_| drafts[index].has_slope(side)) else { continue };
            steps[index].operands[side].flow = Some(Flow { adjoint, is_first: is_first[place] });
            is_first[place] = false;
        }
    }
}

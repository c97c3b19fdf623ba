//! Losses that users write: `abs(y_pred - y_true)^1.5` as a tree. What it means in numbers is the engine's.

mod grammar;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Parentheses, arguments and exponents within one another: the only recursion of the parser, so that no text overflows
/// the stack.
pub const EXPRESSION_DEPTH_MAX: usize = 64;

/// A loss over `y_pred` and `y_true`, parsed. It is stored as its text alone.
///
/// The tree is a flat list in which operands stand before what they are operands of: a sum of two thousand terms is two
/// thousand deep, and neither walking nor dropping it may recurse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    text: String,
    nodes: Vec<Node>,
    is_row_loss: bool,
}

/// A place in [`Expression::nodes`].
pub type NodeIndex = usize;

/// A number, a name, or an operation on nodes before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Node {
    /// A finite number of at least 0.
    Number(f64),
    /// `y_pred`: what the network says.
    Prediction,
    /// `y_true`: what it should have said.
    Target,
    /// A function of one number.
    Unary(Unary, NodeIndex),
    /// An operator, or a function of two numbers.
    Binary(Binary, NodeIndex, NodeIndex),
    /// `where(condition, a, b)`: a where the condition is not 0, else b.
    Where(NodeIndex, NodeIndex, NodeIndex),
    /// `clip(x, low, high)`: min(max(x, low), high).
    Clip(NodeIndex, NodeIndex, NodeIndex),
    /// One number from all of a row's outputs. What has one value a row already counts once for each output.
    OverRow(OverRow, NodeIndex),
}

impl Node {
    /// The nodes that it is made of.
    pub fn operands(&self) -> impl Iterator<Item = NodeIndex> {
        let operands = match *self {
            Self::Number(_) | Self::Prediction | Self::Target => [None, None, None],
            Self::Unary(_, x) | Self::OverRow(_, x) => [Some(x), None, None],
            Self::Binary(_, a, b) => [Some(a), Some(b), None],
            Self::Where(a, b, c) | Self::Clip(a, b, c) => [Some(a), Some(b), Some(c)],
        };
        operands.into_iter().flatten()
    }
}

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// −x
    Negative,
    /// |x|
    Abs,
    /// e^x
    Exp,
    /// ln x
    Log,
    /// ln(1 + x)
    Log1p,
    /// e^x − 1
    Expm1,
    /// √x
    Sqrt,
    /// 1 / (1 + e^−x)
    Sigmoid,
    /// ln(1 + e^x)
    Softplus,
    /// tanh x
    Tanh,
    /// −1, 0 or 1
    Sign,
}

/// Operators, and functions of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Subtract,
    /// a · b
    Multiply,
    /// a / b
    Divide,
    /// a to the power of b
    Power,
    /// The smaller of both.
    Min,
    /// The larger of both.
    Max,
    /// 1 where a < b, else 0.
    Less,
    /// 1 where a ≤ b, else 0.
    LessOrEqual,
    /// 1 where a > b, else 0.
    Greater,
    /// 1 where a ≥ b, else 0.
    GreaterOrEqual,
    /// 1 where a = b, else 0.
    Equal,
    /// 1 where a ≠ b, else 0.
    NotEqual,
}

/// Functions of a row's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverRow {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The largest of them.
    Max,
}

impl Expression {
    /// Reads a text as an expression.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let nodes = grammar::parse(text)?;
        let is_row_loss = has_one_value_a_row(&nodes);
        Ok(Self { text: text.to_owned(), nodes, is_row_loss })
    }

    /// The text as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has one value a row: a sum, mean or max over a row on the outside. Otherwise it has one for each
    /// output.
    pub fn is_row_loss(&self) -> bool {
        self.is_row_loss
    }

    /// All nodes, operands before what they are operands of. The last one is the whole expression.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The whole expression.
    pub fn root(&self) -> &Node {
        &self.nodes[self.nodes.len() - 1]
    }
}

/// Whether the last node depends on the outputs only through sums, means and largest ones of rows.
fn has_one_value_a_row(nodes: &[Node]) -> bool {
    let mut varies = Vec::with_capacity(nodes.len());
    for node in nodes {
        varies.push(match node {
            Node::Prediction | Node::Target => true,
            Node::OverRow(..) => false,
            other => other.operands().any(|operand| varies[operand]),
        });
    }
    varies.last() == Some(&false)
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Expression {
    type Error = SyntaxError;

    fn try_from(text: String) -> Result<Self, SyntaxError> {
        Self::parse(&text)
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.text
    }
}

/// Why a text is not an expression: where, and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// From 1, in characters.
    pub column: usize,
    /// A sentence without a full stop.
    pub message: String,
}

impl SyntaxError {
    fn at(text: &str, offset: usize, message: String) -> Self {
        let column = 1 + text.char_indices().take_while(|&(at, _)| at < offset).count();
        Self { column, message }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.message)
    }
}

impl std::error::Error for SyntaxError {}

#[cfg(test)]
mod tests;

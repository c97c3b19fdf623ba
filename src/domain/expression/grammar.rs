//! The grammar, with Python's precedence, from what binds least to what binds most:
//!
//! ```text
//! comparison     = addition [ ("<" | "<=" | ">" | ">=" | "==" | "!=") addition ]
//! addition       = multiplication { ("+" | "-") multiplication }
//! multiplication = signed { ("*" | "/") signed }
//! signed         = { "+" | "-" } power
//! power          = operand [ ("^" | "**") signed ]
//! operand        = number | "y_pred" | "y_true" | "(" comparison ")" | function "(" comparison { "," comparison } ")"
//! ```
//!
//! One token decides which way to go, so nothing that was pushed onto the tree is ever taken back.

use winnow::ascii::{digit0, digit1};
use winnow::combinator::{alt, not, opt, peek, preceded, terminated};
use winnow::error::{ErrMode, ModalResult, ParserError};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location, Stateful};
use winnow::token::{any, one_of, take_while};

use super::{Binary, EXPRESSION_DEPTH_MAX, Node, NodeIndex, OverRow, SyntaxError, Unary};
use crate::limits::EXPRESSION_BYTES_MAX;

/// The text that is left, and the tree so far.
type Input<'a> = Stateful<LocatingSlice<&'a str>, Tree>;

type Parsed<T> = ModalResult<T, Problem>;

#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<Node>,
    depth: usize,
}

impl Tree {
    fn push(&mut self, node: Node) -> NodeIndex {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

/// What does not fit the grammar, at a byte of the text.
#[derive(Debug)]
struct Problem {
    offset: usize,
    message: String,
}

impl<'a> ParserError<Input<'a>> for Problem {
    type Inner = Self;

    /// A token that is not there: the caller tries another, or says in words what is missing.
    fn from_input(input: &Input<'a>) -> Self {
        Self { offset: input.current_token_start(), message: String::new() }
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

fn problem(offset: usize, message: impl Into<String>) -> ErrMode<Problem> {
    ErrMode::Cut(Problem { offset, message: message.into() })
}

/// A function, how it is written, and what it makes of its arguments.
#[derive(Clone, Copy)]
enum Function {
    Unary(Unary),
    Min,
    Max,
    Where,
    Clip,
    OverRow(OverRow),
}

const FUNCTIONS: [(&str, &str, Function); 16] = [
    ("abs", "abs(x)", Function::Unary(Unary::Abs)),
    ("min", "min(a, b)", Function::Min),
    ("max", "max(a, b), or max(x) over a row", Function::Max),
    ("where", "where(condition, a, b)", Function::Where),
    ("clip", "clip(x, low, high)", Function::Clip),
    ("exp", "exp(x)", Function::Unary(Unary::Exp)),
    ("log", "log(x)", Function::Unary(Unary::Log)),
    ("log1p", "log1p(x)", Function::Unary(Unary::Log1p)),
    ("expm1", "expm1(x)", Function::Unary(Unary::Expm1)),
    ("sqrt", "sqrt(x)", Function::Unary(Unary::Sqrt)),
    ("sigmoid", "sigmoid(x)", Function::Unary(Unary::Sigmoid)),
    ("softplus", "softplus(x)", Function::Unary(Unary::Softplus)),
    ("tanh", "tanh(x)", Function::Unary(Unary::Tanh)),
    ("sign", "sign(x)", Function::Unary(Unary::Sign)),
    ("sum", "sum(x)", Function::OverRow(OverRow::Sum)),
    ("mean", "mean(x)", Function::OverRow(OverRow::Mean)),
];

/// The nodes of the expression that a text is, the whole of it last.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let message = format!("at most {EXPRESSION_BYTES_MAX} bytes are read, but there are {}", text.len());
        return Err(SyntaxError::at(text, EXPRESSION_BYTES_MAX, message));
    }
    if text.trim().is_empty() {
        return Err(SyntaxError::at(text, 0, "the expression is empty".to_owned()));
    }
    let mut input = Stateful { input: LocatingSlice::new(text), state: Tree::default() };
    if let Err(ErrMode::Backtrack(problem) | ErrMode::Cut(problem)) = whole(&mut input) {
        return Err(SyntaxError::at(text, problem.offset, problem.message));
    }
    let nodes = input.state.nodes;
    if !nodes.contains(&Node::Prediction) {
        return Err(SyntaxError::at(text, 0, "there is no y_pred in it, so nothing would be learned".to_owned()));
    }
    Ok(nodes)
}

fn whole(input: &mut Input<'_>) -> Parsed<()> {
    comparison(input)?;
    match next_char(input)? {
        None => Ok(()),
        Some(_) => Err(operator_expected(input)),
    }
}

fn comparison(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    let left = addition(input)?;
    let Some(operator) = opt(comparison_operator).parse_next(input)? else { return Ok(left) };
    let right = addition(input)?;
    next_char(input)?;
    let offset = input.current_token_start();
    if opt(comparison_operator).parse_next(input)?.is_some() {
        return Err(problem(offset, "comparisons do not chain; for a < b < c write (a < b) * (b < c)"));
    }
    Ok(input.state.push(Node::Binary(operator, left, right)))
}

fn addition(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    left_associative(input, multiplication, |input| {
        alt((token("+").value(Binary::Add), token("-").value(Binary::Subtract))).parse_next(input)
    })
}

fn multiplication(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    left_associative(input, signed, |input| {
        let times = terminated(token("*"), not("*"));
        alt((times.value(Binary::Multiply), token("/").value(Binary::Divide))).parse_next(input)
    })
}

fn left_associative(
    input: &mut Input<'_>,
    operand: fn(&mut Input<'_>) -> Parsed<NodeIndex>,
    operator: fn(&mut Input<'_>) -> Parsed<Binary>,
) -> Parsed<NodeIndex> {
    let mut left = operand(input)?;
    while let Some(operator) = opt(operator).parse_next(input)? {
        let right = operand(input)?;
        left = input.state.push(Node::Binary(operator, left, right));
    }
    Ok(left)
}

/// Any number of signs is at most one: −−x is x, to the bit.
fn signed(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    let signs = take_while(0.., |it: char| matches!(it, '+' | '-') || it.is_whitespace()).parse_next(input)?;
    let power = power(input)?;
    let is_negative = signs.matches('-').count() % 2 == 1;
    Ok(if is_negative { input.state.push(Node::Unary(Unary::Negative, power)) } else { power })
}

fn power(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    let base = operand(input)?;
    let offset = input.current_token_start();
    if opt(alt((token("**"), token("^")))).parse_next(input)?.is_none() {
        return Ok(base);
    }
    let exponent = nested(input, offset, signed)?;
    Ok(input.state.push(Node::Binary(Binary::Power, base, exponent)))
}

fn operand(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    match next_char(input)? {
        Some('0'..='9' | '.') => number(input),
        Some('(') => parenthesis(input),
        Some(letter) if is_name_char(letter) => name(input),
        _ => {
            let found = found(input);
            let message = format!("an operand is missing: expected a number, a name or (, but found {found}");
            Err(problem(input.current_token_start(), message))
        }
    }
}

/// `1`, `.5`, `1.`, `1e-3`
fn number(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    let offset = input.current_token_start();
    let digits = alt(((digit1, opt(('.', digit0))).void(), ('.', digit1).void()));
    let exponent = (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1);
    let text = opt((digits, opt(exponent)).take()).parse_next(input)?.unwrap_or("");
    let rest = take_while(0.., |it: char| is_name_char(it) || it == '.').parse_next(input)?;
    match text.parse::<f64>() {
        Ok(value) if rest.is_empty() && value.is_finite() => Ok(input.state.push(Node::Number(value))),
        Ok(_) if rest.is_empty() => Err(problem(offset, format!("{} is too large for a number", quoted(text)))),
        _ => {
            let message = format!("{} is not a number; to multiply, write *", quoted(&format!("{text}{rest}")));
            Err(problem(offset, message))
        }
    }
}

fn parenthesis(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    let offset = input.current_token_start();
    "(".parse_next(input)?;
    let inner = nested(input, offset, comparison)?;
    match next_char(input)? {
        Some(')') => ")".value(inner).parse_next(input),
        None => Err(never_closed(offset)),
        Some(_) => Err(operator_expected(input)),
    }
}

/// `y_pred`, `y_true`, or a function with its arguments.
fn name(input: &mut Input<'_>) -> Parsed<NodeIndex> {
    let offset = input.current_token_start();
    let name = take_while(1.., is_name_char).parse_next(input)?;
    let is_called = next_char(input)? == Some('(');
    let function = FUNCTIONS.iter().find(|(function, ..)| *function == name);
    match (name, function, is_called) {
        ("y_pred", _, false) => Ok(input.state.push(Node::Prediction)),
        ("y_true", _, false) => Ok(input.state.push(Node::Target)),
        (_, Some(&(_, usage, function)), true) => {
            let arguments = arguments(input)?;
            let count = arguments.len();
            let node = call(function, &arguments).ok_or_else(|| problem(offset, arity(name, usage, count)))?;
            Ok(input.state.push(node))
        }
        (_, Some((_, usage, _)), false) => Err(problem(offset, format!("`{name}` is a function: write {usage}"))),
        ("y_pred" | "y_true", ..) => {
            Err(problem(offset, format!("`{name}` is not a function; to multiply, write {name} * (")))
        }
        (_, None, true) => {
            let known = FUNCTIONS.map(|(function, ..)| function).join(", ");
            Err(problem(offset, format!("unknown function {}; there are {known}", quoted(name))))
        }
        (_, None, false) => Err(problem(offset, format!("unknown name {}; there are y_pred and y_true", quoted(name)))),
    }
}

/// `(a, b, ...)`, also none.
fn arguments(input: &mut Input<'_>) -> Parsed<Vec<NodeIndex>> {
    let offset = input.current_token_start();
    "(".parse_next(input)?;
    let mut arguments = Vec::new();
    if opt(token(")")).parse_next(input)?.is_some() {
        return Ok(arguments);
    }
    loop {
        arguments.push(nested(input, offset, comparison)?);
        match next_char(input)? {
            Some(',') => ",".void().parse_next(input)?,
            Some(')') => return ")".value(arguments).parse_next(input),
            Some(_) => return Err(operator_expected(input)),
            None => return Err(never_closed(offset)),
        }
    }
}

/// The node of a call; `None` where the function does not take that many arguments.
fn call(function: Function, arguments: &[NodeIndex]) -> Option<Node> {
    match (function, arguments) {
        (Function::Unary(function), &[x]) => Some(Node::Unary(function, x)),
        (Function::Min, &[a, b]) => Some(Node::Binary(Binary::Min, a, b)),
        (Function::Max, &[a, b]) => Some(Node::Binary(Binary::Max, a, b)),
        (Function::Max, &[x]) => Some(Node::OverRow(OverRow::Max, x)),
        (Function::Where, &[condition, a, b]) => Some(Node::Where(condition, a, b)),
        (Function::Clip, &[x, low, high]) => Some(Node::Clip(x, low, high)),
        (Function::OverRow(function), &[x]) => Some(Node::OverRow(function, x)),
        _ => None,
    }
}

fn arity(name: &str, usage: &str, count: usize) -> String {
    let arguments = if count == 1 { "argument" } else { "arguments" };
    let hint = match (name, count) {
        ("min", 1) => "; the smallest of a row is -max(-x)",
        ("sum" | "mean", 2..) => ", which is over a row's outputs",
        _ => "",
    };
    format!("`{name}` has {count} {arguments} here: write {usage}{hint}")
}

/// Parses one level deeper, where that is still allowed.
fn nested(input: &mut Input<'_>, offset: usize, parser: fn(&mut Input<'_>) -> Parsed<NodeIndex>) -> Parsed<NodeIndex> {
    if input.state.depth == EXPRESSION_DEPTH_MAX {
        return Err(problem(offset, format!("nested more than {EXPRESSION_DEPTH_MAX} deep")));
    }
    input.state.depth += 1;
    let node = parser(input)?;
    input.state.depth -= 1;
    Ok(node)
}

fn comparison_operator(input: &mut Input<'_>) -> Parsed<Binary> {
    alt((
        token("<=").value(Binary::LessOrEqual),
        token("<").value(Binary::Less),
        token(">=").value(Binary::GreaterOrEqual),
        token(">").value(Binary::Greater),
        token("==").value(Binary::Equal),
        token("!=").value(Binary::NotEqual),
    ))
    .parse_next(input)
}

/// A sign of the language, after any white space.
fn token<'a>(text: &'static str) -> impl Parser<Input<'a>, &'a str, ErrMode<Problem>> {
    preceded(take_while(0.., char::is_whitespace), text)
}

/// What comes next after white space, which is skipped; `None` at the end.
fn next_char(input: &mut Input<'_>) -> Parsed<Option<char>> {
    preceded(take_while(0.., char::is_whitespace), opt(peek(any))).parse_next(input)
}

fn is_name_char(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn never_closed(offset: usize) -> ErrMode<Problem> {
    problem(offset, "this ( is never closed")
}

/// An operand has just ended, and what follows goes on with it in no way.
fn operator_expected(input: &Input<'_>) -> ErrMode<Problem> {
    let message = match input.chars().next() {
        Some(')') => "this ) closes nothing".to_owned(),
        Some(',') => "a comma stands only between the arguments of a function".to_owned(),
        Some('=') => "`=` compares nothing: write ==".to_owned(),
        _ => format!("an operator is missing: expected + - * / ^ or a comparison, but found {}", found(input)),
    };
    problem(input.current_token_start(), message)
}

/// What comes next, in words.
fn found(input: &Input<'_>) -> String {
    let name: String = input.chars().take_while(|&it| is_name_char(it)).collect();
    match input.chars().next() {
        None => "the end".to_owned(),
        Some(_) if !name.is_empty() => quoted(&name),
        Some(sign) => quoted(sign.encode_utf8(&mut [0; 4])),
    }
}

/// In backticks, and cut to a length that fits a message.
fn quoted(text: &str) -> String {
    let dots = if text.chars().count() > 40 { "…" } else { "" };
    format!("`{text:.40}{dots}`")
}

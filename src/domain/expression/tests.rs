//! Texts that are read, texts that are refused and where, and random trees printed and read back.

use proptest::prelude::*;

use super::*;
use crate::limits::EXPRESSION_BYTES_MAX;

/// The tree in full parentheses.
fn shape(expression: &Expression) -> String {
    let mut texts: Vec<String> = Vec::new();
    for node in expression.nodes() {
        let text = match *node {
            Node::Number(value) => value.to_string(),
            Node::Prediction => "p".to_owned(),
            Node::Target => "t".to_owned(),
            Node::Unary(function, x) => format!("{function:?}({})", texts[x]),
            Node::Binary(operator, a, b) => format!("{operator:?}({}, {})", texts[a], texts[b]),
            Node::Where(c, a, b) => format!("Where({}, {}, {})", texts[c], texts[a], texts[b]),
            Node::Clip(x, low, high) => format!("Clip({}, {}, {})", texts[x], texts[low], texts[high]),
            Node::OverRow(function, x) => format!("OverRow{function:?}({})", texts[x]),
        };
        texts.push(text);
    }
    texts.pop().unwrap()
}

#[track_caller]
fn reads(text: &str, expected: &str) {
    assert_eq!(shape(&Expression::parse(text).unwrap()), expected, "{text}");
}

#[track_caller]
fn refuses(text: &str, expected: &str) {
    let error = Expression::parse(text).unwrap_err().to_string();
    assert_eq!(error, expected, "{text}");
}

#[test]
fn precedence_is_python_s() {
    for (text, expected) in [
        ("y_pred-y_true-1", "Subtract(Subtract(p, t), 1)"),
        ("y_pred/y_true/2", "Divide(Divide(p, t), 2)"),
        ("y_pred+y_true*2", "Add(p, Multiply(t, 2))"),
        ("(y_pred+y_true)*2", "Multiply(Add(p, t), 2)"),
        ("-y_pred^2", "Negative(Power(p, 2))"),
        ("(-y_pred)^2", "Power(Negative(p), 2)"),
        ("2^3^y_pred", "Power(2, Power(3, p))"),
        ("2**3**y_pred", "Power(2, Power(3, p))"),
        ("2^-y_pred^2", "Power(2, Negative(Power(p, 2)))"),
        ("y_pred^-1*2", "Multiply(Power(p, Negative(1)), 2)"),
        ("2*-y_pred", "Multiply(2, Negative(p))"),
        ("-2*y_pred", "Multiply(Negative(2), p)"),
        ("1--y_pred", "Subtract(1, Negative(p))"),
        ("+-+--y_pred", "Negative(p)"),
        ("- - y_pred", "p"),
        ("y_pred + 1 < y_true * 2", "Less(Add(p, 1), Multiply(t, 2))"),
        ("(y_pred < 1) < 2", "Less(Less(p, 1), 2)"),
        ("y_pred<=1", "LessOrEqual(p, 1)"),
        ("y_pred>=1", "GreaterOrEqual(p, 1)"),
        ("y_pred>1", "Greater(p, 1)"),
        ("y_pred==1", "Equal(p, 1)"),
        ("y_pred!=1", "NotEqual(p, 1)"),
    ] {
        reads(text, expected);
    }
}

#[test]
fn numbers_and_white_space_are_free() {
    for (text, value) in [("1", 1.0), (".5", 0.5), ("1.", 1.0), ("1e-3", 1e-3), ("1.5E+2", 150.0), ("2.e1", 20.0)] {
        let expression = Expression::parse(&format!("y_pred*{text}")).unwrap();
        assert_eq!(expression.nodes()[1], Node::Number(value), "{text}");
    }
    reads(" abs (\n y_pred\t-  y_true )\u{a0}^ 1.5 ", "Power(Abs(Subtract(p, t)), 1.5)");
    reads("2-1e0+y_pred", "Add(Subtract(2, 1), p)");
}

#[test]
fn every_function_is_read() {
    for (name, _) in [("abs", 0), ("exp", 0), ("log", 0), ("log1p", 0), ("expm1", 0), ("sqrt", 0), ("sigmoid", 0)] {
        let expected = format!("{}{}(p)", name[..1].to_uppercase(), &name[1..]);
        reads(&format!("{name}(y_pred)"), &expected);
    }
    for (text, expected) in [
        ("softplus(y_pred)", "Softplus(p)"),
        ("tanh(y_pred)", "Tanh(p)"),
        ("sign(y_pred)", "Sign(p)"),
        ("min(y_pred, 1)", "Min(p, 1)"),
        ("max(y_pred, 1)", "Max(p, 1)"),
        ("max(y_pred)", "OverRowMax(p)"),
        ("sum(y_pred)", "OverRowSum(p)"),
        ("mean(y_pred)", "OverRowMean(p)"),
        ("where(y_true > 0, y_pred, 1)", "Where(Greater(t, 0), p, 1)"),
        ("clip(y_pred, 0, 1)", "Clip(p, 0, 1)"),
    ] {
        reads(text, expected);
    }
}

#[test]
fn a_refusal_says_where_and_what_to_change() {
    for (text, expected) in [
        ("", "column 1: the expression is empty"),
        (" \n", "column 1: the expression is empty"),
        ("y_pred-y_hat", "column 8: unknown name `y_hat`; there are y_pred and y_true"),
        ("y_true^2", "column 1: there is no y_pred in it, so nothing would be learned"),
        ("min(y_pred)", "column 1: `min` has 1 argument here: write min(a, b); the smallest of a row is -max(-x)"),
        ("1+clip(y_pred,1)", "column 3: `clip` has 2 arguments here: write clip(x, low, high)"),
        ("sum()+y_pred", "column 1: `sum` has 0 arguments here: write sum(x)"),
        ("max(1,2,y_pred)", "column 1: `max` has 3 arguments here: write max(a, b), or max(x) over a row"),
        ("sum(y_pred,1)", "column 1: `sum` has 2 arguments here: write sum(x), which is over a row's outputs"),
        ("exp+y_pred", "column 1: `exp` is a function: write exp(x)"),
        ("y_pred(2)", "column 1: `y_pred` is not a function; to multiply, write y_pred * ("),
        ("y_pred < 1 < 2", "column 12: comparisons do not chain; for a < b < c write (a < b) * (b < c)"),
        ("y_pred -", "column 9: an operand is missing: expected a number, a name or (, but found the end"),
        ("y_pred * / 2", "column 10: an operand is missing: expected a number, a name or (, but found `/`"),
        ("y_pred^", "column 8: an operand is missing: expected a number, a name or (, but found the end"),
        ("abs(y_pred,)", "column 12: an operand is missing: expected a number, a name or (, but found `)`"),
        ("1 + (y_pred", "column 5: this ( is never closed"),
        ("1 + abs(y_pred", "column 8: this ( is never closed"),
        ("y_pred)", "column 7: this ) closes nothing"),
        ("y_pred, 1", "column 7: a comma stands only between the arguments of a function"),
        ("(y_pred, 1)", "column 8: a comma stands only between the arguments of a function"),
        ("y_pred = 1", "column 8: `=` compares nothing: write =="),
        ("y_pred y_true", "column 8: an operator is missing: expected + - * / ^ or a comparison, but found `y_true`"),
        ("(y_pred 2)", "column 9: an operator is missing: expected + - * / ^ or a comparison, but found `2`"),
        ("y_pred − 1", "column 8: an operator is missing: expected + - * / ^ or a comparison, but found `−`"),
        ("é + y_pred", "column 1: unknown name `é`; there are y_pred and y_true"),
        ("1e999*y_pred", "column 1: `1e999` is too large for a number"),
        ("2y_pred", "column 1: `2y_pred` is not a number; to multiply, write *"),
        ("1.2.3*y_pred", "column 1: `1.2.3` is not a number; to multiply, write *"),
        ("y_pred*.", "column 8: `.` is not a number; to multiply, write *"),
        ("y_pred*1e", "column 8: `1e` is not a number; to multiply, write *"),
        ("−1 # é\n", "column 1: an operand is missing: expected a number, a name or (, but found `−`"),
    ] {
        refuses(text, expected);
    }
    let error = Expression::parse("ln(y_pred)").unwrap_err();
    assert!(error.message.starts_with("unknown function `ln`; there are abs, min, max, where"), "{error}");
}

#[test]
fn columns_count_characters_and_not_bytes() {
    assert_eq!(Expression::parse("y_pred\u{2003}\u{2003}?").unwrap_err().column, 9);
}

#[test]
fn no_text_overflows_the_stack() {
    let deep = |start: &str, repeated: &str| {
        let count = (EXPRESSION_BYTES_MAX - start.len()) / repeated.len();
        Expression::parse(&(start.to_owned() + &repeated.repeat(count)))
    };
    let too_deep = "nested more than 64 deep";
    assert_eq!(deep("", "(").unwrap_err(), SyntaxError { column: 65, message: too_deep.to_owned() });
    assert_eq!(deep("", "abs(").unwrap_err(), SyntaxError { column: 260, message: too_deep.to_owned() });
    assert_eq!(deep("2", "^2").unwrap_err(), SyntaxError { column: 130, message: too_deep.to_owned() });
    assert_eq!(deep("2", "^-2").unwrap_err().message, too_deep);
    assert_eq!(deep("", "-").unwrap_err().column, EXPRESSION_BYTES_MAX + 1);
    let minus = "-".repeat(EXPRESSION_BYTES_MAX - "y_pred".len()) + "y_pred";
    reads(&minus, "p");
    let inside = format!("{}y_pred{}", "(".repeat(64), ")".repeat(64));
    reads(&inside, "p");
    let sum = deep("y_pred", "+1").unwrap();
    assert_eq!(sum.nodes().len(), 1 + 2 * 2_045);
    assert_eq!(sum, sum.clone());
    let long = Expression::parse(&"é".repeat(EXPRESSION_BYTES_MAX)).unwrap_err();
    assert_eq!(long.to_string(), "column 2049: at most 4096 bytes are read, but there are 8192");
}

#[test]
fn a_row_loss_is_one_with_a_row_on_its_outside() {
    for (text, expected) in [
        ("-sum(y_true*log(y_pred))", true),
        ("2*max(y_pred) + 1", true),
        ("mean(y_pred)^2 < sum(1)", true),
        ("sqrt(sum((y_pred-mean(y_pred))^2))", true),
        ("y_pred", false),
        ("y_pred-mean(y_pred)", false),
        ("sum(y_pred)*y_true", false),
        ("max(y_pred, y_true)", false),
    ] {
        assert_eq!(Expression::parse(text).unwrap().is_row_loss(), expected, "{text}");
    }
}

#[test]
fn it_is_stored_as_its_text() {
    let expression = Expression::parse("abs(y_pred - y_true)^1.5").unwrap();
    let json = serde_json::to_string(&expression).unwrap();
    assert_eq!(json, "\"abs(y_pred - y_true)^1.5\"");
    assert_eq!(serde_json::from_str::<Expression>(&json).unwrap(), expression);
    let error = serde_json::from_str::<Expression>("\"y_pred+\"").unwrap_err().to_string();
    assert!(error.starts_with("column 8: an operand is missing"), "{error}");
}

/// A random tree: its text with no parenthesis too many, how tightly that binds, and its shape.
#[derive(Clone, Debug)]
struct Printed {
    text: String,
    binding: u8,
    shape: String,
}

impl Printed {
    fn leaf(text: &str, shape: &str) -> Self {
        Self { text: text.to_owned(), binding: 6, shape: shape.to_owned() }
    }

    /// In parentheses where it binds less than `binding`.
    fn within(&self, binding: u8) -> String {
        if self.binding < binding { format!("({})", self.text) } else { self.text.clone() }
    }

    fn binary(symbol: &str, name: &str, left: &Self, right: &Self) -> Self {
        let (binding, left_binding, right_binding) = match symbol {
            "+" | "-" => (2, 2, 3),
            "*" | " / " => (3, 3, 4),
            "^" | "**" => (5, 6, 4),
            _ => (1, 2, 2),
        };
        let text = format!("{}{symbol}{}", left.within(left_binding), right.within(right_binding));
        Self { text, binding, shape: format!("{name}({}, {})", left.shape, right.shape) }
    }

    fn call(name: &str, shape: &str, arguments: &[Self]) -> Self {
        let texts: Vec<_> = arguments.iter().map(|it| it.text.as_str()).collect();
        let shapes: Vec<_> = arguments.iter().map(|it| it.shape.as_str()).collect();
        let text = format!("{name}({})", texts.join(", "));
        Self { text, binding: 6, shape: format!("{shape}({})", shapes.join(", ")) }
    }
}

fn printed() -> impl Strategy<Value = Printed> {
    let number = (0_u32..2_000).prop_map(|it| f64::from(it) / 8.0);
    let leaf = prop_oneof![
        number.prop_map(|it| Printed::leaf(&it.to_string(), &it.to_string())),
        Just(Printed::leaf("y_pred", "p")),
        Just(Printed::leaf("y_true", "t")),
    ];
    leaf.prop_recursive(6, 40, 3, |inner| {
        let operators = prop::sample::select(vec![
            ("+", "Add"),
            ("-", "Subtract"),
            ("*", "Multiply"),
            (" / ", "Divide"),
            ("^", "Power"),
            ("**", "Power"),
            (" < ", "Less"),
            ("!=", "NotEqual"),
        ]);
        let binary = (operators, inner.clone(), inner.clone())
            .prop_map(|((symbol, name), left, right)| Printed::binary(symbol, name, &left, &right));
        let unary = (prop::sample::select(vec![("log", "Log"), ("max", "OverRowMax")]), inner.clone())
            .prop_map(|((name, shape), x)| Printed::call(name, shape, &[x]));
        let negative = inner.clone().prop_map(|x| Printed {
            text: format!("-{}", x.within(5)),
            binding: 4,
            shape: format!("Negative({})", x.shape),
        });
        let choice =
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| Printed::call("where", "Where", &[a, b, c]));
        prop_oneof![4 => binary, 1 => unary, 2 => negative, 1 => choice]
    })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(printed in printed()) {
        let text = format!("y_pred*({})", printed.text);
        let expression = Expression::parse(&text).unwrap();
        prop_assert_eq!(shape(&expression), format!("Multiply(p, {})", printed.shape), "{}", text);
    }

    #[test]
    fn no_text_panics(text in "[yt_pred0-9e.+*/^<>=!(), é-]{0,60}|\\PC{0,20}") {
        if let Err(error) = Expression::parse(&text) {
            prop_assert!(error.column >= 1 && error.column <= text.chars().count() + 1);
            prop_assert!(!error.message.is_empty());
        }
    }
}

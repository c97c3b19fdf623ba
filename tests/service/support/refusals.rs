//! Tables of requests that must be refused: all of a table is asked before the first failure is told.

use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// `a.b.c` as messages within one another.
pub fn nested(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, name| json!({name: inner}))
}

/// What has been asked, and what was not answered as it should be.
#[derive(Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// Whether `answer` is INVALID_ARGUMENT that names `field`, with `word` in what it says of it.
    pub fn look(&mut self, what: String, answer: Result<(), Status>, field: &str, word: &str) {
        let Err(status) = answer else { return self.0.push(format!("{what}: accepted")) };
        let violations = status.get_details_bad_request();
        let violations = violations.map(|it| it.field_violations).unwrap_or_default();
        let told = violations.iter().find(|it| it.field == field);
        if status.code() != Code::InvalidArgument || !told.is_some_and(|it| it.description.contains(word)) {
            self.0.push(format!("{what}: not {field} with {word:?}, but {:?} {violations:?}", status.code()));
        }
    }

    #[track_caller]
    pub fn check(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

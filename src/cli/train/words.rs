//! Parts of the contract as words of a command line: `huber:delta=2` is a loss, `f1_macro` a metric. What there is comes from
//! the contract itself, so that whatever is added there can be asked for here.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::rpc::json::{self, Field, FieldKind, Named};
use crate::rpc::pb;

/// Characters of a line of help.
const HELP_WIDTH: usize = 88;

/// One of what a message lets choose from: `name` or `name:key=value,key=value`.
pub fn choice<M: Named + Default>(text: &str) -> Result<M, String> {
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let arms = json::arms::<M>();
    let arm = arms.iter().find(|arm| arm.name == name.trim());
    let arm = arm.ok_or_else(|| unknown(name, "is not known", arms.iter().map(|arm| arm.name.as_str())))?;
    let settings = read_settings(&arm.name, &arm.fields, settings)?;
    built(&json!({ arm.name.as_str(): settings }))
}

/// The same as text, once it has been seen to be one.
pub fn choice_text<M: Named + Default>(text: &str) -> Result<String, String> {
    choice::<M>(text).map(|_| text.to_owned())
}

/// A message by its fields: `key=value,key=value`, or nothing for its defaults.
pub fn settings<M: Named + Default>(text: &str) -> Result<M, String> {
    built(&Value::Object(read_settings("it", &json::fields::<M>(), text)?))
}

/// One more setting at the end of a choice.
pub fn with_setting(choice: &str, key: &str, value: f64) -> String {
    let separator = if choice.contains(':') { ',' } else { ':' };
    format!("{choice}{separator}{key}={value}")
}

fn built<M: Named + Default>(patch: &Value) -> Result<M, String> {
    let mut message = M::default();
    json::merge(&mut message, patch).map_err(|error| error.to_string())?;
    Ok(message)
}

fn read_settings(owner: &str, fields: &[Field], text: &str) -> Result<Map<String, Value>, String> {
    let mut read = Map::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let key = rest[..end].trim();
        let field = fields.iter().find(|field| field.name == key).ok_or_else(|| no_key(owner, key, fields))?;
        let value;
        (value, rest) = cut(field, &rest[end..]);
        if read.insert(key.to_owned(), read_field(field, value)?).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    Ok(read)
}

/// What stands after a key, and what comes after that. Text goes on to the end, whatever is in it.
fn cut<'a>(field: &Field, after: &'a str) -> (Option<&'a str>, &'a str) {
    let Some(value) = after.strip_prefix('=') else {
        return (None, after.strip_prefix(',').unwrap_or("").trim_start());
    };
    match value.split_once(',') {
        Some((value, rest)) if field.kind != FieldKind::Text => (Some(value.trim()), rest.trim_start()),
        _ => (Some(value.trim()), ""),
    }
}

fn read_field(field: &Field, text: Option<&str>) -> Result<Value, String> {
    let text = match text {
        None if field.kind == FieldKind::Truth => "true",
        None | Some("") => return Err(format!("{0} needs a value: {0}=…", field.name)),
        Some(text) => text,
    };
    if field.is_list {
        return text.split(';').map(|text| read_one(field, text.trim())).collect();
    }
    read_one(field, text)
}

fn read_one(Field { name, kind, .. }: &Field, text: &str) -> Result<Value, String> {
    let must = |what: &str| format!("{name} must be {what}, but is {text:?}");
    match kind {
        FieldKind::Number => finite(text).map(Value::from).ok_or_else(|| must("a number")),
        FieldKind::Whole => text.parse::<i64>().map(Value::from).map_err(|_| must("a whole number")),
        FieldKind::Truth => text.parse::<bool>().map(Value::from).map_err(|_| must("true or false")),
        FieldKind::Text => Ok(text.into()),
        FieldKind::Other => Err(format!("{name} cannot be written here; use --request or --architecture with JSON")),
    }
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The value of an enum by its name without what all of them begin with, in lower case: `leaky_relu`.
pub fn word<E: TryFrom<i32>>(text: &str) -> Result<E, String> {
    let words = words::<E>();
    let found = words.iter().find(|(word, _)| word == text.trim());
    let value = found.and_then(|&(_, number)| E::try_from(number).ok());
    value.ok_or_else(|| unknown(text, "is not known", words.iter().map(|(word, _)| word.as_str())))
}

/// The word for a value that a message holds.
pub fn word_of<E>(number: i32) -> String {
    let words = words::<E>().into_iter();
    words.filter(|word| word.1 == number).map(|word| word.0).next().unwrap_or_else(|| number.to_string())
}

fn words<E>() -> Vec<(String, i32)> {
    let owner = std::any::type_name::<E>().rsplit("::").next().unwrap_or_default();
    // `ElementType` is `ELEMENT_TYPE_` in its values: as many letters, and an underscore after each word.
    let prefix = owner.len() + owner.chars().filter(char::is_ascii_uppercase).count();
    let word = |name: String| name.get(prefix..).unwrap_or(&name).to_lowercase();
    json::enum_values::<E>().into_iter().map(|(name, number)| (word(name), number)).collect()
}

/// What hidden layers apply: a word, and α where it takes one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// The function.
    pub kind: pb::Activation,
    /// Its α.
    pub alpha: Option<f64>,
}

/// `tanh`, `leaky_relu:alpha=0.1`.
pub fn activation(text: &str) -> Result<Activation, String> {
    let (name, settings) = text.split_once(':').unwrap_or((text, ""));
    let kind = word(name)?;
    let alpha = Field { name: "alpha".into(), kind: FieldKind::Number, is_list: false };
    let settings = read_settings(name, &[alpha], settings)?;
    Ok(Activation { kind, alpha: settings.get("alpha").and_then(Value::as_f64) })
}

/// `balanced`, or a weight a class.
pub fn class_weights(text: &str) -> Result<pb::ClassWeights, String> {
    if text.trim() == "balanced" {
        return Ok(pb::ClassWeights { balanced: true, ..Default::default() });
    }
    let weight = |text: &str| {
        finite(text.trim()).ok_or_else(|| format!("{text:?} is no weight; give `balanced`, or a number a class: 1,2.5"))
    };
    Ok(pb::ClassWeights { weights: text.split(',').map(weight).collect::<Result<_, _>>()?, balanced: false })
}

/// `accuracy=0.95`.
pub fn stop_at(text: &str) -> Result<pb::StopAt, String> {
    let (metric, value) = text.split_once('=').ok_or("give a metric and its value: accuracy=0.95")?;
    let value = finite(value.trim()).ok_or_else(|| format!("{value:?} is not a number"))?;
    Ok(pb::StopAt { metric: word::<pb::Metric>(metric)?.into(), value: Some(value) })
}

/// `90s`, `5m`, `1h`; parts of them too.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; give a number with its unit: 500ms, 90s, 5m or 1h");
    let unit = text.find(|it: char| it.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let seconds = match &text[unit..] {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = text[..unit].trim().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// JSON that can be laid over a message.
pub fn patch<M: Named + Default>(text: &str) -> Result<Value, String> {
    let patch = serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
    built::<M>(&patch).map(|_| patch)
}

fn no_key(owner: &str, key: &str, fields: &[Field]) -> String {
    match fields {
        [] => format!("{owner} takes no settings, but is given {key:?}"),
        fields => unknown(key, &format!("is nothing that {owner} takes"), fields.iter().map(|it| it.name.as_str())),
    }
}

fn unknown<'a>(text: &str, why: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let similarity = |known: &&str| (strsim::jaro_winkler(known, text.trim()) * 1e6) as u64;
    let nearest = known.clone().max_by_key(similarity).unwrap_or_default();
    let known: Vec<&str> = known.collect();
    format!("{text:?} {why}; did you mean {nearest:?}?\nThere are: {}", wrapped(&known))
}

/// Help that ends in what there is to choose from, each with what it can be told.
pub fn choices_help<M: Named>(lead: &str) -> String {
    let arm = |arm: json::Arm| {
        let keys: Vec<String> = arm.fields.into_iter().map(|field| field.name).collect();
        if keys.is_empty() { arm.name } else { format!("{}:{}", arm.name, keys.join(",")) }
    };
    let arms: Vec<String> = json::arms::<M>().into_iter().map(arm).collect();
    format!("{lead}\n\nNAME or NAME:KEY=VALUE,… with these names and keys:\n  {}", arms.join("\n  "))
}

/// Help that ends in the words that there are.
pub fn words_help<E>(lead: &str) -> String {
    let words = words::<E>();
    let words: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
    format!("{lead}\n\nThere are: {}", wrapped(&words))
}

fn wrapped(words: &[&str]) -> String {
    let mut lines = vec![String::new()];
    for (index, word) in words.iter().enumerate() {
        let word = if index + 1 < words.len() { format!("{word}, ") } else { (*word).to_owned() };
        if lines.last().is_some_and(|line| line.len() + word.len() > HELP_WIDTH) {
            lines.push(String::new());
        }
        lines.last_mut().into_iter().for_each(|line| line.push_str(&word));
    }
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;

//! Messages of the contract as JSON, by protobuf's own mapping, so that a script reads the same from the command line as from
//! grpcurl; and what the contract says of their fields.

use std::any::type_name;

use prost::Name;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, SerializeOptions, Value,
};
use serde_json::Value as Json;

use super::descriptors;

/// Why a message cannot be shown: a bug of ours.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be written as JSON: {0}")]
pub struct JsonError(String);

/// Why JSON is not the message that it should be: where in it, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(String);

/// A message of the contract, which knows its name.
pub trait Named: Name {}

impl<M: Name> Named for M {}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A number of any size.
    Number,
    /// A number without a fraction.
    Whole,
    /// True or false.
    Truth,
    /// Text.
    Text,
    /// What a few words do not write: a message, an enum, bytes.
    Other,
}

/// A field of a message.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in the contract.
    pub name: String,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether it holds any number of them.
    pub is_list: bool,
}

/// A message that stands in a oneof: a choice.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Its name in the contract.
    pub name: String,
    /// What it can be told.
    pub fields: Vec<Field>,
}

/// One line of JSON, with every field that is set.
pub fn line<M: Named>(message: &M) -> Result<String, JsonError> {
    let dynamic = dynamic(message).map_err(JsonError)?;
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut bytes);
    let options = SerializeOptions::new().skip_default_fields(true);
    dynamic.serialize_with_options(&mut serializer, &options).map_err(|error| JsonError(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| JsonError(error.to_string()))
}

/// Lays JSON over a message: a field that it names is replaced, a message within it likewise field by field, and `null` takes
/// a field away. Names are those of the contract or of the JSON mapping.
pub fn merge<M: Named + Default>(message: &mut M, patch: &Json) -> Result<(), ReadError> {
    let mut merged = dynamic(message).map_err(ReadError)?;
    merge_fields(&mut merged, patch, "")?;
    *message = merged.transcode_to().map_err(|error| ReadError(error.to_string()))?;
    Ok(())
}

/// What can be chosen in the one oneof that a message has; none in a message without.
pub fn arms<M: Named>() -> Vec<Arm> {
    let described = descriptor::<M>().ok();
    let fields = described.iter().flat_map(MessageDescriptor::oneofs).filter(|oneof| !oneof.is_synthetic());
    let fields = fields.flat_map(|oneof| oneof.fields().collect::<Vec<_>>());
    let arm = |field: FieldDescriptor| {
        let fields = field.kind().as_message().map(described_fields).unwrap_or_default();
        Arm { name: field.name().to_owned(), fields }
    };
    fields.map(arm).collect()
}

/// The fields of a message.
pub fn fields<M: Named>() -> Vec<Field> {
    descriptor::<M>().as_ref().map(described_fields).unwrap_or_default()
}

/// A number that is set in a message, by the name of its field in the contract.
pub fn number<M: Named>(message: &M, field: &str) -> Option<f64> {
    let dynamic = dynamic(message).ok()?;
    let field = dynamic.descriptor().get_field_by_name(field).filter(|field| dynamic.has_field(field))?;
    let value = dynamic.get_field(&field);
    value.as_f64().or_else(|| value.as_i32().map(f64::from))
}

/// The values of an enum, by name and number, but for the one that means none was given.
pub fn enum_values<E>() -> Vec<(String, i32)> {
    let name = type_name::<E>().rsplit("::").next().unwrap_or_default();
    let described = descriptors::pool().ok().and_then(|pool| pool.get_enum_by_name(&format!("epochd.v1.{name}")));
    let values = described.iter().flat_map(EnumDescriptor::values).filter(|value| value.number() != 0);
    values.map(|value| (value.name().to_owned(), value.number())).collect()
}

fn descriptor<M: Named>() -> Result<MessageDescriptor, String> {
    let name = M::full_name();
    descriptors::pool()?.get_message_by_name(&name).ok_or_else(|| format!("{name} is not known"))
}

fn dynamic<M: Named>(message: &M) -> Result<DynamicMessage, String> {
    let bytes = message.encode_to_vec();
    DynamicMessage::decode(descriptor::<M>()?, bytes.as_slice()).map_err(|error| error.to_string())
}

fn described_fields(message: &MessageDescriptor) -> Vec<Field> {
    let field = |field: FieldDescriptor| {
        let kind = match field.kind() {
            Kind::Double | Kind::Float => FieldKind::Number,
            Kind::Bool => FieldKind::Truth,
            Kind::String => FieldKind::Text,
            Kind::Message(_) | Kind::Enum(_) | Kind::Bytes => FieldKind::Other,
            _ => FieldKind::Whole,
        };
        Field { name: field.name().to_owned(), kind, is_list: field.is_list() }
    };
    message.fields().map(field).collect()
}

fn merge_fields(message: &mut DynamicMessage, patch: &Json, path: &str) -> Result<(), ReadError> {
    let Json::Object(patch) = patch else {
        let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
        return Err(ReadError(format!("{place}an object is expected here, such as {{…}}, but not {patch}")));
    };
    let descriptor = message.descriptor();
    for (name, value) in patch {
        let field = descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name));
        let field = field.ok_or_else(|| unknown(&descriptor, name, path))?;
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        merge_field(message, &field, value, &path)?;
    }
    Ok(())
}

fn merge_field(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    value: &Json,
    path: &str,
) -> Result<(), ReadError> {
    let is_one_message = matches!(field.kind(), Kind::Message(_)) && !field.is_list() && !field.is_map();
    if value.is_null() {
        message.clear_field(field);
    } else if is_one_message && value.is_object() {
        let Value::Message(inner) = message.get_field_mut(field) else { return Ok(()) };
        merge_fields(inner, value, path)?;
    } else {
        let alone = serde_json::json!({ field.name(): value });
        let read = DynamicMessage::deserialize(field.parent_message().clone(), alone);
        let read = read.map_err(|error| ReadError(format!("{path}: {error}")))?;
        message.set_field(field, read.get_field(field).into_owned());
    }
    Ok(())
}

fn unknown(message: &MessageDescriptor, name: &str, path: &str) -> ReadError {
    let known: Vec<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
    let similarity = |known: &&String| (strsim::jaro_winkler(known, name) * 1e6) as u64;
    let nearest = known.iter().max_by_key(similarity).map(|it| format!("did you mean {it:?}? ")).unwrap_or_default();
    let place = if path.is_empty() { message.name() } else { path };
    ReadError(format!("{place} has no {name:?}; {nearest}There are: {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::pb;

    #[test]
    fn names_are_those_of_the_json_mapping_and_enums_are_words() {
        let job = pb::Job {
            job_id: "j".into(),
            state: pb::JobState::Running.into(),
            create_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            ..Default::default()
        };
        let expected = r#"{"jobId":"j","state":"JOB_STATE_RUNNING","createTime":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(line(&job).unwrap(), expected);
    }

    #[test]
    fn json_replaces_what_it_names_and_leaves_the_rest() {
        let stopping = pb::EarlyStopping { patience: Some(30), min_delta: Some(0.5), ..Default::default() };
        let mut request = pb::TrainRequest {
            epochs: Some(7),
            batch_size: Some(16),
            early_stopping: Some(stopping),
            frozen_layers: vec![1, 2],
            ..Default::default()
        };
        let patch = serde_json::json!({
            "frozenLayers": [0], "batch_size": null, "earlyStopping": { "restoreBest": false, "minDelta": 0.25 },
            "maxDuration": "90s", "optimizer": { "sgd": { "nesterov": true } },
        });
        merge(&mut request, &patch).unwrap();
        assert_eq!((&request.frozen_layers[..], request.batch_size, request.epochs), (&[0][..], None, Some(7)));
        let stopping = request.early_stopping.as_ref().unwrap();
        assert_eq!((stopping.patience, stopping.min_delta, stopping.restore_best), (Some(30), Some(0.25), Some(false)));
        assert_eq!(request.max_duration.unwrap().seconds, 90);
        // Another arm of a oneof takes the place of the one before.
        merge(&mut request, &serde_json::json!({ "optimizer": { "adamw": {} }, "earlyStopping": null })).unwrap();
        assert!(matches!(request.optimizer.unwrap().method, Some(pb::optimizer::Method::Adamw(_))));
        assert!(request.early_stopping.is_none());
    }

    #[test]
    fn json_that_does_not_fit_is_told_with_its_place() {
        for (patch, part) in [
            (serde_json::json!({ "earlyStopping": { "patiens": 3 } }), r#"earlyStopping has no "patiens""#),
            (serde_json::json!({ "earlyStopping": { "patiens": 3 } }), r#"did you mean "patience"?"#),
            (serde_json::json!({ "epochs": "many" }), "epochs: "),
            (serde_json::json!([1]), "an object is expected"),
        ] {
            let error = merge(&mut pb::TrainRequest::default(), &patch).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_can_be_chosen_is_read_from_the_contract() {
        let losses = arms::<pb::Loss>();
        let huber = losses.iter().find(|arm| arm.name == "huber").unwrap();
        assert_eq!((huber.fields[0].name.as_str(), huber.fields[0].kind), ("delta", FieldKind::Number));
        assert_eq!(arms::<pb::Schedule>()[0].name, "constant");
        assert!(arms::<pb::EarlyStopping>().is_empty());
        assert_eq!(fields::<pb::BatchNormalization>().len(), 2);
        let metrics = pb::Metrics { misclassified_rows: Some(3), f1: Some(0.0), ..Default::default() };
        assert_eq!((number(&metrics, "misclassified_rows"), number(&metrics, "f1")), (Some(3.0), Some(0.0)));
        assert_eq!(number(&metrics, "accuracy"), None);
    }
}

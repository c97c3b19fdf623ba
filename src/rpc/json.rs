//! Messages of the contract as JSON, by protobuf's own mapping, so that a script reads the same from the command line as from
//! grpcurl.

use prost::Name;
use prost_reflect::{DynamicMessage, SerializeOptions};

use super::descriptors;

/// Why a message cannot be shown: a bug of ours.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be written as JSON: {0}")]
pub struct JsonError(String);

/// A message of the contract, which knows its name.
pub trait Named: Name {}

impl<M: Name> Named for M {}

/// One line of JSON, with every field that is set.
pub fn line<M: Named>(message: &M) -> Result<String, JsonError> {
    let pool = descriptors::pool().map_err(JsonError)?;
    let name = M::full_name();
    let descriptor = pool.get_message_by_name(&name).ok_or_else(|| JsonError(format!("{name} is not known")))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice());
    let dynamic = dynamic.map_err(|error| JsonError(error.to_string()))?;
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut bytes);
    let options = SerializeOptions::new().skip_default_fields(true);
    dynamic.serialize_with_options(&mut serializer, &options).map_err(|error| JsonError(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| JsonError(error.to_string()))
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
}

//! Messages of the contract from protobuf's JSON, as they stand in files.

use std::sync::LazyLock;

use epochd::rpc::pb;
use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).unwrap());

/// Every file of the contract.
pub fn contract() -> &'static DescriptorPool {
    &POOL
}

/// A message that knows its fields. An unknown name in the JSON is a fault.
#[track_caller]
pub fn dynamic_from_json<M: Name>(json: &Value) -> DynamicMessage {
    let name = M::full_name();
    let descriptor = contract().get_message_by_name(&name).unwrap_or_else(|| panic!("{name} is not in the contract"));
    DynamicMessage::deserialize(descriptor, json.clone()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[track_caller]
pub fn from_json<M: Name + Default>(json: &Value) -> M {
    dynamic_from_json::<M>(json).transcode_to().unwrap()
}

/// A message as one that knows its fields.
pub fn dynamic<M: Name>(message: &M) -> DynamicMessage {
    let descriptor = contract().get_message_by_name(&M::full_name()).unwrap();
    DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).unwrap()
}

//! The contract as data: what messages and enums are called, and what is in them.

use std::any::type_name;
use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

use super::pb;

static POOL: LazyLock<Result<DescriptorPool, String>> =
    LazyLock::new(|| DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).map_err(|error| error.to_string()));

/// Every file of the contract; the error is a bug of ours.
pub(super) fn pool() -> Result<&'static DescriptorPool, String> {
    POOL.as_ref().map_err(Clone::clone)
}

/// The names of an enum's values, but for the one that means none was given.
pub(super) fn value_names<E>() -> Vec<String> {
    let name = type_name::<E>().rsplit("::").next().unwrap_or_default();
    let described = pool().ok().and_then(|pool| pool.get_enum_by_name(&format!("epochd.v1.{name}")));
    let values = described.iter().flat_map(|it| it.values()).filter(|value| value.number() != 0);
    values.map(|value| value.name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enum_s_values_are_found_by_its_type() {
        assert_eq!(value_names::<pb::ElementType>(), ["ELEMENT_TYPE_FLOAT32", "ELEMENT_TYPE_FLOAT64"]);
        assert_eq!(value_names::<pb::Activation>()[0], "ACTIVATION_IDENTITY");
    }
}

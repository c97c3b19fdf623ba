//! Server reflection, v1 and v1alpha: clients such as grpcurl need no .proto file.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Adds both reflection services. Each knows every descriptor set, health's and its own too, or `list` would hide services.
pub(super) fn install(routes: Routes, contract: &'static [u8]) -> Result<Routes, Error> {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(contract)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder()
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let v1alpha = builder()
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .build_v1alpha()?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

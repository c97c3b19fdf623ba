//! Compiles the contract in `proto/` to Rust and to a descriptor set for reflection, with no protoc on the machine.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files([
        "epochd/v1/model_service.proto",
        "epochd/v1/job_service.proto",
        "epochd/v1/admin_service.proto",
    ])?;

    let contract = compiler.file_descriptor_set();

    let out = PathBuf::from(env::var("OUT_DIR")?);
    // With the details of errors, so that a client which knows only reflection can read them.
    compiler.open_file("google/rpc/error_details.proto")?;
    fs::write(out.join("epochd_descriptor_set.bin"), compiler.encode_file_descriptor_set())?;

    // Packed matrices stay in the buffer they arrived in, and parts of a file in the one that they are cut from;
    // google.rpc.Status is the one that tonic-types has, EpochReports one that may have been written before.
    let mut messages = tonic_prost_build::Config::new();
    messages.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".epochd.v1.Matrix.packed")
        .bytes(".epochd.v1.WeightsChunk.data")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .extern_path(".epochd.v1.EpochReports", "crate::rpc::pb::EpochReports")
        .build_client(false)
        .codec_path("crate::rpc::codec::RequestCodec")
        .compile_fds_with_config(contract.clone(), messages)?;

    // The clients apart, with the usual codec: only what comes in from a caller is mistrusted.
    let clients = out.join("clients");
    fs::create_dir_all(&clients)?;
    tonic_prost_build::configure()
        .out_dir(clients)
        .extern_path(".epochd.v1", "crate::rpc::pb")
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .build_server(false)
        .compile_fds(contract)?;
    Ok(())
}

//! Compiles the contract with protox: no `protoc` on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;

const FILES: [&str; 12] =
    ["common", "identity", "inference", "safety", "memory", "files", "batches", "tools", "agents", "prompts", "stack", "telemetry"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=llama_stack");
    let files = FILES.map(|name| format!("llama_stack/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("rpcs.rs"), format!("&{:?}", rpcs(&descriptors)))?;
    tonic_prost_build::configure()
        // Journal rows and stream events are cloned for each watcher; boxed variants keep the small ones small.
        .boxed("TurnEvent.event.created")
        .boxed("TurnEvent.event.ended")
        .compile_fds(descriptors)?;
    Ok(())
}

fn rpcs(descriptors: &FileDescriptorSet) -> Vec<String> {
    let services = descriptors.file.iter().flat_map(|file| &file.service);
    services.flat_map(|service| service.method.iter().map(move |method| format!("{}.{}", service.name(), method.name()))).collect()
}

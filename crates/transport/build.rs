//! Compiles the messages; protox reads them, so that no `protoc` program is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["fedbiomed/v1/federation.proto"], ["proto"])?;
    println!("cargo::rerun-if-changed=proto");
    // `bytes` fields are slices of the receive buffer: chunks are not copied. `skip_debug`: it holds a secret.
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .skip_debug([".fedbiomed.v1.EnrolRequest"])
        .compile_fds(descriptors)?;
    Ok(())
}

//! Compiles the proto files in pure Rust, so that no `protoc` is needed.

use std::error::Error;

const FILES: [&str; 3] = [
    "fairlead/node/v1/device.proto",
    "fairlead/node/v1/enrollment.proto",
    "fairlead/node/v1/node.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure()
        // Small buffers: see `SmallBufferCodec`.
        .codec_path("crate::SmallBufferCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

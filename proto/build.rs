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
    #[cfg(feature = "json")]
    {
        let mut json = pbjson_build::Builder::new();
        for file in &descriptors.file {
            json.register_file_descriptor(file.clone());
        }
        json.build(&[".fairlead.node.v1"])?;
    }
    tonic_prost_build::configure()
        // Small buffers: see `SmallBufferCodec`.
        .codec_path("crate::SmallBufferCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

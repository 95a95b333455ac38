//! Guards the wire: a device in the field speaks what it was built with.
//!
//! Every field's number and type is in `wire.txt`. Adding a line is fine; a line that changes or goes breaks devices.
//! `UPDATE_GENERATED=1 cargo test -p proto` rewrites the file.

use std::{
    fmt::{self, Write as _},
    fs,
    path::Path,
};

use protox::prost_reflect::{DescriptorPool, MessageDescriptor};

const FILES: [&str; 2] = [
    "fairlead/node/v1/enrollment.proto",
    "fairlead/node/v1/node.proto",
];

#[test]
fn the_wire_is_what_was_agreed_on() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(FILES, [root]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(descriptors).unwrap();
    let actual = render(&pool).unwrap();
    let path = root.join("wire.txt");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, &actual).unwrap();
    }
    let agreed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == agreed,
        "wire.txt is stale: see that no line changed or went, then run UPDATE_GENERATED=1 cargo test -p proto"
    );
}

fn render(pool: &DescriptorPool) -> Result<String, fmt::Error> {
    let mut lines = String::new();
    for service in pool.services() {
        for method in service.methods() {
            let stream = |is: bool| if is { "stream " } else { "" };
            writeln!(
                lines,
                "rpc {} ({}{}) -> {}{}",
                method.full_name(),
                stream(method.is_client_streaming()),
                method.input().name(),
                stream(method.is_server_streaming()),
                method.output().name(),
            )?;
        }
    }
    for message in pool.all_messages() {
        render_message(&mut lines, &message)?;
    }
    for one in pool.all_enums() {
        for value in one.values() {
            writeln!(lines, "{} = {}", value.full_name(), value.number())?;
        }
    }
    Ok(lines)
}

fn render_message(lines: &mut String, message: &MessageDescriptor) -> fmt::Result {
    for field in message.fields() {
        let (kind, cardinality) = (field.kind(), field.cardinality());
        writeln!(
            lines,
            "{} = {} {cardinality:?} {kind:?}",
            field.full_name(),
            field.number()
        )?;
    }
    Ok(())
}

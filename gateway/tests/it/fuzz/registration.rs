//! What a registration comes to.

use gateway::domain::register;
use proto::node::RegisterRequest;

/// Read within bounds, or refused.
pub fn registers(request: RegisterRequest) {
    let Ok(declared) = register::read(request) else {
        return;
    };
    assert!((1..=register::MAX_CONCURRENCY).contains(&declared.concurrency));
    assert!(declared.capabilities.len() <= register::MAX_CAPABILITIES);
    assert!(declared.platform.hostname.len() <= 253);
    let schemas = declared.capabilities.iter();
    let bytes = schemas.map(|(one, _)| one.input_schema.as_ref().map_or(0, String::len));
    assert!(bytes.sum::<usize>() <= 64 * 1024);
}

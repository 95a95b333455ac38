//! The store for outputs that are too large for a resource.
//!
//! - [`store`]: the objects, wherever they are, and how parts become one;
//! - `upload`: one artefact on its way into it;
//! - [`sweep`]: what nobody needs any more goes.
//!
//! What a device may claim, what comes in which order and where it goes is decided in [`crate::domain::artefact`]. A
//! gateway remembers nothing of an upload: what is kept is what the store lists, so any gateway goes on with it.

pub mod store;
pub mod sweep;
pub(crate) mod upload;

use std::sync::Arc;

use object_store::ObjectStore;
use tokio::sync::Semaphore;

use self::store::Store;

/// Uploads at once. Each holds [`WINDOW`](crate::domain::artefact::WINDOW) in memory at most; the others are not asked
/// for anything meanwhile.
const AT_ONCE: usize = 4;
/// Largest artefact that may be configured: what stores take in 1,000 parts, and copy in one piece.
pub const MOST_BYTES: u64 = 1000 * crate::domain::artefact::PART;

/// The store, and how much may be asked of it.
#[derive(Clone, Debug)]
pub struct Artefacts {
    pub(crate) store: Store,
    /// Largest that is taken.
    pub(crate) max_bytes: u64,
    pub(crate) places: Arc<Semaphore>,
}

impl Artefacts {
    pub fn new(store: Store, max_bytes: u64) -> Self {
        Self {
            store,
            max_bytes: max_bytes.min(MOST_BYTES),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// For who reads what is whole.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        self.store.objects()
    }
}

//! Devices in the order in which they need attention: order, filters, pages, and what is said of one. Pure.
//!
//! ```text
//! Device ─read→ Known ─┬→ Devices (sorted, counted) ─page(filter, cursor)→ devices of a page
//!                      └→ detail(warnings)
//! ```
//!
//! A page over ten thousand devices reads no more of them than it shows, a filtered one compares each of them once or
//! twice; neither sorts anything.

mod cursor;
mod detail;
mod devices;
mod filter;
mod intern;
mod known;
mod order;
mod page;
mod selector;
mod warnings;

pub use cursor::{At, BadCursor, Cursor, MAX_CURSOR};
pub use detail::{Around, detail};
pub use devices::Devices;
pub use filter::{Filter, InvalidSearch, MAX_SEARCH, SearchText};
pub use intern::Interner;
pub use known::{Certificate, Known, Said, Session, Software};
pub use order::{Key, Name, Rank};
pub use page::{Page, PageError, Paged, page};
pub use selector::{InvalidSelector, LabelSelector};
pub use warnings::warnings;

use console_api::inventory::Withheld;

use crate::registry::Permission;

/// What the caller may see beside devices. What he may not is left out, and named in `withheld`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct See {
    pub pairings: bool,
    pub invocations: bool,
    pub events: bool,
}

impl See {
    pub const ALL: Self = Self {
        pairings: true,
        invocations: true,
        events: true,
    };
}

/// A field that is left empty for want of that permission.
pub fn withheld(field: &str, permission: Permission) -> Withheld {
    Withheld {
        field: field.to_owned(),
        permission: permission.as_str().to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

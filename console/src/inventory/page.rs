//! Pages of devices, that stay stable while devices change.
//!
//! A reader walks through the order of attention, after the last device of each page. Meanwhile a device may move from
//! ahead of him to behind him and be missed. So after the walk comes a **catch-up**: all devices that have moved since
//! the first page, by namespace and name, an order in which nothing moves. What was missed has moved, and is among them;
//! what has not moved was walked past, once. When nothing has moved there is no catch-up.
//!
//! Pages may come from several gateways, whose watches are not equally far. So a cursor says from which version on a move
//! may have been missed (`since`: the least that a page was made of), and what the catch-up must have seen (`need`: the
//! newest device that a page was made with). A gateway that has not is [`PageError::Behind`], by milliseconds as a rule.
//!
//! Why nothing is missed: let a device be there, and match, from the first page to the last, and be on no page of the
//! walk. Then two gateways, or one at two moments, placed it differently: it moved at a version above `since` that one of
//! them had applied, so at one not above `need`. Who serves the catch-up has seen it, so he counts it as moved.

use std::sync::Arc;

use console_api::inventory::{DEFAULT_PAGE, MAX_PAGE, Summary};

use super::{At, BadCursor, Cursor, Devices, Filter, Known, devices};

/// A page that is asked for.
#[derive(Clone, Debug)]
pub struct Page {
    /// 1 to [`MAX_PAGE`].
    pub limit: u32,
    /// The first page, where absent.
    pub cursor: Option<Cursor>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            limit: DEFAULT_PAGE,
            cursor: None,
        }
    }
}

/// A page.
#[derive(Debug)]
pub struct Paged {
    pub summary: Summary,
    pub devices: Vec<Arc<Known>>,
    pub next: Option<Cursor>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PageError {
    #[error(transparent)]
    BadCursor(#[from] BadCursor),
    /// Another gateway has shown what this one has not heard of yet. Soon it will have.
    #[error("this gateway has not heard yet of what another one has shown: try again")]
    Behind,
}

/// The page of these devices.
pub fn page(
    devices: &Devices,
    scope: Option<&str>,
    filter: &Filter,
    page: &Page,
) -> Result<Paged, PageError> {
    let asked = filter.digest(scope);
    let limit = page.limit.clamp(1, MAX_PAGE) as usize;
    let (since, need, at) = match &page.cursor {
        None => (devices.seen(), 0, None),
        Some(cursor) if cursor.asked == asked => (cursor.since, cursor.need, Some(&cursor.at)),
        Some(_) => return Err(BadCursor.into()),
    };
    let (shown, next) = match at {
        Some(At::CatchUp(_)) if devices.seen() < need => return Err(PageError::Behind),
        Some(At::CatchUp(after)) => {
            let moved = devices
                .by_name(scope, after.as_ref())
                .filter(|device| device.moved_at > since && filter.matches(device));
            let (shown, has_more) = take(moved, limit);
            let last = shown.last().filter(|_| has_more);
            let next = last.map(|last| At::CatchUp(Some(last.name.clone())));
            (shown, next.map(|at| (since, need, at)))
        }
        walk => {
            let after = walk.and_then(|at| match at {
                At::Walk(key) => Some(key),
                At::CatchUp(_) => None,
            });
            let since = since.min(devices.seen());
            let need = need.max(devices.newest());
            let matching = devices
                .in_order(scope, after)
                .filter(|device| filter.matches(device));
            let (shown, has_more) = take(matching, limit);
            let next = match shown.last() {
                Some(last) if has_more => Some(At::Walk(devices::key(last))),
                _ => may_have_missed(devices, scope, filter, since, need)
                    .then_some(At::CatchUp(None)),
            };
            (shown, next.map(|at| (since, need, at)))
        }
    };
    Ok(Paged {
        summary: summary(devices, scope, filter),
        devices: shown,
        next: next.map(|(since, need, at)| Cursor {
            asked,
            since,
            need,
            at,
        }),
    })
}

/// Up to `limit` of them, and whether there are more.
fn take<'a>(
    mut devices: impl Iterator<Item = &'a Arc<Known>>,
    limit: usize,
) -> (Vec<Arc<Known>>, bool) {
    let shown = devices.by_ref().take(limit).cloned().collect();
    (shown, devices.next().is_some())
}

fn may_have_missed(
    devices: &Devices,
    scope: Option<&str>,
    filter: &Filter,
    since: u64,
    need: u64,
) -> bool {
    devices.seen() < need
        || devices
            .by_name(scope, None)
            .any(|device| device.moved_at > since && filter.matches(device))
}

/// Counts what the filter leaves.
fn summary(devices: &Devices, scope: Option<&str>, filter: &Filter) -> Summary {
    if filter.is_all() {
        return devices.counts(scope);
    }
    let mut counts = Summary::default();
    for device in devices.by_name(scope, None) {
        if filter.matches(device) {
            devices::count(&mut counts, device, 1);
        }
    }
    counts
}

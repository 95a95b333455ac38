//! What time it is. Decisions get it handed in.

use jiff::Timestamp;

/// Now, by this machine's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge, where the time is observed"
)]
pub fn now() -> Timestamp {
    #[cfg(feature = "played")]
    if let Some(now) = PLAYED.get() {
        return now;
    }
    Timestamp::now()
}

#[cfg(feature = "played")]
thread_local! {
    static PLAYED: std::cell::Cell<Option<Timestamp>> = const { std::cell::Cell::new(None) };
}

/// What [`now`] says on this thread from here on, in a world that is played. With `None` it is the machine's clock again.
#[cfg(feature = "played")]
pub fn play(now: Option<Timestamp>) {
    PLAYED.set(now);
}

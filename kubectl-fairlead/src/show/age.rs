//! Times as people say them: how long ago, or in how long.

use jiff::{SignedDuration, Timestamp};

/// `5s`, `3m20s`, `2h5m`, `3d4h`, `45d`: two units while they are small, as kubectl does it.
pub fn length(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, of: &str| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{of}")
        }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if days < 2 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () => format!("{days}d"),
    }
}

/// How long ago; `-` where nobody knows.
pub fn since(moment: Option<Timestamp>, now: Timestamp) -> String {
    moment.map_or_else(
        || "-".to_owned(),
        |moment| length(now.duration_since(moment)),
    )
}

/// `in 5h`, or `5h ago`; `-` where nobody knows.
pub fn until(moment: Option<Timestamp>, now: Timestamp) -> String {
    match moment {
        None => "-".to_owned(),
        Some(moment) if moment > now => format!("in {}", length(moment.duration_since(now))),
        Some(moment) => format!("{} ago", length(now.duration_since(moment))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_such_as_kubectl_says_them() {
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (3000, "50m"),
            (4 * 3600 + 300, "4h5m"),
            (20 * 3600, "20h"),
            (3 * 86_400 + 4 * 3600, "3d4h"),
            (45 * 86_400, "45d"),
        ] {
            assert_eq!(
                length(SignedDuration::from_secs(seconds)),
                expected,
                "{seconds}"
            );
        }
    }

    #[test]
    fn what_is_to_come_and_what_has_been_are_told_apart() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let later = Timestamp::from_second(1_000_030).unwrap();
        assert_eq!(until(Some(later), now), "in 30s");
        assert_eq!(until(Some(now), later), "30s ago");
        assert_eq!(until(None, now), "-");
        assert_eq!(since(Some(now), later), "30s");
    }
}

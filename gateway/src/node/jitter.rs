//! What keeps devices that failed together from trying again together.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::domain::device::DeviceKey;

/// From a half to one: another share for each device and each try. Drawn from what they are and not by chance, so that
/// a world that is played can be played again.
pub(super) fn jitter(device: &DeviceKey, tries: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    device.hash(&mut hasher);
    tries.hash(&mut hasher);
    let [_, _, _, _, a, b, c, d] = hasher.finish().to_be_bytes();
    0.5 + f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_tries_are_spread_over_the_whole_range() {
        let shares = (0..100).flat_map(|device| {
            let device = DeviceKey::new("kitchen", format!("lamp-{device}"));
            [0, 1, 2].map(|tries| jitter(&device, tries))
        });
        let shares: Vec<f64> = shares.collect();
        assert!(shares.iter().all(|share| (0.5..=1.0).contains(share)));
        for tenth in 0..10 {
            let from = 0.5 + 0.05 * f64::from(tenth);
            let there = shares
                .iter()
                .filter(|share| (from..from + 0.05).contains(*share));
            assert!(there.count() > 5, "few from {from}");
        }
    }
}

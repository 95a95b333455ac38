//! What a Device says of its certificates when it gets another one: the one before goes to the history. Pure.

use crds::{
    names::MAX_CERTIFICATE_HISTORY,
    v1alpha1::{DeviceStatus, device::DeviceCertificate},
};

/// The status with `next` as its newest certificate. Only certificates of generations before that are history, so that
/// writing the same one again changes nothing.
pub fn with_certificate(before: DeviceStatus, next: DeviceCertificate) -> DeviceStatus {
    let DeviceStatus {
        certificate,
        certificate_history,
        ..
    } = &before;
    let mut history: Vec<DeviceCertificate> = certificate
        .iter()
        .chain(certificate_history)
        .filter(|former| former.generation < next.generation)
        .cloned()
        .collect();
    history.sort_by_key(|former| std::cmp::Reverse(former.generation));
    history.dedup_by_key(|former| former.generation);
    history.truncate(MAX_CERTIFICATE_HISTORY);
    DeviceStatus {
        certificate: Some(next),
        certificate_history: history,
        ..before
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn certificate(generation: i64) -> DeviceCertificate {
        let moment = |day: i64| Time(Timestamp::from_second(day * 86_400).unwrap());
        DeviceCertificate {
            serial: format!("{generation:02}"),
            fingerprint: "00".repeat(32),
            generation,
            not_before: moment(generation),
            not_after: moment(generation + 1),
            authority: None,
        }
    }

    fn generations(status: &DeviceStatus) -> Vec<i64> {
        let history = status.certificate_history.iter();
        history.map(|former| former.generation).collect()
    }

    #[test]
    fn a_first_certificate_has_no_history() {
        let status = with_certificate(DeviceStatus::default(), certificate(1));
        assert_eq!(status.certificate, Some(certificate(1)));
        assert_eq!(generations(&status), [0; 0]);
    }

    #[test]
    fn the_last_five_before_the_newest_are_kept_the_newest_first() {
        let mut status = DeviceStatus::default();
        for generation in 1..=8 {
            status = with_certificate(status, certificate(generation));
        }
        assert_eq!(status.certificate, Some(certificate(8)));
        assert_eq!(generations(&status), [7, 6, 5, 4, 3]);
        assert_eq!(status.certificate_history[0], certificate(7));
    }

    #[test]
    fn the_same_certificate_again_changes_nothing() {
        let once = with_certificate(
            with_certificate(DeviceStatus::default(), certificate(1)),
            certificate(2),
        );
        let twice = with_certificate(once.clone(), certificate(2));
        assert_eq!(twice, once);
    }

    #[test]
    fn a_generation_is_there_once_whatever_was_written() {
        let status = DeviceStatus {
            certificate: Some(certificate(3)),
            certificate_history: vec![certificate(3), certificate(1), certificate(2)],
            ..DeviceStatus::default()
        };
        assert_eq!(
            generations(&with_certificate(status, certificate(4))),
            [3, 2, 1]
        );
    }
}

//! The Secret that shows a code: what is in it, and whose it is.

use std::collections::BTreeMap;

use crds::{PairingCode, names};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Resource as _, ResourceExt as _, api::ObjectMeta};
use pairing::{code::PairingCode as Drawn, key::KeyFingerprint, uri::PairingUri};
use qrcode::{Color, EcLevel, QrCode, Version, bits::Bits, render::svg, types::QrError};

use super::plan::CodeSecret;
use crate::authority::store::{MANAGED_BY, read, text};

/// Light modules around the code, as ISO 18004 asks for them. Readers take fewer.
const QUIET_ZONE: usize = 4;
/// Rows of a terminal that the code may take: of 24 rows, one is for a line below the code, and one for the cursor.
const ROWS: usize = 22;
/// Least width and height of the picture.
const PIXELS: u32 = 320;
/// Black on white whatever the terminal's colours are: inverted codes cannot be read by every camera.
const BLACK_ON_WHITE: &str = "\u{1b}[38;5;16;48;5;231m";
const RESET: &str = "\u{1b}[0m";

/// Whose the Secret is, and which code it shows.
pub fn classify(secret: Option<&Secret>, code: &PairingCode) -> CodeSecret {
    let Some(secret) = secret else {
        return CodeSecret::Absent;
    };
    let uid = secret.metadata.uid.clone().unwrap_or_default();
    let managed = secret
        .labels()
        .get(MANAGED_BY.0)
        .is_some_and(|by| by == MANAGED_BY.1);
    let owner = secret.owner_references().iter().find(|owner| {
        owner.kind == PairingCode::kind(&()) && owner.api_version == PairingCode::api_version(&())
    });
    match owner {
        Some(owner) if managed && Some(&owner.uid) == code.metadata.uid.as_ref() => {
            CodeSecret::Ours {
                uid,
                drawn: read(secret, "pin").and_then(|pin| Drawn::parse(&pin).ok()),
            }
        }
        Some(owner) if managed && owner.name == code.name_any() => CodeSecret::Former { uid },
        _ => CodeSecret::Foreign,
    }
}

/// The Secret that shows `drawn`.
pub fn build(
    code: &PairingCode,
    drawn: &Drawn,
    gateway_address: &str,
    authority: KeyFingerprint,
) -> Result<Secret, QrError> {
    let uri = PairingUri {
        gateway: gateway_address.to_owned(),
        namespace: code.namespace().unwrap_or_default(),
        authority,
        code: drawn.clone(),
    }
    .expose();
    let picture_of = QrCode::with_error_correction_level(&uri, EcLevel::M)?;
    let terminal = smallest(&uri, &authority.to_string())?;
    let data: BTreeMap<String, ByteString> = BTreeMap::from([
        text("pin", drawn.expose()),
        text("qr.svg", picture(&picture_of)),
        text("qr.txt", for_terminals(&terminal)),
        text("uri", uri),
    ]);
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(names::code_secret(&code.name_any())),
            namespace: code.namespace(),
            labels: Some(BTreeMap::from([(
                MANAGED_BY.0.to_owned(),
                MANAGED_BY.1.to_owned(),
            )])),
            owner_references: code.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    })
}

/// The smallest code of the URI, for a terminal: few rows have room there, and every module is shown as it is, so the least
/// correction is enough. The digits of the authority are in upper case, which means the same and takes a third less room as
/// a segment of its own; the encoder of the library does not find that segment by itself.
fn smallest(uri: &str, digits: &str) -> Result<QrCode, QrError> {
    let Some((before, after)) = uri.split_once(digits) else {
        return QrCode::with_error_correction_level(uri, EcLevel::L);
    };
    let digits = digits.to_ascii_uppercase();
    let mut encoded = Err(QrError::DataTooLong);
    for version in 1..=40 {
        encoded = segments(version, [before, &digits, after]);
        if !matches!(encoded, Err(QrError::DataTooLong)) {
            break;
        }
    }
    QrCode::with_bits(encoded?, EcLevel::L)
}

fn segments(version: i16, [before, digits, after]: [&str; 3]) -> Result<Bits, QrError> {
    let mut bits = Bits::new(Version::Normal(version));
    bits.push_byte_data(before.as_bytes())?;
    bits.push_alphanumeric_data(digits.as_bytes())?;
    bits.push_byte_data(after.as_bytes())?;
    bits.push_terminator(EcLevel::L)?;
    Ok(bits)
}

fn picture(qr: &QrCode) -> String {
    qr.render::<svg::Color<'_>>()
        .quiet_zone(true)
        .min_dimensions(PIXELS, PIXELS)
        .build()
}

/// Two modules to a character, in half blocks. Where [`ROWS`] leave less room around the code, it has less: at least one
/// module.
fn for_terminals(qr: &QrCode) -> String {
    let width = qr.width();
    let quiet_zone = ((2 * ROWS).saturating_sub(width) / 2).clamp(1, QUIET_ZONE);
    let modules = qr.to_colors();
    let is_dark = |x: usize, y: usize| {
        let inside = |at: usize| at.checked_sub(quiet_zone).filter(|at| *at < width);
        match (inside(x), inside(y)) {
            (Some(x), Some(y)) => modules.get(y * width + x) == Some(&Color::Dark),
            _ => false,
        }
    };
    let side = width + 2 * quiet_zone;
    let mut lines = String::new();
    for y in (0..side).step_by(2) {
        lines.push_str(BLACK_ON_WHITE);
        for x in 0..side {
            lines.push(match (is_dark(x, y), is_dark(x, y + 1)) {
                (true, true) => '\u{2588}',
                (true, false) => '\u{2580}',
                (false, true) => '\u{2584}',
                (false, false) => ' ',
            });
        }
        lines.push_str(RESET);
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use crds::v1alpha1::PairingCodeSpec;

    use super::*;

    fn code(uid: &str) -> PairingCode {
        let mut code = PairingCode::new("door", PairingCodeSpec::default());
        code.metadata.namespace = Some("kitchen".to_owned());
        code.metadata.uid = Some(uid.to_owned());
        code
    }

    fn drawn() -> Drawn {
        Drawn::parse("0101-ABCDEF").unwrap()
    }

    fn secret(code: &PairingCode) -> Secret {
        let authority = KeyFingerprint::of_spki(b"authority");
        let mut secret = build(code, &drawn(), "gateway.example:7443", authority).unwrap();
        secret.metadata.uid = Some("s".to_owned());
        secret
    }

    #[test]
    fn the_secret_shows_the_code_in_four_ways() {
        let secret = secret(&code("1"));
        let read = |key| read(&secret, key).unwrap();
        assert_eq!(read("pin"), "0101-ABCDEF");
        assert_eq!(read("uri").parse::<PairingUri>().unwrap().code, drawn());
        assert!(read("qr.svg").starts_with("<?xml"), "{}", read("qr.svg"));
        let lines: Vec<String> = read("qr.txt").lines().map(str::to_owned).collect();
        let cells = |line: &String| {
            line.trim_start_matches(BLACK_ON_WHITE)
                .trim_end_matches(RESET)
                .chars()
                .count()
        };
        assert!(
            lines.iter().all(|line| cells(line) == cells(&lines[0])),
            "a rectangle"
        );
        assert_eq!(
            cells(&lines[0]).div_ceil(2),
            lines.len(),
            "square, for a character is twice as high as wide"
        );
        assert_eq!(
            lines[0]
                .trim_start_matches(BLACK_ON_WHITE)
                .trim_end_matches(RESET)
                .trim(),
            "",
            "quiet zone"
        );
        let dark = lines
            .iter()
            .flat_map(|line| line.chars())
            .filter(|c| "\u{2588}\u{2580}\u{2584}".contains(*c));
        assert!(dark.count() > 200);
    }

    #[test]
    fn a_code_of_an_ordinary_installation_fits_a_terminal_of_24_rows() {
        let mut code = code("1");
        code.metadata.namespace = Some("fairlead-devices".to_owned());
        let authority = KeyFingerprint::of_spki(b"authority");
        let gateway = "gateway.fairlead.example.com:7443";
        let secret = build(&code, &drawn(), gateway, authority).unwrap();
        let rows = read(&secret, "qr.txt").unwrap().lines().count();
        assert!(rows <= ROWS, "{rows} rows");
    }

    /// What a camera reads off the terminal, four pixels to a module.
    fn scanned(text: &str) -> String {
        const PIXELS: usize = 4;
        let rows: Vec<Vec<bool>> = text
            .lines()
            .flat_map(|line| {
                let cells = line
                    .trim_start_matches(BLACK_ON_WHITE)
                    .trim_end_matches(RESET);
                let half = |dark: [char; 2]| {
                    let cells = cells.chars();
                    cells.map(|cell| dark.contains(&cell)).collect()
                };
                [
                    half(['\u{2588}', '\u{2580}']),
                    half(['\u{2588}', '\u{2584}']),
                ]
            })
            .collect();
        let (width, height) = (rows[0].len() * PIXELS, rows.len() * PIXELS);
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
            if rows[y / PIXELS][x / PIXELS] { 0 } else { 255 }
        });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1, "one code is seen");
        grids[0].decode().unwrap().1
    }

    #[test]
    fn what_a_camera_reads_off_a_terminal_is_the_uri() {
        for gateway in [
            "gateway.example:7443",
            "gateway.fairlead.example.com:7443",
            "a-gateway-with-a-very-long-name.devices.production.europe-west.example.com:7443",
        ] {
            let authority = KeyFingerprint::of_spki(b"authority");
            let secret = build(&code("1"), &drawn(), gateway, authority).unwrap();
            let read: PairingUri = scanned(&super::read(&secret, "qr.txt").unwrap())
                .parse()
                .unwrap();
            let uri: PairingUri = super::read(&secret, "uri").unwrap().parse().unwrap();
            assert_eq!(read, uri);
        }
    }

    #[test]
    fn digits_in_upper_case_are_the_same_authority() {
        let authority = KeyFingerprint::of_spki(b"authority");
        let upper = authority.to_string().to_ascii_uppercase();
        assert_eq!(upper.parse(), Ok(authority));
    }

    #[test]
    fn whose_a_secret_is_is_told_by_its_owner() {
        let ours = code("1");
        assert_eq!(classify(None, &ours), CodeSecret::Absent);
        let uid = "s".to_owned();
        let expected = CodeSecret::Ours {
            uid: uid.clone(),
            drawn: Some(drawn()),
        };
        assert_eq!(classify(Some(&secret(&ours)), &ours), expected);
        assert_eq!(
            classify(Some(&secret(&code("0"))), &ours),
            CodeSecret::Former { uid: uid.clone() }
        );
        let mut foreign = secret(&ours);
        foreign.metadata.owner_references = None;
        assert_eq!(classify(Some(&foreign), &ours), CodeSecret::Foreign);
        let mut pretended = secret(&ours);
        pretended.metadata.labels = None;
        assert_eq!(classify(Some(&pretended), &ours), CodeSecret::Foreign);
        let mut damaged = secret(&ours);
        damaged.data.as_mut().unwrap().remove("pin");
        assert_eq!(
            classify(Some(&damaged), &ours),
            CodeSecret::Ours { uid, drawn: None }
        );
    }
}

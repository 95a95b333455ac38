//! Pairing codes: `ID-SECRET`, drawn by the operator, typed or scanned by a person.
//!
//! The id is public: it finds the code's object. The secret is proved and never sent.

use std::fmt;

use rand_core::{CryptoRngCore, OsRng};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Characters of the id.
pub const ID_LENGTH: usize = 4;
/// Characters of the secret.
pub const SECRET_LENGTH: usize = 6;

/// Crockford's Base32: no I, L, O, U, so that what is read aloud or misread comes out right.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const DIGITS: &[u8; 10] = b"0123456789";

/// Which characters a code is drawn from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Alphabet {
    /// Crockford's Base32: 50 bits of code, 30 of them secret.
    Alphanumeric,
    /// Digits, for a numeric pad: 20 bits of secret.
    Numeric,
}

impl Alphabet {
    fn characters(self) -> &'static [u8] {
        match self {
            Self::Alphanumeric => CROCKFORD,
            Self::Numeric => DIGITS,
        }
    }
}

/// What a person typed is no pairing code.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("a pairing code has {expected} characters, like 7KQ2-X9M4TD; this has {0}", expected = ID_LENGTH + SECRET_LENGTH)]
    Length(usize),
    #[error("a pairing code has digits and letters only, with dashes or spaces between them")]
    Character,
}

/// A pairing code. Wiped from memory when dropped; `Debug` shows the public half alone.
#[derive(Clone, Eq, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct PairingCode {
    id: String,
    secret: String,
}

impl PairingCode {
    /// Draws a code from the operating system's randomness.
    pub fn draw(alphabet: Alphabet) -> Self {
        Self {
            id: draw(alphabet, ID_LENGTH),
            secret: draw(alphabet, SECRET_LENGTH),
        }
    }

    /// Reads what a person typed: case, dashes and spaces do not matter, and letters that look like digits are those.
    pub fn parse(typed: &str) -> Result<Self, Error> {
        let mut characters = Vec::with_capacity(ID_LENGTH + SECRET_LENGTH);
        for character in typed.trim().chars().filter(|c| !matches!(c, '-' | ' ')) {
            characters.push(normalise(character).ok_or(Error::Character)?);
            // Bounds what is read of a wrong paste; the count is then only "too many".
            if characters.len() > 64 {
                break;
            }
        }
        if characters.len() != ID_LENGTH + SECRET_LENGTH {
            let length = characters.len();
            characters.zeroize();
            return Err(Error::Length(length));
        }
        let (id, secret) = characters.split_at(ID_LENGTH);
        let code = Self {
            id: id.iter().collect(),
            secret: secret.iter().collect(),
        };
        characters.zeroize();
        Ok(code)
    }

    /// The public half.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The half that is proved. Never logged, never sent.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// The whole code, as a person is to read it. For the Secret and the terminal, never for a log.
    pub fn expose(&self) -> String {
        format!("{}-{}", self.id, self.secret)
    }
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairingCode({}-..)", self.id)
    }
}

fn normalise(character: char) -> Option<char> {
    let character = match character.to_ascii_uppercase() {
        'I' | 'L' => '1',
        'O' => '0',
        other => other,
    };
    CROCKFORD
        .contains(&u8::try_from(character).ok()?)
        .then_some(character)
}

fn draw(alphabet: Alphabet, length: usize) -> String {
    let characters = alphabet.characters();
    let mut drawn = String::with_capacity(length);
    while drawn.len() < length {
        // A byte past the last whole multiple would make the first characters likelier.
        let byte = random_byte(&mut OsRng);
        let multiple = 256 / characters.len() * characters.len();
        if usize::from(byte) < multiple {
            drawn.push(char::from(characters[usize::from(byte) % characters.len()]));
        }
    }
    drawn
}

fn random_byte(rng: &mut impl CryptoRngCore) -> u8 {
    let mut byte = [0];
    rng.fill_bytes(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_drawn_can_be_typed() {
        for alphabet in [Alphabet::Alphanumeric, Alphabet::Numeric] {
            let code = PairingCode::draw(alphabet);
            assert_eq!(PairingCode::parse(&code.expose()).unwrap(), code);
            assert!(
                code.expose()
                    .bytes()
                    .all(|b| b == b'-' || alphabet.characters().contains(&b))
            );
        }
    }

    #[test]
    fn two_draws_differ() {
        assert_ne!(
            PairingCode::draw(Alphabet::Alphanumeric),
            PairingCode::draw(Alphabet::Alphanumeric)
        );
    }

    #[test]
    fn people_type_as_they_like() {
        let code = PairingCode::parse("0101-ABCDEF").unwrap();
        for typed in [
            "oiol-abcdef",
            " 0101 abc def ",
            "0101ABCDEF",
            "01-01-AB-CD-EF\n",
        ] {
            assert_eq!(PairingCode::parse(typed).unwrap(), code, "{typed}");
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        assert_eq!(PairingCode::parse("0101-ABCDE"), Err(Error::Length(9)));
        assert_eq!(PairingCode::parse(""), Err(Error::Length(0)));
        assert_eq!(PairingCode::parse("0101-ABCDEU"), Err(Error::Character));
        assert_eq!(
            PairingCode::parse("0101-ABCDE\u{c4}"),
            Err(Error::Character)
        );
        assert_eq!(
            PairingCode::parse(&"0".repeat(1 << 20)),
            Err(Error::Length(65))
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let code = PairingCode::parse("0101-ABCDEF").unwrap();
        assert_eq!(format!("{code:?}"), "PairingCode(0101-..)");
    }
}

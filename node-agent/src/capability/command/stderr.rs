//! What a command says on standard error: its progress, and everything else. Pure.

use crate::capability::progress::Step;

/// What a line of progress begins with.
const PREFIX: &[u8] = b"fairlead-progress ";
/// Longest line of progress, in bytes; a longer one is none.
const MAX_LINE_BYTES: usize = 1024;

/// Tells the two apart, however the bytes come.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    /// The beginning of a line that may be progress.
    line: Vec<u8>,
    /// This line is none.
    is_other: bool,
}

impl Sorter {
    /// Adds what is no progress to `other`; returns the last word of progress, if there was one.
    pub(super) fn take(&mut self, bytes: &[u8], other: &mut Vec<u8>) -> Option<Step> {
        let mut last = None;
        for &byte in bytes {
            if self.is_other {
                other.push(byte);
                self.is_other = byte != b'\n';
                continue;
            }
            self.line.push(byte);
            if byte == b'\n' {
                match step(&self.line) {
                    Some(step) => {
                        last = Some(step);
                        self.line.clear();
                    }
                    None => other.append(&mut self.line),
                }
            } else if !may_be_progress(&self.line) {
                other.append(&mut self.line);
                self.is_other = true;
            }
        }
        last
    }

    /// The end: what is no whole line is no progress.
    pub(super) fn end(mut self, other: &mut Vec<u8>) {
        other.append(&mut self.line);
    }
}

fn may_be_progress(line: &[u8]) -> bool {
    line.len() < MAX_LINE_BYTES && (PREFIX.starts_with(line) || line.starts_with(PREFIX))
}

/// `PERCENT MESSAGE`; the message may be missing.
fn step(line: &[u8]) -> Option<Step> {
    let text = String::from_utf8_lossy(line.strip_prefix(PREFIX)?);
    let text = text.trim();
    let (percent, message) = text.split_once(' ').unwrap_or((text, ""));
    let is_number = !percent.is_empty() && percent.bytes().all(|b| b.is_ascii_digit());
    // More digits than there are numbers is more than a hundred, too.
    is_number.then(|| Step::new(percent.parse().unwrap_or(u32::MAX), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(text: &[u8], piece: usize) -> (Vec<Step>, String) {
        let (mut sorter, mut other, mut steps) = (Sorter::default(), Vec::new(), Vec::new());
        for piece in text.chunks(piece) {
            steps.extend(sorter.take(piece, &mut other));
        }
        sorter.end(&mut other);
        (steps, String::from_utf8_lossy(&other).into_owned())
    }

    #[test]
    fn progress_is_taken_out_wherever_the_pieces_are_cut() {
        let text = b"one\nfairlead-progress 10 half of it\ntwo\nfairlead-progress 250\nfairlead-progres\nlast";
        for piece in 1..text.len() {
            let (steps, other) = sort(text, piece);
            assert_eq!(other, "one\ntwo\nfairlead-progres\nlast", "{piece}");
            assert_eq!(steps.last(), Some(&Step::new(100, "")), "{piece}");
        }
        assert_eq!(
            sort(text, 1).0,
            [Step::new(10, "half of it"), Step::new(100, "")]
        );
    }

    #[test]
    fn what_is_no_progress_stays_where_it_was() {
        let long = format!("fairlead-progress 1 {}\n", "x".repeat(2000));
        for text in [
            "fairlead-progress ten per cent\n",
            "fairlead-progress -1 x\n",
            "fairlead-progress \n",
            " fairlead-progress 1 x\n",
            "fairlead-progress 1 not a whole line",
            &long,
        ] {
            assert_eq!(sort(text.as_bytes(), 7), (Vec::new(), text.to_owned()));
        }
    }
}

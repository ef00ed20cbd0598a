//! The delimiter of a CSV file, and how it is found.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::record::Records;

/// The characters that may separate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Delimiter {
    #[serde(rename = ",")]
    Comma,
    #[serde(rename = ";")]
    Semicolon,
    #[serde(rename = "\t")]
    Tab,
    #[serde(rename = "|")]
    Bar,
}

impl Delimiter {
    pub const ALL: [Self; 4] = [Self::Comma, Self::Semicolon, Self::Tab, Self::Bar];

    /// Reads the character itself, or the word `tab`.
    pub fn from_text(text: &str) -> Option<Self> {
        let byte = if text == "tab" { b"\t" } else { text.as_bytes() };
        Self::ALL.into_iter().find(|delimiter| byte == [delimiter.byte()])
    }

    pub fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
            Self::Bar => b'|',
        }
    }
}

/// The delimiter that a file's name tells: `.tsv` and `.tab` have tabs. The first lines of others tell it.
pub(crate) fn delimiter_of(path: &Path) -> Option<Delimiter> {
    let extension = path.extension()?;
    (extension.eq_ignore_ascii_case("tsv") || extension.eq_ignore_ascii_case("tab")).then_some(Delimiter::Tab)
}

/// How many lines are looked at.
const LINES: usize = 20;

/// The fields of the header line, and whether each further line has as many.
fn shape(head: &[u8], delimiter: Delimiter) -> (usize, bool) {
    let Ok(mut records) = Records::with_delimiter(head, delimiter) else { return (0, false) };
    let mut header = 0;
    for number in 0..LINES {
        match records.next() {
            Ok(Some(record)) if number == 0 => header = record.len(),
            Ok(Some(record)) if record.len() == header => {}
            Ok(None) => break,
            Ok(Some(_)) | Err(_) => return (header, false),
        }
    }
    (header, true)
}

/// Chooses the delimiter that splits all of the first lines into the same number of fields, the most of them; if none does
/// so into two or more, the one that splits the header line most. Ties go in the order of [`Delimiter::ALL`].
pub(super) fn sniff(head: &[u8]) -> Delimiter {
    let mut best = (Delimiter::Comma, (false, 0));
    for delimiter in Delimiter::ALL {
        let (fields, consistent) = shape(head, delimiter);
        let rank = (consistent && fields > 1, fields);
        if rank > best.1 {
            best = (delimiter, rank);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delimiter_that_fits_all_lines_is_found() {
        for (head, expected) in [
            ("a,b,c\n1,2,3\n", Delimiter::Comma),
            ("a;b;c\n1,5;2,5;3\n", Delimiter::Semicolon),
            ("a\tb\n1,5\t2|3\n", Delimiter::Tab),
            ("a|b|c\n1|2|3", Delimiter::Bar),
            ("a;b;c\n1;\"x\n;y,z\";3\n", Delimiter::Semicolon),
            ("name,note\nx,one; two; three\n", Delimiter::Comma),
            // A ragged line does not hide the header's delimiter.
            ("a,b,c\n1,2\n3,4,5\n", Delimiter::Comma),
            ("a;b;c\n1;2\n3;4;5\n", Delimiter::Semicolon),
            ("single\n1\n", Delimiter::Comma),
            ("", Delimiter::Comma),
        ] {
            assert_eq!(sniff(head.as_bytes()), expected, "{head:?}");
        }
    }
}

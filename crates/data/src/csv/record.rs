//! The records of a CSV stream: bytes to rows of fields, strictly.
//!
//! Fields are separated by a [`Delimiter`], records by LF or CRLF; a field that begins with `"` goes on to the next lone `"` and
//! may hold delimiters, line ends and `""` for `"` (RFC 4180 §2). Lines without any character are skipped. The text is UTF-8,
//! a byte order mark is dropped. What RFC 4180 leaves open is refused where guessing would lose data: text behind a closing
//! quote, a quote that never closes, a carriage return alone, NUL. A `"` inside an unquoted field is an ordinary character.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memchr2, memchr3, memrchr};

use super::delimiter::{Delimiter, sniff};
use super::problem::{CsvError, Problem, ProblemKind};

/// The longest record that is read, in bytes. It bounds what a quote that never closes costs.
pub const MAX_RECORD: usize = 16 << 20;

/// How many bytes are read at once.
const BLOCK: usize = 1 << 18;

/// Why no further record can be read.
#[derive(Debug)]
pub(super) enum RecordError {
    Io(io::Error),
    /// The column is a zero-based position, for the caller who knows its name.
    Malformed {
        line: u64,
        field: Option<usize>,
        kind: ProblemKind,
    },
}

impl RecordError {
    /// Names the column of the problem.
    pub(super) fn named(self, names: &[String]) -> Result<Problem, CsvError> {
        match self {
            Self::Io(error) => Err(CsvError::Io(error)),
            Self::Malformed { line, field, kind } => {
                Ok(Problem { line: Some(line), column: field.and_then(|field| names.get(field).cloned()), kind })
            }
        }
    }

    /// The error that ends the reading.
    pub(super) fn stop(self, names: &[String]) -> CsvError {
        match self.named(names) {
            Ok(problem) => CsvError::Problems(vec![problem]),
            Err(error) => error,
        }
    }
}

impl From<io::Error> for RecordError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One row of fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    /// The line on which it begins; the first of the file is 1.
    pub(super) line: u64,
    /// The fields without their quotes, one byte between each and the next.
    text: &'a str,
    ends: &'a [usize],
}

impl<'a> Record<'a> {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The length of all fields together, in bytes.
    pub(super) fn text_len(&self) -> usize {
        self.text.len()
    }

    fn start(&self, field: usize) -> usize {
        field.checked_sub(1).map_or(0, |before| self.ends[before] + 1)
    }

    pub(super) fn get(&self, field: usize) -> &'a str {
        &self.text[self.start(field)..self.ends[field]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a str> + '_ {
        (0..self.len()).map(|field| self.get(field))
    }

    /// The fields as bytes.
    pub(super) fn iter_bytes(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let bytes = self.text.as_bytes();
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let field = &bytes[start..*end];
            start = end + 1;
            field
        })
    }
}

/// A stream of records in constant memory: one block, or one record if that is longer.
pub(super) struct Records<R> {
    input: R,
    delimiter: Delimiter,
    /// Bytes that were read and not yet given out are `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The place of `buffer[0]` in the whole input, in bytes.
    offset: u64,
    input_ended: bool,
    /// The number of the line that begins at `start`.
    line: u64,
    ends: Vec<usize>,
    scratch: Vec<u8>,
}

fn too_long(line: u64) -> RecordError {
    RecordError::Malformed { line, field: None, kind: ProblemKind::TooLong { limit: MAX_RECORD } }
}

/// Where the text of a record lies.
enum Found {
    /// `buffer[start..start + len]`, fields as they are.
    Plain { start: usize, len: usize },
    /// `scratch`: quotes were taken away.
    Scratch,
}

/// Finds the ends of the fields of a line without quotes. Fields are short: a plain loop is faster than `memchr_iter`.
fn split(line: &[u8], delimiter: u8, ends: &mut Vec<usize>) {
    ends.clear();
    for (at, byte) in line.iter().enumerate() {
        if *byte == delimiter {
            ends.push(at);
        }
    }
    ends.push(line.len());
}

/// The state between two bytes of a record with quotes.
enum At {
    FieldStart,
    Unquoted,
    Quoted,
    QuoteInQuoted,
}

impl<R: Read> Records<R> {
    /// Reads with a given delimiter.
    pub(super) fn with_delimiter(input: R, delimiter: Delimiter) -> Result<Self, RecordError> {
        let mut records = Self::resumed(input, delimiter, 1)?;
        records.check_beginning()?;
        Ok(records)
    }

    /// Reads on where a record begins, on this line.
    pub(super) fn resumed(input: R, delimiter: Delimiter, line: u64) -> Result<Self, RecordError> {
        let mut records = Self {
            input,
            delimiter,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            input_ended: false,
            line,
            ends: Vec::new(),
            scratch: Vec::new(),
        };
        records.fill()?;
        Ok(records)
    }

    /// Finds the delimiter in the first lines: the one that gives the most columns, the same number in each line.
    pub(super) fn sniffed(input: R) -> Result<Self, RecordError> {
        let mut records = Self::with_delimiter(input, Delimiter::Comma)?;
        let unread = &records.buffer[records.start..records.end];
        let head = &unread[..unread.len().min(1 << 16)];
        let whole = records.input_ended && head.len() == unread.len();
        let lines = if whole { head.len() } else { memrchr(b'\n', head).map_or(head.len(), |at| at + 1) };
        records.delimiter = sniff(&head[..lines]);
        Ok(records)
    }

    pub(super) fn delimiter(&self) -> Delimiter {
        self.delimiter
    }

    /// Where the next record begins: the bytes before it, and its line.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.offset + self.start as u64, self.line)
    }

    /// Drops a byte order mark, and refuses what is plainly no UTF-8 text.
    fn check_beginning(&mut self) -> Result<(), RecordError> {
        let kind = match &self.buffer[..self.end] {
            [0xef, 0xbb, 0xbf, ..] => {
                self.start = 3;
                return Ok(());
            }
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ProblemKind::Utf16,
            [0x1f, 0x8b, ..] => ProblemKind::Packed { format: "gzip" },
            [b'P', b'K', 3, 4, ..] => ProblemKind::Packed { format: "ZIP or Excel" },
            _ => return Ok(()),
        };
        Err(RecordError::Malformed { line: 1, field: None, kind })
    }

    /// Reads on until there are at least twice as many unread bytes as before, or the input ends.
    fn fill(&mut self) -> io::Result<()> {
        let unread = self.end - self.start;
        let wanted = (2 * unread).max(BLOCK);
        if self.buffer.len() < wanted {
            let mut larger = vec![0; wanted];
            larger[..unread].copy_from_slice(&self.buffer[self.start..self.end]);
            self.buffer = larger;
        } else {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        self.offset += self.start as u64;
        (self.start, self.end) = (0, unread);
        while self.end < wanted && !self.input_ended {
            match self.input.read(&mut self.buffer[self.end..wanted]) {
                Ok(0) => self.input_ended = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the next record, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        let Some((len, consumed)) = self.find_line()? else { return Ok(None) };
        let line = self.line;
        let plain = &self.buffer[self.start..self.start + len];
        let found = if memchr3(b'"', b'\r', 0, plain).is_none() {
            let start = self.start;
            split(plain, self.delimiter.byte(), &mut self.ends);
            self.start += consumed;
            self.line += 1;
            Found::Plain { start, len }
        } else {
            self.unquote()?;
            Found::Scratch
        };
        let bytes = match found {
            Found::Plain { start, len } => &self.buffer[start..start + len],
            Found::Scratch => &self.scratch,
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(Record { line, text, ends: &self.ends })),
            Err(error) => {
                let at = error.valid_up_to();
                let line = line + memchr_iter(b'\n', &bytes[..at]).count() as u64;
                let field = Some(self.ends.partition_point(|end| *end <= at));
                Err(RecordError::Malformed { line, field, kind: ProblemKind::NotUtf8 { byte: bytes[at] } })
            }
        }
    }

    /// Finds the next line that is not empty: its length without and with its end. `None` at the end of the input.
    fn find_line(&mut self) -> Result<Option<(usize, usize)>, RecordError> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            let (len, consumed) = match memchr(b'\n', &unread[searched..]) {
                Some(at) => (searched + at, searched + at + 1),
                None if self.input_ended => (unread.len(), unread.len()),
                None if unread.len() > MAX_RECORD => return Err(too_long(self.line)),
                None => {
                    searched = unread.len();
                    self.fill()?;
                    continue;
                }
            };
            let len = if unread[..len].last() == Some(&b'\r') { len - 1 } else { len };
            if len > MAX_RECORD {
                return Err(too_long(self.line));
            }
            if len > 0 {
                return Ok(Some((len, consumed)));
            }
            if consumed == 0 {
                return Ok(None);
            }
            self.start += consumed;
            self.line += 1;
            searched = 0;
        }
    }

    /// Takes a record with quotes apart, into `scratch` and `ends`, and moves behind it.
    fn unquote(&mut self) -> Result<(), RecordError> {
        self.scratch.clear();
        self.ends.clear();
        let delimiter = self.delimiter.byte();
        let (mut state, mut at, mut lines, mut quote_line) = (At::FieldStart, 0, 0, self.line);
        loop {
            // A carriage return is judged by the byte behind it, so one more than the current byte has to be there.
            if at <= MAX_RECORD && self.start + at + 1 >= self.end && !self.input_ended {
                self.fill()?;
            }
            let unread = &self.buffer[self.start + at..self.end];
            let ended = unread.is_empty() || at > MAX_RECORD;
            let malformed = |line, kind| Err(RecordError::Malformed { line, field: Some(self.ends.len()), kind });
            if ended && matches!(state, At::Quoted) {
                return malformed(quote_line, ProblemKind::QuoteUnclosed);
            }
            if at > MAX_RECORD {
                return Err(too_long(self.line));
            }
            let Some(&byte) = unread.first() else { break };
            let mut run = 1;
            match (&state, byte) {
                (_, 0) => return malformed(self.line + lines, ProblemKind::Nul),
                (At::Quoted, b'"') => state = At::QuoteInQuoted,
                (At::Quoted, _) => {
                    run = memchr2(b'"', 0, unread).unwrap_or(unread.len());
                    lines += memchr_iter(b'\n', &unread[..run]).count() as u64;
                    self.scratch.extend_from_slice(&unread[..run]);
                }
                (At::FieldStart, b'"') => {
                    state = At::Quoted;
                    quote_line = self.line + lines;
                }
                (At::QuoteInQuoted, b'"') => {
                    self.scratch.push(b'"');
                    state = At::Quoted;
                }
                (_, b'\n') => {
                    lines += 1;
                    at += 1;
                    break;
                }
                (_, b'\r') if unread.get(1).is_none_or(|next| *next == b'\n') => {}
                (_, b'\r') => return malformed(self.line + lines, ProblemKind::CarriageReturn),
                (_, byte) if byte == delimiter => {
                    self.ends.push(self.scratch.len());
                    self.scratch.push(delimiter);
                    state = At::FieldStart;
                }
                (At::QuoteInQuoted, _) => return malformed(self.line + lines, ProblemKind::TextAfterQuote),
                (At::FieldStart | At::Unquoted, _) => {
                    let special = |byte: &u8| matches!(*byte, b'\n' | b'\r' | 0) || *byte == delimiter;
                    run = unread.iter().position(special).unwrap_or(unread.len());
                    self.scratch.extend_from_slice(&unread[..run]);
                    state = At::Unquoted;
                }
            }
            at += run;
        }
        self.ends.push(self.scratch.len());
        self.start += at;
        self.line += lines;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives a few bytes at a time, to break records everywhere.
    struct Dripping<'a>(&'a [u8], usize);

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(buffer.len()).min(self.0.len());
            let (now, later) = self.0.split_at(len);
            buffer[..len].copy_from_slice(now);
            self.0 = later;
            Ok(len)
        }
    }

    fn read(input: impl Read, delimiter: Delimiter) -> Result<Vec<(u64, Vec<String>)>, String> {
        let show = |error| match error {
            RecordError::Malformed { line, field, kind } => format!("{line} {field:?} {kind:?}"),
            RecordError::Io(error) => error.to_string(),
        };
        let mut records = Records::with_delimiter(input, delimiter).map_err(show)?;
        let mut rows = Vec::new();
        while let Some(record) = records.next().map_err(show)? {
            let by_position: Vec<&str> = (0..record.len()).map(|field| record.get(field)).collect();
            assert!(record.iter_bytes().eq(by_position.iter().map(|field| field.as_bytes())));
            rows.push((record.line, by_position.into_iter().map(str::to_owned).collect()));
        }
        Ok(rows)
    }

    fn check(text: &str, expected: &[(u64, &[&str])]) {
        let expected: Vec<(u64, Vec<String>)> =
            expected.iter().map(|(line, row)| (*line, row.iter().map(|field| (*field).to_owned()).collect())).collect();
        assert_eq!(read(text.as_bytes(), Delimiter::Comma), Ok(expected), "{text:?}");
    }

    fn check_error(text: impl AsRef<[u8]>, expected: &str) {
        let text = text.as_ref();
        assert_eq!(read(text, Delimiter::Comma), Err(expected.to_owned()), "{:?}", String::from_utf8_lossy(text));
    }

    #[test]
    fn records_are_split_as_rfc_4180_says() {
        check("", &[]);
        check("\n\r\n\n", &[]);
        check("a,b\n1,2\n", &[(1, &["a", "b"]), (2, &["1", "2"])]);
        check("a,b\r\n1,2\r\n", &[(1, &["a", "b"]), (2, &["1", "2"])]);
        check("\u{feff}a\n\n1", &[(1, &["a"]), (3, &["1"])]);
        check("a,\n,\n", &[(1, &["a", ""]), (2, &["", ""])]);
        check("\"a\",\"b,\n\"\"c\"\"\"\n1", &[(1, &["a", "b,\n\"c\""]), (3, &["1"])]);
        check("\"a\r\nb\"\r\n\"\"\r\n", &[(1, &["a\r\nb"]), (3, &[""])]);
        check("5\" pipe,a\"b\"\n", &[(1, &["5\" pipe", "a\"b\""])]);
        check("\"a\"", &[(1, &["a"])]);
        check("\"a\",", &[(1, &["a", ""])]);
        check("a,b\r", &[(1, &["a", "b"])]);
        check("ä,\"ö\"\n", &[(1, &["ä", "ö"])]);
    }

    #[test]
    fn what_would_lose_data_is_refused_where_it_is() {
        check_error("a,b\n1,\"x\n2,3\n", "2 Some(1) QuoteUnclosed");
        check_error("a,b\n\"x\ny\",\"z\n", "3 Some(1) QuoteUnclosed");
        check_error("a,b\n1,\"x\"y\n", "2 Some(1) TextAfterQuote");
        check_error("a,b\n1,\"x\" \n", "2 Some(1) TextAfterQuote");
        check_error("a,b\r1,2\r", "1 Some(1) CarriageReturn");
        check_error("a,b\n1,\0\n", "2 Some(1) Nul");
        check_error("a,b\n1,\"\0\"\n", "2 Some(1) Nul");
        check_error(b"a,b\n1,caf\xe9\n", "2 Some(1) NotUtf8 { byte: 233 }");
        check_error(b"a,b\n\"x\ny\",\"caf\xe9\"\n", "3 Some(1) NotUtf8 { byte: 233 }");
        check_error(b"\xff\xfea\0", "1 None Utf16");
        check_error(b"\x1f\x8b\x08\0", "1 None Packed { format: \"gzip\" }");
        check_error(b"PK\x03\x04", "1 None Packed { format: \"ZIP or Excel\" }");
    }

    #[test]
    fn a_record_is_bounded() {
        let too_long = "2 None TooLong { limit: 16777216 }";
        let endless = || b"a\n".chain(io::repeat(b'x'));
        assert_eq!(read(endless(), Delimiter::Comma), Err(too_long.to_owned()));
        assert_eq!(read(b"a\n\"\"".chain(io::repeat(b',')), Delimiter::Comma), Err(too_long.to_owned()));
        let quoted = b"a\n\n1,\"".chain(io::repeat(b'\n'));
        assert_eq!(read(quoted, Delimiter::Comma), Err("3 Some(1) QuoteUnclosed".to_owned()));
        let longest = b"a\n".chain(io::repeat(b'x').take(MAX_RECORD as u64));
        assert_eq!(read(longest, Delimiter::Comma).unwrap().len(), 2);
    }

    #[test]
    fn a_failing_input_is_an_error() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk gone"))
            }
        }
        assert_eq!(read(b"a\n1\n".chain(Failing), Delimiter::Comma), Err("disk gone".to_owned()));
    }

    fn delimiter() -> impl Strategy<Value = Delimiter> {
        prop::sample::select(Delimiter::ALL.to_vec())
    }

    fn by_csv_crate(bytes: &[u8], delimiter: Delimiter) -> Vec<Vec<String>> {
        let mut builder = ::csv::ReaderBuilder::new();
        let mut reader = builder.has_headers(false).flexible(true).delimiter(delimiter.byte()).from_reader(bytes);
        reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
    }

    proptest! {
        /// The outside answer is the csv crate's.
        #[test]
        fn tables_that_the_csv_crate_wrote_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a-c,;|\t\"\r\n 0-9ä]{0,6}", 3), 1..8),
            (delimiter, crlf, quote, drip) in (delimiter(), any::<bool>(), any::<bool>(), 1_usize..9),
        ) {
            let mut writer = ::csv::WriterBuilder::new()
                .delimiter(delimiter.byte())
                .terminator(if crlf { ::csv::Terminator::CRLF } else { ::csv::Terminator::Any(b'\n') })
                .quote_style(if quote { ::csv::QuoteStyle::Always } else { ::csv::QuoteStyle::Necessary })
                .from_writer(Vec::new());
            for row in &rows { writer.write_record(row).unwrap(); }
            let bytes = writer.into_inner().unwrap();
            let found: Vec<Vec<String>> =
                read(Dripping(&bytes, drip), delimiter).unwrap().into_iter().map(|(_, row)| row).collect();
            prop_assert_eq!(&found, &by_csv_crate(&bytes, delimiter));
            prop_assert_eq!(found, rows);
        }

        /// Whatever is accepted means what the csv crate makes of it; the reader only refuses more.
        #[test]
        fn what_is_accepted_is_what_the_csv_crate_reads(
            text in prop::collection::vec(prop::sample::select(vec!["a", "1", ",", ";", "\"", "\"\"", "\n", "\r\n", "\r", " ", "ä"]), 0..24),
            (delimiter, drip) in (delimiter(), 1_usize..9),
        ) {
            let bytes = text.concat().into_bytes();
            let whole = read(&bytes[..], delimiter);
            prop_assert_eq!(&whole, &read(Dripping(&bytes, drip), delimiter));
            if let Ok(rows) = whole {
                let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
                prop_assert_eq!(rows, by_csv_crate(&bytes, delimiter));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), delimiter in delimiter()) {
            let whole = read(&bytes[..], delimiter);
            prop_assert_eq!(whole, read(Dripping(&bytes, 3), delimiter));
        }
    }
}

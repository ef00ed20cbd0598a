//! Words and signs of a text.

use super::{ExpressionError, MAX_EXPRESSION_BYTES};

/// What stands at a place of the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// Digits as they were written.
    Number(String),
    Text(String),
    /// A word without quotes.
    Word(String),
    /// A name in double quotes, which is no keyword whatever it is.
    Quoted(String),
    Sign(&'static str),
    End,
}

/// A token and its first character's position, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) at: usize,
}

/// Signs, longer ones before their beginnings.
const SIGNS: [&str; 15] = ["!=", "<=", ">=", "=", "<", ">", "(", ")", ",", "+", "-", "*", "/", "~", ":"];

/// Words that are no column without quotes, in any case of letters.
const KEYWORDS: [&str; 5] = ["and", "or", "not", "in", "is"];

/// Whether a name can stand without quotes.
pub(crate) fn is_plain(name: &str) -> bool {
    let mut chars = name.chars();
    let is_keyword = KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(name));
    chars.next().is_some_and(begins_word) && chars.all(is_in_word) && !is_keyword
}

fn begins_word(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

fn is_in_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '.'
}

impl Token {
    pub(crate) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        matches!(self, Self::Sign(found) if *found == sign)
    }

    /// The token as an error shows it.
    pub(crate) fn shown(&self) -> String {
        let cut = |text: &str| {
            let mut shown: String = text.chars().take(40).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            shown
        };
        match self {
            Self::Number(text) | Self::Word(text) => format!("`{}`", cut(text)),
            Self::Text(text) => format!("the text '{}'", cut(text)),
            Self::Quoted(name) => format!("\"{}\"", cut(name)),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Takes a text apart; the last token is the end.
pub(crate) fn tokens(text: &str) -> Result<Vec<Placed>, ExpressionError> {
    if text.len() > MAX_EXPRESSION_BYTES {
        return Err(ExpressionError::TooLong { found: text.len() });
    }
    let (mut tokens, mut rest, mut at) = (Vec::new(), text, 1);
    loop {
        let trimmed = rest.trim_start();
        at += rest.chars().count() - trimmed.chars().count();
        let (token, after) = token(trimmed, at)?;
        let ended = token == Token::End;
        tokens.push(Placed { token, at });
        if ended {
            return Ok(tokens);
        }
        at += trimmed[..trimmed.len() - after.len()].chars().count();
        rest = after;
    }
}

/// Takes the first token off a text without leading white space.
fn token(text: &str, at: usize) -> Result<(Token, &str), ExpressionError> {
    let Some(first) = text.chars().next() else { return Ok((Token::End, text)) };
    if begins_word(first) {
        let len = text.find(|character| !is_in_word(character)).unwrap_or(text.len());
        return Ok((Token::Word(text[..len].to_owned()), &text[len..]));
    }
    if first == '\'' || first == '"' {
        let expected = if first == '"' { "a closing \"" } else { "a closing '" };
        let unclosed = || ExpressionError::Syntax { at, expected, found: "the end".to_owned() };
        let (content, rest) = quoted(&text[1..], first).ok_or_else(unclosed)?;
        return Ok((if first == '"' { Token::Quoted(content) } else { Token::Text(content) }, rest));
    }
    let after_point = text.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if first.is_ascii_digit() || (first == '.' && after_point) {
        let (number, rest) = text.split_at(number_len(text.as_bytes()));
        return Ok((Token::Number(number.to_owned()), rest));
    }
    if text.starts_with("==") {
        return Err(ExpressionError::Syntax { at, expected: "`=` for equality", found: "`==`".to_owned() });
    }
    if let Some(sign) = SIGNS.iter().find(|sign| text.starts_with(**sign)) {
        return Ok((Token::Sign(sign), &text[sign.len()..]));
    }
    let expected = "a number, a text in '…', a column, or a sign of the grammar";
    Err(ExpressionError::Syntax { at, expected, found: format!("{first:?}") })
}

/// The content up to the closing quote, in which a doubled quote stands for one, and what follows.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once(quote)?;
        content.push_str(before);
        match after.strip_prefix(quote) {
            Some(more) => {
                content.push(quote);
                rest = more;
            }
            None => return Some((content, after)),
        }
    }
}

fn number_len(bytes: &[u8]) -> usize {
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut len = digits(0);
    if bytes.get(len) == Some(&b'.') {
        len += 1 + digits(len + 1);
    }
    if matches!(bytes.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits((len + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    len
}

//! Formulas from tokens.

use super::{Factor, Formula, MAX_FACTORS, MAX_TERMS, Response, Term};
use crate::expression::lexer::{Token, is_plain};
use crate::expression::parser::{Parser, power};
use crate::expression::{Expression, ExpressionError, Literal, Node};
use crate::statistic::Level;

const TERM: &str = "a column, C(…), I(…), offset(…), a function, 0 or 1";

pub(super) fn formula(text: &str) -> Result<Formula, ExpressionError> {
    let mut parser = Parser::new(text)?;
    let response = response(&mut parser)?;
    parser.expect("~", "`~` behind the response")?;
    let mut formula = Formula { response, has_intercept: true, terms: Vec::new(), offsets: Vec::new() };
    let mut is_added = !parser.take("-");
    loop {
        add(&mut parser, &mut formula, is_added)?;
        is_added = parser.take("+");
        if !is_added && !parser.take("-") {
            break;
        }
    }
    parser.end("`+`, `-`, `:`, `*` or the end")?;
    // A stable sort: main effects first.
    formula.terms.sort_by_key(|term| term.factors.len());
    Ok(formula)
}

fn response(parser: &mut Parser) -> Result<Response, ExpressionError> {
    if !is_call(parser, "Surv") {
        let expected = "a column, I(…), a function or Surv(…)";
        return match factor(parser, expected)? {
            Factor::Column(column) => Ok(Response::Value(Expression::column(column))),
            Factor::Value(value) => Ok(Response::Value(value)),
            Factor::Category { .. } => Err(parser.unexpected("a response that is no C(…), before this")),
        };
    }
    parser.advance();
    parser.advance();
    let time = parser.expression(0)?;
    parser.expect(",", "`,` and the event")?;
    let event = parser.expression(0)?;
    parser.expect(")", "an operator or `)`")?;
    Ok(Response::Survival { time, event })
}

/// Reads what stands between two signs + or -.
fn add(parser: &mut Parser, formula: &mut Formula, is_added: bool) -> Result<(), ExpressionError> {
    if let Token::Number(digits) = parser.peek() {
        formula.has_intercept = match (digits.as_str(), is_added) {
            ("1", _) => is_added,
            ("0", _) => !is_added,
            _ => return Err(parser.unexpected(TERM)),
        };
        parser.advance();
        return Ok(());
    }
    if !is_added {
        return Err(parser.unexpected("0 or 1: only the intercept can be left out"));
    }
    if is_call(parser, "offset") {
        parser.advance();
        parser.advance();
        formula.offsets.push(parser.expression(0)?);
        return parser.expect(")", "an operator or `)`");
    }
    let mut crossed = vec![interaction(parser)?];
    while parser.take("*") {
        let next = interaction(parser)?;
        let products = crossed.iter().map(|term| product_of([&term.factors[..], &next.factors].concat()));
        let products = products.collect::<Result<Vec<_>, _>>()?;
        crossed.push(next);
        crossed.extend(products);
        bounded(crossed.len())?;
    }
    for term in crossed {
        if !formula.terms.iter().any(|known| known.is_same(&term)) {
            formula.terms.push(term);
        }
    }
    bounded(formula.terms.len())
}

fn bounded(terms: usize) -> Result<(), ExpressionError> {
    if terms > MAX_TERMS { Err(ExpressionError::TooMany { limit: MAX_TERMS, of: "terms" }) } else { Ok(()) }
}

/// `a` or `a:b`.
fn interaction(parser: &mut Parser) -> Result<Term, ExpressionError> {
    let mut factors = vec![factor(parser, TERM)?];
    while parser.take(":") {
        factors.push(factor(parser, TERM)?);
    }
    product_of(factors)
}

/// The term of these factors, each once.
fn product_of(factors: Vec<Factor>) -> Result<Term, ExpressionError> {
    let mut distinct = Vec::new();
    for factor in factors {
        if !distinct.contains(&factor) {
            distinct.push(factor);
        }
    }
    if distinct.len() > MAX_FACTORS {
        return Err(ExpressionError::TooMany { limit: MAX_FACTORS, of: "factors of a term" });
    }
    Ok(Term { factors: distinct })
}

fn is_call(parser: &Parser, name: &str) -> bool {
    matches!(parser.peek(), Token::Word(word) if word == name) && parser.peek_second().is_sign("(")
}

fn factor(parser: &mut Parser, expected: &'static str) -> Result<Factor, ExpressionError> {
    if is_call(parser, "C") {
        parser.advance();
        parser.advance();
        return category(parser);
    }
    if is_call(parser, "I") {
        parser.advance();
        parser.advance();
        let value = parser.expression(0)?;
        parser.expect(")", "an operator or `)`")?;
        return Ok(match value.as_column() {
            Some(column) => Factor::Column(column.to_owned()),
            None => Factor::Value(value),
        });
    }
    let is_factor = match parser.peek() {
        Token::Word(word) => is_plain(word),
        Token::Quoted(_) => true,
        _ => false,
    };
    if !is_factor {
        return Err(parser.unexpected(expected));
    }
    let value = parser.expression(power::PRIMARY)?;
    Ok(match value.node() {
        Node::Column(column) => Factor::Column(column.clone()),
        _ => Factor::Value(value),
    })
}

/// `column)` or `column, ref=level)`.
fn category(parser: &mut Parser) -> Result<Factor, ExpressionError> {
    let column = match parser.peek() {
        Token::Word(word) if is_plain(word) => word.clone(),
        Token::Quoted(name) => name.clone(),
        _ => return Err(parser.unexpected("a column")),
    };
    parser.advance();
    let reference = if parser.take(",") {
        if !matches!(parser.peek(), Token::Word(word) if word == "ref") {
            return Err(parser.unexpected("`ref=` and a level"));
        }
        parser.advance();
        parser.expect("=", "`=` and a level")?;
        Some(match parser.literal("a level: a number or a text in '…'")? {
            // Levels are float64, as the numbers that they are compared with.
            Literal::Integer(integer) => Level::Number(integer as f64),
            Literal::Real(real) => Level::Number(real),
            Literal::Text(text) => Level::Text(text),
        })
    } else {
        None
    };
    parser.expect(")", "`, ref=…` or `)`")?;
    Ok(Factor::Category { column, reference })
}

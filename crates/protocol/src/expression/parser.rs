//! Expressions from tokens, by the binding powers of operators (Pratt, Top Down Operator Precedence, POPL 1973).

use super::lexer::{Placed, Token, tokens};
use super::{Arithmetic, Comparison, Expression, ExpressionError, Function, Literal, MAX_DEPTH, Node};

/// How strongly operators bind, from the weakest.
pub(crate) mod power {
    pub(crate) const OR: u8 = 1;
    pub(crate) const AND: u8 = 2;
    pub(crate) const NOT: u8 = 3;
    pub(crate) const COMPARE: u8 = 4;
    pub(crate) const ADD: u8 = 5;
    pub(crate) const MULTIPLY: u8 = 6;
    pub(crate) const NEGATE: u8 = 7;
    pub(crate) const PRIMARY: u8 = 8;
}

const OPERAND: &str = "a number, a text in '…', a column, a function or `(`";
const CONTINUED: &str = "an operator or the end";

/// Reads a whole text as an expression.
pub(super) fn expression(text: &str) -> Result<Expression, ExpressionError> {
    let mut parser = Parser::new(text)?;
    let expression = parser.expression(0)?;
    parser.end(CONTINUED)?;
    Ok(expression)
}

enum Infix {
    Or,
    And,
    Compare(Comparison),
    In,
    NotIn,
    Is,
    Arithmetic(Arithmetic),
}

impl Infix {
    fn power(&self) -> u8 {
        match self {
            Self::Or => power::OR,
            Self::And => power::AND,
            Self::Compare(_) | Self::In | Self::NotIn | Self::Is => power::COMPARE,
            Self::Arithmetic(Arithmetic::Add | Arithmetic::Subtract) => power::ADD,
            Self::Arithmetic(Arithmetic::Multiply | Arithmetic::Divide) => power::MULTIPLY,
        }
    }

    fn tokens(&self) -> usize {
        if matches!(self, Self::NotIn) { 2 } else { 1 }
    }
}

/// A place in a list of tokens.
pub(crate) struct Parser {
    tokens: Vec<Placed>,
    next: usize,
    nested: usize,
}

impl Parser {
    pub(crate) fn new(text: &str) -> Result<Self, ExpressionError> {
        Ok(Self { tokens: tokens(text)?, next: 0, nested: 0 })
    }

    pub(crate) fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    /// The token after the next one.
    pub(crate) fn peek_second(&self) -> &Token {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)].token
    }

    pub(crate) fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    /// Steps over a sign if it is the next token.
    pub(crate) fn take(&mut self, sign: &str) -> bool {
        let taken = self.peek().is_sign(sign);
        if taken {
            self.advance();
        }
        taken
    }

    pub(crate) fn expect(&mut self, sign: &str, expected: &'static str) -> Result<(), ExpressionError> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    pub(crate) fn end(&self, expected: &'static str) -> Result<(), ExpressionError> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// The error that something else was expected at the next token.
    pub(crate) fn unexpected(&self, expected: &'static str) -> ExpressionError {
        ExpressionError::Syntax { at: self.tokens[self.next].at, expected, found: self.peek().shown() }
    }

    fn build(&self, node: Node) -> Result<Expression, ExpressionError> {
        Expression::new(node).ok_or(ExpressionError::TooDeep { at: self.tokens[self.next].at })
    }

    /// Reads an expression whose operators bind at least so strongly.
    pub(crate) fn expression(&mut self, weakest: u8) -> Result<Expression, ExpressionError> {
        // Parentheses nest calls without nesting the expression, hence a count of its own.
        self.nested += 1;
        if self.nested > MAX_DEPTH {
            return Err(ExpressionError::TooDeep { at: self.tokens[self.next].at });
        }
        let mut left = self.operand(weakest)?;
        let mut is_compared = false;
        while let Some(infix) = self.infix()
            && infix.power() >= weakest
            && !(is_compared && infix.power() == power::COMPARE)
        {
            is_compared |= infix.power() == power::COMPARE;
            for _ in 0..infix.tokens() {
                self.advance();
            }
            left = self.infixed(left, &infix)?;
        }
        self.nested -= 1;
        Ok(left)
    }

    fn infix(&self) -> Option<Infix> {
        let token = self.peek();
        Some(match token {
            Token::Sign(sign) => match *sign {
                "+" => Infix::Arithmetic(Arithmetic::Add),
                "-" => Infix::Arithmetic(Arithmetic::Subtract),
                "*" => Infix::Arithmetic(Arithmetic::Multiply),
                "/" => Infix::Arithmetic(Arithmetic::Divide),
                "=" => Infix::Compare(Comparison::Equal),
                "!=" => Infix::Compare(Comparison::NotEqual),
                "<" => Infix::Compare(Comparison::Less),
                "<=" => Infix::Compare(Comparison::LessOrEqual),
                ">" => Infix::Compare(Comparison::Greater),
                ">=" => Infix::Compare(Comparison::GreaterOrEqual),
                _ => return None,
            },
            _ if token.is_keyword("or") => Infix::Or,
            _ if token.is_keyword("and") => Infix::And,
            _ if token.is_keyword("in") => Infix::In,
            _ if token.is_keyword("not") && self.peek_second().is_keyword("in") => Infix::NotIn,
            _ if token.is_keyword("is") => Infix::Is,
            _ => return None,
        })
    }

    /// Reads what stands behind an operator.
    fn infixed(&mut self, left: Expression, infix: &Infix) -> Result<Expression, ExpressionError> {
        let node = match infix {
            Infix::Or => Node::Or(left, self.expression(power::AND)?),
            Infix::And => Node::And(left, self.expression(power::NOT)?),
            Infix::Compare(comparison) => Node::Compare(*comparison, left, self.expression(power::ADD)?),
            Infix::Arithmetic(arithmetic) => Node::Arithmetic(*arithmetic, left, self.expression(infix.power() + 1)?),
            Infix::In => Node::In(left, self.list()?),
            Infix::NotIn => {
                let is_in = Node::In(left, self.list()?);
                Node::Not(self.build(is_in)?)
            }
            Infix::Is => {
                let is_negated = self.peek().is_keyword("not");
                if is_negated {
                    self.advance();
                }
                if !self.peek().is_keyword("missing") {
                    return Err(self.unexpected("`missing` or `not missing`"));
                }
                self.advance();
                let is_missing = Node::IsMissing(left);
                if is_negated { Node::Not(self.build(is_missing)?) } else { is_missing }
            }
        };
        self.build(node)
    }

    /// `(1, 2)` or `('a', 'b')`.
    fn list(&mut self) -> Result<Vec<Literal>, ExpressionError> {
        self.expect("(", "`(` and a list")?;
        let mut list = Vec::new();
        loop {
            let is_text = matches!(self.peek(), Token::Text(_));
            match list.first() {
                Some(Literal::Text(_)) if !is_text => return Err(self.unexpected("a text, like the first of the list")),
                Some(Literal::Integer(_) | Literal::Real(_)) if is_text => {
                    return Err(self.unexpected("a number, like the first of the list"));
                }
                _ => list.push(self.literal("a number or a text")?),
            }
            if self.take(")") {
                return Ok(list);
            }
            self.expect(",", "`,` or `)`")?;
        }
    }

    /// A number, which may be negative, or a text.
    pub(crate) fn literal(&mut self, expected: &'static str) -> Result<Literal, ExpressionError> {
        if let Token::Text(text) = self.peek() {
            let text = text.clone();
            self.advance();
            return Ok(Literal::Text(text));
        }
        let is_negative = self.peek().is_sign("-") && matches!(self.peek_second(), Token::Number(_));
        if is_negative {
            self.advance();
        }
        self.number(is_negative, expected)
    }

    fn number(&mut self, is_negative: bool, expected: &'static str) -> Result<Literal, ExpressionError> {
        let Token::Number(digits) = self.peek() else { return Err(self.unexpected(expected)) };
        let text = if is_negative { format!("-{digits}") } else { digits.clone() };
        let real = || text.parse().ok().filter(|real: &f64| real.is_finite()).map(Literal::Real);
        let number = text.parse().map(Literal::Integer).ok().or_else(real);
        let number = number.ok_or_else(|| self.unexpected("a number within float64"))?;
        self.advance();
        Ok(number)
    }

    fn operand(&mut self, weakest: u8) -> Result<Expression, ExpressionError> {
        match self.peek().clone() {
            Token::Text(_) | Token::Number(_) => {
                let literal = self.literal(OPERAND)?;
                self.build(Node::Literal(literal))
            }
            Token::Sign("-") => {
                self.advance();
                if let Token::Number(_) = self.peek() {
                    let literal = self.number(true, OPERAND)?;
                    return self.build(Node::Literal(literal));
                }
                let operand = self.expression(power::NEGATE)?;
                self.build(Node::Negate(operand))
            }
            Token::Sign("(") => {
                self.advance();
                let inner = self.expression(0)?;
                self.expect(")", "an operator or `)`")?;
                Ok(inner)
            }
            Token::Quoted(name) => {
                self.advance();
                self.build(Node::Column(name))
            }
            token if token.is_keyword("not") && weakest <= power::NOT => {
                self.advance();
                let operand = self.expression(power::NOT)?;
                self.build(Node::Not(operand))
            }
            Token::Word(word) if self.peek_second().is_sign("(") && super::lexer::is_plain(&word) => self.call(&word),
            Token::Word(word) if super::lexer::is_plain(&word) => {
                self.advance();
                self.build(Node::Column(word))
            }
            _ => Err(self.unexpected(OPERAND)),
        }
    }

    /// A function and its arguments; the next token is its name.
    fn call(&mut self, name: &str) -> Result<Expression, ExpressionError> {
        let function = Function::ALL.into_iter().find(|function| function.name() == name);
        if function.is_none() && name != "pow" {
            return Err(self.unexpected("one of the functions log, exp, sqrt, abs, floor and pow"));
        }
        self.advance();
        self.advance();
        let argument = self.expression(0)?;
        let node = if let Some(function) = function {
            Node::Call(function, argument)
        } else {
            self.expect(",", "`,` and the exponent")?;
            Node::Power(argument, self.exponent()?)
        };
        self.expect(")", "an operator or `)`")?;
        self.build(node)
    }

    fn exponent(&mut self) -> Result<f64, ExpressionError> {
        let expected = "the exponent, a number";
        if let Token::Text(_) = self.peek() {
            return Err(self.unexpected(expected));
        }
        match self.literal(expected)? {
            // An exponent beyond 2^53 is rounded; it gives 0, 1 or no finite number.
            Literal::Integer(exponent) => Ok(exponent as f64),
            Literal::Real(exponent) => Ok(exponent),
            Literal::Text(_) => Err(self.unexpected(expected)),
        }
    }
}

//! One session: log in, one transaction that only reads, one statement at a time.
//!
//! Messages: PostgreSQL 15 documentation, chapter 55, "Frontend/Backend Protocol".

use std::io::{self, Read, Write};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorResponseBody, Header, Message};
use postgres_protocol::message::frontend;

use super::{PostgresError, Stream};
use crate::sql::{Parameter, Statement};

/// The most bytes of a message: one row.
const MAX_MESSAGE: usize = 4 << 20;
/// Bytes that are read at a time.
const BLOCK: usize = 1 << 16;
/// The portal of the one statement: the next one takes its place.
const PORTAL: &str = "";

/// Asks the server, on a fresh connection, to speak TLS; the caller then wraps the stream. The answer is one byte, so that nothing
/// that is said before the handshake is taken for what comes after.
pub fn request_tls(stream: &mut (impl Read + Write)) -> io::Result<bool> {
    let mut message = BytesMut::new();
    frontend::ssl_request(&mut message);
    stream.write_all(&message)?;
    stream.flush()?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer == *b"S")
}

/// Takes the cells of a row.
pub(super) type Each<'a> = &'a mut dyn FnMut(&mut dyn Iterator<Item = Option<&[u8]>>) -> Result<(), PostgresError>;

pub(super) struct Session {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: BytesMut,
    /// What is read at a time.
    block: Vec<u8>,
}

/// What a fetch gave.
pub(super) struct Fetched {
    pub(super) rows: usize,
    pub(super) is_last: bool,
}

fn server_error(body: &ErrorResponseBody) -> PostgresError {
    let (mut code, mut message) = (String::new(), String::new());
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let text = || String::from_utf8_lossy(field.value_bytes()).chars().take(500).collect();
        match field.type_() {
            b'C' => code = text(),
            b'M' => message = text(),
            _ => {}
        }
    }
    PostgresError::Server { code, message }
}

impl Session {
    /// Logs in. The password is sent as it is only where `is_private` says that nobody can listen.
    pub(super) fn start(
        stream: Box<dyn Stream>,
        user: &str,
        database: &str,
        password: Option<&[u8]>,
        is_private: bool,
    ) -> Result<Self, PostgresError> {
        let mut session = Self { stream, input: BytesMut::new(), output: BytesMut::new(), block: vec![0; BLOCK] };
        let parameters =
            [("user", user), ("database", database), ("client_encoding", "UTF8"), ("application_name", "fedbiomed")];
        frontend::startup_message(parameters, &mut session.output).map_err(PostgresError::Io)?;
        session.send()?;
        let secret = || password.ok_or(PostgresError::PasswordMissing);
        let exposed = || if is_private { Ok(()) } else { Err(PostgresError::PasswordExposed) };
        loop {
            match session.message()? {
                Message::AuthenticationOk => break,
                Message::AuthenticationCleartextPassword => {
                    exposed()?;
                    frontend::password_message(secret()?, &mut session.output).map_err(PostgresError::Io)?;
                    session.send()?;
                }
                Message::AuthenticationMd5Password(body) => {
                    exposed()?;
                    let hash = md5_hash(user.as_bytes(), secret()?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut session.output).map_err(PostgresError::Io)?;
                    session.send()?;
                }
                Message::AuthenticationSasl(body) => {
                    let has_scram = body.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256));
                    if !has_scram.map_err(PostgresError::Io)? {
                        return Err(PostgresError::LoginMethod);
                    }
                    session.scram(secret()?)?;
                }
                _ => return Err(PostgresError::LoginMethod),
            }
        }
        session.until_ready()?;
        Ok(session)
    }

    /// RFC 5802 and 7677. The nonce is the library's, from the system's generator.
    fn scram(&mut self, password: &[u8]) -> Result<(), PostgresError> {
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut self.output).map_err(PostgresError::Io)?;
        self.send()?;
        let Message::AuthenticationSaslContinue(body) = self.message()? else { return Err(PostgresError::LoginMethod) };
        scram.update(body.data()).map_err(PostgresError::Io)?;
        frontend::sasl_response(scram.message(), &mut self.output).map_err(PostgresError::Io)?;
        self.send()?;
        let Message::AuthenticationSaslFinal(body) = self.message()? else { return Err(PostgresError::LoginMethod) };
        // The server proves that it knows the password too.
        scram.finish(body.data()).map_err(PostgresError::Io)
    }

    /// Begins a transaction that can only read and sees one state of the data, in which each statement has so many seconds.
    pub(super) fn begin(&mut self, statement_timeout_s: u32) -> Result<(), PostgresError> {
        self.command("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ")?;
        self.command("SET TRANSACTION READ ONLY")?;
        self.command(&format!("SET LOCAL statement_timeout = '{statement_timeout_s}s'"))?;
        // Dates as texts in one form, and reals with all their digits.
        self.command("SET LOCAL datestyle = 'ISO'")
    }

    /// Runs a statement of our own without values and rows.
    fn command(&mut self, text: &str) -> Result<(), PostgresError> {
        let statement = Statement { text: text.to_owned(), parameters: Vec::new() };
        self.run(&statement)?;
        self.fetch(1, &mut |_| Err(PostgresError::Protocol("a row of a command"))).map(drop)
    }

    fn parse(&mut self, statement: &Statement) -> Result<(), PostgresError> {
        frontend::parse("", &statement.text, std::iter::empty(), &mut self.output).map_err(PostgresError::Io)
    }

    /// The names and types of a statement's columns.
    pub(super) fn describe(&mut self, statement: &Statement) -> Result<Vec<(String, u32)>, PostgresError> {
        self.parse(statement)?;
        frontend::describe(b'S', "", &mut self.output).map_err(PostgresError::Io)?;
        frontend::sync(&mut self.output);
        self.send()?;
        let mut columns = Vec::new();
        loop {
            match self.message()? {
                Message::ParseComplete | Message::ParameterDescription(_) | Message::NoData => {}
                Message::RowDescription(body) => {
                    let fields = body.fields().map(|field| Ok((field.name().to_owned(), field.type_oid())));
                    columns = fields.collect().map_err(PostgresError::Io)?;
                }
                Message::ReadyForQuery(_) => return Ok(columns),
                _ => return Err(PostgresError::Protocol("an unexpected message to a description")),
            }
        }
    }

    /// Starts a statement, whose rows [`fetch`](Self::fetch) then gets.
    pub(super) fn run(&mut self, statement: &Statement) -> Result<(), PostgresError> {
        self.parse(statement)?;
        let write = |value: &Parameter, buffer: &mut BytesMut| {
            match value {
                Parameter::Integer(integer) => buffer.extend_from_slice(integer.to_string().as_bytes()),
                Parameter::Real(real) => buffer.extend_from_slice(format!("{real:?}").as_bytes()),
                Parameter::Text(text) => buffer.extend_from_slice(text.as_bytes()),
            }
            Ok(IsNull::No)
        };
        // Values as texts, results in binary.
        frontend::bind(PORTAL, "", [0], &statement.parameters, write, [1], &mut self.output)
            .map_err(|_| PostgresError::Protocol("more values than a statement can have"))?;
        // No synchronisation yet: outside of a transaction it would end the statement.
        frontend::flush(&mut self.output);
        self.send()?;
        loop {
            match self.message()? {
                Message::ParseComplete => {}
                Message::BindComplete => return Ok(()),
                _ => return Err(PostgresError::Protocol("an unexpected message to a statement")),
            }
        }
    }

    /// Gets at most so many of the statement's next rows.
    pub(super) fn fetch(&mut self, rows: usize, each: Each<'_>) -> Result<Fetched, PostgresError> {
        let limit = i32::try_from(rows).unwrap_or(i32::MAX);
        frontend::execute(PORTAL, limit, &mut self.output).map_err(PostgresError::Io)?;
        frontend::sync(&mut self.output);
        self.send()?;
        let mut fetched = Fetched { rows: 0, is_last: true };
        loop {
            match self.message()? {
                Message::DataRow(body) => {
                    fetched.rows += 1;
                    let ranges: Vec<_> = body.ranges().collect().map_err(PostgresError::Io)?;
                    each(&mut ranges.into_iter().map(|range| range.map(|range| &body.buffer()[range])))?;
                }
                Message::PortalSuspended => fetched.is_last = false,
                Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
                Message::ReadyForQuery(_) => return Ok(fetched),
                _ => return Err(PostgresError::Protocol("an unexpected message among rows")),
            }
        }
    }

    fn until_ready(&mut self) -> Result<(), PostgresError> {
        loop {
            match self.message()? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::BackendKeyData(_) => {}
                _ => return Err(PostgresError::Protocol("an unexpected message after the login")),
            }
        }
    }

    fn send(&mut self) -> Result<(), PostgresError> {
        let written = self.stream.write_all(&self.output).and_then(|()| self.stream.flush());
        self.output.clear();
        written.map_err(PostgresError::Io)
    }

    /// The next message that says something; an error of the server is one here.
    fn message(&mut self) -> Result<Message, PostgresError> {
        loop {
            if let Some(header) = Header::parse(&self.input).map_err(PostgresError::Io)?
                && usize::try_from(header.len()).map_or(true, |len| len > MAX_MESSAGE)
            {
                return Err(PostgresError::RowTooLong(MAX_MESSAGE));
            }
            match Message::parse(&mut self.input).map_err(PostgresError::Io)? {
                Some(Message::ErrorResponse(body)) => return Err(server_error(&body)),
                Some(Message::NoticeResponse(_) | Message::ParameterStatus(_) | Message::NotificationResponse(_)) => {}
                Some(message) => return Ok(message),
                None => self.fill()?,
            }
        }
    }

    fn fill(&mut self) -> Result<(), PostgresError> {
        match self.stream.read(&mut self.block) {
            Ok(0) => Err(PostgresError::Closed),
            Ok(read) => {
                self.input.extend_from_slice(&self.block[..read]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(PostgresError::Io(error)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.output.clear();
        frontend::terminate(&mut self.output);
        // The server rolls back without it, too.
        let _ = self.send();
    }
}

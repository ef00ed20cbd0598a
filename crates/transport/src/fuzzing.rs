//! What the fuzz targets need of the inside: a decoder each, with what must hold for any bytes. A broken promise is a panic.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use prost::Message;

use crate::address::Address;
use crate::blob::Pieces;
use crate::convert::bulk::{self, UploadStep, Wrapping};
use crate::convert::control::{self, FromNode, FromResearcher};
use crate::convert::{enrolment, refusal, refusal_to_wire};
use crate::grpc::proxy::{self, ProxyConfig};
use crate::negotiation::frame;
use crate::token::{self, EnrolmentToken};
use crate::wire;

/// Reads a message with `rewrite`, which writes what it understood. What was understood once is understood again, as the same.
fn check_rewriting(bytes: &[u8], rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Some(written) = rewrite(bytes) else { return };
    assert_eq!(rewrite(&written).as_ref(), Some(&written), "a message that was written reads back as it was");
}

fn rewrite_from_node(bytes: &[u8]) -> Option<Vec<u8>> {
    let envelope = match control::from_node(wire::NodeEnvelope::decode(bytes).ok()?).ok()? {
        FromNode::Hello(hello) => control::hello_to_wire(&hello),
        FromNode::Message(message) => control::node_message_to_wire(&message),
    };
    Some(envelope.encode_to_vec())
}

fn rewrite_from_researcher(bytes: &[u8]) -> Option<Vec<u8>> {
    let envelope = match control::from_researcher(wire::ResearcherEnvelope::decode(bytes).ok()?).ok()? {
        FromResearcher::Welcome(welcome) => control::welcome_to_wire(&welcome),
        FromResearcher::Message(message) => control::researcher_message_to_wire(&message),
    };
    Some(envelope.encode_to_vec())
}

/// Reads the messages of a node's control stream.
pub fn check_node_message(bytes: &[u8]) {
    check_rewriting(bytes, rewrite_from_node);
}

/// Reads the messages of a researcher's control stream.
pub fn check_researcher_message(bytes: &[u8]) {
    check_rewriting(bytes, rewrite_from_researcher);
}

/// The bytes in two pieces, as they may come.
fn in_pieces(bytes: &[u8]) -> Pieces {
    let (front, back) = bytes.split_at(bytes.len() / 2);
    let mut pieces = Pieces::from(Bytes::copy_from_slice(front));
    pieces.append(Bytes::copy_from_slice(back).into());
    pieces
}

/// Reads the messages of downloads and uploads; the first byte says which.
pub fn check_bulk_message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    check_rewriting(bytes, |bytes| match kind % 4 {
        0 => {
            let (blob, offset) = bulk::download_request(wire::DownloadRequest::decode(bytes).ok()?).ok()?;
            assert!(offset <= blob.bytes);
            Some(bulk::download_request_to_wire(&blob, offset).encode_to_vec())
        }
        1 => {
            let cut = bulk::chunk_message(in_pieces(bytes));
            let Ok(chunk) = bulk::chunk_message(Bytes::copy_from_slice(bytes).into()) else {
                assert!(cut.is_err(), "it does not matter in which pieces a chunk comes");
                return None;
            };
            let plain = wire::Chunk::decode(bytes).unwrap_or_else(|error| panic!("it is no chunk to others: {error}"));
            assert_eq!((chunk.offset, chunk.digest.as_bytes().as_slice()), (plain.offset, plain.digest.as_ref()));
            assert_eq!(chunk.bytes.clone().into_bytes(), plain.bytes);
            let written = bulk::chunk_to_message(chunk, Wrapping::None).into_bytes();
            let cut = bulk::chunk_to_message(cut.expect("in pieces it is read too"), Wrapping::None).into_bytes();
            assert_eq!(cut, written);
            Some(written.to_vec())
        }
        2 => {
            let message = match bulk::upload_message(Bytes::copy_from_slice(bytes).into()).ok()? {
                UploadStep::Header(header) => bulk::upload_header_to_message(&header),
                UploadStep::Chunk(chunk) => bulk::chunk_to_message(chunk, Wrapping::Upload),
            };
            Some(message.into_bytes().to_vec())
        }
        _ => {
            let answer = bulk::upload_answer(&wire::UploadDown::decode(bytes).ok()?).ok()?;
            Some(bulk::upload_answer_to_wire(answer).encode_to_vec())
        }
    });
}

/// Reads the messages of enrolment and renewal, and refusals; the first byte says which.
pub fn check_enrolment_message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    check_rewriting(bytes, |bytes| match kind % 5 {
        0 => {
            let request = enrolment::enrol_request(wire::EnrolRequest::decode(bytes).ok()?).ok()?;
            Some(enrolment::enrol_request_to_wire(request).encode_to_vec())
        }
        1 => {
            let enrolled = enrolment::enrolled(&wire::EnrolReply::decode(bytes).ok()?).ok()?;
            Some(enrolment::enrolled_to_wire(enrolled).encode_to_vec())
        }
        2 => {
            let csr = enrolment::renew_request(&wire::RenewRequest::decode(bytes).ok()?).ok()?;
            Some(wire::RenewRequest { csr: csr.into() }.encode_to_vec())
        }
        3 => {
            let certificate = enrolment::renewed(&wire::RenewReply::decode(bytes).ok()?).ok()?;
            Some(wire::RenewReply { certificate: certificate.into() }.encode_to_vec())
        }
        _ => {
            let refusal = refusal(&wire::Refusal::decode(bytes).ok()?);
            assert!(!refusal.sentence.chars().any(char::is_control));
            Some(refusal_to_wire(&refusal).encode_to_vec())
        }
    });
}

/// Reads what comes on a connection of a direct negotiation, framed as there; the first byte says from which side.
pub fn check_negotiation_message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    check_rewriting(bytes, |bytes| {
        let mut written = Vec::new();
        if kind % 2 == 0 {
            let message = at_once(frame::read_message(&mut &*bytes)).ok()?;
            at_once(frame::write_message(&mut written, &message)).expect("what was read fits");
        } else {
            let reply = at_once(frame::read_reply(&mut &*bytes)).ok()?;
            at_once(frame::write_reply(&mut written, &reply)).expect("what was read fits");
        }
        Some(written)
    });
}

/// The outcome of reading bytes that are there.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("bytes that are there are read at once"),
    }
}

/// Reads a token: the bytes as they are, and as the content of one whose checksum fits.
pub fn check_token(bytes: &[u8]) {
    let sealed = [bytes, &token::checksum(bytes)].concat();
    let sealed = format!("{}{}", token::PREFIX, URL_SAFE_NO_PAD.encode(sealed));
    for text in [str::from_utf8(bytes).unwrap_or_default(), &sealed] {
        let Ok(token) = EnrolmentToken::parse(text) else { continue };
        let written = token.to_text();
        let read = EnrolmentToken::parse(written.expose()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((read.address(), read.authority()), (token.address(), token.authority()));
        assert!(read.secret().0 == token.secret().0, "the secret reads back");
    }
}

/// Reads a proxy's answer: one line for people, and no byte of what follows it.
pub fn check_proxy_answer(bytes: &[u8]) {
    let address = Address::parse("researcher.example.org").expect("this is an address");
    let proxy = ProxyConfig::new(Some("http://user:password@proxy.example.org:3128"), None).expect("this is a proxy");
    let proxy = proxy.for_address(&address).expect("it serves all addresses");
    let mut stream = tokio::io::join(bytes, tokio::io::sink());
    let answer = {
        let asked = pin!(proxy::ask(&mut stream, &proxy, &address));
        match asked.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("bytes that are there are read at once"),
        }
    };
    let left = stream.reader();
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    match answer {
        Ok(line) => {
            assert_eq!(Some(bytes.len() - left.len()), head, "exactly the head is read");
            assert!(line.chars().count() <= 200 && !line.chars().any(char::is_control));
        }
        Err(_) => assert!(head.is_none_or(|head| head > proxy::MAX_ANSWER), "a head that fits is taken"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Reads what the fuzzer starts from, and what it found once.
    fn replay(target: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{} holds nothing", folder.display());
        for input in inputs {
            check(&std::fs::read(&input).unwrap());
        }
    }

    #[test]
    fn the_fuzzers_inputs_are_read_without_panic() {
        replay("node_messages", check_node_message);
        replay("researcher_messages", check_researcher_message);
        replay("bulk_messages", check_bulk_message);
        replay("enrolment_messages", check_enrolment_message);
        replay("negotiation_messages", check_negotiation_message);
        replay("token", check_token);
        replay("proxy_answer", check_proxy_answer);
    }
}

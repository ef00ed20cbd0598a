//! Enrolment and renewal.

use bytes::Bytes;

use super::{ConvertError, MAX_NAME_CHARS, at_most, id, line, malformed};
use crate::host::{EnrolRequest, Enrolled, TokenSecret};
use crate::wire;

const MAX_DER_BYTES: usize = 8 << 10;
const MAX_SECRET_BYTES: usize = 128;
const TASK_KEY_BYTES: usize = 65;

fn der(field: &'static str, bytes: &Bytes) -> Result<Vec<u8>, ConvertError> {
    at_most(field, MAX_DER_BYTES, bytes.len())?;
    if bytes.is_empty() { Err(malformed(field, "DER")) } else { Ok(bytes.to_vec()) }
}

pub(crate) fn enrol_request(request: wire::EnrolRequest) -> Result<EnrolRequest, ConvertError> {
    // First, so that it is wiped whatever else is wrong.
    let secret = TokenSecret(request.secret);
    at_most("secret", MAX_SECRET_BYTES, secret.0.len())?;
    Ok(EnrolRequest {
        secret,
        node: id("node", &request.node)?,
        name: line("name", request.name, MAX_NAME_CHARS)?,
        csr: der("csr", &request.csr)?,
    })
}

pub(crate) fn enrol_request_to_wire(request: EnrolRequest) -> wire::EnrolRequest {
    wire::EnrolRequest {
        secret: request.secret.0.clone(),
        node: request.node.into(),
        name: request.name,
        csr: request.csr.into(),
    }
}

pub(crate) fn enrolled(reply: &wire::EnrolReply) -> Result<Enrolled, ConvertError> {
    if reply.task_key.len() != TASK_KEY_BYTES || reply.task_key[0] != 4 {
        return Err(malformed("task_key", "an uncompressed P-256 point"));
    }
    Ok(Enrolled {
        certificate: der("certificate", &reply.certificate)?,
        researcher: id("researcher", &reply.researcher)?,
        task_key: reply.task_key.to_vec(),
    })
}

pub(crate) fn enrolled_to_wire(enrolled: Enrolled) -> wire::EnrolReply {
    wire::EnrolReply {
        certificate: enrolled.certificate.into(),
        researcher: enrolled.researcher.into(),
        task_key: enrolled.task_key.into(),
    }
}

pub(crate) fn renew_request(request: &wire::RenewRequest) -> Result<Vec<u8>, ConvertError> {
    der("csr", &request.csr)
}

pub(crate) fn renewed(reply: &wire::RenewReply) -> Result<Vec<u8>, ConvertError> {
    der("certificate", &reply.certificate)
}

//! Blobs, chunks and uploads.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use protocol::{BlobRef, Report, UploadHeader};

use super::{
    ConvertError, MAX_BLOB_BYTES, at_most, digest, digest_to_wire, document, document_to_wire, id, malformed, printable,
    required,
};
use crate::blob::{CHUNK_BYTES, Chunk, Pieces};
use crate::wire;
use crate::wire::{upload_down, upload_up};

const MAX_REPORT_BYTES: usize = 1 << 20;
/// The same number, and length, as a node's own gate lets out.
const MAX_REMARKS: usize = 64;
const MAX_REMARK_CHARS: usize = 512;

/// What a node sends in the course of an upload.
#[derive(Debug)]
pub(crate) enum UploadStep {
    Header(UploadHeader),
    Chunk(Chunk),
}

/// What a researcher answers in the course of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadAnswer {
    Resume(u64),
    Credit(u64),
    Stored,
}

pub(super) fn blob_ref(field: &'static str, blob: Option<wire::BlobRef>) -> Result<BlobRef, ConvertError> {
    let blob = required(field, blob)?;
    checked_blob(field, BlobRef { digest: digest(field, &blob.digest)?, bytes: blob.bytes })
}

pub(super) fn checked_blob(field: &'static str, blob: BlobRef) -> Result<BlobRef, ConvertError> {
    if blob.bytes > MAX_BLOB_BYTES { Err(malformed(field, "at most 2^40 bytes")) } else { Ok(blob) }
}

fn blob_ref_to_wire(blob: &BlobRef) -> wire::BlobRef {
    wire::BlobRef { digest: digest_to_wire(&blob.digest), bytes: blob.bytes }
}

/// A blob and the byte from which it is wanted.
pub(crate) fn download_request(request: wire::DownloadRequest) -> Result<(BlobRef, u64), ConvertError> {
    let blob = blob_ref("blob", request.blob)?;
    if request.offset > blob.bytes {
        return Err(malformed("offset", "a place within the blob"));
    }
    Ok((blob, request.offset))
}

pub(crate) fn download_request_to_wire(blob: &BlobRef, offset: u64) -> wire::DownloadRequest {
    wire::DownloadRequest { blob: Some(blob_ref_to_wire(blob)), offset }
}

/// Reads a chunk. Whether its digest fits is found out where it is put in its place.
fn chunk(mut chunk: wire::Chunk) -> Result<Chunk, ConvertError> {
    let bytes = std::mem::take(&mut chunk.bytes);
    placed(&chunk, bytes.into())
}

fn placed(head: &wire::Chunk, bytes: Pieces) -> Result<Chunk, ConvertError> {
    at_most("chunk", CHUNK_BYTES, bytes.len())?;
    if bytes.is_empty() || head.offset > MAX_BLOB_BYTES {
        return Err(malformed("chunk", "bytes at a place within the blob"));
    }
    Ok(Chunk { offset: head.offset, digest: digest("digest", &head.digest)?, bytes })
}

/// Where a chunk stands in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// It is the message.
    None,
    /// It is the field of an upload's message.
    Upload,
}

/// The numbers of the fields that a chunk ends with: its bytes, and itself in an upload's message.
const BYTES_FIELD: u32 = 3;
const CHUNK_FIELD: u32 = 2;

/// A chunk as a message: what stands before its bytes, then the bytes as they are. Nothing is copied.
pub(crate) fn chunk_to_message(chunk: Chunk, wrapping: Wrapping) -> Pieces {
    let fields = wire::Chunk { offset: chunk.offset, digest: digest_to_wire(&chunk.digest), bytes: Bytes::new() };
    let len = chunk.bytes.len();
    let mut inner = BytesMut::with_capacity(64);
    fields.encode(&mut inner).expect("the buffer grows");
    encode_key(BYTES_FIELD, WireType::LengthDelimited, &mut inner);
    encode_varint(len as u64, &mut inner);
    let mut head = BytesMut::with_capacity(80);
    if wrapping == Wrapping::Upload {
        encode_key(CHUNK_FIELD, WireType::LengthDelimited, &mut head);
        encode_varint((inner.len() + len) as u64, &mut head);
    }
    head.extend_from_slice(&inner);
    let mut message = Pieces::from(head.freeze());
    message.append(chunk.bytes);
    message
}

/// Finds the bytes of a chunk in its message without copying them, if the head is as [`chunk_to_message`] writes it.
fn split_chunk(message: &mut Pieces, wrapping: Wrapping) -> Option<wire::Chunk> {
    let mut head = message.first();
    let before = head.len();
    let rest = |head: &Bytes| (message.len() - (before - head.len())) as u64;
    if wrapping == Wrapping::Upload {
        let is_chunk = decode_key(&mut head).ok()? == (CHUNK_FIELD, WireType::LengthDelimited);
        if !is_chunk || decode_varint(&mut head).ok()? != rest(&head) {
            return None;
        }
    }
    let mut chunk = wire::Chunk::default();
    loop {
        let (field, kind) = decode_key(&mut head).ok()?;
        if field == BYTES_FIELD {
            if kind != WireType::LengthDelimited || decode_varint(&mut head).ok()? != rest(&head) {
                return None;
            }
            drop(message.split_to(before - head.len()));
            return Some(chunk);
        }
        match (field, kind) {
            (1, WireType::Varint) => chunk.offset = decode_varint(&mut head).ok()?,
            (2, WireType::LengthDelimited) => {
                let len = usize::try_from(decode_varint(&mut head).ok()?).ok().filter(|len| *len <= head.len())?;
                chunk.digest = head.split_to(len);
            }
            _ => return None,
        }
    }
}

fn undecodable(_: prost::DecodeError) -> ConvertError {
    malformed("message", "a message of its kind")
}

/// Reads the message that is a chunk. Its bytes stay where they are.
pub(crate) fn chunk_message(mut message: Pieces) -> Result<Chunk, ConvertError> {
    match split_chunk(&mut message, Wrapping::None) {
        Some(head) => placed(&head, message),
        None => chunk(wire::Chunk::decode(message.into_bytes()).map_err(undecodable)?),
    }
}

/// Reads a message of an upload. A chunk's bytes stay where they are.
pub(crate) fn upload_message(mut message: Pieces) -> Result<UploadStep, ConvertError> {
    match split_chunk(&mut message, Wrapping::Upload) {
        Some(head) => placed(&head, message).map(UploadStep::Chunk),
        None => upload_step(wire::UploadUp::decode(message.into_bytes()).map_err(undecodable)?),
    }
}

fn report(json: &[u8]) -> Result<Report, ConvertError> {
    let mut report: Report = document("report_json", json, MAX_REPORT_BYTES)?;
    let mut seen = BTreeSet::new();
    if !report.measured.iter().all(|measured| seen.insert((measured.on, measured.metric))) {
        return Err(malformed("measured", "each metric once for each model"));
    }
    at_most("remarks", MAX_REMARKS, report.remarks.len())?;
    for remark in &mut report.remarks {
        *remark = printable(remark, MAX_REMARK_CHARS);
    }
    Ok(report)
}

/// JSON has no number for what is not finite: the mean loss becomes absent, the measured value is left out.
fn report_to_wire(report: &Report) -> Bytes {
    let mut report = report.clone();
    report.loss = report.loss.filter(|loss| loss.is_finite());
    report.measured.retain(|measured| measured.value.is_finite());
    document_to_wire(&report)
}

fn upload_header(header: wire::UploadHeader) -> Result<UploadHeader, ConvertError> {
    let blob = blob_ref("blob", header.blob)?;
    let report = if header.report_json.is_empty() { None } else { Some(report(&header.report_json)?) };
    Ok(UploadHeader { task: id("task", &header.task)?, digest: blob.digest, bytes: blob.bytes, report })
}

/// An upload's first message.
pub(crate) fn upload_header_to_message(header: &UploadHeader) -> Pieces {
    let header = wire::UploadHeader {
        task: header.task.to_string(),
        blob: Some(blob_ref_to_wire(&BlobRef { digest: header.digest, bytes: header.bytes })),
        report_json: header.report.as_ref().map(report_to_wire).unwrap_or_default(),
    };
    Bytes::from(wire::UploadUp { message: Some(upload_up::Message::Header(header)) }.encode_to_vec()).into()
}

fn upload_step(up: wire::UploadUp) -> Result<UploadStep, ConvertError> {
    match up.message.ok_or(ConvertError::Unknown)? {
        upload_up::Message::Header(header) => Ok(UploadStep::Header(upload_header(header)?)),
        upload_up::Message::Chunk(message) => Ok(UploadStep::Chunk(chunk(message)?)),
    }
}

pub(crate) fn upload_answer(down: &wire::UploadDown) -> Result<UploadAnswer, ConvertError> {
    match down.message.as_ref().ok_or(ConvertError::Unknown)? {
        upload_down::Message::Resume(offset) => Ok(UploadAnswer::Resume(*offset)),
        upload_down::Message::Credit(bytes) => Ok(UploadAnswer::Credit(*bytes)),
        upload_down::Message::Stored(wire::Stored {}) => Ok(UploadAnswer::Stored),
    }
}

pub(crate) fn upload_answer_to_wire(answer: UploadAnswer) -> wire::UploadDown {
    let message = match answer {
        UploadAnswer::Resume(offset) => upload_down::Message::Resume(offset),
        UploadAnswer::Credit(bytes) => upload_down::Message::Credit(bytes),
        UploadAnswer::Stored => upload_down::Message::Stored(wire::Stored {}),
    };
    wire::UploadDown { message: Some(message) }
}

//! Blobs, chunks and uploads.

use std::collections::BTreeSet;

use bytes::Bytes;
use protocol::{BlobRef, Report, UploadHeader};

use super::{
    ConvertError, MAX_BLOB_BYTES, at_most, digest, digest_to_wire, document, document_to_wire, id, malformed, printable,
    required,
};
use crate::blob::{CHUNK_BYTES, Chunk};
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
pub(crate) fn chunk(chunk: wire::Chunk) -> Result<Chunk, ConvertError> {
    at_most("chunk", CHUNK_BYTES, chunk.bytes.len())?;
    if chunk.bytes.is_empty() || chunk.offset > MAX_BLOB_BYTES {
        return Err(malformed("chunk", "bytes at a place within the blob"));
    }
    Ok(Chunk { offset: chunk.offset, digest: digest("digest", &chunk.digest)?, bytes: chunk.bytes })
}

pub(crate) fn chunk_to_wire(chunk: Chunk) -> wire::Chunk {
    wire::Chunk { offset: chunk.offset, digest: digest_to_wire(&chunk.digest), bytes: chunk.bytes }
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

pub(crate) fn upload_header_to_wire(header: &UploadHeader) -> wire::UploadUp {
    let header = wire::UploadHeader {
        task: header.task.to_string(),
        blob: Some(blob_ref_to_wire(&BlobRef { digest: header.digest, bytes: header.bytes })),
        report_json: header.report.as_ref().map(report_to_wire).unwrap_or_default(),
    };
    wire::UploadUp { message: Some(upload_up::Message::Header(header)) }
}

pub(crate) fn upload_chunk_to_wire(chunk: Chunk) -> wire::UploadUp {
    wire::UploadUp { message: Some(upload_up::Message::Chunk(chunk_to_wire(chunk))) }
}

pub(crate) fn upload_step(up: wire::UploadUp) -> Result<UploadStep, ConvertError> {
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

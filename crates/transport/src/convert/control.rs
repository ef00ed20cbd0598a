//! The messages of the control stream.

use bytes::Bytes;
use protocol::{
    Capability, DatasetFace, HeldTask, Hello, MAX_KEYED_EXPERIMENTS, NodeMessage, Progress, ProtocolVersion, Refusal,
    ResearcherMessage, SecureMessage, Tags, Task, Welcome, Work, layout_byte_len,
};

use super::bulk::checked_blob;
use super::{
    ConvertError, MAX_BLOB_BYTES, MAX_MESSAGE_BYTES, MAX_NAME_CHARS, MAX_WORD_CHARS, at_most, document, document_to_wire,
    finite, id, line, malformed, printable, refusal, refusal_to_wire, required,
};
use crate::wire;
use crate::wire::{node_envelope, researcher_envelope};

const MAX_CAPABILITIES: usize = 256;
const MAX_HELD: usize = 16_384;
const MAX_DATASETS: usize = 10_000;
/// What the datasets of an answer may take together; the rest of the message is far smaller than what is left.
const MAX_FOUND_BYTES: usize = MAX_MESSAGE_BYTES - (64 << 10);
/// The most that the encoding adds to one dataset: its tag and its length.
const FACE_OVERHEAD_BYTES: usize = 16;
const MAX_VECTORS: usize = 100_000;
const MAX_DIMENSIONS: usize = 8;
const MAX_SIGNATURE_BYTES: usize = 128;
const MAX_USER_CHARS: usize = 256;
const MAX_DESCRIPTION_CHARS: usize = 10_000;

/// What the first message of a node may be, and the others.
#[derive(Debug)]
pub(crate) enum FromNode {
    Hello(Hello),
    Message(NodeMessage),
}

/// What the first message of a researcher may be, and the others.
#[derive(Debug)]
pub(crate) enum FromResearcher {
    Welcome(Welcome),
    Message(ResearcherMessage),
}

fn version(version: Option<wire::Version>) -> Result<ProtocolVersion, ConvertError> {
    let version = required("protocol", version)?;
    let number = |number: u32| u16::try_from(number).map_err(|_| malformed("protocol", "numbers below 65536"));
    Ok(ProtocolVersion { major: number(version.major)?, minor: number(version.minor)? })
}

fn version_to_wire(version: ProtocolVersion) -> wire::Version {
    wire::Version { major: version.major.into(), minor: version.minor.into() }
}

fn capabilities(names: Vec<String>) -> Result<Vec<Capability>, ConvertError> {
    at_most("capabilities", MAX_CAPABILITIES, names.len())?;
    names.into_iter().map(|name| Ok(Capability(line("capabilities", name, MAX_WORD_CHARS)?))).collect()
}

fn capabilities_to_wire(capabilities: &[Capability]) -> Vec<String> {
    capabilities.iter().map(|capability| capability.0.clone()).collect()
}

fn hello(hello: wire::Hello) -> Result<Hello, ConvertError> {
    at_most("held", MAX_HELD, hello.held.len())?;
    at_most("keyed", MAX_KEYED_EXPERIMENTS as usize, hello.keyed.len())?;
    Ok(Hello {
        protocol: version(hello.protocol)?,
        software: line("software", hello.software, MAX_WORD_CHARS)?,
        capabilities: capabilities(hello.capabilities)?,
        name: line("name", hello.name, MAX_NAME_CHARS)?,
        held: hello.held.iter().map(|task| Ok(HeldTask { task: id("held", task)? })).collect::<Result<_, _>>()?,
        keyed: hello.keyed.iter().map(|experiment| id("keyed", experiment)).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn hello_to_wire(hello: &Hello) -> wire::NodeEnvelope {
    let hello = wire::Hello {
        protocol: Some(version_to_wire(hello.protocol)),
        software: hello.software.clone(),
        capabilities: capabilities_to_wire(&hello.capabilities),
        name: hello.name.clone(),
        held: hello.held.iter().map(|held| held.task.to_string()).collect(),
        keyed: hello.keyed.iter().map(ToString::to_string).collect(),
    };
    wire::NodeEnvelope { message: Some(node_envelope::Message::Hello(hello)) }
}

fn welcome(welcome: wire::Welcome) -> Result<Welcome, ConvertError> {
    Ok(Welcome {
        protocol: version(welcome.protocol)?,
        software: line("software", welcome.software, MAX_WORD_CHARS)?,
        capabilities: capabilities(welcome.capabilities)?,
        researcher: id("researcher", &welcome.researcher)?,
    })
}

pub(crate) fn welcome_to_wire(welcome: &Welcome) -> wire::ResearcherEnvelope {
    let welcome = wire::Welcome {
        protocol: Some(version_to_wire(welcome.protocol)),
        software: welcome.software.clone(),
        capabilities: capabilities_to_wire(&welcome.capabilities),
        researcher: welcome.researcher.to_string(),
    };
    wire::ResearcherEnvelope { message: Some(researcher_envelope::Message::Welcome(welcome)) }
}

fn progress(message: &wire::TaskProgress) -> Result<NodeMessage, ConvertError> {
    let loss = message.loss.map(|loss| finite("loss", loss)).transpose()?;
    let progress = Progress { done: message.done, total: message.total, loss };
    Ok(NodeMessage::Progress { task: id("task", &message.task)?, progress })
}

fn out_of_range(message: &wire::TaskOutOfRange) -> Result<NodeMessage, ConvertError> {
    at_most("exponents", MAX_VECTORS, message.exponents.len())?;
    let exponent = |exponent: &i32| i16::try_from(*exponent).map_err(|_| malformed("exponents", "16-bit numbers"));
    let exponents = message.exponents.iter().map(exponent).collect::<Result<_, _>>()?;
    Ok(NodeMessage::OutOfRange { task: id("task", &message.task)?, exponents })
}

fn answered(message: &wire::TaskAnswered) -> Result<NodeMessage, ConvertError> {
    let answer = SecureMessage::new(message.answer.to_vec()).map_err(|_| malformed("answer", "at most 2 MiB"))?;
    Ok(NodeMessage::Answered { task: id("task", &message.task)?, answer })
}

fn face(json: &[u8]) -> Result<DatasetFace, ConvertError> {
    let mut face: DatasetFace = document("datasets_json", json, MAX_MESSAGE_BYTES)?;
    // Odd names are shown, harmlessly, instead of making all of a node's datasets invisible.
    face.name = printable(&face.name, MAX_NAME_CHARS);
    face.description = printable(&face.description, MAX_DESCRIPTION_CHARS);
    for column in &mut face.columns {
        column.name = printable(&column.name, usize::MAX);
    }
    Ok(face)
}

fn found(message: &wire::SearchFound) -> Result<NodeMessage, ConvertError> {
    at_most("datasets_json", MAX_DATASETS, message.datasets_json.len())?;
    let datasets = message.datasets_json.iter().map(|json| face(json)).collect::<Result<_, _>>()?;
    Ok(NodeMessage::Found { request: id("request", &message.request)?, datasets })
}

/// As many datasets as one message takes: the others would cost it all of them.
fn faces_to_wire(datasets: &[DatasetFace]) -> Vec<Bytes> {
    let mut room = MAX_FOUND_BYTES;
    let mut faces = Vec::new();
    for face in datasets {
        let json = document_to_wire(face);
        let left = room.checked_sub(json.len() + FACE_OVERHEAD_BYTES).filter(|_| faces.len() < MAX_DATASETS);
        let Some(left) = left else {
            tracing::warn!(dataset = %face.id, "a dataset is not shown: a message has no room for its columns");
            continue;
        };
        room = left;
        faces.push(json);
    }
    faces
}

fn why(message: Option<&wire::Refusal>) -> Result<Refusal, ConvertError> {
    Ok(refusal(required("refusal", message)?))
}

pub(crate) fn from_node(envelope: wire::NodeEnvelope) -> Result<FromNode, ConvertError> {
    let message = match envelope.message.ok_or(ConvertError::Unknown)? {
        node_envelope::Message::Hello(message) => return Ok(FromNode::Hello(hello(message)?)),
        node_envelope::Message::Accepted(message) => NodeMessage::Accepted { task: id("task", &message.task)? },
        node_envelope::Message::Progress(message) => progress(&message)?,
        node_envelope::Message::Refused(message) => {
            NodeMessage::Refused { task: id("task", &message.task)?, refusal: why(message.refusal.as_ref())? }
        }
        node_envelope::Message::OutOfRange(message) => out_of_range(&message)?,
        node_envelope::Message::Found(message) => found(&message)?,
        node_envelope::Message::Answered(message) => answered(&message)?,
    };
    Ok(FromNode::Message(message))
}

pub(crate) fn node_message_to_wire(message: &NodeMessage) -> wire::NodeEnvelope {
    use node_envelope::Message;
    let message = match message {
        NodeMessage::Accepted { task } => Message::Accepted(wire::TaskAccepted { task: task.to_string() }),
        NodeMessage::Progress { task, progress } => Message::Progress(wire::TaskProgress {
            task: task.to_string(),
            done: progress.done,
            total: progress.total,
            loss: progress.loss.filter(|loss| loss.is_finite()),
        }),
        NodeMessage::Refused { task, refusal } => {
            Message::Refused(wire::TaskRefused { task: task.to_string(), refusal: Some(refusal_to_wire(refusal)) })
        }
        NodeMessage::OutOfRange { task, exponents } => Message::OutOfRange(wire::TaskOutOfRange {
            task: task.to_string(),
            exponents: exponents.iter().map(|exponent| i32::from(*exponent)).collect(),
        }),
        NodeMessage::Answered { task, answer } => {
            Message::Answered(wire::TaskAnswered { task: task.to_string(), answer: answer.as_bytes().to_vec().into() })
        }
        NodeMessage::Found { request, datasets } => {
            Message::Found(wire::SearchFound { request: request.to_string(), datasets_json: faces_to_wire(datasets) })
        }
    };
    wire::NodeEnvelope { message: Some(message) }
}

fn check_task(task: &Task) -> Result<(), ConvertError> {
    // The task is signed as it is: nothing in it can be replaced.
    if line("requester", task.requester.user.clone(), MAX_USER_CHARS)? != task.requester.user {
        return Err(malformed("requester", "a text without invisible characters"));
    }
    if let Some(model) = task.model {
        checked_blob("model", model)?;
    }
    if let Work::SquaredDifferences { means } = &task.work {
        means.iter().try_for_each(|mean| finite("means", *mean).map(|_| ()))?;
    }
    if let Work::Pass { pass } = &task.work {
        at_most("given", MAX_VECTORS, pass.given.len())?;
        pass.given.iter().flat_map(|given| &given.values).try_for_each(|value| finite("given", *value).map(|_| ()))?;
    }
    for clipping in task.masking.iter().flat_map(|masking| masking.clipping.values()) {
        if !(clipping.is_finite() && *clipping > 0.0) {
            return Err(malformed("clipping", "finite numbers above 0"));
        }
    }
    at_most("layout", MAX_VECTORS, task.layout.len())?;
    for spec in &task.layout {
        at_most("shape", MAX_DIMENSIONS, spec.shape.len())?;
        if !spec.encoding.is_valid() {
            return Err(malformed("encoding", "an exponent between -1000 and 1000"));
        }
    }
    match layout_byte_len(&task.layout) {
        Some(bytes) if bytes <= MAX_BLOB_BYTES => Ok(()),
        _ => Err(malformed("layout", "at most 2^40 bytes")),
    }
}

fn asked(message: &wire::TaskAsked) -> Result<ResearcherMessage, ConvertError> {
    at_most("signature", MAX_SIGNATURE_BYTES, message.signature.len())?;
    let task: Box<Task> = document("task_json", &message.task_json, MAX_MESSAGE_BYTES)?;
    check_task(&task)?;
    Ok(ResearcherMessage::Task { task, signature: message.signature.to_vec() })
}

fn search(message: wire::Search) -> Result<ResearcherMessage, ConvertError> {
    let tags = match message.tags {
        tags if tags.is_empty() => None,
        tags => Some(Tags::new(tags).map_err(|_| malformed("tags", "1 to 32 tags"))?),
    };
    Ok(ResearcherMessage::Search { request: id("request", &message.request)?, tags })
}

pub(crate) fn from_researcher(envelope: wire::ResearcherEnvelope) -> Result<FromResearcher, ConvertError> {
    let message = match envelope.message.ok_or(ConvertError::Unknown)? {
        researcher_envelope::Message::Welcome(message) => return Ok(FromResearcher::Welcome(welcome(message)?)),
        researcher_envelope::Message::Task(message) => asked(&message)?,
        researcher_envelope::Message::Cancel(message) => {
            ResearcherMessage::Cancel { task: id("task", &message.task)?, refusal: why(message.refusal.as_ref())? }
        }
        researcher_envelope::Message::Settled(message) => ResearcherMessage::Settled { task: id("task", &message.task)? },
        researcher_envelope::Message::Search(message) => search(message)?,
        researcher_envelope::Message::Over(message) => {
            ResearcherMessage::Over { experiment: id("experiment", &message.experiment)? }
        }
    };
    Ok(FromResearcher::Message(message))
}

pub(crate) fn researcher_message_to_wire(message: &ResearcherMessage) -> wire::ResearcherEnvelope {
    use researcher_envelope::Message;
    let message = match message {
        ResearcherMessage::Task { task, signature } => {
            Message::Task(wire::TaskAsked { task_json: document_to_wire(task), signature: signature.clone().into() })
        }
        ResearcherMessage::Cancel { task, refusal } => {
            Message::Cancel(wire::TaskCancelled { task: task.to_string(), refusal: Some(refusal_to_wire(refusal)) })
        }
        ResearcherMessage::Settled { task } => Message::Settled(wire::TaskSettled { task: task.to_string() }),
        ResearcherMessage::Over { experiment } => Message::Over(wire::ExperimentOver { experiment: experiment.to_string() }),
        ResearcherMessage::Search { request, tags } => Message::Search(wire::Search {
            request: request.to_string(),
            tags: tags.iter().flat_map(Tags::iter).map(str::to_owned).collect(),
        }),
    };
    wire::ResearcherEnvelope { message: Some(message) }
}

//! Strangers' bytes never panic, and what is valid comes back as it was.

use proptest::prelude::*;
use prost::Message;
use protocol::encoding::Width;
use protocol::metric::ValidatedOn;
use protocol::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::bulk::{self, UploadAnswer, UploadStep, Wrapping};
use super::control::{self, FromNode, FromResearcher};
use super::*;
use crate::blob::{CHUNK_BYTES, Chunk, Pieces};

fn rng() -> StdRng {
    StdRng::seed_from_u64(5)
}

fn task() -> Task {
    let features = vec!["age".to_owned(), "chol".to_owned()];
    let plan = TrainingPlan::new(RawTrainingPlan {
        model: ModelSpec::new(Family::Logistic, 0.1 + 0.2).unwrap(),
        precision: Precision::Float64,
        features,
        target: "disease".to_owned(),
        optimizer: OptimizerSpec::Sgd { learning_rate: 1.0 / 3.0, momentum: 0.0 },
        arguments: TrainingArguments::default(),
        standardise: true,
        validation: Validation::default(),
    });
    Task {
        id: TaskId::random(&mut rng()),
        node: NodeId::random(&mut rng()),
        key: RoundKey { experiment: ExperimentId::random(&mut rng()), round: 3, attempt: 1, phase: 0 },
        requester: Requester { user: "ada".to_owned() },
        dataset: DatasetId::random(&mut rng()),
        plan: Plan::Training(plan.unwrap()),
        work: Work::SquaredDifferences { means: vec![54.3, 1e-300] },
        model: Some(BlobRef { digest: Digest::of(b"model"), bytes: 9 }),
        layout: vec![VectorSpec {
            purpose: Purpose::Model,
            name: "weight".to_owned(),
            shape: vec![2],
            encoding: Encoding { width: Width::Bits128, exponent: 64 },
        }],
        masking: None,
    }
}

fn face() -> DatasetFace {
    DatasetFace {
        id: DatasetId::random(&mut rng()),
        name: "Cleveland".to_owned(),
        data_type: DataType::Csv,
        tags: Tags::new(["heart"]).unwrap(),
        description: "303 patients".to_owned(),
        rows: RowCount::rounded(303),
        columns: vec![ColumnFace { name: "age".to_owned(), kind: ColumnKind::Integer }],
        levels: std::collections::BTreeMap::new(),
    }
}

fn hello() -> Hello {
    Hello {
        protocol: ProtocolVersion::CURRENT,
        software: "0.1.0".to_owned(),
        capabilities: Capability::current(),
        name: "North Hospital".to_owned(),
        held: vec![HeldTask { task: TaskId::random(&mut rng()) }],
        keyed: vec![task().key.experiment],
    }
}

fn node_envelopes() -> Vec<wire::NodeEnvelope> {
    let id = TaskId::random(&mut rng());
    let refusal = Refusal::new(RefusalCode::MissingValues, "two columns have blank cells");
    let messages = [
        NodeMessage::Accepted { task: id.clone() },
        NodeMessage::Progress { task: id.clone(), progress: Progress { done: 1, total: 9, loss: None } },
        NodeMessage::Refused { task: id.clone(), refusal },
        NodeMessage::OutOfRange { task: id, exponents: vec![i16::MIN, 0, i16::MAX] },
        NodeMessage::Found { request: RequestId::random(&mut rng()), datasets: vec![face()] },
    ];
    let mut envelopes = vec![control::hello_to_wire(&hello())];
    for message in messages {
        let envelope = control::node_message_to_wire(&message);
        assert!(matches!(control::from_node(envelope.clone()), Ok(FromNode::Message(back)) if back == message));
        envelopes.push(envelope);
    }
    envelopes
}

fn researcher_envelopes() -> Vec<wire::ResearcherEnvelope> {
    let messages = [
        ResearcherMessage::Task { task: Box::new(task()), signature: vec![7; 70] },
        ResearcherMessage::Cancel { task: task().id, refusal: Refusal::new(RefusalCode::Cancelled, "by ada") },
        ResearcherMessage::Settled { task: task().id },
        ResearcherMessage::Over { experiment: task().key.experiment },
        ResearcherMessage::Search { request: RequestId::random(&mut rng()), tags: Some(Tags::new(["a", "b"]).unwrap()) },
    ];
    let mut envelopes = Vec::new();
    for message in messages {
        let envelope = control::researcher_message_to_wire(&message);
        assert!(matches!(control::from_researcher(envelope.clone()), Ok(FromResearcher::Message(back)) if back == message));
        envelopes.push(envelope);
    }
    envelopes
}

fn header() -> UploadHeader {
    let measured = vec![Measured { on: ValidatedOn::Global, metric: Metric::Auc, value: 0.9 }];
    let report = Report { train_rows: 200, loss: Some(0.3), measured, ..Report::default() };
    UploadHeader { task: task().id, digest: Digest::of(b"x"), bytes: 1, report: Some(report) }
}

/// Reads bytes as every message there is.
fn read_as_everything(bytes: &[u8]) {
    let _ = wire::EnrolRequest::decode(bytes).map(enrolment::enrol_request);
    let _ = wire::EnrolReply::decode(bytes).map(|reply| enrolment::enrolled(&reply));
    let _ = wire::RenewRequest::decode(bytes).map(|request| enrolment::renew_request(&request));
    let _ = wire::RenewReply::decode(bytes).map(|reply| enrolment::renewed(&reply));
    let _ = wire::NodeEnvelope::decode(bytes).map(control::from_node);
    let _ = wire::ResearcherEnvelope::decode(bytes).map(control::from_researcher);
    let _ = wire::DownloadRequest::decode(bytes).map(bulk::download_request);
    let _ = bulk::upload_message(Bytes::copy_from_slice(bytes).into());
    let _ = bulk::chunk_message(Bytes::copy_from_slice(bytes).into());
    let _ = wire::UploadDown::decode(bytes).map(|down| bulk::upload_answer(&down));
    let _ = wire::Refusal::decode(bytes).map(|message| refusal(&message));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn damaged_messages_are_read_without_panic(which in 0_usize..100, place in 0_usize..5000, byte in any::<u8>(), cut in any::<bool>()) {
        let mut all: Vec<Vec<u8>> = node_envelopes().iter().map(Message::encode_to_vec).collect();
        all.extend(researcher_envelopes().iter().map(Message::encode_to_vec));
        all.push(bulk::upload_header_to_message(&header()).into_bytes().to_vec());
        let chunk = Chunk::new(0, Bytes::from_static(b"chunk"));
        all.push(bulk::chunk_to_message(chunk, Wrapping::Upload).into_bytes().to_vec());
        let count = all.len();
        let bytes = &mut all[which % count];
        let place = place % bytes.len();
        if cut { bytes.truncate(place) } else { bytes[place] = byte }
        read_as_everything(bytes);
    }

    #[test]
    fn any_document_is_read_without_panic(json in "[\\[\\]{}\":,0-9a-z_.\\-]{0,200}") {
        let message = Some(wire::researcher_envelope::Message::Task(wire::TaskAsked { task_json: json.clone().into(), signature: Bytes::new() }));
        let _ = control::from_researcher(wire::ResearcherEnvelope { message });
        let message = wire::SearchFound { request: RequestId::random(&mut rng()).to_string(), datasets_json: vec![json.into()] };
        let message = Some(wire::node_envelope::Message::Found(message));
        let _ = control::from_node(wire::NodeEnvelope { message });
    }
}

#[test]
fn first_messages_and_uploads_come_back_as_they_were() {
    assert!(matches!(control::from_node(control::hello_to_wire(&hello())), Ok(FromNode::Hello(back)) if back == hello()));
    let welcome = Welcome {
        protocol: ProtocolVersion::CURRENT,
        software: "0.1.0".to_owned(),
        capabilities: Vec::new(),
        researcher: ResearcherId::random(&mut rng()),
    };
    let back = control::from_researcher(control::welcome_to_wire(&welcome));
    assert!(matches!(back, Ok(FromResearcher::Welcome(back)) if back == welcome));
    for header in [header(), UploadHeader { report: None, ..header() }] {
        assert!(
            matches!(bulk::upload_message(bulk::upload_header_to_message(&header)), Ok(UploadStep::Header(back)) if back == header)
        );
    }
    for answer in [UploadAnswer::Resume(1 << 20), UploadAnswer::Credit(5), UploadAnswer::Stored] {
        assert_eq!(bulk::upload_answer(&bulk::upload_answer_to_wire(answer)), Ok(answer));
    }
}

#[test]
fn what_is_not_a_number_does_not_spoil_a_report_or_a_progress() {
    let mut header = header();
    let report = header.report.as_mut().unwrap();
    report.loss = Some(f64::NAN);
    report.measured.push(Measured { on: ValidatedOn::Local, metric: Metric::Mse, value: f64::INFINITY });
    let Ok(UploadStep::Header(back)) = bulk::upload_message(bulk::upload_header_to_message(&header)) else { panic!() };
    let back = back.report.unwrap();
    assert_eq!((back.loss, back.measured.len()), (None, 1));
    let progress =
        NodeMessage::Progress { task: header.task, progress: Progress { done: 0, total: 1, loss: Some(f64::NAN) } };
    let back = control::from_node(control::node_message_to_wire(&progress));
    assert!(matches!(back, Ok(FromNode::Message(NodeMessage::Progress { progress: Progress { loss: None, .. }, .. }))));
}

/// A task that no honest researcher asks for is refused; says why.
fn refused(change: impl FnOnce(&mut Task)) -> ConvertError {
    let mut task = task();
    change(&mut task);
    let message = ResearcherMessage::Task { task: Box::new(task), signature: Vec::new() };
    control::from_researcher(control::researcher_message_to_wire(&message)).unwrap_err()
}

#[test]
fn tasks_out_of_bounds_are_refused() {
    let is_malformed = |error, name: &str| matches!(error, ConvertError::Malformed { field, .. } if field == name);
    assert!(is_malformed(refused(|task| task.layout[0].encoding.exponent = 1001), "encoding"));
    assert!(is_malformed(refused(|task| task.layout[0].shape = vec![usize::MAX, 2]), "layout"));
    assert!(is_malformed(refused(|task| task.layout[0].shape = vec![1 << 40]), "layout"));
    assert!(is_malformed(refused(|task| task.requester.user = "ada\nroot".to_owned()), "requester"));
    assert!(is_malformed(refused(|task| task.model.as_mut().unwrap().bytes = u64::MAX), "model"));
    assert!(matches!(refused(|task| task.layout[0].shape = vec![1; 9]), ConvertError::TooLarge { field: "shape", .. }));
}

#[test]
fn a_code_of_a_later_version_counts_as_internal_and_sentences_are_made_printable() {
    let later = wire::Refusal { code: "moon_phase".to_owned(), sentence: "no\u{1b}[31m\nway".to_owned() };
    assert_eq!(refusal(&later), Refusal::new(RefusalCode::Internal, "no\u{fffd}[31m\u{fffd}way"));
}

#[test]
fn what_a_person_would_not_see_is_replaced_and_a_task_with_it_refused() {
    for hidden in ['\u{200b}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}', '\u{feff}'] {
        let later = wire::Refusal { code: "internal".to_owned(), sentence: format!("a{hidden}b") };
        assert_eq!(refusal(&later).sentence, "a\u{fffd}b");
        let hello = Hello { name: format!("North{hidden}"), ..hello() };
        let back = control::from_node(control::hello_to_wire(&hello));
        assert!(matches!(back, Ok(FromNode::Hello(hello)) if hello.name == "North\u{fffd}"));
        let error = refused(|task| task.requester.user = format!("ada{hidden}"));
        assert!(matches!(error, ConvertError::Malformed { field: "requester", .. }));
    }
}

#[test]
fn reports_are_bounded_as_a_node_bounds_them() {
    let read = |change: &dyn Fn(&mut Report)| {
        let mut header = header();
        change(header.report.as_mut().unwrap());
        match bulk::upload_message(bulk::upload_header_to_message(&header)) {
            Ok(UploadStep::Header(header)) => Ok(header.report.unwrap()),
            Ok(UploadStep::Chunk(_)) => panic!("a header is no chunk"),
            Err(error) => Err(error),
        }
    };
    let long = read(&|report| report.remarks = vec!["x".repeat(600); 64]).unwrap();
    assert!(long.remarks.iter().all(|remark| remark.chars().count() == 512));
    let many = read(&|report| report.remarks = vec!["x".to_owned(); 65]);
    assert!(matches!(many, Err(ConvertError::TooLarge { field: "remarks", .. })));
    let twice = read(&|report| report.measured.push(report.measured[0]));
    assert!(matches!(twice, Err(ConvertError::Malformed { field: "measured", .. })));
}

#[test]
fn a_dataset_that_is_too_wide_hides_no_others() {
    let column = |index: usize| ColumnFace { name: format!("{index:0>200}"), kind: ColumnKind::Real };
    let wide = DatasetFace { columns: (0..20_000).map(column).collect(), ..face() };
    let request = RequestId::random(&mut rng());
    let found = NodeMessage::Found { request, datasets: vec![face(), wide, face()] };
    let envelope = control::node_message_to_wire(&found);
    fits(&envelope).unwrap();
    let Ok(FromNode::Message(NodeMessage::Found { datasets, .. })) = control::from_node(envelope) else { panic!() };
    assert_eq!(datasets, [face(), face()]);
}

#[test]
fn chunks_are_bounded() {
    let chunk =
        |len: usize| bulk::chunk_message(bulk::chunk_to_message(Chunk::new(0, Bytes::from(vec![0; len])), Wrapping::None));
    assert!(chunk(CHUNK_BYTES).is_ok());
    assert!(matches!(chunk(CHUNK_BYTES + 1), Err(ConvertError::TooLarge { .. })));
    assert!(matches!(chunk(0), Err(ConvertError::Malformed { .. })));
}

#[test]
fn a_chunk_is_read_from_any_pieces_of_its_message_and_from_any_order_of_its_fields() {
    // Long enough not to be copied together.
    let chunk = || Chunk::new(3 * CHUNK_BYTES as u64, Bytes::from(vec![7; 10_000]));
    for wrapping in [Wrapping::None, Wrapping::Upload] {
        let message = bulk::chunk_to_message(chunk(), wrapping).into_bytes();
        for cut in (0..100).chain([5000, message.len()]) {
            let mut pieces = Pieces::from(message.slice(..cut));
            pieces.append(message.slice(cut..).into());
            let read = match wrapping {
                Wrapping::None => bulk::chunk_message(pieces).unwrap(),
                Wrapping::Upload => match bulk::upload_message(pieces).unwrap() {
                    UploadStep::Chunk(chunk) => chunk,
                    UploadStep::Header(_) => panic!("a chunk is a chunk"),
                },
            };
            assert_eq!((read.offset, read.digest), (chunk().offset, chunk().digest), "{cut}");
            assert_eq!(read.bytes.into_bytes(), chunk().bytes.into_bytes());
        }
    }
    // The bytes first, then offset and digest: two halves of a message are a message.
    let bytes = wire::Chunk { bytes: chunk().bytes.into_bytes(), ..wire::Chunk::default() };
    let rest = wire::Chunk { offset: chunk().offset, digest: digest_to_wire(&chunk().digest), bytes: Bytes::new() };
    let turned = [bytes.encode_to_vec(), rest.encode_to_vec()].concat();
    let read = bulk::chunk_message(Bytes::from(turned).into()).unwrap();
    assert_eq!((read.offset, read.bytes.into_bytes()), (chunk().offset, chunk().bytes.into_bytes()));
}

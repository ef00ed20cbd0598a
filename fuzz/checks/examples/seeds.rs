//! Writes what the fuzzer starts from into `fuzz/corpus`: small real values of each format.
//! `cargo run -p fuzz-checks --example seeds`

use std::fs;
use std::path::Path;
use std::time::Duration;

use component::audit::AuditLog;
use learning::{Checkpoint, Standardisation, initial};
use node::config::NodeConfig;
use protocol::{
    Activation, BlobRef, ColumnFace, ColumnKind, DataType, DatasetFace, DatasetId, Digest, Encoding, ExperimentId,
    ExperimentSpec, Family, Measured, Metric, ModelSpec, NodeId, OptimizerSpec, Outcome, Plan, Precision, Purpose,
    RawTrainingPlan, Report, RequestId, Requester, ResearcherId, RoundKey, RowCount, Scalars, StatisticPlan, Tags, Task,
    TaskId, Tensor, Tensors, Timestamp, TrainingArguments, TrainingPlan, ValidatedOn, Validation, VectorSpec, Width, Work,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use researcher::config::Settings;
use transport::address::Address;
use transport::identity::{EnrolmentAnswer, FederationCa, Fingerprint, NodeIdentity, SecretKey, SigningRequest, TaskKey};
use transport::token::EnrolmentToken;

fn rng() -> StdRng {
    StdRng::seed_from_u64(5)
}

fn write(target: &str, name: &str, content: impl AsRef<[u8]>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    fs::create_dir_all(&folder).expect("the corpus can be written");
    fs::write(folder.join(name), content).expect("the corpus can be written");
}

/// A length in two bytes, what has it, and what follows: as the checks of two inputs take them.
fn joined(first: &[u8], second: &[u8]) -> Vec<u8> {
    let len = u16::try_from(first.len()).expect("seeds are small").to_le_bytes();
    [&len, first, second].concat()
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("protocol types are written as JSON")
}

fn main() {
    sums();
    documents();
    messages();
    tensors();
    identities();
    files();
    questions();
    commands();
}

fn plan() -> Plan {
    let model = ModelSpec::new(
        Family::Mlp { hidden: vec![4, 2], activation: Activation::Tanh, outcome: Outcome::Class { classes: 3 } },
        0.5,
    );
    let raw = RawTrainingPlan {
        model: model.expect("the model is a good one"),
        precision: Precision::Float64,
        features: vec!["age".to_owned(), "chol".to_owned()],
        target: "disease".to_owned(),
        optimizer: OptimizerSpec::Adam { learning_rate: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
        arguments: TrainingArguments { num_updates: Some(3), ..TrainingArguments::default() },
        standardise: true,
        validation: Validation::default(),
    };
    Plan::Training(TrainingPlan::new(raw).expect("the plan is a good one"))
}

fn task() -> Task {
    Task {
        id: TaskId::random(&mut rng()),
        node: NodeId::random(&mut rng()),
        key: RoundKey { experiment: ExperimentId::random(&mut rng()), round: 3, attempt: 1, phase: 0 },
        requester: Requester { user: "ada".to_owned() },
        dataset: DatasetId::random(&mut rng()),
        plan: plan(),
        work: Work::SquaredDifferences { means: vec![54.3, 1e-300] },
        model: Some(BlobRef { digest: Digest::of(b"model"), bytes: 9 }),
        layout: vec![VectorSpec {
            purpose: Purpose::Statistic,
            name: "squared_differences".to_owned(),
            shape: vec![2],
            encoding: Encoding::REAL,
        }],
        masking: None,
    }
}

fn face() -> DatasetFace {
    DatasetFace {
        id: DatasetId::random(&mut rng()),
        name: "Cleveland".to_owned(),
        data_type: DataType::Csv,
        tags: Tags::new(["heart", "uci"]).expect("these are tags"),
        description: "303 patients".to_owned(),
        rows: RowCount::rounded(303),
        columns: vec![ColumnFace { name: "age".to_owned(), kind: ColumnKind::Integer }],
        levels: std::collections::BTreeMap::new(),
    }
}

fn report() -> Report {
    let measured = vec![Measured { on: ValidatedOn::Global, metric: Metric::Auc, value: 0.9 }];
    Report { train_rows: 200, loss: Some(0.3), measured, remarks: vec!["one class".to_owned()], ..Report::default() }
}

fn spec() -> ExperimentSpec {
    researcher::experiment_file::parse(&experiment_file()).expect("the example is a good one")
}

/// The example, without what explains it.
fn experiment_file() -> String {
    let lines = researcher::experiment_file::EXAMPLE.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect()
}

fn documents() {
    write("documents", "task", json(&task()));
    write("documents", "experiment", json(&spec()));
    write("documents", "dataset", json(&face()));
    write("documents", "report", json(&report()));
    let columns = vec!["age".to_owned()];
    let statistic = Plan::Statistic(StatisticPlan::moments(columns).expect("this is a column"));
    write("documents", "statistic", json(&Task { plan: statistic, work: Work::Sums, model: None, ..task() }));
}

/// A field of bytes (Protocol Buffers, "Encoding", wire type 2). Seeds are written by hand: wire types are private.
fn field(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&[number << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

/// A field that is a number (wire type 0).
fn number(number: u8, value: u64) -> Vec<u8> {
    [vec![number << 3], varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits fit into eight");
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

fn messages() {
    let task_id = task().id.to_string();
    let version = [number(1, 1), number(2, 0)].concat();
    let refusal = [field(1, "missing_values"), field(2, "two columns have blank cells")].concat();
    let greeting = |last: Vec<u8>| [field(1, &version), field(2, "0.1.0"), field(3, "round"), last].concat();
    write("node_messages", "hello", field(1, greeting([field(4, "North Hospital"), field(5, &task_id)].concat())));
    write("node_messages", "accepted", field(2, field(1, &task_id)));
    let loss = [&[4 << 3 | 1][..], &0.25_f64.to_le_bytes()].concat();
    write("node_messages", "progress", field(3, [field(1, &task_id), number(2, 1), number(3, 9), loss].concat()));
    write("node_messages", "refused", field(4, [field(1, &task_id), field(2, &refusal)].concat()));
    write("node_messages", "out_of_range", field(5, [field(1, &task_id), field(2, [3, 8, 0])].concat()));
    let request = RequestId::random(&mut rng()).to_string();
    write("node_messages", "found", field(6, [field(1, &request), field(2, json(&face()))].concat()));
    let researcher = ResearcherId::random(&mut rng()).to_string();
    write("researcher_messages", "welcome", field(1, greeting(field(4, &researcher))));
    write("researcher_messages", "task", field(2, [field(1, json(&task())), field(2, [7; 70])].concat()));
    write("researcher_messages", "cancel", field(3, [field(1, &task_id), field(2, &refusal)].concat()));
    write("researcher_messages", "settled", field(4, field(1, &task_id)));
    write("researcher_messages", "search", field(5, [field(1, &request), field(2, "heart"), field(2, "uci")].concat()));
    let blob = [field(1, Digest::of(b"x").as_bytes()), number(2, 1)].concat();
    let chunk = [number(1, 1 << 18), field(2, Digest::of(b"x").as_bytes()), field(3, "x")].concat();
    let header = [field(1, &task_id), field(2, &blob), field(3, json(&report()))].concat();
    write("bulk_messages", "download", [vec![0], field(1, &blob), number(2, 1)].concat());
    write("bulk_messages", "chunk", [vec![1], chunk.clone()].concat());
    write("bulk_messages", "header", [vec![2], field(1, header)].concat());
    write("bulk_messages", "upload_chunk", [vec![2], field(2, chunk)].concat());
    write("bulk_messages", "resume", [vec![3], number(1, 1 << 20)].concat());
    write("bulk_messages", "stored", [vec![3], field(3, "")].concat());
    let node = NodeId::random(&mut rng()).to_string();
    let enrol = [field(1, "c2VjcmV0"), field(2, &node), field(3, "North"), field(4, [0x30; 9])].concat();
    write("enrolment_messages", "enrol", [vec![0], enrol].concat());
    let reply = [field(1, [0x30; 9]), field(2, &researcher), field(3, [4; 65])].concat();
    write("enrolment_messages", "enrolled", [vec![1], reply].concat());
    write("enrolment_messages", "renew", [vec![2], field(1, [0x30; 9])].concat());
    write("enrolment_messages", "renewed", [vec![3], field(1, [0x30; 9])].concat());
    write("enrolment_messages", "refusal", [vec![4], refusal.clone()].concat());
    let framed = |kind: u8, message: Vec<u8>| {
        let length = u32::try_from(message.len()).expect("seeds are small").to_be_bytes();
        [&[kind], &length[..], &message].concat()
    };
    let experiment = ExperimentId::random(&mut rng()).to_string();
    let topic = [field(1, &researcher), field(2, experiment), number(3, 2), number(4, 1)].concat();
    let said = [field(5, &node), field(6, &researcher), field(7, "keys"), field(8, "{}")].concat();
    write("negotiation_messages", "keys", framed(0, [topic.clone(), said].concat()));
    let said = [field(5, &researcher), field(6, &node), field(7, "parties"), field(8, "{}")].concat();
    write("negotiation_messages", "parties", framed(0, [topic, said].concat()));
    write("negotiation_messages", "taken", framed(1, Vec::new()));
    write("negotiation_messages", "refused", framed(1, field(1, refusal)));
}

/// The parameters of a plan with two features, and a checkpoint of its training.
fn trained() -> (Tensors, Vec<u8>) {
    let model = ModelSpec::new(Family::Linear, 0.0).expect("the model is a good one");
    let parameters = initial(&model, Precision::Float32, 2, 1).expect("it has five parameters");
    let number = |(name, value): (&str, f64)| Tensor::new(name, vec![1], Scalars::F64(vec![value])).expect("one element");
    let numbers = [("checkpoint.schema", 1.0), ("checkpoint.passes", 2.0), ("checkpoint.updates", 2.0)].map(number);
    let state = ["weight", "bias"].map(|name| {
        let (name, len) = (format!("optimizer.velocity.{name}"), if name == "bias" { 1 } else { 2 });
        Tensor::new(name, vec![len], Scalars::F32(vec![0.5; len])).expect("the shape is the length")
    });
    let all = parameters.iter().cloned().chain(state).chain(numbers).collect();
    let checkpoint = Checkpoint::from_tensors(Tensors::new(all).expect("the names differ")).expect("the counts are there");
    (parameters, checkpoint.to_tensors().to_bytes())
}

fn tensors() {
    let (parameters, checkpoint) = trained();
    let standardised = Standardisation::new(vec![1.0, 2.0], &[0.0, 3.0]).expect("two means, two deviations");
    let standardised = standardised.attach(parameters.clone()).to_bytes();
    write("tensors", "model", &standardised);
    write("tensors", "checkpoint", &checkpoint);
    write("model", "linear", [vec![0], joined(&parameters.to_bytes(), &checkpoint)].concat());
    write("model", "standardised", [vec![4], joined(&standardised, &[])].concat());
    let mut contribution = Vec::new();
    let encode = |encoding: Encoding, values: &[f64], out: &mut Vec<u8>| {
        encoding.encode(values.iter().copied(), out).expect("these are small numbers");
    };
    encode(Encoding::COUNT, &[10.0], &mut contribution);
    encode(Encoding { width: Width::Bits128, exponent: 12 }, &[0.5], &mut contribution);
    encode(Encoding { width: Width::Bits32, exponent: 12 }, &[1.0, -2.0], &mut contribution);
    encode(Encoding::REAL, &[0.25], &mut contribution);
    write("contribution", "two_tensors", joined(&parameters.to_bytes(), &contribution));
}

fn identities() {
    let (mut rng, now) = (rng(), Timestamp::from_millis(1_800_000_000_000));
    let researcher = ResearcherId::random(&mut rng);
    let ca = FederationCa::create(&researcher, now, Duration::from_hours(9_000), &mut rng).expect("an authority is made");
    let node = NodeIdentity::create(NodeId::random(&mut rng));
    let request = SigningRequest::new(&node).expect("a request is made");
    let certificate = ca.issue_node(request.as_der(), request.node(), now, Duration::from_hours(9), &mut rng);
    let certificate = certificate.expect("a certificate is made");
    let address = Address::parse("researcher.example.org:50051").expect("this is an address");
    let task_key = TaskKey::from_point(SecretKey::generate().public_point()).expect("this is a point");
    write("certificates", "certificate.der", certificate.as_der());
    write("certificates", "authority.pem", ca.certificate().to_pem());
    write("certificates", "request.der", request.as_der());
    write("certificates", "request.txt", request.to_text("North"));
    let answer = EnrolmentAnswer::new(&ca, researcher.clone(), Some(address.clone()), certificate, task_key);
    write("certificates", "answer.txt", answer.to_text());
    let token = EnrolmentToken::new(address, Fingerprint::from_bytes([7; 32]), &mut rng);
    write("token", "text", token.to_text().expose());
    write("token", "content", [&[1; 32][..], &[2; 32], &[195, 131], b"researcher.example.org"].concat());
    let words = [
        ("node", NodeId::random(&mut rng).to_string()),
        ("researcher", researcher.to_string()),
        ("digest", Digest::of(b"x").to_string()),
        ("time", now.to_string()),
        ("fingerprint", Fingerprint::from_bytes([7; 32]).to_string()),
        ("address", "[2001:db8::1]:50051".to_owned()),
        ("tags", "heart, uci".to_owned()),
        ("duration", "500ms".to_owned()),
        ("proxy", "http://user:p%40ss@proxy.example.org:3128\n10.0.0.0/8, .example.org".to_owned()),
    ];
    for (name, word) in words {
        write("words", name, word);
    }
}

fn files() {
    for (name, delimiter, text) in [
        ("comma", 9, "age,sex,note\n63,male,\"a \"\"b\"\"\nc\"\n,NA,\n1e3,x,y\n"),
        ("semicolon", 1, "\u{feff}a;b\r\n1,5;2\r\n-3;nan\r\n"),
        ("tab", 2, "a\tb\n1\t2.5\n"),
        ("ragged", 0, "a,b\n1\n2,3,4\n"),
    ] {
        write("csv", name, [&[delimiter], text.as_bytes()].concat());
    }
    let numbers = |numbers: &[u32]| -> Vec<u8> { numbers.iter().flat_map(|number| number.to_be_bytes()).collect() };
    let images = [numbers(&[0x803, 2, 2, 2]), vec![9; 8]].concat();
    write("idx", "two_images", joined(&images, &[numbers(&[0x801, 2]), vec![1, 2]].concat()));
    let mut dataset = serde_json::json!({
        "name": "Heart disease", "data_type": "csv", "path": "$DATA/heart.csv", "tags": ["heart", "uci"],
        "description": "303 patients", "dataset_parameters": {"delimiter": ";", "column_types": {"ward": "text"}},
    });
    write("dataset_description", "csv", json(&dataset));
    dataset["data_type"] = "default".into();
    dataset["tags"] = "#MNIST,#dataset".into();
    dataset["dataset_parameters"] = serde_json::Value::Null;
    write("dataset_description", "mnist", json(&dataset));
    write("experiment_file", "training", experiment_file());
    let statistic = "name = \"Ages\"\nrounds = 1\n[plan]\nstatistic = \"moments\"\ncolumns = [\"age\"]\n[datasets]\n\
                     NODE_2f7b1f0e-6a3c-4d7e-9a55-0c1d2e3f4a5b = \"dataset_9d3e5c7a-1b2f-4e6d-8c9b-a0b1c2d3e4f5\"\n";
    write("experiment_file", "statistic", statistic);
    write("experiment_file", "perceptron", experiment_file().replace(
        "model = \"logistic\"",
        "[plan.model]\ntype = \"mlp\"\nl2 = 0.001\nhidden = [16, 8]\nactivation = \"relu\"\noutcome = \"class\"\nclasses = 3",
    ));
    let short = |text: String| -> String {
        text.lines().filter(|line| !line.contains(' ') || line.contains(" = ")).flat_map(|line| [line, "\n"]).collect()
    };
    write("configuration", "node", short(NodeConfig::template(&NodeId::random(&mut rng()), "North")));
    write("configuration", "researcher", short(Settings::template(&ResearcherId::random(&mut rng()), "Ada")));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("audit.jsonl");
    let log = AuditLog::open(&path).expect("the log can be written");
    for event in ["node.started", "task.accepted", "node.stopped"] {
        let facts = serde_json::Map::from_iter([("task".to_owned(), task().id.to_string().into())]);
        log.record(Timestamp::from_millis(9), event, facts).expect("the log can be written");
    }
    let log = fs::read(&path).expect("the log was written");
    write("audit_log", "whole", &log);
    write("audit_log", "torn", &log[..log.len() - 9]);
}

fn questions() {
    for (name, text) in [
        ("cohort", "age > 50 and (sex = 1 or not \"chest pain\" in ('typical', 'it''s other')) and thal is not missing"),
        ("value", "-log(chol) * 2.5e-1 - pow(abs(age), -2) / (1 - x) + floor(sqrt(exp(y)))"),
        ("comparisons", "a = 1 or a != -2 or a < .5 or a <= 3 or a > b or a >= 9223372036854775807 or a in (1, 2)"),
    ] {
        write("expression", name, text);
    }
    for (name, text) in [
        ("linear", "log(chol) ~ age * sex + C(cp, ref=1):I(thalach / age > 2) + offset(log(days)) - 1"),
        ("survival", "Surv(time, status = 2) ~ age + C(\"the grade\", ref='II')"),
    ] {
        write("formula", name, text);
    }
}

fn commands() {
    use node::command::{NewDataset, Request as NodeRequest};
    use researcher::command::{Reply, Request};
    let lines = |values: &[Vec<u8>]| values.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect::<Vec<u8>>();
    let dataset = NewDataset {
        name: "Heart".to_owned(),
        data_type: DataType::Csv,
        path: "/srv/heart.csv".into(),
        tags: vec!["heart".to_owned()],
        description: String::new(),
        parameters: serde_json::Value::Null,
        visible_to: Vec::new(),
    };
    let of_node = [NodeRequest::Status, NodeRequest::AuditTail { lines: 9 }, NodeRequest::AddDataset { dataset }];
    write("control_lines", "node", lines(&of_node.map(|request| json(&request))));
    let invite = Request::Invite { name: "North".to_owned(), expires_ms: 9, address: None };
    let of_researcher = [Request::Nodes, invite, Request::Run { spec: Box::new(spec()) }];
    write("control_lines", "researcher", lines(&of_researcher.map(|request| json(&request))));
    write("control_lines", "reply", lines(&[json(&Reply::Done { sentence: "Done".to_owned() })]));
    write("proxy_answer", "accepted", "HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n");
    write("proxy_answer", "refused", "HTTP/1.1 407 Proxy Authentication Required\r\n\r\nlater");
}

fn sums() {
    for (name, message) in fuzz_checks::secagg_messages::seeds() {
        write("secagg_messages", name, message);
    }
    for (name, state) in fuzz_checks::secagg_states::seeds() {
        write("secagg_states", &name, state);
    }
    for (name, bytes) in fuzz_checks::secagg_ciphertexts::seeds() {
        write("secagg_ciphertexts", name, bytes);
    }
}

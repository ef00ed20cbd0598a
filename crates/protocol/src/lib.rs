//! What is said in a federation: ids, plans, datasets' public face, rounds, contributions, refusals.
//!
//! Plain values without I/O, clock or entropy. A value of this crate is valid: constructors check, fields are private where
//! a combination could be wrong, and deserialising goes through the constructors. Bytes from the network become these types
//! in `transport::convert` only.

pub mod contribution;
pub mod dataset;
pub mod encoding;
pub mod experiment;
pub mod expression;
pub mod formula;
pub mod hash;
pub mod ids;
pub mod message;
pub mod metric;
pub mod model;
pub mod pass;
pub mod plan;
pub mod refusal;
pub mod round;
pub mod secure;
pub mod statistic;
pub mod tags;
pub mod tensor;
pub mod timestamp;
pub mod version;

pub use contribution::{Contribution, Purpose, Vector, VectorSpec, layout_byte_len};
pub use dataset::{ColumnFace, ColumnKind, DataType, DatasetFace, RowCount};
pub use encoding::{Encoding, EncodingError, Integers, Rounding, Width};
pub use experiment::{Clipping, ExperimentSpec, OnFailure, Patience, RawExperimentSpec, SecureSpec, Selection};
pub use expression::{Expression, ExpressionError, KindError, ValueKind};
pub use formula::{Factor, Formula, Response, Term};
pub use hash::Digest;
pub use ids::{DatasetId, ExperimentId, NodeId, RequestId, ResearcherId, TaskId};
pub use message::{
    HeldTask, Hello, MAX_KEYED_EXPERIMENTS, Measured, NodeMessage, Progress, Report, ResearcherMessage, UploadHeader,
    Welcome,
};
pub use metric::{Metric, ValidatedOn};
pub use model::{Activation, Family, ModelSpec, Outcome, Precision};
pub use pass::{Given, Pass};
pub use plan::{
    MAX_COLUMN_NAME_CHARS, MAX_FEATURES, MAX_STATISTIC_COLUMNS, Missing, OptimizerSpec, Plan, PlanKind, RawTrainingPlan,
    StatisticPlan, TrainingArguments, TrainingPlan, Validation,
};
pub use refusal::{Refusal, RefusalCode};
pub use round::{BlobRef, Requester, RoundKey, Task, Work};
pub use secure::{KeyNegotiation, Masking, Scheme, Secagg, SecureMessage, SecureStep};
pub use statistic::{Category, Combat, Confidence, Count, Cox, Glm, GlmFamily, Level, Meta, Question, Statistic, Survival};
pub use tags::Tags;
pub use tensor::{Scalars, Tensor, TensorError, Tensors, TensorsReader};
pub use timestamp::Timestamp;
pub use version::{Capability, ProtocolVersion};

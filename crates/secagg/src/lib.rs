//! Masked sums among parties that may vanish: pure values that take messages and give messages, without sockets, clocks, disks or
//! entropy of their own. The bytes are those of `SPECIFICATION.md` in this folder; `testdata/` holds vectors, `tests/reference/` an
//! independent reference in Python that wrote them.
//!
//! # Against whom
//!
//! | who | does | learns or achieves |
//! |---|---|---|
//! | a curious researcher | follows the protocol, keeps all it sees | the sum over the survivors, who took part, how long messages are |
//! | a researcher that lies | tells nodes different lists, keys, thresholds; claims losses; repeats messages | at most one sum for each round and phase, over at least max(t, `min_parties`) nodes whose identity keys are in every signer's roster; or no sum |
//! | up to c nodes that collude with it | hand over all they hold | the sum of the other survivors, at least max(t, `min_parties`) − c of them |
//! | a node that lies | sends wrong keys or shares | a session without a sum, and its name where signatures or spare shares show it |
//! | somebody on the way | reads, alters, repeats | nothing beyond lengths and times; what was altered or repeated is refused |
//!
//! Not protected: what the sum itself tells about one node (that is for differential privacy); a node that sends a wrong value (its value
//! is hidden, so that nobody can look at it); against more than c colluding nodes; whether a session ends, since anybody can keep silent;
//! a roster filled by the researcher against that researcher, which could enrol ghosts.
//!
//! # The schemes
//!
//! | | `lom` | `joye-libert` | none |
//! |---|---|---|---|
//! | what a round costs a node | key stream and addition, k + 1 times | one power modulo N² for each 2047 bits | nothing |
//! | bytes sent | those of the vector | about twice | those of the vector |
//! | exchanges in a round | preparation (rides on an earlier message), vector, two short ones at the end | vector | vector |
//! | losses survived | n − max(t, `min_parties`) | none | all |
//! | rests on | X25519, AES-128, HKDF-SHA-256, Shamir, ECDSA P-256 | composite residuosity of a modulus nobody factored, SHA-256, Shamir | – |
//! | what the researcher learns | the sum over the survivors | the sum over all | every node's value |
//! | what nodes learn of each other | who takes part | the same | nothing |
//! | a researcher that tells nodes different things | no sum: lists are signed, terms are in the keys | no sum: labels and keys differ | sees all anyway |
//! | a node that comes late | its vector is useless without its self mask, which nobody reveals | the sum waits for it | – |
//! | two nodes | each learns the other's value | the same | – |
//! | keys of one round tell about another | no: drawn anew for each session | the key is kept for a list of parties | – |
//! | against a quantum computer, from records | no (X25519) | no (factoring) | no |
//!
//! # The way of a round
//!
//! Under `lom` (roles: [`lom::NodeRole`], [`lom::ResearcherSession`]; their messages: [`exchange`]):
//!
//! | | node | researcher |
//! |---|---|---|
//! | once for an experiment | offers a channel key, signed ([`channel`], [`identity`]), and agrees with each other node | checks offers, relays them |
//! | with the previous message | prepares: fresh secrets, shares sealed for its neighbours ([`session`], [`shamir`], [`graph`]) | relays them when enough have come |
//! | the vector | adds its masks ([`mask`]) and sends | folds vectors as they come, then fixes the survivors |
//! | attest | signs the list of survivors, one ever | collects signatures and shows them to all |
//! | reveal | sees enough signatures, gives shares: self masks of survivors, masking keys of the lost | rebuilds the masks of exactly this sum, checks each, subtracts |
//!
//! Under `joye-libert` (roles: [`joye_libert::Node`], [`joye_libert::Researcher`]): keys once for a list of parties, masks while
//! training runs, then one message with the ciphertexts; see [`joye_libert`].
//!
//! Roles are values: a call takes a message and gives a message. Whoever holds one stores it after the call and before the answer
//! leaves, so that after a restart the same question gets the same bytes.
//!
//! # Sources
//!
//! - Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS.
//! - Bell et al. 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS.
//! - Joye and Libert 2013, "A Scalable Scheme for Privacy-Preserving Aggregation of Time-Series Data", Financial Cryptography.
//! - Ben-Or, Goldwasser and Wigderson 1988, "Completeness Theorems for Non-Cryptographic Fault-Tolerant Distributed Computation", STOC.
//! - Shamir 1979, "How to Share a Secret", Communications of the ACM.

pub mod channel;
pub mod exchange;
pub mod graph;
pub mod identity;
pub mod joye_libert;
pub mod lom;
pub mod mask;
pub mod party;
pub mod problem;
pub mod session;
pub mod shamir;
pub mod threshold;
pub mod wire;

#[cfg(test)]
mod vectors;

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
//! | two nodes | each learns the other's value | the same | – |
//! | keys of one round tell about another | no: drawn anew for each session | the key is kept for a list of parties | – |
//! | against a quantum computer, from records | no (X25519) | no (factoring) | no |
//!
//! # The way of a round
//!
//! See [`lom`] and [`joye_libert`]. In short, for `lom`: nodes agree once on channel keys ([`channel`]), prepare each session
//! ([`session`]) with fresh secrets shared among their neighbours ([`shamir`], [`graph`]), mask ([`mask`]), sign the list of survivors
//! ([`identity`]), and reveal the shares that unmask exactly the sum over that list.

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

//! What is refused, and why. A refusal leaves the role that gave it as it was.

use crate::party::PartyId;

/// Says why a message or request was refused, or why no sum can be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{what} must be 1 to {most} bytes of UTF-8, got {got} bytes")]
    Text { what: &'static str, most: usize, got: usize },
    #[error("a session needs 2 to 65536 different parties, got {got}")]
    PartyCount { got: usize },
    #[error("{party} is named twice")]
    PartyTwice { party: PartyId },
    #[error("{party} is not a party of this session")]
    NotAParty { party: PartyId },
    #[error("{party} has no identity key in the roster")]
    NotInRoster { party: PartyId },
    #[error("no channel with {party} has been agreed")]
    NoChannel { party: PartyId },
    #[error("{party} offered other channel keys than before")]
    ChangedOffer { party: PartyId },
    #[error("the {what} of {party} has no valid signature")]
    Signature { what: &'static str, party: PartyId },
    #[error("the public key in the {what} of {party} is not usable")]
    PublicKey { what: &'static str, party: PartyId },
    #[error("the {what} of {party} is not what it committed to")]
    Commitment { what: &'static str, party: PartyId },
    #[error("a message of {party} does not open: altered, truncated or meant for something else")]
    Sealed { party: PartyId },
    #[error("a message of {party} is a repetition or came late: counter {got}, expected above {last}")]
    Replayed { party: PartyId, got: u64, last: u64 },
    #[error("the {what} has {got} bytes, expected {expected}")]
    Length { what: &'static str, expected: usize, got: usize },
    #[error("the {what} is not in canonical form")]
    Malformed { what: &'static str },
    #[error("the session is for another experiment")]
    OtherExperiment,
    #[error(
        "the session asks for the threshold {got} among {parties}; with {colluders} colluders it must be {least} to {parties}"
    )]
    Threshold { got: u32, least: u32, parties: u32, colluders: u32 },
    #[error("{got} colluders are more than the {most} against which a sum protects anybody")]
    Colluders { got: u32, most: u32 },
    #[error("the terms differ from those masked under before")]
    OtherTerms,
    #[error("{got} survivors are too few: {least} are needed{}", two_parties(*.least, *.got))]
    TooFewSurvivors { got: u32, least: u32 },
    #[error("at least {least} parties are required here, the session has {got}{}", two_parties(*.least, *.got))]
    TooFewParties { got: u32, least: u32 },
    #[error("the session ends with {got} survivors or more, fewer than the {least} required here")]
    MinParties { got: u32, least: u32 },
    #[error("another session was prepared for the same round, attempt and phase")]
    SecondSession,
    #[error("an earlier attempt was revealed: a later one would show their difference")]
    AlreadyRevealed,
    #[error("a later attempt has begun: this one is given up")]
    Superseded,
    #[error("retrying with another list of parties needs the threshold {least}, the session has {got}")]
    RetryThreshold { got: u32, least: u32 },
    #[error("round {round} is closed")]
    Closed { round: u32 },
    #[error("the session is not known here")]
    UnknownSession,
    #[error("the session is at another step: {expected} expected, {got} asked")]
    WrongStep { expected: &'static str, got: &'static str },
    #[error("the preparations given differ from those given before")]
    OtherPreparations,
    #[error("another list of survivors was signed or revealed for this session")]
    SecondList,
    #[error("this node is not among the survivors")]
    NotASurvivor,
    #[error("{party} is listed as a survivor, but its preparation was not given here")]
    NotPrepared { party: PartyId },
    #[error("{got} valid signatures of survivors, {least} are needed")]
    TooFewSignatures { got: u32, least: u32 },
    #[error("too few neighbours of some survivor are left: its mask could not be told from those of the colluding")]
    Scattered,
    #[error("{party} revealed other shares than the list of survivors asks for")]
    OtherShares { party: PartyId },
    #[error("{party} said two different things in the same step")]
    Equivocation { party: PartyId },
    #[error("{got} shares of {party} are known, {least} are needed")]
    TooFewShares { party: PartyId, got: u32, least: u32 },
    #[error("the shares of {party} do not give its secret; wrong ones came from: {}", names(.liars))]
    WrongShares { party: PartyId, liars: Vec<PartyId> },
    #[error("{got} elements of {width} bytes do not fit the bytes given")]
    Elements { got: usize, width: usize },
    #[error("the list of neighbours cannot be {neighbours} of {parties} parties")]
    Neighbours { neighbours: u32, parties: u32 },
    #[error("the seed of the graph is not what the parties opened")]
    GraphSeed,
}

/// Explains the refusal of two parties, which owners meet first.
fn two_parties(least: u32, got: u32) -> &'static str {
    if least > 2 && got == 2 {
        " (of two parties each learns the other's value; the owner may set min_parties = 2 and accept that)"
    } else {
        ""
    }
}

fn names(parties: &[PartyId]) -> String {
    if parties.is_empty() {
        return "unknown".to_owned();
    }
    parties.iter().map(PartyId::as_str).collect::<Vec<_>>().join(", ")
}

//! The version handshake: who is too old is told so.

use protocol::{ProtocolVersion, Refusal, RefusalCode};

/// Checks the version that a peer told, as seen by this build. `own` and `peer` name the sides for the sentence.
pub(crate) fn check(own: &str, peer: &str, version: ProtocolVersion) -> Result<(), Refusal> {
    let current = ProtocolVersion::CURRENT;
    if current.works_with(version) {
        return Ok(());
    }
    let older = if (version.major, version.minor) < (current.major, current.minor) { peer } else { own };
    let sentence =
        format!("the {own} speaks version {current} of the protocol, the {peer} {version}: update the {older}'s software");
    Err(Refusal::new(RefusalCode::Incompatible, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_side_is_asked_to_update_and_one_minor_version_apart_works() {
        let current = ProtocolVersion::CURRENT;
        assert!(check("researcher", "node", ProtocolVersion { minor: current.minor + 1, ..current }).is_ok());
        let refusal = check("researcher", "node", ProtocolVersion { minor: current.minor + 2, ..current }).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Incompatible);
        assert!(refusal.sentence.ends_with("update the researcher's software"), "{refusal}");
        let refusal = check("researcher", "node", ProtocolVersion { major: 0, minor: 9 }).unwrap_err();
        assert!(refusal.sentence.ends_with("update the node's software"), "{refusal}");
    }
}

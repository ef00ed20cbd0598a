//! Certificates, keys, and the files by which a node enrols without a connection.

use std::sync::LazyLock;
use std::time::Duration;

use protocol::{NodeId, ResearcherId, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use transport::identity::{Certificate, EnrolmentAnswer, FederationCa, SecretKey, SigningRequest, TaskKey};
use transport::secret::SecretText;

const DAY: Duration = Duration::from_hours(24);
const NOW: Timestamp = Timestamp::MAX;

static AUTHORITY: LazyLock<(FederationCa, NodeId)> = LazyLock::new(|| {
    let mut rng = StdRng::seed_from_u64(1);
    let authority = FederationCa::create(&ResearcherId::random(&mut rng), NOW, DAY, &mut rng);
    (authority.expect("an authority can be made"), NodeId::random(&mut rng))
});

/// Reads bytes as each of them: as DER, and as text.
pub fn check(bytes: &[u8]) {
    if let Ok(certificate) = Certificate::from_der(bytes) {
        check_certificate(&certificate);
    }
    let (authority, node) = &*AUTHORITY;
    if let Ok(issued) = authority.issue_node(bytes, node, NOW, DAY, &mut StdRng::seed_from_u64(2)) {
        assert_eq!(issued.node(), Some(node), "the authority chooses the name");
        assert!(issued.check_issuer(authority.certificate()).is_ok());
    }
    drop(TaskKey::from_point(bytes));
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(certificate) = Certificate::from_pem(text) {
        check_certificate(&certificate);
    }
    if let Ok(key) = SecretKey::from_pem(&SecretText::new(text.to_owned())) {
        let again = SecretKey::from_pem(&key.to_pem()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.fingerprint(), key.fingerprint());
    }
    if let Ok(request) = SigningRequest::from_text(text) {
        let again = SigningRequest::from_text(&request.to_text("North")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again, request);
    }
    if let Ok(answer) = EnrolmentAnswer::from_text(text) {
        let again = EnrolmentAnswer::from_text(&answer.to_text()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again, answer);
    }
}

fn check_certificate(certificate: &Certificate) {
    let again = Certificate::from_pem(&certificate.to_pem()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&again, certificate);
    let _ = (certificate.is_due(NOW), certificate.is_expired(NOW));
    drop(certificate.check_issuer(certificate));
    assert!(certificate.check_issuer(AUTHORITY.0.certificate()).is_err(), "nobody but the authority signs for it");
}

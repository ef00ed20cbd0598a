//! ECDSA P-256 keys (FIPS 186-5), for certificates and for signing tasks.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use protocol::Task;
use rcgen::PublicKeyData;
use rustls::pki_types::PrivateKeyDer;

use super::{Fingerprint, IdentityError};
use crate::secret::{SecretText, from_pem, to_pem};

const PEM_LABEL: &str = "PRIVATE KEY";

/// A private key. The library that holds it wipes it on drop.
pub struct SecretKey(EcdsaKeyPair);

impl SecretKey {
    /// Draws a key from the system's entropy.
    pub fn generate() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("the system's entropy is there"))
    }

    /// Reads PKCS #8 in PEM.
    pub fn from_pem(pem: &SecretText) -> Result<Self, IdentityError> {
        let der = from_pem(PEM_LABEL, pem.expose()).ok_or(IdentityError::Pem("private key"))?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).map(Self).map_err(|_| IdentityError::Key)
    }

    /// Writes PKCS #8 in PEM.
    pub fn to_pem(&self) -> SecretText {
        let der = self.0.to_pkcs8v1().expect("a key that is held can be written");
        SecretText::new(to_pem(PEM_LABEL, der.as_ref()).to_string())
    }

    /// Writes PKCS #8 in DER, wiped on drop.
    pub fn to_der(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let der = self.0.to_pkcs8v1().expect("a key that is held can be written");
        zeroize::Zeroizing::new(der.as_ref().to_vec())
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.subject_public_key_info())
    }

    /// The public key as an uncompressed point (SEC 1 §2.3.3), 65 bytes.
    pub fn public_point(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// Signs what a node is asked to do.
    pub fn sign_task(&self, task: &Task) -> Vec<u8> {
        self.signature(&task.signed_bytes())
    }

    pub(super) fn signature(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.0.sign(&SystemRandom::new(), message).expect("a key that is held can sign");
        signature.as_ref().to_vec()
    }

    pub(crate) fn for_tls(&self) -> Arc<dyn rustls::sign::SigningKey> {
        let der = self.0.to_pkcs8v1().expect("a key that is held can be written");
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&PrivateKeyDer::Pkcs8(der.as_ref().into()))
            .expect("TLS takes ECDSA P-256 keys")
    }
}

impl PublicKeyData for SecretKey {
    fn der_bytes(&self) -> &[u8] {
        self.public_point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for SecretKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.signature(message))
    }
}

/// The public key with which a node checks the tasks of one researcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskKey(Vec<u8>);

impl TaskKey {
    /// Takes an uncompressed point; one that is not on the curve verifies nothing.
    pub fn from_point(point: &[u8]) -> Result<Self, IdentityError> {
        if point.len() == 65 && point[0] == 4 { Ok(Self(point.to_vec())) } else { Err(IdentityError::Key) }
    }

    pub fn as_point(&self) -> &[u8] {
        &self.0
    }

    /// Fails unless the researcher asked exactly this.
    pub fn verify(&self, task: &Task, signature: &[u8]) -> Result<(), IdentityError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(&task.signed_bytes(), signature)
            .map_err(|_| IdentityError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{DatasetId, ExperimentId, NodeId, Plan, Requester, RoundKey, StatisticPlan, TaskId, Work};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn task() -> Task {
        let mut rng = StdRng::seed_from_u64(1);
        Task {
            id: TaskId::random(&mut rng),
            node: NodeId::random(&mut rng),
            key: RoundKey { experiment: ExperimentId::random(&mut rng), round: 0, attempt: 0, phase: 0 },
            requester: Requester { user: "ada".to_owned() },
            dataset: DatasetId::random(&mut rng),
            plan: Plan::Statistic(StatisticPlan::Moments { columns: vec!["age".to_owned()] }),
            work: Work::SquaredDifferences { means: vec![54.0 + 1.0 / 3.0] },
            model: None,
            layout: Vec::new(),
            masking: None,
        }
    }

    #[test]
    fn a_signature_holds_for_exactly_one_task_and_key() {
        let key = SecretKey::generate();
        let public = TaskKey::from_point(key.public_point()).unwrap();
        let signature = key.sign_task(&task());
        public.verify(&task(), &signature).unwrap();
        // As it arrives: through JSON and back.
        let arrived: Task = serde_json::from_slice(&serde_json::to_vec(&task()).unwrap()).unwrap();
        public.verify(&arrived, &signature).unwrap();
        let other = Task { requester: Requester { user: "eve".to_owned() }, ..task() };
        assert!(public.verify(&other, &signature).is_err());
        let elsewhere = Task { node: NodeId::random(&mut StdRng::seed_from_u64(2)), ..task() };
        assert!(public.verify(&elsewhere, &signature).is_err());
        assert!(public.verify(&task(), &signature[1..]).is_err());
        assert!(TaskKey::from_point(SecretKey::generate().public_point()).unwrap().verify(&task(), &signature).is_err());
        assert!(TaskKey::from_point(&[4; 65]).unwrap().verify(&task(), &signature).is_err(), "not on the curve");
        assert!(TaskKey::from_point(&[4; 64]).is_err());
    }

    #[test]
    fn a_key_survives_being_written() {
        let key = SecretKey::generate();
        let read = SecretKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(read.fingerprint(), key.fingerprint());
        assert!(SecretKey::from_pem(&SecretText::new("-----BEGIN PRIVATE KEY-----\nAAAA\n".to_owned())).is_err());
    }
}

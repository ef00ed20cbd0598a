//! Sealing of secrets that lie in the database.
//!
//! The key is a file of the key store that backups leave out, and what is sealed is bound to that very file (its inode): in a copy
//! of the folder nothing opens. Two nodes that went on from the same secrets would repeat counters and sign two lists.

use std::io;
use std::os::unix::fs::MetadataExt;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Tag};
use component::keystore::{KeyStoreError, Secret};
use protocol::{ExperimentId, ResearcherId};
use rand::Rng;
use secagg::wire::Fixed;
use zeroize::Zeroizing;

use crate::handle::NodeHandle;

/// The name of the key in the key store.
const KEY: &str = "secure-storage.key";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// The key, made at its first use, and what identifies its file.
fn key(node: &NodeHandle) -> Result<(Zeroizing<[u8; 32]>, u64), KeyStoreError> {
    if !node.keys().has(KEY) {
        let mut bytes = Zeroizing::new([0; 32]);
        node.draw(|rng| rng.fill_bytes(bytes.as_mut_slice()));
        node.keys().write(KEY, &Secret::new(Fixed(*bytes).to_string()))?;
    }
    let path = node.folder().keys().join(KEY);
    let failed = |source| KeyStoreError::Io { path: path.clone(), source };
    let text = node.keys().read(KEY)?;
    let bytes: Fixed<32> =
        Fixed::from_hex("key", text.expose()).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let inode = std::fs::metadata(&path).map_err(failed)?.ino();
    Ok((Zeroizing::new(bytes.0), inode))
}

fn associated(researcher: &ResearcherId, experiment: &ExperimentId, inode: u64) -> String {
    format!("fedbiomed secure state v1\0{researcher}\0{experiment}\0{inode}")
}

/// Seals the secrets of an experiment: nonce, ciphertext, tag.
pub(super) fn seal(
    node: &NodeHandle,
    (researcher, experiment): (&ResearcherId, &ExperimentId),
    secrets: &[u8],
) -> Result<Vec<u8>, KeyStoreError> {
    let (key, inode) = key(node)?;
    let mut nonce = [0; NONCE_BYTES];
    node.draw(|rng| rng.fill_bytes(&mut nonce));
    let associated = associated(researcher, experiment, inode);
    let mut bytes = Vec::with_capacity(NONCE_BYTES + secrets.len() + TAG_BYTES);
    bytes.extend(nonce);
    bytes.extend(secrets);
    let tag = Aes256Gcm::new((&*key).into())
        .encrypt_inout_detached(&nonce.into(), associated.as_bytes(), (&mut bytes[NONCE_BYTES..]).into())
        .expect("secrets are far below the cipher's 64 GiB");
    bytes.extend_from_slice(&tag);
    Ok(bytes)
}

/// Opens the secrets of an experiment; `None` if they were sealed elsewhere.
pub(super) fn open(
    node: &NodeHandle,
    (researcher, experiment): (&ResearcherId, &ExperimentId),
    sealed: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
    let (key, inode) = key(node)?;
    let Some((nonce, sealed)) = sealed.split_first_chunk::<NONCE_BYTES>() else { return Ok(None) };
    let Some((sealed, tag)) = sealed.split_last_chunk::<TAG_BYTES>() else { return Ok(None) };
    let associated = associated(researcher, experiment, inode);
    let mut secrets = Zeroizing::new(sealed.to_vec());
    let opened = Aes256Gcm::new((&*key).into()).decrypt_inout_detached(
        nonce.into(),
        associated.as_bytes(),
        secrets.as_mut_slice().into(),
        &Tag::from(*tag),
    );
    Ok(opened.ok().map(|()| secrets))
}

//! Models, and checkpoints, in the safetensors layout.

use learning::{Checkpoint, Standardisation};
use protocol::{Tensor, Tensors};

/// Reads tensors; what was read is written and read as the same.
pub fn check(bytes: &[u8]) {
    let Ok(tensors) = Tensors::from_bytes(bytes) else { return };
    assert_eq!(tensors.len(), tensors.iter().map(Tensor::name).collect::<std::collections::BTreeSet<_>>().len());
    check_writing(&tensors);
    if let Ok(checkpoint) = Checkpoint::from_tensors(tensors.clone()) {
        let again = Checkpoint::from_tensors(checkpoint.to_tensors()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again.to_tensors().to_bytes(), checkpoint.to_tensors().to_bytes());
        assert_eq!((again.passes(), again.updates()), (checkpoint.passes(), checkpoint.updates()));
    }
    if let Ok((parameters, Some(standardisation))) = Standardisation::detach(tensors) {
        assert!(standardisation.scales().iter().all(|scale| *scale > 0.0));
        check_writing(&standardisation.attach(parameters));
    }
}

/// Compared as bytes: a model may hold what is not a number.
fn check_writing(tensors: &Tensors) {
    let written = tensors.to_bytes();
    let read = Tensors::from_bytes(&written).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read.to_bytes(), written);
}

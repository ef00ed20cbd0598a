//! Contributions and the model that they move: the researcher's fold.

use std::path::Path;

use protocol::{Encoding, Purpose, Tensors, VectorSpec, Width};
use researcher::experiment::Folded;
use researcher::fold::{FoldError, FoldJob, fold};

/// Takes a model and then a contribution from the bytes; folds the latter twice, turned, with one that is all zeros.
pub fn check(bytes: &[u8]) {
    let Some((model, contribution)) = super::split(bytes) else { return };
    let layout = layout(model);
    super::in_folder(|folder| {
        let write = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, content).expect("the temporary folder can be written");
            path
        };
        let (model, first) = (write("model", model), write("first", contribution));
        let second = write("second", &vec![0; contribution.len()]);
        let job = |contributions| FoldJob {
            layout: layout.clone(),
            contributions,
            unmasking: None,
            model: Some(model.clone()),
            models: folder.join("models"),
        };
        let one_way = fold(&job(vec![first.clone(), second.clone()]));
        let other_way = fold(&job(vec![second, first]));
        match (one_way, other_way) {
            (Ok((folded, bytes)), Ok(turned)) => {
                assert!(folded == turned.0 && bytes == turned.1, "the order does not matter");
                check_model(folder, &model, &folded);
            }
            (Err(FoldError::Spoiled(one)), Err(FoldError::Spoiled(other))) => {
                assert!(one == 1 - other || one == 0, "it is the same that is spoiled, or both are");
            }
            (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
            _ => panic!("the order decides whether they fold"),
        }
    });
}

/// A layout that fits the model, if it is one.
fn layout(model: &[u8]) -> Vec<VectorSpec> {
    let spec = |purpose, name: &str, shape, encoding| VectorSpec { purpose, name: name.to_owned(), shape, encoding };
    let mut layout = vec![spec(Purpose::Weight, "weight", vec![1], Encoding::COUNT)];
    match Tensors::from_bytes(model) {
        Ok(tensors) => layout.extend(tensors.iter().enumerate().map(|(index, tensor)| {
            let width = if index % 2 == 0 { Width::Bits32 } else { Width::Bits128 };
            spec(Purpose::Model, tensor.name(), tensor.shape().to_vec(), Encoding { width, exponent: 12 })
        })),
        Err(_) => layout.push(spec(Purpose::Model, "w", vec![2], Encoding { width: Width::Bits32, exponent: 12 })),
    }
    layout.push(spec(Purpose::Loss, "loss", vec![1], Encoding::REAL));
    layout
}

/// The new model has the tensors of the old one, and finite numbers.
fn check_model(folder: &Path, old: &Path, folded: &Folded) {
    let Some(blob) = folded.model else { return };
    let path = researcher::files::model_in(&folder.join("models"), blob);
    let new = std::fs::read(&path).expect("the new model is there");
    let old = std::fs::read(old).expect("the old model is there");
    std::fs::remove_file(&path).expect("the new model is ours");
    let Ok(old) = Tensors::from_bytes(&old) else { return };
    let new = Tensors::from_bytes(&new).unwrap_or_else(|error| panic!("{error}"));
    assert!(old.iter().map(|tensor| (tensor.name(), tensor.shape())).eq(new.iter().map(|it| (it.name(), it.shape()))));
    assert!(new.iter().all(|tensor| tensor.scalars().to_f64().iter().all(|value| value.is_finite())));
}

//! A hospital whose rules are stricter than the experiment's says with what numbers it would take part.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stricter_hospital_says_what_to_set() {
    for (nodes, rule, sentence) in [
        (4, ("FBM_SECURITY_MAX_COLLUDERS", "2"), "; set max_colluders = 2 in the experiment"),
        (3, ("FBM_SECURITY_MAX_COLLUDERS", "2"), "; that takes 4 nodes or more"),
        (4, ("FBM_SECURITY_MIN_PARTIES", "4"), "; set min_parties = 4 in the experiment"),
        (3, ("FBM_SECURITY_MIN_PARTIES", "4"), "; ask 4 nodes or more"),
    ] {
        let mut federation = federation(nodes, &[rule]).await;
        let spec = federation.spec((1, 0), 3);
        let request = federation.request(&spec);
        let refusal = federation.hospitals[0].step(SecureStep::Prepare, (1, 0), &request).await.unwrap_err();
        assert!(refusal.sentence.ends_with(sentence), "{rule:?}: {refusal}");
    }
}

use proptest::prelude::*;
use protocol::{Refusal, RefusalCode, RowCount};

use super::super::{PooledMetric, SiteRound, sample};
use super::*;
use crate::command::Hidden;

fn page(record: &Record) -> String {
    html(record, None)
}

/// Checks what must hold for any page: it loads nothing, runs nothing and closes what it opens.
fn check_sound(page: &str) {
    for forbidden in ["<script", "<img", "<link", "src=", "url(", "@import", "NaN", " inf"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("http").count(), 1, "only http-equiv");
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        let name = tag.split([' ', '\n', '/']).next().unwrap_or("");
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed)),
            None if tag.ends_with('/') || ["meta", "!DOCTYPE"].contains(&name) => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_shows_the_experiment() {
    let page = page(&sample::record(4, 20));
    check_sound(&page);
    for text in [
        "<h1><bdi>Heart disease in four hospitals</bdi></h1>",
        "<span>Logistic regression</span><span>4 sites</span><span>20 rounds</span><span>3.2 s</span>",
        "<h2>AUC</h2><p class=\"big\">0.853<small title=\"largest possible error of counting scores in bins\"> ± 0.0002</small></p>",
        "<p class=\"note\"><bdi>0.500 before training</bdi></p>",
        "<td>≈ 300</td><td>≈ 230</td><td>≈ 76</td>",
        "<dt>Optimizer</dt><dd><bdi>SGD, learning rate 0.1, momentum 0.9</bdi></dd>",
        "<dt>Held out</dt><dd><bdi>25 % of each site’s rows</bdi></dd>",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("<svg class=\"chart\"").count(), 4, "training loss, AUC, log loss, time");
}

#[test]
fn an_undefined_metric_is_a_dash_with_its_reason() {
    let mut record = sample::record(4, 2);
    let zurich = record.sites[2].node.clone();
    let last = record.rounds.last_mut().unwrap();
    let Some(SiteRound::Reported(report)) = last.sites.get_mut(&zurich) else { panic!("the sample reports") };
    report.measured.retain(|measured| measured.metric != Metric::Auc);
    report.remarks =
        vec!["AUC has no meaning: one class only among 31 held-out rows.".into(), "6 rows were left out.".into()];
    let page = page(&record);
    check_sound(&page);
    let reason = "AUC has no meaning: one class only among 31 held-out rows.";
    assert!(page.contains(&format!(
        "<td class=\"none\"><span title=\"{reason}\">–</span><sup><a href=\"#global-note-1\">1</a></sup></td>"
    )));
    assert!(page.contains(&format!("<ol class=\"notes\"><li id=\"global-note-1\"><bdi>{reason}</bdi></li></ol>")));
}

#[test]
fn sites_that_are_silent_refuse_or_hide_are_explained() {
    let mut record = sample::record(4, 2);
    let nodes: Vec<_> = record.sites.iter().map(|site| site.node.clone()).collect();
    record.sites[0].rows = RowCount::Hidden;
    record.sites[3].rows = RowCount::Exact(303);
    let last = record.rounds.last_mut().unwrap();
    last.sites.remove(&nodes[0]);
    last.sites.insert(nodes[1].clone(), SiteRound::Contributed);
    let refusal = Refusal::new(RefusalCode::StoppedByHospital, "stopped by the hospital");
    last.sites.insert(nodes[2].clone(), SiteRound::Refused(refusal.clone()));
    record.experiment.stopped = Some(refusal);
    let page = page(&record);
    check_sound(&page);
    for text in [
        "The site did not take part in this validation.",
        "Only the sum over all sites is known (secure aggregation).",
        "<bdi>stopped by the hospital</bdi></li>",
        "<td>3</td><td><bdi>Did not contribute: stopped by the hospital (stopped_by_hospital)</bdi></td>",
        "<td>hidden</td><td>hidden</td><td>hidden</td>",
        "<td>303</td><td>227</td><td>76</td>",
        "<strong>Ended after 2 of 2 rounds.</strong>",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_report_says_whether_and_how_values_were_hidden() {
    let mut record = sample::record(4, 2);
    assert!(page(&record).contains("<dt>Sites’ values hidden from the researcher</dt><dd><bdi>no</bdi></dd>"));
    for round in &mut record.rounds {
        let scheme = protocol::Scheme::Lom;
        round.hidden = Some(Hidden { scheme, parties: 4, threshold: 3, colluders: 1, survivors: 4, clipped: Some(2) });
    }
    let page = page(&record);
    check_sound(&page);
    for text in [
        "low-overhead masking (lom) in 3 rounds",
        "at least 4 sites began",
        "3 were needed",
        "up to 1 of them",
        "6 elements",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn hostile_names_stay_text() {
    let mut record = sample::record(2, 2);
    let hostile = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&";
    record.sites[0].name = hostile.to_owned();
    record.experiment.requester.user = hostile.to_owned();
    record.experiment.software = hostile.to_owned();
    record.experiment.standardisation[0].feature = hostile.to_owned();
    record.experiment.stopped = Some(Refusal::new(RefusalCode::Internal, hostile));
    record.rounds[0].pooled[0].remark = Some(hostile.to_owned());
    record.rounds[2].pooled[0] =
        PooledMetric { value: None, remark: Some(hostile.into()), ..record.rounds[2].pooled[0].clone() };
    let page = page(&record);
    for forbidden in ["<script", "<img", "'x'"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
}

#[test]
fn one_site_and_two_hundred_are_shown() {
    let one = page(&sample::record(1, 1));
    check_sound(&one);
    assert!(one.contains("<span>1 site</span><span>1 round</span>"));
    let many = page(&sample::record(200, 50));
    check_sound(&many);
    assert!(many.contains("Median site") && many.contains(">200 sites</") && many.contains("each of 200 sites"));
    assert!(many.len() < 2_000_000, "{}", many.len());
}

#[test]
fn an_experiment_without_rounds_or_sites_has_a_page() {
    let mut record = sample::record(0, 3);
    check_sound(&page(&record));
    record.rounds.clear();
    let page = page(&record);
    check_sound(&page);
    assert!(page.contains("<span>0 sites</span><span>0 rounds</span>") && !page.contains("<svg"));
}

proptest! {
    #[test]
    fn any_values_and_words_make_a_sound_page(
        values in proptest::collection::vec(any::<f64>(), 8),
        round in any::<u32>(),
        name in any::<String>(),
    ) {
        let mut record = sample::record(3, 2);
        record.sites[0].name.clone_from(&name);
        record.rounds[0].loss = Some(values[0]);
        record.rounds[0].seconds = values[1];
        record.rounds[1].round = round;
        record.experiment.standardisation[0].mean = values[2];
        for (pooled, value) in record.rounds[2].pooled.iter_mut().zip(&values[3..]) {
            (pooled.value, pooled.error_bound, pooled.remark) = (Some(*value), Some(values[5]), Some(name.clone()));
        }
        for part in record.rounds[2].sites.values_mut() {
            let SiteRound::Reported(report) = part else { continue };
            report.loss = Some(values[6]);
            report.measured[0].value = values[7];
            report.remarks.push(name.clone());
        }
        let page = page(&record);
        prop_assert!(page.ends_with("</html>\n"));
        prop_assert!(!page.contains("NaN"));
    }
}

//! Whether a question may be asked at all, before any row is read. What its numbers say of few people is the disclosure gate's to judge.

use protocol::statistic::{Cox, Describe, Question, Statistic, Strata, TimeResolution};
use protocol::{Refusal, RefusalCode};

use super::refuse;
use crate::config::DisclosureRules;

/// Holds the hospital's rules against a question; `is_hidden`: the researcher learns the sum over nodes only.
pub(super) fn check(rules: DisclosureRules, question: &Question, is_hidden: bool) -> Result<(), Refusal> {
    if !is_hidden && !rules.per_site {
        let sentence = "the hospital does not tell a statistic of its own rows alone; ask with secure aggregation";
        return refuse(RefusalCode::SecureAggregationRequired, sentence);
    }
    let least = rules.minimum_rows.max(rules.minimum_events);
    if question.minimum < least {
        return refuse(
            RefusalCode::DisclosureNotAllowed,
            format!("the hospital tells no count below {least}; ask with a minimum of {least}"),
        );
    }
    match &question.statistic {
        Statistic::Describe(plan) => check_describe(rules, plan),
        Statistic::Survival(plan) => check_times(rules, plan.resolution),
        Statistic::Cox(Cox { strata: Strata::None, resolution, .. }) => check_times(rules, *resolution),
        _ => Ok(()),
    }
}

fn check_describe(rules: DisclosureRules, plan: &Describe) -> Result<(), Refusal> {
    if plan.minmax() && !rules.minmax {
        return refuse(
            RefusalCode::DisclosureNotAllowed,
            "the hospital does not tell the smallest and the largest value of a column",
        );
    }
    if !plan.quantiles().is_empty() && plan.minimum_rows() < rules.minimum_rows {
        let least = rules.minimum_rows;
        return refuse(
            RefusalCode::DisclosureNotAllowed,
            format!(
                "the hospital tells no interval with fewer than {least} rows; ask for quantiles with a minimum of {least}"
            ),
        );
    }
    Ok(())
}

fn check_times(rules: DisclosureRules, resolution: TimeResolution) -> Result<(), Refusal> {
    match resolution {
        TimeResolution::Exact if !rules.exact_times => refuse(
            RefusalCode::DisclosureNotAllowed,
            "the hospital does not tell times of events exactly; ask for them in steps",
        ),
        TimeResolution::Events(events) if !rules.exact_times && u64::from(events) < rules.minimum_events => refuse(
            RefusalCode::DisclosureNotAllowed,
            format!("the hospital tells times in steps of at least {} events", rules.minimum_events),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use protocol::Expression;
    use protocol::statistic::{Confidence, Count, DescribedNumber, RawDescribe, Survival, SurvivalInterval};

    use super::*;

    const RULES: DisclosureRules = DisclosureRules {
        minimum_rows: 5,
        minimum_events: 5,
        small_inside_sum: false,
        exact_times: false,
        minmax: false,
        per_site: true,
    };

    fn describe(change: impl FnOnce(&mut RawDescribe)) -> Statistic {
        let mut raw =
            RawDescribe { numbers: vec![DescribedNumber::new(Expression::column("age"))], ..RawDescribe::default() };
        change(&mut raw);
        Statistic::Describe(Describe::new(raw).unwrap())
    }

    fn survival(resolution: TimeResolution) -> Statistic {
        Statistic::Survival(Survival {
            time: Expression::column("t"),
            event: Expression::column("d"),
            by: None,
            resolution,
            confidence: Confidence::default(),
            interval: SurvivalInterval::default(),
            horizon: None,
        })
    }

    #[test]
    fn the_hospital_says_what_may_be_asked() {
        let code = |rules, statistic: &Statistic, is_hidden| {
            let question = Question { statistic: statistic.clone(), filter: None, minimum: 5 };
            check(rules, &question, is_hidden).err().map(|refusal| refusal.code)
        };
        let not = Some(RefusalCode::DisclosureNotAllowed);
        assert_eq!(code(RULES, &describe(|_| ()), true), None);
        assert_eq!(code(RULES, &describe(|plan| plan.minmax = true), true), not);
        assert_eq!(code(DisclosureRules { minmax: true, ..RULES }, &describe(|plan| plan.minmax = true), true), None);
        assert_eq!(code(RULES, &describe(|plan| plan.minimum_rows = 4), true), not);
        assert_eq!(code(RULES, &survival(TimeResolution::Exact), true), not);
        assert_eq!(code(RULES, &survival(TimeResolution::Events(4)), true), not);
        assert_eq!(code(RULES, &survival(TimeResolution::Events(5)), true), None);
        assert_eq!(code(DisclosureRules { exact_times: true, ..RULES }, &survival(TimeResolution::Exact), true), None);
        let alone = DisclosureRules { per_site: false, ..RULES };
        let count = Statistic::Count(Count::default());
        assert_eq!(code(alone, &count, false), Some(RefusalCode::SecureAggregationRequired));
        assert_eq!(code(alone, &count, true), None);
    }
}

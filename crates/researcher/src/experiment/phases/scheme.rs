//! Whether and how sums are hidden, what people should know about it, and how few nodes are enough.

use crate::experiment::Experiment;
use crate::experiment::secure::Secure;

impl Experiment {
    /// Decides whether sums are hidden, once it is known who takes part. What is hidden once stays so.
    pub(in crate::experiment) fn choose_scheme(&mut self) -> Result<(), String> {
        let (spec, nodes) = (self.spec.secure(), self.participants.len());
        if self.secure.is_none()
            && let Some(researcher) = &self.researcher
        {
            let scheme = spec.secagg.scheme(nodes);
            self.secure = scheme.map(|scheme| Secure::new(scheme, (researcher, &self.id), spec, &self.joye_libert));
        }
        let Some(secure) = &mut self.secure else { return Ok(()) };
        // Other nodes may have more rows.
        secure.forget_rows();
        let least = secure.min_parties();
        if nodes >= least {
            return Ok(());
        }
        let two = if nodes == 2 {
            "; each of two nodes learns the other's value from their sum, `min_parties = 2` allows that"
        } else {
            ""
        };
        Err(format!("secure aggregation needs {least} nodes (`min_parties`), and {nodes} would take part{two}"))
    }

    /// What a person should know about how sums are hidden, beside what holds things up.
    pub(in crate::experiment) fn warning(&self) -> Option<String> {
        let nodes = self.participants.values().filter(|participant| participant.dropped.is_none()).count();
        match &self.secure {
            None if self.spec.secure().secagg == protocol::Secagg::Auto && nodes > 0 && nodes < 3 => Some(format!(
                "each node's values are seen by this researcher: sums are hidden from three nodes on, and {nodes} take part"
            )),
            Some(secure) if secure.needs_all() => Some(format!(
                "joye-libert survives the loss of no node: a round in which one of the {nodes} is lost gives no sum, and begins again \
                 with new keys among those who are left"
            )),
            Some(secure) if nodes >= secure.min_parties() && secure.least_of(nodes) >= nodes => {
                let enough = (nodes + 1..nodes + 10).find(|more| secure.least_of(*more) < *more);
                let enough = enough.map(|more| format!("; with {more} nodes one may be lost")).unwrap_or_default();
                Some(format!("secure aggregation among {nodes} nodes survives the loss of none of them in a round{enough}"))
            }
            _ => None,
        }
    }

    /// How few nodes may begin a round.
    pub(in crate::experiment) fn fewest(&self) -> usize {
        let parties = self.secure.as_ref().map_or(1, Secure::min_parties);
        parties.max(self.spec.patience().min_nodes as usize)
    }

    /// How few contributions the open round needs.
    pub(in crate::experiment) fn fewest_contributions(&self) -> usize {
        let survivors = self.secure.as_ref().map_or(1, Secure::least_survivors);
        survivors.max(self.spec.patience().min_nodes as usize)
    }
}

//! Shares of the keys of Joye-Libert, which the nodes bring to each other themselves where their channel keys went that way.
//!
//! They travel sealed, as they do by way of the researcher, who is given the same and compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use protocol::{Refusal, RefusalCode};
use secagg::channel::Sealed;
use secagg::exchange::{ShareKeysRequest, decode, encode};
use secagg::joye_libert::KeysId;
use secagg::party::PartyId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use transport::negotiation::{Part, Party, Taking};

use super::{Desk, DeskError, Errand, failed};
use crate::store::StoreError;

/// Under which name an experiment's state keeps what was heard.
const STATE: &str = "negotiation.shares";

/// What one node brings to another.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    keys: KeysId,
    sealed: Sealed,
}

/// What all others brought.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shares {
    generation: u32,
    sealed: BTreeMap<PartyId, Sealed>,
}

impl Errand {
    /// The shares of this node's key; nothing if its channel keys went by way of the researcher, or if all was heard.
    pub(super) fn shares(&self, desk: &Desk<'_>, request: &ShareKeysRequest) -> Result<Option<Part>, DeskError> {
        let generation = request.spec.generation;
        if desk.heard()?.is_none() || desk.shares()?.is_some_and(|heard| heard.generation == generation) {
            return Ok(None);
        }
        let shares = desk.share_keys(request)?;
        let keys = shares.keys;
        let peers = self.peers(&request.spec.parties, |party| {
            let sealed = shares.sealed.get(party).ok_or_else(|| failed("a share of the own key is missing"))?;
            Ok(encode(&Share { keys, sealed: sealed.clone() }).into())
        })?;
        let take = move |_: Party, said: Bytes| -> Taking {
            let is_meant = decode("share", &said).is_ok_and(|share: Share| share.keys == keys);
            let refusal = || Refusal::new(RefusalCode::RosterMismatch, "what this party says is no share for these keys");
            Box::pin(std::future::ready(if is_meant { Ok(()) } else { Err(refusal()) }))
        };
        let series = generation.checked_add(1).ok_or_else(|| failed("the keys have too high a number"))?;
        self.begin(series, peers, Arc::new(take)).map(Some)
    }
}

impl Desk<'_> {
    fn shares(&self) -> Result<Option<Shares>, DeskError> {
        let bytes = self.node.store().experiment_state(self.researcher, self.experiment_id(), STATE)?;
        let read = bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(StoreError::from)).transpose();
        Ok(read?)
    }

    pub(super) fn keep_shares(&self, request: &ShareKeysRequest, said: &BTreeMap<PartyId, Bytes>) -> Result<(), DeskError> {
        let mut sealed = BTreeMap::new();
        for (party, bytes) in said {
            sealed.insert(party.clone(), decode::<Share>("share", bytes)?.sealed);
        }
        let content = encode(&Shares { generation: request.spec.generation, sealed });
        let store = self.node.store();
        Ok(store.save_experiment_state(self.researcher, self.experiment_id(), STATE, &content, self.node.now())?)
    }

    /// Compares the shares that the researcher brings with those that the parties brought.
    pub(in crate::secure) fn compare_shares(
        &self,
        generation: u32,
        inbound: &BTreeMap<PartyId, Sealed>,
    ) -> Result<(), DeskError> {
        if self.heard()?.is_none() {
            return Ok(());
        }
        let heard = self.shares()?.filter(|heard| heard.generation == generation);
        let heard = heard.ok_or_else(|| failed("the shares of these keys were not negotiated directly"))?;
        match inbound.iter().find(|(party, sealed)| heard.sealed.get(*party) != Some(*sealed)) {
            None => Ok(()),
            Some((party, _)) => {
                let sentence = format!("{party} gave this node another share directly than the researcher brings");
                tracing::error!(researcher = %self.researcher, %party, "{sentence}");
                let facts = json!({ "researcher": self.researcher, "node": party.as_str(), "reason": sentence });
                self.node.audit("peer.refused", facts)?;
                Err(Refusal::new(RefusalCode::RosterMismatch, sentence).into())
            }
        }
    }
}

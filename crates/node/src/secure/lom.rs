//! Low-overhead masking: the sessions of this node, and the masks of its contributions.

use protocol::VectorSpec;
use secagg::exchange::{AttestRequest, MaskRequest, OpenSeedsRequest, PrepareRequest, RevealAnswer, RevealRequest, encode};
use secagg::identity::IdentityPublic;
use secagg::lom::{Masker, Preparation};
use secagg::party::PartyId;
use secagg::problem::Problem;
use secagg::session::{SessionId, SessionSpec, Terms};
use secagg::wire::Fixed;

use super::{Desk, DeskError, Secrets, Session, failed, roster, vector};

/// The masks of one contribution.
pub(crate) struct Masks {
    masker: Masker,
    session: SessionId,
}

impl Masks {
    /// The session, for the audit log.
    pub(super) fn session(&self) -> String {
        self.session.to_string()
    }

    /// Adds the masks to elements `first_element…` of a vector of the layout, in place.
    pub(crate) fn add(&self, index: usize, spec: &VectorSpec, first_element: u64, elements: &mut [u8]) {
        let (name, modulus) = vector(index, spec);
        self.masker.add(name, modulus, first_element, elements).expect("whole elements are masked");
    }
}

impl Desk<'_> {
    pub(super) fn prepare(&self, request: &PrepareRequest) -> Result<Vec<u8>, DeskError> {
        let mut secrets = self.load()?;
        if secrets.keys.last_generation().is_some() {
            return Err(failed("sums of this experiment are hidden with joye-libert already"));
        }
        let own = self.identity()?.public();
        request.spec.check_rules(&self.rules())?;
        let new = roster::check(self.node, self.researcher, &own, &request.roster)?;
        self.compare_with_heard(&request.roster, &request.offers)?;
        secrets.role.agree(&request.roster, &request.offers)?;
        secrets.identities.extend(request.roster.iter().map(|(party, identity)| (party.clone(), *identity)));
        if !request.seeds.is_empty() {
            secrets.role.accept_seeds(&request.seeds)?;
        }
        let preparation = self.prepare_session(&mut secrets, &own, &request.spec)?;
        roster::remember(self.node, self.researcher, &new)?;
        self.save_before_journal(&secrets)?;
        self.audit("secure.prepared", Some(&(&request.spec).into()), None)?;
        Ok(encode(&preparation))
    }

    /// Opens this node's seed for the ring of one list of parties.
    pub(super) fn open_seeds(&self, request: &OpenSeedsRequest) -> Result<Fixed<32>, DeskError> {
        let mut secrets = self.load()?;
        let own = self.identity()?.public();
        let new = roster::check(self.node, self.researcher, &own, &request.roster)?;
        self.compare_with_heard(&request.roster, &request.offers)?;
        secrets.role.agree(&request.roster, &request.offers)?;
        secrets.identities.extend(request.roster.iter().map(|(party, identity)| (party.clone(), *identity)));
        self.check_parties(&secrets, &own, &request.parties, false)?;
        let seed = secrets.role.open_seed(&request.parties)?;
        roster::remember(self.node, self.researcher, &new)?;
        self.save(&secrets)?;
        self.audit("secure.seed_opened", None, None)?;
        Ok(seed)
    }

    /// Prepares for a session, and forgets those of rounds that are over.
    fn prepare_session(
        &self,
        secrets: &mut Secrets,
        own: &IdentityPublic,
        spec: &SessionSpec,
    ) -> Result<Preparation, DeskError> {
        self.check_session(secrets, own, spec, false)?;
        let preparation = self.node.draw(|rng| secrets.role.prepare(spec, rng))?;
        let round = spec.context.round;
        secrets.role.close_rounds_before(round.saturating_sub(1));
        secrets.sessions.retain(|_, session| session.spec.context.round >= round.saturating_sub(1));
        secrets.sessions.entry(spec.id()).or_insert_with(|| Session { spec: spec.clone(), contribution: None });
        Ok(preparation)
    }

    /// Whether the hospital agrees to a sum with these nodes: its rules, and its roster unless that has just been asked.
    fn check_session(
        &self,
        secrets: &Secrets,
        own: &IdentityPublic,
        spec: &SessionSpec,
        with_new: bool,
    ) -> Result<(), DeskError> {
        spec.check_rules(&self.rules())?;
        self.check_parties(secrets, own, &spec.parties, with_new)
    }

    /// Lets another task have the masks of one whose contribution does not leave.
    pub(super) fn give_back(&self, masks: &Masks) -> Result<(), DeskError> {
        let mut secrets = self.load()?;
        match secrets.sessions.get_mut(&masks.session) {
            Some(session) if session.contribution.as_ref() == Some(&self.task.id) => session.contribution = None,
            _ => return Ok(()),
        }
        self.save_before_journal(&secrets)
    }

    /// Finds a session that is known here and that the hospital still agrees to.
    fn session<'s>(
        &self,
        secrets: &'s Secrets,
        own: &IdentityPublic,
        session: &SessionId,
    ) -> Result<&'s SessionSpec, DeskError> {
        let spec = &secrets.sessions.get(session).ok_or(Problem::UnknownSession)?.spec;
        self.check_session(secrets, own, spec, true)?;
        if spec.context.round != self.task.key.round
            || spec.context.phase != 0
            || spec.context.attempt > self.task.key.attempt
        {
            return Err(failed("the session belongs to another round than the task"));
        }
        Ok(spec)
    }

    pub(super) fn masks(&self, request: &MaskRequest) -> Result<Masks, DeskError> {
        let mut secrets = self.load()?;
        let own = self.identity()?.public();
        self.session(&secrets, &own, &request.session)?;
        let masker = secrets.role.masker(&request.session, Terms(Fixed(self.task.terms())), &request.inbound)?;
        let session = secrets.sessions.get_mut(&request.session).ok_or(Problem::UnknownSession)?;
        if session.contribution.as_ref().is_some_and(|task| *task != self.task.id) {
            return Err(failed(
                "the masks of this session hide a contribution already; another one needs a session of its own",
            ));
        }
        session.contribution = Some(self.task.id.clone());
        let spec = session.spec.clone();
        self.save_before_journal(&secrets)?;
        self.audit("secure.masked", Some(&(&spec).into()), None)?;
        Ok(Masks { masker, session: request.session })
    }

    /// Whether enough nodes survived by the hospital's own rule.
    fn check_survivors(&self, survivors: &[PartyId]) -> Result<(), DeskError> {
        let (got, least) = (u32::try_from(survivors.len()).unwrap_or(u32::MAX), self.rules().min_parties);
        if got < least { Err(Problem::TooFewSurvivors { got, least }.into()) } else { Ok(()) }
    }

    pub(super) fn attest(&self, request: &AttestRequest) -> Result<Vec<u8>, DeskError> {
        let mut secrets = self.load()?;
        let identity = self.identity()?;
        let spec = self.session(&secrets, &identity.public(), &request.session)?.clone();
        self.check_survivors(&request.survivors)?;
        let attestation = secrets.role.attest(&request.session, &request.survivors, &identity)?;
        self.save_before_journal(&secrets)?;
        self.audit("secure.attested", Some(&(&spec).into()), Some(&request.survivors))?;
        Ok(encode(&attestation))
    }

    pub(super) fn reveal(&self, request: &RevealRequest) -> Result<Vec<u8>, DeskError> {
        let mut secrets = self.load()?;
        let own = self.identity()?.public();
        let spec = self.session(&secrets, &own, &request.session)?.clone();
        self.check_survivors(&request.survivors)?;
        let revelation = secrets.role.reveal(&request.session, &request.survivors, &request.attestations)?;
        // A next session that is not agreed to does not keep this one from its end: asked for by itself, it is refused with a reason.
        let next = request.next.as_ref().and_then(|next| match self.prepare_session(&mut secrets, &own, next) {
            Ok(preparation) => Some(preparation),
            Err(error) => {
                tracing::info!(?error, "the next session is not prepared yet");
                None
            }
        });
        self.save_before_journal(&secrets)?;
        self.audit("secure.revealed", Some(&(&spec).into()), Some(&request.survivors))?;
        Ok(encode(&RevealAnswer { revelation, next }))
    }
}

"""A whole session of low-overhead masking (sections 2 to 6), from its inputs to the sum."""

import channel
import identity
import masks
import thresholds
from notation import Draws, Refusal, digest, label, lp, session, u32
from shamir import SECRETS


class Node:
    """What one node draws, publishes, receives and sends in a session."""

    def __init__(self, case, inputs, index, near):
        self.case, self.index, self.party = case, index, inputs["party"]
        self.identity = bytes.fromhex(inputs["identity_secret"])
        self.channel_secret = bytes.fromhex(inputs["channel_secret"])
        self.graph_seed = bytes.fromhex(inputs["graph_seed"])
        self.values = inputs["values"]
        self.near = near
        self.session = session(case)
        self.offer = channel.make_offer(case["experiment"], self.party, self.identity, self.channel_secret, self.graph_seed)
        self.prepare(Draws(bytes.fromhex(inputs["draws"])))
        self.listed = None

    def prepare(self, draws):
        case = self.case
        n = len(case["parties"])
        t = thresholds.share_threshold(n, case["c"], case["k"], case["t"])
        self.mask_secret, self.self_seed = draws.take(32), draws.take(32)
        of_mask = SECRETS.coefficients(t, draws)
        of_self = SECRETS.coefficients(t, draws)
        self.mask_public = channel.x25519_public(self.mask_secret)
        self.self_commitment = digest(label("self"), self.session, lp(self.party), self.self_seed)
        secrets = (int.from_bytes(self.mask_secret, "big"), of_mask), (int.from_bytes(self.self_seed, "big"), of_self)
        self.holders = sorted([*self.near, self.index])
        self.shares = {j: tuple(SECRETS.share(*secret, j + 1) for secret in secrets) for j in self.holders}
        # By the index of the owner: what this node holds.
        self.held = {self.index: self.shares[self.index]}

    def connect(self, others):
        case = self.case
        self.channels = {}
        for j in self.near:
            other = others[j]
            channel.check_offer(case["experiment"], other.party, identity.public_key(other.identity), other.offer)
            self.channels[j] = channel.Channel(
                case["experiment"], self.party, self.channel_secret, other.party, other.offer["public"]
            )

    def subject(self):
        return label("preparation") + self.session

    def seal(self, j, counter):
        self.channels[j].sent = counter - 1
        return self.channels[j].seal(self.subject(), self.mask_public + b"".join(self.shares[j]))

    def take(self, j, published, sealed):
        """Opens a neighbour's preparation and keeps its shares."""
        plaintext = self.channels[j].open(self.subject(), sealed)
        if len(plaintext) != 98:
            raise Refusal("truncated")
        public, of_mask, of_self = plaintext[:32], plaintext[32:65], plaintext[65:]
        if public != published:
            raise Refusal("key-mismatch")
        SECRETS.parse(of_mask), SECRETS.parse(of_self)
        seed = masks.pair_seed(self.session, self.mask_secret, public, self.party, self.case["parties"][j])
        self.held[j] = (of_mask, of_self)
        return seed

    def masked(self, pair_seeds):
        case = self.case
        terms = bytes.fromhex(case["terms"])
        own = masks.self_seed(self.session, self.self_seed, self.party)
        result = []
        for number, vector in enumerate(case["vectors"]):
            width = vector["w"]
            total = masks.elements(masks.encode(map(int, self.values[number]), width), width)
            total = masks.add(total, masks.mask(own, terms, number, vector), width)
            for j, seed in pair_seeds.items():
                pair = masks.mask(seed, terms, number, vector)
                ahead = self.party.encode() < case["parties"][j].encode()
                total = masks.add(total, pair if ahead else masks.negate(pair, width), width)
            result.append(masks.encode(total, width))
        return result

    def attest(self, survivors):
        check_survivors(self.case, survivors)
        if self.party not in survivors:
            raise Refusal("not-listed")
        if self.listed not in (None, survivors):
            raise Refusal("second-list")
        self.listed = survivors
        return identity.sign(self.identity, survivors_bytes(self.session, survivors))

    def reveal(self, survivors, signatures, publics):
        check_survivors(self.case, survivors)
        if self.listed not in (None, survivors):
            raise Refusal("second-list")
        signers = set()
        for party, signature in signatures:
            if party not in survivors:
                raise Refusal("unknown-signer")
            if party != self.party:
                identity.verify(publics[party], survivors_bytes(self.session, survivors), signature)
            elif self.listed is None:
                raise Refusal("bad-signature")
            signers.add(party)
        if len(signers) < self.case["t"]:
            raise Refusal("too-few-signatures")
        check_quorum(self.case, signers, survivors)
        self.listed = survivors
        parties = self.case["parties"]
        of_self = {j: held[1] for j, held in sorted(self.held.items()) if parties[j] in survivors}
        of_mask = {j: held[0] for j, held in sorted(self.held.items()) if parties[j] not in survivors}
        return of_self, of_mask


def survivors_bytes(session_digest, survivors):
    return label("survivors") + session_digest + u32(len(survivors)) + b"".join(map(lp, survivors))


def check_survivors(case, survivors):
    parties = case["parties"]
    if survivors != [p for p in parties if p in survivors]:
        raise Refusal("unordered-parties" if set(survivors) <= set(parties) else "unknown-party")
    if len(survivors) < max(case["t"], case["min_parties"]):
        raise Refusal("too-few-survivors")
    check_quorum(case, survivors, survivors)


def check_quorum(case, group, survivors):
    """In a sparse graph (section 8): who signs must hold the ring together."""
    parties, c, k = case["parties"], case["c"], case["k"]
    n = len(parties)
    if k == n - 1:
        return
    near, order = thresholds.neighbours(n, k, bytes.fromhex(case["seed"])), thresholds.ring(n, bytes.fromhex(case["seed"]))
    indices = [{parties.index(party) for party in some} for some in (group, survivors)]
    if not thresholds.is_quorum(*indices, c, thresholds.share_threshold(n, c, k, case["t"]), order, near, k):
        raise Refusal("scattered")


def unmask(case, published, masked, survivors, revealed):
    """The researcher's part: the sums of the survivors' vectors, as signed numbers.

    `published`: mask key and self commitment by index; `masked`: the vectors by index; `revealed`: by holder's index.
    """
    parties, name = case["parties"], session(case)
    n = len(parties)
    t = thresholds.share_threshold(n, case["c"], case["k"], case["t"])
    near = thresholds.neighbours(n, case["k"], bytes.fromhex(case["seed"]))
    alive = [j for j, party in enumerate(parties) if party in survivors]
    lost = [j for j in range(n) if j not in alive]

    def secret_of(owner, kind):
        shares = [(holder + 1, both[kind][owner]) for holder, both in sorted(revealed.items()) if owner in both[kind]]
        return SECRETS.reconstruct(t, shares).to_bytes(32, "big")

    # Seeds of what is still on the sum, with the sign to remove it by.
    seeds = []
    for j in alive:
        seed = secret_of(j, 0)
        if digest(label("self"), name, lp(parties[j]), seed) != published[j][1]:
            raise Refusal("wrong-self-seed")
        seeds.append((masks.self_seed(name, seed, parties[j]), -1))
    for j in lost:
        secret = secret_of(j, 1)
        if channel.x25519_public(secret) != published[j][0]:
            raise Refusal("wrong-mask-key")
        for i in set(near[j]) & set(alive):
            seed = masks.pair_seed(name, secret, published[i][0], parties[i], parties[j])
            seeds.append((seed, -1 if i < j else 1))
    return [sum_vector(case, number, [masked[j][number] for j in alive], seeds) for number in range(len(case["vectors"]))]


def sum_vector(case, number, rows, seeds):
    vector = case["vectors"][number]
    width, terms = vector["w"], bytes.fromhex(case["terms"])
    total = masks.elements(rows[0], width)
    for row in rows[1:]:
        total = masks.add(total, masks.elements(row, width), width)
    for seed, sign in seeds:
        mask = masks.mask(seed, terms, number, vector)
        total = masks.add(total, mask if sign > 0 else masks.negate(mask, width), width)
    return [str(masks.signed(value, width)) for value in total]


def start(case):
    """All nodes of a session with their channels."""
    parties = case["parties"]
    thresholds.check(len(parties), case["c"], case["t"], case["min_parties"])
    near = thresholds.neighbours(len(parties), case["k"], bytes.fromhex(case["seed"]))
    nodes = [Node(case, inputs, i, near[i]) for i, inputs in enumerate(case["nodes"])]
    assert [node.party for node in nodes] == parties
    for node in nodes:
        node.connect(nodes)
    return nodes


def run(case):
    """Everything that comes out of a session's inputs."""
    nodes = start(case)
    parties = case["parties"]
    counters = case.get("counters", {})
    sealed = {(node.index, j): node.seal(j, counters.get(f"{node.party}>{parties[j]}", 1)) for node in nodes for j in node.near}
    pairs = {node.index: {j: node.take(j, nodes[j].mask_public, sealed[j, node.index]) for j in node.near} for node in nodes}
    masked = {node.index: node.masked(pairs[node.index]) for node in nodes}

    survivors = case["survivors"]
    alive = [node for node in nodes if node.party in survivors]
    signatures = [(node.party, node.attest(survivors)) for node in alive]
    publics = {node.party: identity.public_key(node.identity) for node in nodes}
    shown = [entry for entry in signatures if entry[0] in case["shown"]]
    revealed = {node.index: node.reveal(survivors, shown, publics) for node in alive}
    published = [(node.mask_public, node.self_commitment) for node in nodes]
    sums = unmask(case, published, masked, survivors, revealed)
    check_sums(case, nodes, sums)

    def named(by_index):
        return {parties[j]: value.hex() for j, value in by_index.items()}

    return {
        "session": session(case).hex(),
        "channels": channels_of(nodes),
        "nodes": [node_outputs(case, node, sealed, pairs[node.index], masked[node.index], parties) for node in nodes],
        "survivors_bytes": survivors_bytes(session(case), survivors).hex(),
        "signatures": {party: signature.hex() for party, signature in signatures},
        "revealed": {parties[i]: {"self": named(both[0]), "mask": named(both[1])} for i, both in revealed.items()},
        "sums": sums,
    }


def channels_of(nodes):
    found = []
    for node in nodes:
        for j, one in node.channels.items():
            if node.index < j:
                found.append(
                    {"a": one.me, "b": one.other, "salt": one.salt.hex(), "shared": one.shared.hex(), "keys": one.keys.hex()}
                )
    return found


def node_outputs(case, node, sealed, pair_seeds, masked, parties):
    own = masks.self_seed(node.session, node.self_seed, node.party)
    terms = bytes.fromhex(case["terms"])
    keys = [masks.vector_key(own, terms, v, vector["purpose"], vector["name"]) for v, vector in enumerate(case["vectors"])]
    return {
        "party": node.party,
        "identity_public": identity.public_key(node.identity).hex(),
        "offer": {name: value.hex() for name, value in node.offer.items()},
        "mask_public": node.mask_public.hex(),
        "self_commitment": node.self_commitment.hex(),
        "shares": {parties[j]: {"mask": both[0].hex(), "self": both[1].hex()} for j, both in node.shares.items()},
        "sealed": {parties[j]: sealed[node.index, j].hex() for j in node.near},
        "pair_seeds": {parties[j]: seed.hex() for j, seed in pair_seeds.items()},
        "self_mask_seed": own.hex(),
        "self_vector_keys": [key.hex() for key in keys],
        "masked": [row.hex() for row in masked],
    }


def check_sums(case, nodes, sums):
    """The sums against plain additions, which no mask has touched."""
    for number, vector in enumerate(case["vectors"]):
        rows = [list(map(int, node.values[number])) for node in nodes if node.party in case["survivors"]]
        plain = [str(masks.signed(sum(column), vector["w"])) for column in zip(*rows, strict=True)]
        assert plain == sums[number], (plain, sums[number])

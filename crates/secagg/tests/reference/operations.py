"""What a vector may ask: each kind takes a case's inputs and gives its outputs, or refuses."""

import channel
import identity
import joye_libert
import lom
import masks
import thresholds
from notation import Draws, Refusal, key_stream, session
from shamir import SECRETS

unhex = bytes.fromhex


def sign(case):
    secret, message = unhex(case["secret"]), unhex(case["message"])
    signature = identity.sign(secret, message)
    public = identity.public_key(secret)
    identity.verify(public, message, signature)
    return {"public": public.hex(), "signature": signature.hex()}


def verify(case):
    identity.verify(unhex(case["public"]), unhex(case["message"]), unhex(case["signature"]))
    return {}


def offer(case):
    made = channel.make_offer(
        case["experiment"], case["party"], unhex(case["identity_secret"]), unhex(case["channel_secret"]), unhex(case["graph_seed"])
    )
    signed = channel.offer_bytes(case["experiment"], case["party"], made["public"], made["commitment"])
    return {"signed": signed.hex(), **{name: value.hex() for name, value in made.items()}}


def check_offer(case):
    made = {name: unhex(case[name]) for name in ("public", "commitment", "signature")}
    channel.check_offer(case["experiment"], case["party"], unhex(case["identity_public"]), made)
    return {}


def connect(case):
    return channel.Channel(case["experiment"], case["me"], unhex(case["secret"]), case["other"], unhex(case["other_public"]))


def channel_keys(case):
    made = connect(case)
    return {
        "public": channel.x25519_public(unhex(case["secret"])).hex(),
        "salt": made.salt.hex(),
        "shared": made.shared.hex(),
        "keys": made.keys.hex(),
        "send_key": made.send_key.hex(),
        "receive_key": made.receive_key.hex(),
    }


def seal(case):
    made = connect(case)
    made.sent = case["counter"] - 1
    subject = unhex(case["subject"])
    associated = made.associated(made.me, made.other, subject)
    return {"associated": associated.hex(), "message": made.seal(subject, unhex(case["plaintext"])).hex()}


def open_(case):
    made = connect(case)
    made.received = case["received"]
    return {"plaintext": made.open(unhex(case["subject"]), unhex(case["message"])).hex(), "received": made.received}


def share(case):
    draws = Draws(unhex(case["draws"]))
    coefficients = SECRETS.coefficients(case["threshold"], draws)
    secret = int(case["secret"], 16)
    return {
        "coefficients": [value.to_bytes(33, "big").hex() for value in coefficients],
        "shares": {str(point): SECRETS.share(secret, coefficients, point).hex() for point in case["points"]},
    }


def reconstruct(case):
    shares = [(point, unhex(data)) for point, data in case["shares"]]
    return {"secret": SECRETS.reconstruct(case["threshold"], shares).to_bytes(32, "big").hex()}


def name_session(case):
    return {"session": session(case).hex()}


def pair(case):
    secret, public = unhex(case["secret"]), unhex(case["public"])
    seed = masks.pair_seed(unhex(case["session"]), secret, public, case["me"], case["other"])
    return {"shared": channel.x25519(secret, public).hex(), "seed": seed.hex()}


def self_mask(case):
    return {"seed": masks.self_seed(unhex(case["session"]), unhex(case["self_seed"]), case["party"]).hex()}


def mask(case):
    seed, terms, number = unhex(case["seed"]), unhex(case["terms"]), case["number"]
    key = masks.vector_key(seed, terms, number, case["purpose"], case["name"])
    stream = key_stream(key, case["length"] * case["w"] // 8)
    found = masks.mask(seed, terms, number, case)
    return {"key": key.hex(), "stream": stream.hex(), "elements": [str(value) for value in found]}


def node_masks(case):
    """What one node adds to its vectors, from the secrets it keeps."""
    name, party, terms = session(case), case["party"], unhex(case["terms"])
    publics = case["mask_publics"]
    secret, own = unhex(case["mask_secret"]), masks.self_seed(name, unhex(case["self_seed"]), party)
    pairs = {other: masks.pair_seed(name, secret, unhex(public), party, other) for other, public in publics.items()}
    result = []
    for vector in case["vectors"]:
        total = masks.mask(own, terms, vector["number"], vector)
        for other, seed in pairs.items():
            one = masks.mask(seed, terms, vector["number"], vector)
            ahead = party.encode() < other.encode()
            total = masks.add(total, one if ahead else masks.negate(one, vector["w"]), vector["w"])
        result.append(masks.encode(total, vector["w"]).hex())
    return {"masks": result}


def attest(case):
    """Lists that one node is asked to sign, one after the other."""
    nodes = lom.start(case["session"])
    node = next(node for node in nodes if node.party == case["party"])
    return {"signatures": [node.attest(survivors).hex() for survivors in case["lists"]]}


def reveal(case):
    """A list with signatures that is shown to one node, which has signed some list, or none."""
    nodes = lom.start(case["session"])
    node = next(node for node in nodes if node.party == case["party"])
    if case["signed"]:
        node.attest(case["signed"])
    publics = {each.party: identity.public_key(each.identity) for each in nodes}
    shown = [(party, unhex(signature)) for party, signature in case["signatures"]]
    own, lost = node.reveal(case["survivors"], shown, publics)
    return {"self": sorted(own), "mask": sorted(lost)}


def take(case):
    """A neighbour's sealed preparation."""
    nodes = lom.start(case["session"])
    parties = case["session"]["parties"]
    node = nodes[parties.index(case["party"])]
    seed = node.take(parties.index(case["from"]), unhex(case["published"]), unhex(case["sealed"]))
    return {"pair_seed": seed.hex()}


def unmask(case):
    """The researcher's sum from what a session's case gives: from `holders` only, with some `shares` replaced."""

    def by_index(named):
        return {parties.index(party): unhex(data) for party, data in named.items()}

    inner, given = case["session"], case["given"]
    parties = inner["parties"]
    published = [(unhex(node["mask_public"]), unhex(node["self_commitment"])) for node in given["nodes"]]
    masked = {i: [unhex(row) for row in node["masked"]] for i, node in enumerate(given["nodes"]) if node["party"] in inner["survivors"]}
    revealed = {holder: {kind: dict(given["revealed"][holder][kind]) for kind in ("self", "mask")} for holder in case["holders"]}
    for changed in case["shares"]:
        revealed[changed["holder"]][changed["kind"]][changed["owner"]] = changed["share"]
    by_holder = {parties.index(holder): (by_index(both["self"]), by_index(both["mask"])) for holder, both in revealed.items()}
    return {"sums": lom.unmask(inner, published, masked, inner["survivors"], by_holder)}


def choose_thresholds(case):
    n, min_parties = case["n"], case["min_parties"]
    c = case.get("c", thresholds.default_colluders(n))
    t = case.get("t", thresholds.threshold(n, c))
    thresholds.check(n, c, t, min_parties)
    return {"c": c, "t": t, "survivors": max(t, min_parties)}


def choose_neighbours(case):
    n, c = case["n"], case["c"]
    k = thresholds.neighbours_count(n, c, case["d"])
    return {"k": k, "share_threshold": thresholds.share_threshold(n, c, k, thresholds.threshold(n, c))}


def neighbours(case):
    parties = case["parties"]
    n = len(parties)
    seeds, promises = list(map(unhex, case["seeds"])), list(map(unhex, case["commitments"]))
    seed = thresholds.graph_seed(case["experiment"], parties, seeds, promises)
    k = case["k"]
    return {
        "seed": seed.hex(),
        "ring": thresholds.ring(n, seed),
        "neighbours": thresholds.neighbours(n, k, seed),
    }


def quorum(case):
    n, c, k, seed = case["n"], case["c"], case["k"], unhex(case["seed"])
    t_k = thresholds.share_threshold(n, c, k, None)
    near, order = thresholds.neighbours(n, k, seed), thresholds.ring(n, seed)
    survivors = set(range(n)) - set(case["lost"])
    signers = survivors - set(case["silent"])
    return {
        "share_threshold": t_k,
        "survivors": thresholds.is_quorum(survivors, survivors, c, t_k, order, near, k),
        "signers": thresholds.is_quorum(signers, survivors, c, t_k, order, near, k),
    }


def open_joye_libert(case):
    """One sum from what a run's case gives: the ciphertexts of one index of one vector, some replaced or left out."""
    modulus = int(case["session"]["modulus"], 16)
    details = case["given"]["vectors"][case["vector"]]["ciphertexts"][case["index"]]
    ciphertexts = [details["ciphertexts"][place] for place in case["from"]] + case["further"]
    parsed = [joye_libert.parse_ciphertext(modulus, unhex(data)) for data in ciphertexts]
    key_sum = int(case["given"]["key_sum"], 16) + case["added_to_key_sum"]
    total = joye_libert.open_sum(modulus, key_sum, int(details["element"], 16), parsed)
    return {"plaintext": hex(total)[2:]}


def sum_key(case):
    shares = [(point, unhex(data)) for point, data in case["shares"]]
    return {"key_sum": hex(joye_libert.KEYS.reconstruct(case["threshold"], shares))[2:]}


KINDS = {
    "sign": sign,
    "verify": verify,
    "offer": offer,
    "check-offer": check_offer,
    "channel-keys": channel_keys,
    "seal": seal,
    "open": open_,
    "share": share,
    "reconstruct": reconstruct,
    "session-digest": name_session,
    "pair": pair,
    "self-mask": self_mask,
    "mask": mask,
    "node-masks": node_masks,
    "session": lom.run,
    "attest": attest,
    "reveal": reveal,
    "take": take,
    "unmask": unmask,
    "thresholds": choose_thresholds,
    "number-of-neighbours": choose_neighbours,
    "neighbours": neighbours,
    "quorum": quorum,
    "joye-libert": joye_libert.run,
    "joye-libert-open": open_joye_libert,
    "joye-libert-key": sum_key,
}


# Kinds whose input `session` is the name of a whole session, or run, in the same file.
WITHIN = {"attest", "reveal", "take", "unmask", "joye-libert-open"}
WHOLE = {"session", "joye-libert"}


def outcome(kind, inputs, whole):
    """The outputs, or the word of the refusal. `whole`: the file's cases of the kinds `WHOLE`, by name."""
    if kind in WITHIN:
        named = whole[inputs["session"]]
        inputs = {**inputs, "session": named["inputs"], "given": named["outputs"]}
    try:
        return {"outputs": KINDS[kind](inputs)}
    except Refusal as refusal:
        return {"refusal": refusal.word}

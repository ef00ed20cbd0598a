"""Writes the test vectors: `generate.py [--primes]`. The same bytes each time; the random draws are SHAKE-256 of a text."""

import hashlib
import json
import sys

import channel
import identity
import joye_libert
import lom
import masks
import operations
import shamir
import thresholds
from check import TESTDATA, check_constants
from notation import Draws, label, session, u32, u64

BYTE_ORDER = "integers and points big-endian; elements of vectors and words of the shuffle little-endian; bytes as hex"
COUNTERS = "sealed messages: 64 bits, from 1; key stream: 128 bits, from 0"


class Source:
    """Bytes for one purpose."""

    def __init__(self, text):
        self.data = hashlib.shake_256(f"fedbiomed-secagg test vectors: {text}".encode()).digest(1 << 18)
        self.draws = Draws(self.data)

    def take(self, length):
        return self.draws.take(length)

    def coefficients(self, field, threshold, *, times=1):
        """The raw bytes of so many polynomials' draws, the rejected ones included."""
        before = self.draws.used
        for _ in range(times):
            field.coefficients(threshold, self.draws)
        return self.data[before : self.draws.used]


# Whole sessions and runs by name, for the cases that lean on them.
WHOLE = {}


def case(name, kind, inputs, refusal=None):
    """A case with what the reference gives; a negative one must be refused by the word it should be refused by."""
    result = operations.outcome(kind, inputs, WHOLE)
    if result.get("refusal") != refusal:
        raise SystemExit(f"{name}: expected {refusal or 'outputs'}, found {result}")
    made = {"name": name, "kind": kind, "inputs": inputs, **result}
    if kind in operations.WHOLE:
        WHOLE[name] = made
    return made


def write(name, section, about, cases):
    header = {"specification": "SPECIFICATION.md", "section": section, "about": about, "byte_order": BYTE_ORDER, "counters": COUNTERS}
    text = json.dumps({**header, "cases": cases}, indent=1, ensure_ascii=False)
    path = TESTDATA / f"{name}.json"
    path.write_text(compact(text) + "\n")
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


def compact(text):
    """Lists of numbers and short words on one line: vectors are read by people too."""
    lines, held = [], None
    for line in text.split("\n"):
        if held is not None:
            held.append(line.strip())
            if line.strip().rstrip(",") == "]":
                joined = " ".join(held)
                lines.append(joined.replace("[ ", "[").replace(" ]", "]"))
                held = None
            elif line.rstrip().endswith(("{", "[")):
                lines += held_lines(held, line)
                held = None
        elif line.rstrip().endswith("["):
            held = [line]
        else:
            lines.append(line)
    return "\n".join(lines)


def held_lines(held, line):
    return [*held[:-1], line]


def flip(data, place=-1):
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def identity_cases():
    source = Source("identity")
    secret, message = source.take(32), b"a signed message"
    signature, public = identity.sign(secret, message), identity.public_key(secret)
    r, s = signature[:32], int.from_bytes(signature[32:], "big")
    high = r + (identity.ORDER - s).to_bytes(32, "big")
    sample = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"

    def verify(**changes):
        return {"public": public.hex(), "message": message.hex(), "signature": signature.hex(), **changes}

    return [
        case("signature", "sign", {"secret": secret.hex(), "message": message.hex()}),
        case("the empty message", "sign", {"secret": source.take(32).hex(), "message": ""}),
        case("RFC 6979, A.2.5, sample, s lowered", "sign", {"secret": sample, "message": b"sample".hex()}),
        case("a good signature", "verify", verify()),
        case("a changed signature", "verify", verify(signature=flip(signature).hex()), "bad-signature"),
        case("another message", "verify", verify(message=b"another message".hex()), "bad-signature"),
        case("another key", "verify", verify(public=identity.public_key(source.take(32)).hex()), "bad-signature"),
        case("s in the upper half", "verify", verify(signature=high.hex()), "high-s"),
        case("r and s zero", "verify", verify(signature="00" * 64), "bad-signature"),
        case("63 bytes", "verify", verify(signature=signature[:-1].hex()), "bad-signature"),
        case("a point that is not on the curve", "verify", verify(public=flip(public).hex()), "bad-key"),
    ]


# The points of low order of Curve25519: D. J. Bernstein, cr.yp.to/ecdh.html, "How do I validate Curve25519 public keys?".
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def channel_cases():
    source = Source("channel")
    experiment, alice, bob = "federation/experiment-1", "node-a", "node-b"
    keys = {party: source.take(32) for party in (alice, bob)}
    publics = {party: channel.x25519_public(key) for party, key in keys.items()}
    offer_inputs = {
        "experiment": experiment,
        "party": alice,
        "identity_secret": source.take(32).hex(),
        "channel_secret": keys[alice].hex(),
        "graph_seed": source.take(32).hex(),
    }
    offered = operations.offer(offer_inputs)
    public_identity = identity.public_key(bytes.fromhex(offer_inputs["identity_secret"])).hex()

    def taken(**changes):
        base = {name: offered[name] for name in ("public", "commitment", "signature")}
        return {"experiment": experiment, "party": alice, "identity_public": public_identity, **base, **changes}

    def end(me, other):
        return {"experiment": experiment, "me": me, "secret": keys[me].hex(), "other": other, "other_public": publics[other].hex()}

    subject = (label("preparation") + bytes(range(32))).hex()
    sealed_inputs = {**end(alice, bob), "counter": 7, "subject": subject, "plaintext": b"a share".hex()}
    message = bytes.fromhex(operations.seal(sealed_inputs)["message"])

    def opened(**changes):
        return {**end(bob, alice), "received": 6, "subject": subject, "message": message.hex(), **changes}

    other_subject = (label("preparation") + bytes(32)).hex()
    cases = [
        case("offer", "offer", offer_inputs),
        case("a good offer", "check-offer", taken()),
        case("a wrong signature", "check-offer", taken(signature=flip(bytes.fromhex(offered["signature"])).hex()), "bad-signature"),
        case("an offer with another key", "check-offer", taken(public=publics[bob].hex()), "bad-signature"),
        case("an offer of another experiment", "check-offer", taken(experiment="federation/experiment-2"), "bad-signature"),
        case("an offer of another party", "check-offer", taken(party=bob), "bad-signature"),
        case("keys at the first party", "channel-keys", end(alice, bob)),
        case("keys at the second party", "channel-keys", end(bob, alice)),
        case("sealed by the first", "seal", sealed_inputs),
        case("sealed by the second", "seal", {**end(bob, alice), "counter": 1, "subject": subject, "plaintext": ""}),
        case("a counter of 64 bits", "seal", {**sealed_inputs, "counter": 2**64 - 1}),
        case("opened", "open", opened()),
        case("opened after a gap", "open", opened(received=0)),
        case("a replayed counter", "open", opened(received=7), "replayed"),
        case("an older counter", "open", opened(received=8), "replayed"),
        case("a tampered tag", "open", opened(message=flip(message).hex()), "not-authentic"),
        case("a tampered ciphertext", "open", opened(message=flip(message, 8).hex()), "not-authentic"),
        case("a raised counter", "open", opened(message=(u64(9) + message[8:]).hex()), "not-authentic"),
        case("another subject", "open", opened(subject=other_subject), "not-authentic"),
        case("a message to its own sender", "open", {**opened(), **end(alice, bob)}, "not-authentic"),
        case("23 bytes", "open", opened(message=message[:23].hex()), "truncated"),
    ]
    for place, point in enumerate(LOW_ORDER):
        inputs = {**end(alice, bob), "other_public": point}
        cases.append(case(f"a key of low order, {place}", "channel-keys", inputs, "low-order-key"))
    return cases


def shamir_cases():
    source = Source("shamir")
    field = shamir.SECRETS
    cases, kept = [], None
    secrets = [source.take(32), bytes(32), b"\xff" * 32, source.take(32)]
    for secret, (threshold, n) in zip(secrets, [(2, 3), (1, 2), (3, 4), (7, 10)], strict=True):
        draws = source.coefficients(field, threshold)
        inputs = {"secret": secret.hex(), "threshold": threshold, "draws": draws.hex(), "points": list(range(1, n + 1))}
        made = case(f"{threshold} of {n}", "share", inputs)
        cases.append(made)
        shares = [[point, data] for point, data in zip(inputs["points"], made["outputs"]["shares"].values(), strict=True)]
        cases.append(case(f"{threshold} of {n}, the last", "reconstruct", {"threshold": threshold, "shares": shares[-threshold:]}))
        cases.append(case(f"{threshold} of {n}, all", "reconstruct", {"threshold": threshold, "shares": shares}))
        kept = shares if threshold == 3 else kept
    prime = field.prime.to_bytes(33, "big").hex()
    over = [[point, field.share(2**256, [5], point).hex()] for point in (1, 2)]
    largest = [[point, field.share(field.prime - 1, [5], point).hex()] for point in (1, 2)]
    wrong = [*kept[:3], [kept[3][0], flip(bytes.fromhex(kept[3][1])).hex()]]
    rejected = (field.prime.to_bytes(33, "big") + bytes([1]) + b"\xff" * 32 + bytes([0xFE]) + bytes(31) + b"\x05").hex()
    cases += [
        case("draws not below p are drawn again", "share", {"secret": "07", "threshold": 2, "draws": rejected, "points": [1, 2, 3]}),
        case("p as a share", "reconstruct", {"threshold": 2, "shares": [kept[0], [2, prime]]}, "share-range"),
        case("a share of all ones", "reconstruct", {"threshold": 2, "shares": [kept[0], [2, "ff" * 33]]}, "share-range"),
        case("a share of 32 bytes", "reconstruct", {"threshold": 2, "shares": [kept[0], [2, "00" * 32]]}, "share-length"),
        case("one point twice", "reconstruct", {"threshold": 2, "shares": [kept[0], kept[0]]}, "repeated-point"),
        case("point zero", "reconstruct", {"threshold": 2, "shares": [kept[0], [0, kept[1][1]]]}, "point-range"),
        case("two shares where three are needed", "reconstruct", {"threshold": 3, "shares": kept[:2]}, "below-threshold"),
        case("2^256 as a secret", "reconstruct", {"threshold": 2, "shares": over}, "secret-range"),
        case("p - 1 as a secret", "reconstruct", {"threshold": 2, "shares": largest}, "secret-range"),
        case("a wrong share beyond the threshold", "reconstruct", {"threshold": 3, "shares": wrong}, "shares-disagree"),
    ]
    return cases


def session_inputs(name, parties, vectors, rows, **numbers):
    """A session of a complete graph with the defaults, unless `numbers` says otherwise."""
    source, n = Source(name), len(parties)
    c = thresholds.default_colluders(n)
    t, min_parties = thresholds.threshold(n, c), min(3, n)
    head = {"experiment": "federation/experiment-1", "round": 3, "attempt": 0, "phase": 1, "terms": source.take(32).hex()}
    counts = {"t": t, "c": c, "min_parties": min_parties, "k": n - 1}
    inputs = {**head, **counts, "seed": "00" * 32, **numbers, "parties": parties, "vectors": vectors, "nodes": []}
    shared = thresholds.share_threshold(n, inputs["c"], inputs["k"], inputs["t"])
    for party, values in zip(parties, rows, strict=True):
        identity_secret, channel_secret, seed, secrets = (source.take(length) for length in (32, 32, 32, 64))
        draws = secrets + source.coefficients(shamir.SECRETS, shared, times=2)
        inputs["nodes"].append(
            {
                "party": party,
                "identity_secret": identity_secret.hex(),
                "channel_secret": channel_secret.hex(),
                "graph_seed": seed.hex(),
                "draws": draws.hex(),
                "values": [[str(value) for value in row] for row in values],
            }
        )
    return {**inputs, "survivors": parties, "shown": parties[: inputs["t"]]}


def vectors_and_rows(n):
    """One vector of each width; negative numbers, the largest and smallest ones, and sums that wrap around."""
    vectors = [
        {"purpose": "training", "name": "coef", "w": 32, "length": 5},
        {"purpose": "training", "name": "samples", "w": 64, "length": 3},
        {"purpose": "statistics", "name": "größe", "w": 128, "length": 3},
    ]
    rows = []
    for i in range(n):
        extremes = [[2 ** (w - 1) - 1 - i, -(2 ** (w - 1)) + i, (-1) ** i * (10 + i)] for w in (32, 64, 128)]
        rows.append([[*extremes[0], 0, -1], extremes[1], extremes[2]])
    return vectors, rows


LOST = "four nodes, one lost after masking"


def lom_cases():
    parties = ["node-1", "node-10", "node-2", "nœud"]
    vectors, rows = vectors_and_rows(4)
    full = session_inputs("no loss", parties, vectors, rows)
    lost = session_inputs("one lost", parties, vectors, rows, round=4, attempt=2)
    lost["survivors"] = lost["shown"] = [parties[0], parties[2], parties[3]]
    made = case(LOST, "session", lost)
    cases = [case("four nodes, no loss", "session", full), made]
    return cases + refused_lists(lost, made["outputs"]) + refused_shares(lost, made["outputs"])


def refused_lists(inputs, outputs):
    parties, three = inputs["parties"], inputs["survivors"]
    by_party = {node["party"]: bytes.fromhex(node["identity_secret"]) for node in inputs["nodes"]}
    signatures = [[party, outputs["signatures"][party]] for party in three]
    outer = flip(bytes.fromhex(signatures[0][1])).hex()
    forged = identity.sign(by_party[parties[1]], lom.survivors_bytes(session(inputs), three)).hex()

    def asked(name, lists, refusal=None):
        return case(name, "attest", {"session": LOST, "party": parties[0], "lists": lists}, refusal)

    def shown(name, changes, refusal=None):
        base = {"party": parties[0], "signed": three, "survivors": three, "signatures": signatures}
        return case(name, "reveal", {"session": LOST, **base, **changes}, refusal)

    return [
        asked("a list signed twice", [three, three]),
        asked("a second list", [three, parties], "second-list"),
        asked("a list without the node itself", [parties[1:]], "not-listed"),
        asked("a list below the threshold", [three[:2]], "too-few-survivors"),
        asked("a list out of order", [list(reversed(three))], "unordered-parties"),
        asked("a list with a name twice", [[three[0], three[0], *three[1:]]], "unordered-parties"),
        asked("a list with a stranger", [[*three, "stranger"]], "unknown-party"),
        shown("three signatures", {}),
        shown("three signatures, the own among them, signed none", {"signed": []}, "bad-signature"),
        shown("the own signature, which is not looked at", {"signatures": [[three[0], outer], *signatures[1:]]}),
        shown("two signatures", {"signatures": signatures[:2]}, "too-few-signatures"),
        shown("one signature three times", {"signatures": [signatures[0]] * 3}, "too-few-signatures"),
        shown("a wrong signature", {"signatures": [signatures[0], [three[1], outer], signatures[2]]}, "bad-signature"),
        shown("a signature of the lost", {"signatures": [*signatures[:2], [parties[1], forged]]}, "unknown-signer"),
        shown("another list was signed", {"signed": parties}, "second-list"),
        shown("the node is lost itself", {"party": parties[1], "signed": []}),
    ]


def refused_shares(inputs, outputs):
    parties, nodes, three = inputs["parties"], outputs["nodes"], inputs["survivors"]
    first, lost = parties[0], parties[1]

    def taken(name, published_key, sealed, refusal=None):
        base = {"session": LOST, "party": first, "from": lost}
        return case(name, "take", {**base, "published": published_key, "sealed": sealed}, refusal)

    def summed(name, refusal=None, *, holders=three, shares=()):
        return case(name, "unmask", {"session": LOST, "holders": holders, "shares": list(shares)}, refusal)

    def wrong(kind, owner):
        """The first holder's share of the owner's secret with its last bit flipped."""
        share = flip(bytes.fromhex(outputs["revealed"][first][kind][owner])).hex()
        return [{"holder": first, "kind": kind, "owner": owner, "share": share}]

    return [
        taken("a preparation", nodes[1]["mask_public"], nodes[1]["sealed"][first]),
        taken("a published key that is not the sealed one", nodes[2]["mask_public"], nodes[1]["sealed"][first], "key-mismatch"),
        taken("a preparation for another", nodes[1]["mask_public"], nodes[1]["sealed"][parties[2]], "not-authentic"),
        taken("a mask key of low order", LOW_ORDER[3], low_order_preparation(inputs), "low-order-key"),
        summed("shares of all survivors"),
        summed("shares of two", "below-threshold", holders=three[:2]),
        summed("a wrong share of a self-mask seed", "wrong-self-seed", shares=wrong("self", first)),
        summed("a wrong share of a mask key", "wrong-mask-key", shares=wrong("mask", lost)),
    ]


def low_order_preparation(inputs):
    """What a node seals that lies about its mask key."""
    nodes = lom.start(inputs)
    liar = nodes[1]
    liar.mask_public = bytes.fromhex(LOW_ORDER[3])
    return liar.seal(0, 1).hex()


def masks_cases():
    source = Source("masks")
    name, terms = source.take(32).hex(), source.take(32).hex()
    one, other, own = source.take(32), source.take(32), source.take(32)
    low = {"session": name, "secret": one.hex(), "public": LOW_ORDER[2], "me": "node-a", "other": "node-b"}

    def pair(me, secret, with_, public_of):
        public = channel.x25519_public(public_of).hex()
        return {"session": name, "secret": secret.hex(), "public": public, "me": me, "other": with_}

    seed = operations.pair(pair("node-a", one, "node-b", other))["seed"]

    def mask(**changes):
        base = {"seed": seed, "terms": terms, "number": 0, "purpose": "training", "name": "coef", "w": 32, "length": 9}
        return {**base, **changes}

    vectors, rows = vectors_and_rows(4)
    head = session_inputs("digest", ["a", "b", "c", "d"], vectors, rows)
    head = {key: value for key, value in head.items() if key not in ("nodes", "vectors", "survivors", "shown")}
    return [
        case("session", "session-digest", head),
        case("session, another attempt", "session-digest", {**head, "attempt": 1}),
        case("session, other min_parties", "session-digest", {**head, "min_parties": 4}),
        case("session, parties out of order", "session-digest", {**head, "parties": ["b", "a", "c", "d"]}, "unordered-parties"),
        case("session, a party twice", "session-digest", {**head, "parties": ["a", "a", "c", "d"]}, "unordered-parties"),
        case("pair at the first", "pair", pair("node-a", one, "node-b", other)),
        case("pair at the second", "pair", pair("node-b", other, "node-a", one)),
        case("pair with a key of low order", "pair", low, "low-order-key"),
        case("self mask", "self-mask", {"session": name, "self_seed": own.hex(), "party": "node-a"}),
        case("32 bits", "mask", mask()),
        case("64 bits", "mask", mask(w=64)),
        case("128 bits", "mask", mask(w=128)),
        case("the second vector", "mask", mask(number=1)),
        case("another purpose", "mask", mask(purpose="validation")),
        case("another name", "mask", mask(name="größe")),
        case("other terms", "mask", mask(terms="00" * 32)),
        case("no element", "mask", mask(length=0)),
        case("many blocks", "mask", mask(length=70, w=64)),
    ]


def thresholds_cases():
    cases = [case(f"{n} nodes", "thresholds", {"n": n, "min_parties": min(3, n)}) for n in [*range(2, 13), 20, 30, 32, 33, 40, 100, 1000]]
    for n, c in [(3, 1), (4, 0), (4, 2), (10, 0), (10, 5), (33, 3), (40, 3), (100, 0), (100, 10), (100, 50)]:
        cases.append(case(f"{n} nodes, {c} collude", "thresholds", {"n": n, "c": c, "min_parties": 3}))
    cases.append(case("a higher threshold", "thresholds", {"n": 10, "c": 1, "t": 9, "min_parties": 3}))
    cases.append(case("more survivors than the threshold", "thresholds", {"n": 10, "c": 0, "min_parties": 8}))
    negatives = [
        ("a threshold too low for c", {"n": 10, "c": 4, "t": 7, "min_parties": 3}, "low-threshold"),
        ("a threshold above n", {"n": 4, "c": 1, "t": 5, "min_parties": 3}, "high-threshold"),
        ("one honest node", {"n": 4, "c": 3, "min_parties": 3}, "too-many-colluders"),
        ("fewer than min_parties", {"n": 2, "min_parties": 3}, "too-few-parties"),
        ("min_parties below 2", {"n": 3, "min_parties": 1}, "too-few-parties"),
    ]
    return cases + [case(name, "thresholds", inputs, word) for name, inputs, word in negatives]


def graph_cases():
    numbers = [(10, 3, 3), (33, 3, 4), (40, 2, 2), (100, 0, 0), (100, 10, 20), (100, 33, 33), (300, 10, 30), (1000, 50, 100)]
    cases = [case(f"{n} nodes, {c}, {d}", "number-of-neighbours", {"n": n, "c": c, "d": d}) for n, c, d in numbers]
    for n, k in [(33, 12), (40, 8), (100, 36)]:
        source = Source(f"graph of {n}")
        parties = sorted(f"node-{index:03}" for index in range(n))
        seeds = [source.take(32) for _ in parties]
        promises = [channel.commitment("federation/experiment-1", party, seed) for party, seed in zip(parties, seeds, strict=True)]
        opened = {"seeds": [seed.hex() for seed in seeds], "commitments": [promise.hex() for promise in promises]}
        inputs = {"experiment": "federation/experiment-1", "parties": parties, "k": k, **opened}
        made = case(f"{n} nodes with {k} neighbours", "neighbours", inputs)
        cases += [made, *quorum_cases(n, k, made["outputs"])]
    few = {**inputs, "k": 3, "parties": parties[:4], "seeds": opened["seeds"][:4], "commitments": opened["commitments"][:4]}
    cases.append(case("four nodes: complete", "neighbours", few))
    wrong = {**few, "seeds": [few["seeds"][1], *few["seeds"][1:]]}
    cases.append(case("a seed that was not committed to", "neighbours", wrong, "wrong-opening"))
    return cases


def quorum_cases(n, k, outputs):
    """Losses that leave a quorum, and such as cut off a node or part the ring."""
    base = {"n": n, "c": 1, "k": k, "seed": outputs["seed"]}
    order, near = outputs["ring"], outputs["neighbours"]
    half, opposite = k // 2, n // 2
    parted = sorted(order[:half] + order[opposite : opposite + half])
    return [
        case(f"{n} nodes, nobody lost", "quorum", {**base, "lost": [], "silent": []}),
        case(f"{n} nodes, one lost, one silent", "quorum", {**base, "lost": [order[0]], "silent": [order[5]]}),
        case(f"{n} nodes, all neighbours of one lost", "quorum", {**base, "lost": near[order[0]], "silent": []}),
        case(f"{n} nodes, two stretches silent", "quorum", {**base, "lost": [], "silent": parted}),
    ]


def joye_libert_cases():
    source = Source("joye-libert")
    parties = ["node-a", "node-b", "node-c"]
    vectors = [{"purpose": "training", "name": "coef", "w": 64, "length": 32}, {"purpose": "statistics", "name": "sum", "w": 128, "length": 3}]
    limit = {64: 2**63 - 1, 128: 2**127 - 1}
    nodes = []
    for i, party in enumerate(parties):
        key = source.take(joye_libert.KEY_BYTES)
        draws = source.coefficients(joye_libert.KEYS, 2)
        values = [[-(i + 1), 1000 * i, -limit[v["w"]] - 1, limit[v["w"]], *range(v["length"])][: v["length"]] for v in vectors]
        nodes.append({"party": party, "key": key.hex(), "draws": draws.hex(), "values": [[str(x) for x in row] for row in values]})
    head = {"experiment": "federation/experiment-1", "generation": 1, "round": 2, "attempt": 0, "phase": 1, "terms": source.take(32).hex()}
    inputs = {**head, "t": 2, "modulus": hex(joye_libert.RSA_2048)[2:], "parties": parties, "vectors": vectors, "nodes": nodes}
    made = case("three nodes", "joye-libert", inputs)
    return [made, *refused_ciphertexts(inputs, made["outputs"])]


def refused_ciphertexts(inputs, outputs):
    modulus = int(inputs["modulus"], 16)
    third = outputs["vectors"][1]["ciphertexts"][0]["ciphertexts"][2]

    def opened(name, refusal=None, **changes):
        base = {"session": "three nodes", "vector": 1, "index": 0, "from": [0, 1, 2], "further": [], "added_to_key_sum": 0}
        return case(name, "joye-libert-open", {**base, **changes}, refusal)

    def instead(data):
        return {"from": [0, 1], "further": [data if isinstance(data, str) else data.to_bytes(512, "big").hex()]}

    shares = [[point + 1, share] for point, share in enumerate(outputs["share_sums"].values())]
    wrong = [shares[0], shares[1], [3, flip(bytes.fromhex(shares[2][1])).hex()]]
    prime = joye_libert.KEYS.prime.to_bytes(531, "big").hex()
    return [
        opened("all three"),
        opened("one is missing", "keys-do-not-fit", **{"from": [0, 1]}),
        opened("another key sum", "keys-do-not-fit", added_to_key_sum=1),
        opened("a ciphertext of zero", "ciphertext-range", **instead(0)),
        opened("a ciphertext of N squared", "ciphertext-range", **instead(modulus**2)),
        opened("a ciphertext that shares a factor with N", "ciphertext-range", **instead(modulus)),
        opened("a ciphertext of 511 bytes", "truncated", **instead(third[2:])),
        case("key from all share sums", "joye-libert-key", {"threshold": 2, "shares": shares}),
        case("a wrong share sum", "joye-libert-key", {"threshold": 2, "shares": wrong}, "shares-disagree"),
        case("q as a share sum", "joye-libert-key", {"threshold": 2, "shares": [shares[0], [2, prime]]}, "share-range"),
    ]


def search_primes():
    """Checks that no smaller offset gives a prime; some minutes."""
    for bits, offset in [(256, 297), (4240, 5193)]:
        small = [p for p in range(3, 20_000, 2) if all(p % q for q in range(3, int(p**0.5) + 1, 2))]
        candidates = [o for o in range(1, offset, 2) if all((pow(2, bits, p) + o) % p for p in small)]
        found = [o for o in candidates if pow(2 if o else 3, 2**bits + o - 1, 2**bits + o) == 1]
        print(f"2^{bits} + {offset}: {len(candidates)} smaller candidates, probable primes among them: {found}")


def main(arguments):
    for line in check_constants():
        raise SystemExit(line)
    if "--primes" in arguments:
        return search_primes()
    write("identity", "1", "signatures with identity keys", identity_cases())
    write("channel", "2", "offers, channel keys, sealed messages", channel_cases())
    write("shamir", "5", "shares of 32 bytes modulo 2^256 + 297", shamir_cases())
    write("masks", "1 and 4", "session digests, seeds, keys and masks of vectors", masks_cases())
    write("lom", "2 to 6", "whole sessions, lists of survivors, shares that are revealed", lom_cases())
    write("thresholds", "7", "thresholds, losses, numbers of neighbours", thresholds_cases())
    write("graph", "8", "opened seeds, the ring, neighbours by index", graph_cases())
    write("joye_libert", "9", "keys, shares, ciphertexts and sums with RSA-2048", joye_libert_cases())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

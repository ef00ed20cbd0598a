"""Thresholds and neighbours (sections 7 and 8)."""

from fractions import Fraction
from math import comb

from channel import commitment
from notation import Refusal, digest, hkdf_expand, key_stream, label, lp, same, u32

# The probability that a graph is bad for anybody.
BAD = Fraction(1, 2**40)


def threshold(n, c):
    """The smallest t with 2t > n + c."""
    return (n + c) // 2 + 1


def default_colluders(n):
    return max((c for c in range((n - 1) // 3 + 1) if threshold(n, c) <= n - 1), default=0)


def check(n, c, t, min_parties):
    if n < 2 or min_parties < 2 or n < min_parties:
        raise Refusal("too-few-parties")
    if c > n - 2:
        raise Refusal("too-many-colluders")
    if 2 * t <= n + c:
        raise Refusal("low-threshold")
    if t > n:
        raise Refusal("high-threshold")


def above(items, marked, drawn, x):
    """P(X > x), exactly: X of the drawn are marked (hypergeometric)."""
    ways = sum(comb(marked, y) * comb(items - marked, drawn - y) for y in range(x + 1, min(marked, drawn) + 1))
    return Fraction(ways, comb(items, drawn))


def near_colluders(n, c, k):
    """c_k: the most colluders among k neighbours of any party, except with probability 2^-40."""
    return next(x for x in range(k + 1) if n * above(n - 1, c, k, x) <= BAD) if k < n - 1 else c


def share_threshold(n, c, k, t):
    return t if k == n - 1 else threshold(k + 1, near_colluders(n, c, k))


def neighbours_count(n, c, d):
    """k: how many neighbours a node has so that losses of any d, at random, leave a session able to end."""
    for k in range(2, n - 1, 2):
        t_k = share_threshold(n, c, k, None)
        enough = t_k <= k and c < k
        if enough and n * above(n - 1, d, k, k - t_k) <= BAD and Fraction(n * n, 2) * above(n, d, k, k - c - 1) <= BAD:
            return k
    return n - 1


def is_quorum(group, survivors, c, t_k, order, near, k):
    """Whether a group of indices holds enough of each survivor's neighbourhood, and of any two stretches of the ring."""
    n = len(order)
    enough = all(len({j, *near[j]} & group) >= t_k for j in survivors)
    stretches = [len({order[(start + step) % n] for step in range(k // 2)} & group) for start in range(n)]
    apart = range(k // 2, n - k // 2 + 1)
    return enough and all(stretches[one] + stretches[(one + step) % n] > c for one in range(n) for step in apart)


def graph_seed(experiment, parties, seeds, commitments):
    for party, seed, promise in zip(parties, seeds, commitments, strict=True):
        if not same(commitment(experiment, party, seed), promise):
            raise Refusal("wrong-opening")
    opened = b"".join(lp(party) + seed for party, seed in zip(parties, seeds, strict=True))
    return digest(label("graph"), lp(experiment), u32(len(parties)), opened)


def ring(n, seed):
    """The indices 0 to n − 1, shuffled by Fisher and Yates."""
    key = hkdf_expand(seed, label("shuffle"), 16)
    words = iter_words(key_stream(key, 64 * n))
    order = list(range(n))
    for m in range(n - 1, 0, -1):
        limit = 2**64 - 2**64 % (m + 1)
        r = next(word for word in words if word < limit)
        order[m], order[r % (m + 1)] = order[r % (m + 1)], order[m]
    return order


def iter_words(stream):
    return (int.from_bytes(stream[at : at + 8], "little") for at in range(0, len(stream), 8))


def neighbours(n, k, seed):
    """For each index, the sorted indices of its neighbours."""
    if k == n - 1:
        return [[j for j in range(n) if j != i] for i in range(n)]
    order = ring(n, seed)
    result = [None] * n
    for place, index in enumerate(order):
        near = [order[(place + step) % n] for step in range(-(k // 2), k // 2 + 1) if step]
        result[index] = sorted(near)
    return result

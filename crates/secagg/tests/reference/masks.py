"""Masks (section 4): seeds of pairs and of the self mask, keys of vectors, elements modulo 2^32, 2^64 and 2^128."""

import numpy as np

from channel import x25519
from notation import hkdf, hkdf_expand, key_stream, label, lp, u32


def pair_seed(session, secret, public, one, other):
    first, second = sorted([one.encode(), other.encode()])
    return hkdf(session, x25519(secret, public), label("pair") + lp(first) + lp(second), 32)


def self_seed(session, seed, party):
    return hkdf(session, seed, label("self mask") + lp(party), 32)


def vector_key(seed, terms, number, purpose, name):
    return hkdf_expand(seed, label("vector") + terms + u32(number) + lp(purpose) + lp(name), 16)


def elements(data, width):
    """The little-endian elements of `width` bits. NumPy has no 128-bit integers: those are Python's."""
    if width == 128:
        return np.array([int.from_bytes(data[at : at + 16], "little") for at in range(0, len(data), 16)], dtype=object)
    return np.frombuffer(data, dtype={32: "<u4", 64: "<u8"}[width])


def encode(values, width):
    return b"".join((int(value) % 2**width).to_bytes(width // 8, "little") for value in values)


def signed(value, width):
    value = int(value) % 2**width
    return value - 2**width if value >> (width - 1) else value


def add(one, other, width):
    total = one + other
    return total % 2**128 if width == 128 else total


def negate(one, width):
    return (2**128 - one) % 2**128 if width == 128 else np.zeros_like(one) - one


def mask(seed, terms, number, vector):
    """The mask of one vector, as elements."""
    key = vector_key(seed, terms, number, vector["purpose"], vector["name"])
    return elements(key_stream(key, vector["length"] * vector["w"] // 8), vector["w"])

"""Section 1 of the specification: bytes, labels, hashes, key streams. All numbers are big-endian unless it says otherwise."""

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand


class Refusal(Exception):
    """What is refused, as one word that the negative vectors name."""

    def __init__(self, word):
        super().__init__(word)
        self.word = word


def u16(number):
    return number.to_bytes(2, "big")


def u32(number):
    return number.to_bytes(4, "big")


def u64(number):
    return number.to_bytes(8, "big")


def lp(data):
    """Length prefix and data; text is UTF-8."""
    data = data.encode() if isinstance(data, str) else data
    return u32(len(data)) + data


def label(words):
    return b"fedbiomed-secagg/1 " + words.encode("ascii") + b"\0"


def digest(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf(salt, ikm, info, length):
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(ikm)


def hkdf_expand(key, info, length):
    return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(key)


def same(one, other):
    return hmac.compare_digest(one, other)


def key_stream(key, length):
    """AES-128 in counter mode: the whole block is one 128-bit big-endian counter, from zero."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return encryptor.update(bytes(length))


class Draws:
    """Random bytes that are an input: taken from the front, one draw after the other."""

    def __init__(self, data):
        self.data = data
        self.used = 0

    def take(self, length):
        if self.used + length > len(self.data):
            raise ValueError("the vector has too few random bytes")
        self.used += length
        return self.data[self.used - length : self.used]


def context(case):
    return lp(case["experiment"]) + u32(case["round"]) + u32(case["attempt"]) + u16(case["phase"])


def session(case):
    """The digest that names one masked sum of one list of parties."""
    parties = case["parties"]
    if parties != sorted(set(parties), key=str.encode):
        raise Refusal("unordered-parties")
    numbers = [case["t"], case["c"], case["min_parties"], case["k"]]
    return digest(
        label("session"), context(case), *map(u32, numbers), bytes.fromhex(case["seed"]), u32(len(parties)), *map(lp, parties)
    )

"""Computes all cases again, and compares: `check.py [FILE …]`, without files all of `testdata/`.

A file is a JSON object with `cases`; a case has `name`, `kind`, `inputs`, and `outputs` or the word of a `refusal`. Every output that a
case states is compared, and a case of a session or of Joye and Libert's scheme must state what matters. Ends with 1 if anything differs.
"""

import json
import sys
from pathlib import Path

import channel
import identity
import joye_libert
import notation
import operations
import shamir

TESTDATA = Path(__file__).resolve().parents[2] / "testdata"
NAMES = ["identity", "channel", "shamir", "masks", "lom", "thresholds", "graph", "joye_libert"]
# Outputs without which a comparison would say little.
NEEDED = {
    "session": {"session", "nodes", "signatures", "revealed", "sums"},
    "joye-libert": {"keys_id", "share_sums", "vectors"},
}
NEEDED_OF_NODE = {"party", "offer", "mask_public", "self_commitment", "sealed", "masked"}


def differences(stated, computed, where):
    """Where a stated value differs from the computed one; the computed one may hold more."""
    if isinstance(stated, dict) and isinstance(computed, dict):
        for name, value in stated.items():
            if name not in computed:
                yield f"{where}.{name}: no such output"
            else:
                yield from differences(value, computed[name], f"{where}.{name}")
    elif isinstance(stated, list) and isinstance(computed, list):
        if len(stated) != len(computed):
            yield f"{where}: {len(stated)} entries stated, {len(computed)} computed"
        for place, (one, other) in enumerate(zip(stated, computed)):
            yield from differences(one, other, f"{where}[{place}]")
    elif stated != computed:
        yield f"{where}: stated {shorten(stated)}, computed {shorten(computed)}"


def shorten(value):
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_case(case, whole):
    where = case["name"]
    computed = operations.outcome(case["kind"], case["inputs"], whole)
    stated = {name: case[name] for name in ("outputs", "refusal") if name in case}
    if len(stated) != 1:
        yield f"{where}: states neither outputs nor a refusal, or both"
    yield from differences(stated, computed, where)
    if "outputs" in case:
        missing = NEEDED.get(case["kind"], set()) - set(case["outputs"])
        if case["kind"] == "session":
            for node in case["outputs"].get("nodes", []):
                missing |= NEEDED_OF_NODE - set(node)
        if missing:
            yield f"{where}: does not state {', '.join(sorted(missing))}"


def check_constants():
    """The primes and the modulus, and the library against other people's vectors."""
    if not shamir.is_probable_prime(shamir.SECRETS.prime):
        yield "2^256 + 297 is not prime"
    if any(shamir.is_probable_prime(2**256 + offset) for offset in range(297)):
        yield "2^256 + 297 is not the smallest prime above 2^256"
    # That no smaller offset is prime takes minutes: `generate.py --primes`.
    if not shamir.is_probable_prime(joye_libert.KEYS.prime, bases=3):
        yield "2^4240 + 5193 is not prime"
    if (len(str(joye_libert.RSA_2048)), sum(map(int, str(joye_libert.RSA_2048)))) != (617, 2738):
        yield "the modulus has not the digits of RSA-2048"
    # AES-128 under the zero key of the counters 0 and 1: McGrew and Viega, "The Galois/Counter Mode", test case 1 (H, E(K, Y0)).
    if notation.key_stream(bytes(16), 32).hex() != "66e94bd4ef8a2c3b884cfa59ca342b2e58e2fccefa7e3061367f1d57a4e7455a":
        yield "the key stream is not AES-128 in counter mode"
    # RFC 7748, section 5.2: the first iteration of the base point.
    nine = (9).to_bytes(32, "little")
    if channel.x25519(nine, nine).hex() != "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079":
        yield "X25519 does not give the result of RFC 7748"
    # RFC 5869, appendix A.1.
    okm = notation.hkdf(bytes(range(13)), b"\x0b" * 22, bytes(range(0xF0, 0xFA)), 42).hex()
    if okm != "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865":
        yield "HKDF does not give the result of RFC 5869"
    # RFC 6979, appendix A.2.5, P-256 with SHA-256, "sample": s is in the upper half there.
    secret = bytes.fromhex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721")
    s = int("f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8", 16)
    r = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    if identity.sign(secret, b"sample").hex() != r + f"{identity.ORDER - s:064x}":
        yield "the signature is not that of RFC 6979 with s in the lower half"


def check_file(path):
    content = json.loads(path.read_text())
    whole = {case["name"]: case for case in content["cases"] if case["kind"] in operations.WHOLE}
    found = [line for case in content["cases"] for line in check_case(case, whole)]
    print(f"{path.name}: {len(content['cases'])} cases, {len(found)} differences")
    return found


def main(arguments):
    paths = [Path(argument) for argument in arguments] or [TESTDATA / f"{name}.json" for name in NAMES]
    found = list(check_constants())
    for path in paths:
        found += check_file(path)
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

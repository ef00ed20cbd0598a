"""Joye and Libert's scheme with a server key that nobody deals (section 9), with Python's integers."""

import math

from notation import Draws, Refusal, context, digest, label, lp, u32, u64
from shamir import Field

# RSA-2048 of the RSA Factoring Challenge, as published: 617 decimal digits, whose sum is 2738.
RSA_2048 = int(
    "25195908475657893494027183240048398571429282126204032027777137836043662020707595556264018525880784406918290641249515082189"
    "29855914917618450280848912007284499268739280728777673597141834727026189637501497182469116507761337985909570009733045974880"
    "84284017974291006424586918171951187461215151726546322822168699875491824224336372590851418654620435767984233871847744479207"
    "39934236584823824281198163815010674810451660377306056201619676256133844143603833904414952634432190114657544454178424020924"
    "61651572335077870774981712577246796292638635637328991215483143816789988504044536402352738195137863656439121201039712282212"
    "0720357"
)

KEY_BYTES = 528
# The smallest prime above 2^4240: shares of 531 bytes. A sum of fewer than 2^16 node keys fits.
KEYS = Field(4240, 5193, 4240)


def keys_id(case, modulus):
    parties = case["parties"]
    return digest(
        label("jl keys"),
        lp(case["experiment"]),
        u32(case["generation"]),
        digest(modulus.to_bytes(256, "big")),
        u32(case["t"]),
        u32(len(parties)),
        *map(lp, parties),
    )


def hash_to_group(name, case, modulus, number, vector, index):
    """A uniform element of the group of units modulo N², nobody knows its roots."""
    for attempt in range(256):
        d = digest(
            label("jl hash"), name, context(case), bytes.fromhex(case["terms"]),
            u32(number), lp(vector["purpose"]), lp(vector["name"]), u64(index), u32(attempt),
        )  # fmt: skip
        wide = int.from_bytes(b"".join(digest(d, u32(block)) for block in range(17)), "big")
        element = wide % modulus**2
        if math.gcd(element, modulus) == 1:
            return d, element
    raise AssertionError("a modulus without units")


def layout(width, n):
    """Bits of a slot, and how many slots a plaintext has."""
    slot = width + (n - 1).bit_length()
    return slot, 2047 // slot


def pack(values, width, n):
    slot, count = layout(width, n)
    flipped = [(value + 2 ** (width - 1)) % 2**width for value in values]
    groups = [flipped[at : at + count] for at in range(0, len(flipped), count)]
    return [sum(value << (place * slot) for place, value in enumerate(group)) for group in groups]


def unpack(plaintexts, width, n, length):
    slot, count = layout(width, n)
    slots = [plaintext >> (place * slot) & (2**slot - 1) for plaintext in plaintexts for place in range(count)]
    if any(slots[length:]) or any(plaintext >> (slot * count) for plaintext in plaintexts):
        raise Refusal("padding-not-zero")
    values = [(value - n * 2 ** (width - 1)) % 2**width for value in slots[:length]]
    return [value - 2**width if value >> (width - 1) else value for value in values]


def encrypt(modulus, key, element, plaintext):
    square = modulus**2
    return (1 + plaintext * modulus) * pow(element, key, square) % square


def parse_ciphertext(modulus, data):
    value = int.from_bytes(data, "big")
    if len(data) != 512:
        raise Refusal("truncated")
    if not 0 < value < modulus**2 or math.gcd(value, modulus) != 1:
        raise Refusal("ciphertext-range")
    return value


def open_sum(modulus, key_sum, element, ciphertexts):
    """The sum of the plaintexts. `key_sum` is the sum of the node keys: the server key is its negative."""
    square = modulus**2
    total = pow(element, -key_sum, square)
    for ciphertext in ciphertexts:
        total = total * ciphertext % square
    if total % modulus != 1:
        raise Refusal("keys-do-not-fit")
    return (total - 1) // modulus


def run(case):
    """Everything that comes out of the inputs: shares, the key sum, ciphertexts, sums."""
    modulus = int(case["modulus"], 16)
    parties, name = case["parties"], keys_id(case, modulus)
    n, t = len(parties), case["t"]
    keys = [int(node["key"], 16) for node in case["nodes"]]
    shares = []
    for node, key in zip(case["nodes"], keys, strict=True):
        draws = Draws(bytes.fromhex(node["draws"]))
        coefficients = KEYS.coefficients(t, draws)
        assert key >> 4224 == 0
        shares.append([KEYS.share(key, coefficients, point) for point in range(1, n + 1)])
    share_sums = [KEYS.add([row[holder] for row in shares]) for holder in range(n)]
    key_sum = KEYS.reconstruct(t, [(holder + 1, share) for holder, share in enumerate(share_sums)])
    assert key_sum == sum(keys)
    vectors = [run_vector(case, modulus, name, keys, key_sum, v) for v in range(len(case["vectors"]))]
    return {
        "keys_id": name.hex(),
        "shares": {party: [share.hex() for share in row] for party, row in zip(parties, shares, strict=True)},
        "share_sums": {party: share.hex() for party, share in zip(parties, share_sums, strict=True)},
        "key_sum": hex(key_sum)[2:],
        "vectors": vectors,
    }


def run_vector(case, modulus, name, keys, key_sum, number):
    vector, n = case["vectors"][number], len(keys)
    width, length = vector["w"], vector["length"]
    rows = [list(map(int, node["values"][number])) for node in case["nodes"]]
    packed = [pack(row, width, n) for row in rows]
    opened, details = [], []
    for index in range(len(packed[0])):
        d, element = hash_to_group(name, case, modulus, number, vector, index)
        ciphertexts = [encrypt(modulus, key, element, row[index]) for key, row in zip(keys, packed, strict=True)]
        opened.append(open_sum(modulus, key_sum, element, ciphertexts))
        details.append(
            {
                "digest": d.hex(),
                "element": element.to_bytes(512, "big").hex(),
                "plaintexts": [hex(row[index])[2:] for row in packed],
                "ciphertexts": [value.to_bytes(512, "big").hex() for value in ciphertexts],
            }
        )
    sums = unpack(opened, width, n, length)
    plain = [sum(column) % 2**width for column in zip(*rows, strict=True)]
    assert [value % 2**width for value in sums] == plain
    return {"ciphertexts": details, "sums": [str(value) for value in sums]}

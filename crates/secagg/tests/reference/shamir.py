"""Shamir's shares over a prime field (sections 5 and 9), with Python's integers."""

from notation import Refusal


class Field:
    """A prime 2^bits + offset. A share is one byte longer than 2^bits has zero bytes; a secret is below 2^bits."""

    def __init__(self, bits, offset, secret_bits):
        self.prime = (1 << bits) + offset
        self.drawn_bits = bits + 1
        self.share_bytes = bits // 8 + 1
        self.secret_bits = secret_bits

    def draw(self, draws):
        while True:
            number = int.from_bytes(draws.take(self.share_bytes), "big") & ((1 << self.drawn_bits) - 1)
            if number < self.prime:
                return number

    def coefficients(self, threshold, draws):
        """All but the constant term, in rising order of degree."""
        return [self.draw(draws) for _ in range(threshold - 1)]

    def share(self, secret, coefficients, point):
        value = 0
        for coefficient in reversed([secret, *coefficients]):
            value = (value * point + coefficient) % self.prime
        return value.to_bytes(self.share_bytes, "big")

    def parse(self, share):
        if len(share) != self.share_bytes:
            raise Refusal("share-length")
        value = int.from_bytes(share, "big")
        if value >= self.prime:
            raise Refusal("share-range")
        return value

    def add(self, shares):
        return (sum(map(self.parse, shares)) % self.prime).to_bytes(self.share_bytes, "big")

    def interpolate(self, shares, at=0):
        """The polynomial's value, from pairs of a point and a share (Lagrange)."""
        points = [point for point, _ in shares]
        if len(set(points)) != len(points):
            raise Refusal("repeated-point")
        if any(not 0 < point < self.prime for point in points):
            raise Refusal("point-range")
        total = 0
        for point, share in shares:
            term = self.parse(share)
            for other in points:
                if other != point:
                    term = term * (at - other) * pow(point - other, -1, self.prime) % self.prime
            total = (total + term) % self.prime
        return total

    def reconstruct(self, threshold, shares):
        if len(shares) < threshold:
            raise Refusal("below-threshold")
        value = self.interpolate(shares[:threshold])
        for point, share in shares[threshold:]:
            if self.interpolate(shares[:threshold], point) != self.parse(share):
                raise Refusal("shares-disagree")
        if value >> self.secret_bits:
            raise Refusal("secret-range")
        return value


# The smallest prime above 2^256: shares of 33 bytes.
SECRETS = Field(256, 297, 256)


def is_probable_prime(number, bases=40):
    """Miller and Rabin's test to the first primes as bases."""
    small = [p for p in range(2, 200) if all(p % q for q in range(2, p))][:bases]
    if any(number % p == 0 for p in small):
        return number in small
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(passes(number, base, odd, twos) for base in small)


def passes(number, base, odd, twos):
    value = pow(base, odd, number)
    if value in (1, number - 1):
        return True
    for _ in range(twos - 1):
        value = value * value % number
        if value == number - 1:
            return True
    return False

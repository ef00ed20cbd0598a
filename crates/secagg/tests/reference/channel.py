"""Channels between two nodes (section 2)."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import identity
from notation import Refusal, digest, hkdf, label, lp, u32, u64


def x25519_public(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def x25519(secret, public):
    """The shared secret; all zeros (a key of low order) is refused. The library raises for it."""
    try:
        return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise Refusal("low-order-key") from None


def commitment(experiment, party, seed):
    return digest(label("seed"), lp(experiment), lp(party), seed)


def offer_bytes(experiment, party, public, commitment_bytes):
    return label("channel") + lp(experiment) + lp(party) + public + commitment_bytes


def make_offer(experiment, party, identity_secret, channel_secret, seed):
    public, promise = x25519_public(channel_secret), commitment(experiment, party, seed)
    signature = identity.sign(identity_secret, offer_bytes(experiment, party, public, promise))
    return {"public": public, "commitment": promise, "signature": signature}


def check_offer(experiment, party, identity_public, offer):
    identity.verify(identity_public, offer_bytes(experiment, party, offer["public"], offer["commitment"]), offer["signature"])


class Channel:
    """What one party holds of the channel with another."""

    def __init__(self, experiment, me, secret, other, other_public):
        mine = x25519_public(secret)
        first, second = sorted([(me.encode(), mine), (other.encode(), other_public)])
        self.salt = digest(label("channel salt"), lp(experiment), lp(first[0]), lp(second[0]), first[1], second[1])
        self.shared = x25519(secret, other_public)
        self.keys = hkdf(self.salt, self.shared, label("channel keys"), 64)
        forward, backward = self.keys[:32], self.keys[32:]
        i_am_first = me.encode() < other.encode()
        self.send_key = forward if i_am_first else backward
        self.receive_key = backward if i_am_first else forward
        self.experiment, self.me, self.other = experiment, me, other
        self.sent = self.received = 0

    def associated(self, sender, receiver, subject):
        return label("sealed") + lp(self.experiment) + lp(sender) + lp(receiver) + lp(subject)

    def seal(self, subject, plaintext):
        self.sent += 1
        nonce = u32(0) + u64(self.sent)
        associated = self.associated(self.me, self.other, subject)
        return u64(self.sent) + AESGCM(self.send_key).encrypt(nonce, plaintext, associated)

    def open(self, subject, message):
        """The plaintext. The counter moves only after the tag has checked."""
        if len(message) < 24:
            raise Refusal("truncated")
        counter = int.from_bytes(message[:8], "big")
        if counter <= self.received:
            raise Refusal("replayed")
        associated = self.associated(self.other, self.me, subject)
        try:
            plaintext = AESGCM(self.receive_key).decrypt(u32(0) + message[:8], message[8:], associated)
        except InvalidTag:
            raise Refusal("not-authentic") from None
        self.received = counter
        return plaintext

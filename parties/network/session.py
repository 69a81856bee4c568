"""Handshake and key schedule: the cryptography between two members. Bytes in, bytes out; no network.

A session is made per run, attempt and pair. The "lower" member is the one whose name is the smaller string.

::

    1  both          HELLO  version u8, attempt u64, X25519 public key (32 bytes), nonce (32 bytes)
                            and, from the higher name, its ML-KEM-768 encapsulation key (1184 bytes)
    2  lower→higher  AUTH   ML-KEM ciphertext (1088 bytes) ‖ sealed(public key ‖ job digest ‖ signature)
    3  higher→lower  AUTH   sealed(public key ‖ job digest ‖ signature)

    t           = SHA-256 of context, consortium, run, lower name, higher name, lower HELLO, higher HELLO, ciphertext,
                  each with its length in front
    signature   = Ed25519("isthmus auth v1" ‖ role u8 ‖ t ‖ the signer's job digest)
    directions  = HKDF-SHA256(X25519 secret ‖ ML-KEM secret, salt = t): 32 bytes lower→higher, 32 bytes higher→lower
    label's key = HKDF-Expand(direction, label): a topic, `control`, and `auth` for the AUTH itself
    channel id  = SHA-256("isthmus channel v1" ‖ label's key), its first 16 bytes
    sealed      = AES-256-GCM, as in `seal`

A side is established once the peer's AUTH has opened and its signature is by the key pinned in the roster. The first
AUTH so proves the lower name to the higher, the second the higher to the lower, and both that the keys are the same.

The job digest is inside the seal and not in `t`: an exchange cannot link runs of one job, and two members that were
given different jobs still get a session, in which they name the first field that differs.

**Who learns what.** The exchange and the network learn names, attempts, sizes and times. Recorded traffic opens to
nobody later, neither to one who steals the signing keys nor to one who breaks only one of X25519 and ML-KEM. An active
attacker can never be established, but it can show the lower name a HELLO of its own, open the AUTH that answers it and
read that member's public key and job digest; someone has to speak first in every such handshake.

**What is erased.** Ephemeral private keys and shared secrets are dropped at establishment. OpenSSL wipes a private key
when it is freed; Python does not wipe the bytes of a shared secret, so they may stay in this process's memory until it
is used again. The keys of the two directions live as long as the session.

Sources: SIGMA (Krawczyk, CRYPTO 2003) for signatures over the transcript under a key of the exchange; RFC 7748, RFC
8032, RFC 5869, FIPS 203; secrets of both kinds in a row into one HKDF with the transcript, as in hybrid TLS 1.3.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import InternalError
from ..signature import verify
from .frame import TAG_NBYTES
from .message import Buffer
from .seal import KEY_NBYTES, NotForUsError, Opener, Sealer, SessionError, label_key, nonce

__all__ = [
    "CONTROL",
    "Binding",
    "Handshake",
    "IdentityError",
    "NotForUsError",
    "Opener",
    "Sealer",
    "Session",
    "SessionError",
    "VersionError",
]

VERSION = 1
CONTROL = "control"
_AUTH = "auth"
_DIGEST_NBYTES = 32
_SIGNATURE_NBYTES = 64
_KEM_NBYTES = 1184
_CIPHERTEXT_NBYTES = 1088
_HELLO = struct.Struct(f">BQ{KEY_NBYTES}s32s")
_PROOF = struct.Struct(f">{KEY_NBYTES}s{_DIGEST_NBYTES}s{_SIGNATURE_NBYTES}s")
_PROOF_NBYTES = _PROOF.size + TAG_NBYTES
_LENGTH = struct.Struct(">I")
_LOWER, _HIGHER = b"\x00", b"\x01"


class VersionError(NotForUsError):
    """A HELLO of another version of this protocol, if it is the peer's: nothing has authenticated it."""


class IdentityError(SessionError):
    """Whoever wrote the HELLO also wrote this AUTH, and does not hold the pinned key: somebody is in the middle."""


@dataclass(frozen=True)
class Binding:
    """What both sides must already share for a session to come about."""

    consortium: str  # its name; empty on one machine
    run: str


class Handshake:
    """One side of the way to a session. Not for two threads at once.

    `sign` and `public` are this member's (`Identity`). `peer_key` is the peer's pinned key; None where the way itself
    is trusted, such as a socket pair of one machine: then whatever key the peer proves to hold is taken. `attempt` is
    this member's, `job` the digest (SHA-256 in hex) of the job that it was given. `hello` is the payload of its HELLO,
    the same whenever it is sent again.
    """

    def __init__(
        self,
        sign: Callable[[bytes], bytes],
        public: bytes,
        *,
        me: str,
        peer: str,
        peer_key: bytes | None,
        binding: Binding,
        attempt: int,
        job: str,
    ) -> None:
        self._sign, self._public, self._peer_key = sign, public, peer_key
        self._me, self._peer, self._binding = me, peer, binding
        self._job = bytes.fromhex(job)
        if me == peer or (len(public), len(self._job)) != (KEY_NBYTES, _DIGEST_NBYTES):
            raise InternalError("internal", party=me, detail="names, public key or job digest of a handshake")
        self._is_lower = me < peer
        self._agreement: X25519PrivateKey | None = X25519PrivateKey.generate()
        self._kem = None if self._is_lower else MLKEM768PrivateKey.generate()
        point = self._agreement.public_key().public_bytes_raw()
        self.hello = _HELLO.pack(VERSION, attempt, point, secrets.token_bytes(32))
        if self._kem is not None:
            self.hello += self._kem.public_key().public_bytes_raw()
        self._peer_hello: bytes | None = None
        self._secret = b""  # of X25519, with the peer's latest HELLO
        self._keys: _Keys | None = None
        self._auth: bytes | None = None
        self._peer_auth: bytes | None = None
        self._session: Session | None = None

    @property
    def session(self) -> Session | None:
        """The session, once the peer's AUTH was verified."""
        return self._session

    def on_hello(self, payload: Buffer) -> bytes | None:
        """Take in the peer's HELLO; return the AUTH to send, if this side can already make it (see `on_auth`).

        The same HELLO gives the same AUTH again: the peer may have lost it. A different one replaces the earlier one
        until the session is established (the peer was started again) and is ignored afterwards. Raises `NotForUsError`.
        """
        if payload == self._peer_hello:
            return self._auth
        if self._agreement is None:
            return None
        hello, point, kem_key = self._parsed(payload)
        try:
            secret = self._agreement.exchange(X25519PublicKey.from_public_bytes(point))
        except ValueError as failure:  # a point of small order, whose secret is all zeros
            raise NotForUsError("X25519 key") from failure
        if self._is_lower:
            try:
                kem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(kem_key).encapsulate()
            except ValueError as failure:
                raise NotForUsError("ML-KEM key") from failure
            self._keys = self._schedule(hello, secret, kem_secret, ciphertext)
            self._auth = ciphertext + self._proof(self._keys)
        self._peer_hello, self._secret = hello, secret
        return self._auth

    def on_auth(self, payload: Buffer) -> bytes | None:
        """Take in the peer's AUTH; return this side's, if it was not made yet (the higher name's).

        Raises `NotForUsError`, also when no HELLO came before or the session is established and this is another AUTH;
        `IdentityError` if it is the HELLO's author who cannot sign for the pinned key.
        """
        if self._session is not None and payload == self._peer_auth:
            return None
        if self._session is not None or self._peer_hello is None:
            raise NotForUsError("an AUTH that is not due")
        if len(payload) != _PROOF_NBYTES + (0 if self._is_lower else _CIPHERTEXT_NBYTES):
            raise NotForUsError("AUTH length")
        auth = bytes(payload)
        keys = self._keys
        if self._kem is not None:
            ciphertext = auth[:_CIPHERTEXT_NBYTES]
            keys = self._schedule(self._peer_hello, self._secret, self._kem.decapsulate(ciphertext), ciphertext)
        assert keys is not None  # the lower name made them when the HELLO came
        public, job = self._verified(keys, auth[-_PROOF_NBYTES:])
        answer = None
        if not self._is_lower:
            answer = self._auth = self._proof(keys)
        _, peer_attempt, _, _ = _HELLO.unpack_from(self._peer_hello)
        self._session = Session(keys, party=self._me, peer_job=job.hex(), peer_attempt=peer_attempt, peer_public=public)
        self._peer_auth = auth
        self._agreement = self._kem = self._keys = None
        self._secret = b""
        return answer

    def _parsed(self, payload: Buffer) -> tuple[bytes, bytes, bytes]:
        """A HELLO of the peer, its X25519 key and, from the higher name, its ML-KEM key."""
        if len(payload) and payload[0] != VERSION:
            raise VersionError("HELLO version")
        if len(payload) != _HELLO.size + (_KEM_NBYTES if self._is_lower else 0):
            raise NotForUsError("HELLO length")
        hello = bytes(payload)
        _, _, point, _ = _HELLO.unpack_from(hello)
        if point == _HELLO.unpack_from(self.hello)[2]:
            raise NotForUsError("our own key, reflected")
        return hello, point, hello[_HELLO.size :]

    def _schedule(self, peer_hello: bytes, secret: bytes, kem_secret: bytes, ciphertext: bytes) -> _Keys:
        ours, theirs = (self._me, self.hello), (self._peer, peer_hello)
        (low, low_hello), (high, high_hello) = (ours, theirs) if self._is_lower else (theirs, ours)
        fields = self._binding.consortium.encode(), self._binding.run.encode(), low.encode(), high.encode()
        transcript = hashlib.sha256()
        for field in (b"isthmus session v1", *fields, low_hello, high_hello, ciphertext):
            transcript.update(_LENGTH.pack(len(field)) + field)
        t = transcript.digest()
        both = HKDF(SHA256(), 2 * KEY_NBYTES, salt=t, info=b"isthmus directions v1").derive(secret + kem_secret)
        upward, downward = both[:KEY_NBYTES], both[KEY_NBYTES:]
        return _Keys(t, upward, downward) if self._is_lower else _Keys(t, downward, upward)

    def _proof(self, keys: _Keys) -> bytes:
        role = _LOWER if self._is_lower else _HIGHER
        proof = _PROOF.pack(self._public, self._job, self._sign(_signed(role, keys.transcript, self._job)))
        # The key is made of this very transcript and seals nothing else, so its nonce is the first one.
        return AESGCM(label_key(keys.sending, _AUTH)).encrypt(nonce(0), proof, None)

    def _verified(self, keys: _Keys, sealed: bytes) -> tuple[bytes, bytes]:
        """The public key and the job digest of an AUTH."""
        try:
            proof = AESGCM(label_key(keys.receiving, _AUTH)).decrypt(nonce(0), sealed, None)
        except InvalidTag as failure:
            raise NotForUsError("AUTH seal") from failure
        public, job, signature = _PROOF.unpack(proof)
        role = _HIGHER if self._is_lower else _LOWER
        if self._peer_key not in (None, public) or not verify(public, signature, _signed(role, keys.transcript, job)):
            raise IdentityError("AUTH signature")
        return public, job


class Session:
    """Keys that two members share, and what each has proved to the other.

    `peer_job` is the digest (hex) of the job that the peer was given, `peer_attempt` the attempt that it is at,
    `peer_public` the key that it signs with.
    """

    def __init__(self, keys: _Keys, *, party: str, peer_job: str, peer_attempt: int, peer_public: bytes) -> None:
        self.peer_job, self.peer_attempt, self.peer_public = peer_job, peer_attempt, peer_public
        self._keys, self._party = keys, party
        self._sealers: dict[str, Sealer] = {}
        self._lock = threading.Lock()

    def sealer(self, label: str) -> Sealer:
        """What seals for the peer under a topic's value or `CONTROL`; always the same one for a label."""
        if label == _AUTH:
            raise InternalError("internal", party=self._party, detail="the key of the AUTH seals nothing else")
        with self._lock:  # two of them would each begin at the first nonce
            if label not in self._sealers:
                self._sealers[label] = Sealer(label_key(self._keys.sending, label), self._party)
            return self._sealers[label]

    def opener(self, label: str) -> Opener:
        """What opens the frames that the peer seals under a label."""
        return Opener(label_key(self._keys.receiving, label))


@dataclass(frozen=True, repr=False)
class _Keys:
    transcript: bytes
    sending: bytes
    receiving: bytes


def _signed(role: bytes, transcript: bytes, job: bytes) -> bytes:
    return b"isthmus auth v1" + role + transcript + job

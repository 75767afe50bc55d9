"""Signatures of webhooks, after the Standard Webhooks specification (standardwebhooks.com), version 1.

`webhook-signature` is `v1,` and the base64 of HMAC-SHA256 (RFC 2104) over `{id}.{timestamp}.{body}`, keyed
with the bytes that the secret holds after `whsec_`. The libraries of that specification verify it.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

PREFIX: Final = "whsec_"
WINDOW: Final = 300
"""Seconds by which a receiver lets the time of a signature differ from its own: older ones may be replays."""


def new_secret() -> str:
    """`whsec_` and 32 random bytes as base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def headers(secret: str, delivery: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a delivery. delivery: the same for every try of one event. timestamp: seconds
    since 1970, of this try."""
    return {
        "webhook-id": delivery,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{_signature(secret, delivery, timestamp, body)}",
    }


def verify(secret: str, given: Mapping[str, str], body: bytes, now: float) -> bool:
    """What a receiver does: True where the headers (names in lower case) carry a fresh signature of this
    body. A delivery whose `webhook-id` was seen before is to be answered and otherwise ignored."""
    try:
        delivery, timestamp = given["webhook-id"], int(given["webhook-timestamp"])
        offered = [each.partition(",")[2] for each in given["webhook-signature"].split(" ")]
    except (KeyError, ValueError):
        return False
    wanted = _signature(secret, delivery, timestamp, body).encode()
    matches = [hmac.compare_digest(wanted, each.encode()) for each in offered]
    return abs(now - timestamp) <= WINDOW and any(matches)


def _signature(secret: str, delivery: str, timestamp: int, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{delivery}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()

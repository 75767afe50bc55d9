"""Signatures, against a computation of their own, and what a receiver must refuse."""

import base64
import hashlib
import hmac

import pytest
from sphereid.monitors.signing import WINDOW, headers, new_secret, verify

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = b'{"type":"person.arrived"}'


def test_the_signature_is_the_specified_one() -> None:
    made = headers(SECRET, "msg_1", 1_700_000_000, BODY)
    content = b"msg_1.1700000000." + BODY
    wanted = base64.b64encode(hmac.digest(bytes(range(32)), content, hashlib.sha256)).decode()
    assert made == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": f"v1,{wanted}",
    }
    assert verify(SECRET, made, BODY, 1_700_000_000.5)


@pytest.mark.parametrize("late", [-WINDOW - 1, WINDOW + 1])
def test_a_replay_is_refused(late: int) -> None:
    assert not verify(SECRET, headers(SECRET, "m", 1000, BODY), BODY, 1000 + late)
    assert verify(SECRET, headers(SECRET, "m", 1000, BODY), BODY, 1000 + WINDOW)


def test_what_was_changed_is_refused() -> None:
    made = headers(SECRET, "m", 1000, BODY)
    assert not verify(SECRET, made, BODY + b" ", 1000)
    assert not verify(new_secret(), made, BODY, 1000)
    for name, value in {"webhook-id": "n", "webhook-timestamp": "1001", "webhook-signature": "v1,x"}.items():
        assert not verify(SECRET, made | {name: value}, BODY, 1000)
        assert not verify(SECRET, {k: v for k, v in made.items() if k != name}, BODY, 1000)
    assert not verify(SECRET, made | {"webhook-timestamp": "soon"}, BODY, 1000)
    both = made | {"webhook-signature": f"v1,old {made['webhook-signature']}"}  # while a secret is exchanged
    assert verify(SECRET, both, BODY, 1000)


def test_secrets_differ() -> None:
    assert len({new_secret() for _ in range(20)}) == 20

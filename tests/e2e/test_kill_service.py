"""`kill -9` during a stream of enrollments over HTTP: each face that was answered 201 is found afterwards."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.process import service
from tests.server import jpeg
from tests.toy import write_toy_model

ROUNDS = 2
WRITERS = 4
ACKNOWLEDGED = 8  # of a round, before the process is killed in the midst of the others


def variant(portrait: NDArray[np.uint8], number: int) -> bytes:
    """A picture of its own for each enrollment: a colored patch over the face that no other has."""
    rng = np.random.default_rng(number)
    image = portrait.astype(np.float32)
    patch = np.kron(rng.uniform(-90, 90, (6, 6, 3)), np.ones((20, 20, 1)))
    image[60:180, 170:290] += patch
    return jpeg(image.clip(0, 255).astype(np.uint8), quality=95)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    write_toy_model(tmp_path / "models")
    return tmp_path / "models"


def test_acknowledged_enrollments_survive_a_kill(
    tmp_path: Path, models_dir: Path, portrait: NDArray[np.uint8]
) -> None:
    acknowledged: dict[str, tuple[int, str]] = {}
    lock = threading.Lock()
    number = 0
    for round_ in range(ROUNDS):
        with service(tmp_path / "data", models_dir) as running:
            enough = threading.Event()
            target = len(acknowledged) + ACKNOWLEDGED

            def write(_: int) -> None:
                nonlocal number
                with running.client() as client:
                    while True:
                        with lock:
                            number += 1
                            mine = number
                        who = f"p{mine:04}"
                        try:
                            answer = client.post(
                                f"/v1/galleries/default/identities/{who}/faces",
                                files={"images": variant(portrait, mine)},
                                data={"create": "true"},
                            )
                        except httpx.TransportError:
                            return  # killed: nobody promised anything about this one
                        if answer.status_code == 422:
                            continue  # the patch hid the face
                        assert answer.status_code == 201, answer.text
                        with lock:
                            acknowledged[who] = mine, answer.json()["faces"][0]["id"]
                            if len(acknowledged) >= target:  # noqa: B023
                                enough.set()  # noqa: B023

            with ThreadPoolExecutor(WRITERS) as pool:
                futures = [pool.submit(write, i) for i in range(WRITERS)]
                assert enough.wait(120)
                running.kill()
                for future in futures:
                    future.result(60)

        with service(tmp_path / "data", models_dir) as restarted, restarted.client() as client:
            assert client.get("/readyz").status_code == 200
            shown = client.get("/v1/galleries/default").json()
            assert shown["faces"] >= len(acknowledged), f"round {round_}"
            for who, (mine, face) in acknowledged.items():
                stored = client.get(f"/v1/galleries/default/identities/{who}/faces").json()["items"]
                assert face in [each["id"] for each in stored], who
                found = client.post(
                    "/v1/galleries/default/identify",
                    files={"image": variant(portrait, mine)},
                    data={"threshold": "0.999", "k": "1"},
                ).json()
                best = found["faces"][0]
                assert best["decision"] == "match", (who, best)
                assert best["similarity"] == pytest.approx(1, abs=1e-4)
                assert best["identity"]["id"] == who

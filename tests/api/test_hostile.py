"""A corpus of hostile files: each is answered with a 4xx problem, and the server goes on."""

from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.hostile import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    files = write_corpus(tmp_path_factory.mktemp("hostile"))
    assert len(files) >= 40
    return files


def test_every_hostile_file_is_a_4xx_problem(
    client: httpx.Client, gallery: str, corpus: list[Path], face_jpeg: bytes
) -> None:
    codes: Counter[str] = Counter()
    for path in corpus:
        data = path.read_bytes()
        response = client.post(
            f"{gallery}/identities/x/faces", files={"images": (path.name, data)}, data={"create": "true"}
        )
        assert 400 <= response.status_code < 500, (path.name, response.status_code, response.text)
        assert response.headers["content-type"] == "application/problem+json", path.name
        problem = response.json()
        assert problem["status"] == response.status_code
        codes[problem["code"]] += 1
        found = client.post("/v1/detect", files={"image": (path.name, data)})
        if path.parent.name == "refused":
            assert 400 <= found.status_code < 500, (path.name, found.status_code)
        else:
            assert found.status_code == 200, (path.name, found.text)
    assert {"image_empty", "image_broken", "image_unsupported", "image_too_large"} <= set(codes)
    assert client.post("/v1/detect", files={"image": face_jpeg}).json()["faces"]
    assert client.get(gallery).json()["faces"] == 0

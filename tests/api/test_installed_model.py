"""The installed public-domain model serves: a person is enrolled and found again, and its license is told."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.errors import CodedError
from sphereid.faces.published.catalog import published
from sphereid.faces.published.folder import write_model

from tests.server import jpeg, serving, settings_for


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed") / "models"
    try:
        files = published("dlib").make(lambda line: None)
    except CodedError as error:
        pytest.skip(str(error))
    write_model(files, folder / "dlib", replace=False)
    return folder


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_it_finds_a_person_again(
    models_dir: Path, tmp_path: Path, portrait: NDArray[np.uint8], precision: str
) -> None:
    small = cv2.resize((portrait[:400, 60:460] * 0.7).astype(np.uint8), (250, 250))
    settings = settings_for(tmp_path, models_dir=models_dir, precision=precision, provider="cpu")
    with serving(settings) as running:
        client = running.client
        (told,) = client.get("/v1/models").json()["models"]
        assert (told["name"], told["active"], told["calibrated"]) == ("dlib", True, True)
        assert told["license"].startswith("CC0-1.0")
        taken = running.parts.serving.default.embedder.precision
        assert taken == ("int8" if precision == "auto" else "fp32")
        enrolled = client.post(
            "/v1/galleries/default/identities/collins/faces",
            files={"images": jpeg(portrait)},
            data={"create": "true"},
        )
        assert enrolled.status_code == 201, enrolled.text
        answer = client.post("/v1/galleries/default/identify", files={"image": jpeg(small)})
        assert answer.status_code == 200, answer.text
        (face,) = answer.json()["faces"]
    assert face["decision"] == "match"
    assert face["identity"]["id"] == "collins"
    assert face["threshold"]["policy"] == "fpir"
    assert answer.json()["model"]["name"] == "dlib"

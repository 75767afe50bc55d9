"""Five people, one image each, the real server and the shipped model: they are named, strangers are not."""

import os
from pathlib import Path

import pytest
from sphereid.faces.manifest import load_manifest
from sphereid.inference.loading import model_folders

from tests.e2e.process import ROOT, service

PEOPLE = {  # one clear portrait each; some of the folders hold pictures with two people
    "alex_lacamoire": "img1.jpg",
    "biden": "biden.jpg",
    "kit_harington": "john1.jpeg",
    "obama": "obama.jpg",
    "rose_leslie": "img1.jpg",
}
TESTS = {  # who is on each picture; every other face on it is a stranger
    "alex_lacamoire1.jpg": {"alex_lacamoire"},
    "johnsnow_test1.jpg": {"kit_harington"},
    "kit_with_rose.jpg": {"kit_harington", "rose_leslie"},
    "obama1.jpg": {"obama"},
    "obama_and_biden.jpg": {"obama", "biden"},
}


GOOD_ENOUGH = 0.95


def lfw_accuracy(models: Path) -> float:
    """What the manifest of the model that would be served states; 0 where it states nothing."""
    folders = model_folders(models)
    metrics = load_manifest(folders[0]).metrics if folders else ()
    stated = [
        metric.value for metric in metrics if "lfw" in metric.name.lower() and "accuracy" in metric.name
    ]
    return max(stated, default=0.0)


@pytest.mark.data
def test_known_people_are_named_and_strangers_are_not(shared_data: Path, tmp_path: Path) -> None:
    models = Path(os.environ.get("SPHEREID_TEST_MODELS", ROOT / "models"))
    accuracy = lfw_accuracy(models)
    if accuracy < GOOD_ENOUGH:
        pytest.skip(
            f"the model in {models} states an LFW View 1 accuracy of {accuracy:.3f}; naming people from "
            f"one image each wants {GOOD_ENOUGH} (set SPHEREID_TEST_MODELS to try another folder)"
        )
    pictures = shared_data / "demo" / "knn_examples"
    with service(tmp_path / "data", models) as running, running.client() as client:
        for person, portrait in PEOPLE.items():
            image = (pictures / "train" / person / portrait).read_bytes()
            enrolled = client.post(
                f"/v1/galleries/default/identities/{person}/faces",
                files={"images": (portrait, image)},
                data={"create": "true", "face": "largest"},
            )
            assert enrolled.status_code == 201, enrolled.text
        for name, expected in TESTS.items():
            image = (pictures / "test" / name).read_bytes()
            answer = client.post(
                "/v1/galleries/default/identify", files={"image": image}, data={"assign": "unique"}
            ).json()
            named = [face["identity"]["id"] for face in answer["faces"] if face["decision"] == "match"]
            report = [
                (
                    face["decision"],
                    face["candidates"][0]["identity"]["id"],
                    face["similarity"],
                    face["threshold"],
                )
                for face in answer["faces"]
            ]
            assert len(named) == len(set(named)), (name, report)
            assert set(named) == expected, (name, report)

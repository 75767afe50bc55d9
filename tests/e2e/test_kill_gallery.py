"""`kill -9` at random points of a stream of writes: nothing acknowledged is lost, nothing deleted comes back,
and what is in the database is in the index and the other way round."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sphereid.gallery.service import GalleryService

from tests.e2e.gallery_writer import CONTRACT, vector

ROUNDS = 10
WRITES = 500

Model = dict[str, set[int]]


def apply(model: Model, line: dict[str, object]) -> None:
    name, faces = str(line["identity"]), set(line["faces"])  # type: ignore[call-overload]
    if line["trying"] == "enroll":
        model.setdefault(name, set()).update(faces)
    elif line["trying"] == "delete face":
        model[name] -= faces
    else:
        del model[name]


def run_until_killed(
    folder: Path, first: int, seed: int, model: Model, writes: int
) -> tuple[int, dict | None]:
    """Let the writer do about `writes` writes and kill it in the midst of one. Brings `model` to what was
    acknowledged; returns their count and the write that was under way, if any."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.gallery_writer", str(folder), str(first), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    done, trying = 0, None
    for text in writer.stdout:
        line = json.loads(text)
        if "trying" in line:
            trying = line
            if done >= writes:
                # The moment falls anywhere between the transaction's begin and some way past the answer.
                moment = time.perf_counter() + float(np.random.default_rng(seed).uniform(0, 0.02))
                while time.perf_counter() < moment:
                    pass
                writer.kill()
                break
        elif "done" in line and trying is not None:
            apply(model, trying)
            done, trying = done + 1, None
    for text in writer.stdout:  # what it still said before it died
        line = json.loads(text) if text.endswith("\n") else {}
        if "done" in line and trying is not None:
            apply(model, trying)
            done, trying = done + 1, None
        elif "trying" in line:
            trying = line
    writer.wait()
    writer.stdout.close()
    assert writer.returncode == -9
    return done, trying


def in_database(service: GalleryService) -> Model:
    model: Model = {}
    for identity in service.list_identities("default", limit=1000).items:
        faces = service.list_faces("default", identity.id, limit=1000).items
        assert identity.faces == len(faces)
        model[identity.id] = {int(face.source or -1) for face in faces}
    return model


def judge(service: GalleryService, model: Model, highest: int) -> None:
    """Database, index and model say the same of every face that ever was."""
    assert in_database(service) == model
    gallery = service.get_gallery("default")
    alive = {number: name for name, numbers in model.items() for number in numbers}
    assert (gallery.identities, gallery.faces) == (len(model), len(alive))
    assert service._live["default"].size() == len(alive)
    if not highest:
        return
    probes = np.stack([vector(n) for n in range(highest)])
    decisions, _ = service.identify("default", probes, CONTRACT, threshold=0.9999, k=1)
    for number, decision in enumerate(decisions):
        named = None if decision.identity is None else decision.identity.id
        assert named == alive.get(number), f"face {number}: {named}, should be {alive.get(number)}"


def test_nothing_is_lost_and_nothing_haunts(tmp_path: Path) -> None:
    model: Model = {}
    acknowledged, highest = 0, 0
    for seed in range(ROUNDS):
        writes = int(np.random.default_rng(seed).integers(WRITES // ROUNDS, WRITES // ROUNDS + 10))
        done, trying = run_until_killed(tmp_path, highest, seed, model, writes)
        acknowledged += done
        service = GalleryService.open(f"sqlite:///{tmp_path}/gallery.db", tmp_path)
        try:
            if trying is not None:
                # It wasn't answered, so it may have happened or not, but only as a whole.
                after = {name: set(numbers) for name, numbers in model.items()}
                apply(after, trying)
                found = in_database(service)
                assert found in (model, after)
                print("under way, and", "done" if found == after else "not done")
                model = found
                highest = max(highest, *(int(n) + 1 for n in trying["faces"]), 0)
            highest = max([highest, *(n + 1 for numbers in model.values() for n in numbers)])
            judge(service, model, highest)
        finally:
            service.close()
        highest += 10
    assert acknowledged >= WRITES

"""A process that writes to a gallery until somebody kills it, and says on stdout what it was told is done.

    python -m tests.e2e.gallery_writer FOLDER FIRST SEED

Each line is one acknowledged write as JSON, flushed before the next write begins: `{"write": n, ...}`. Before
each write the line `{"trying": ...}` names it, so that the reader knows which one may or may not have
happened.
"""

import json
import sys
from pathlib import Path

import numpy as np
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import NewFace, Vectors

CONTRACT = "kill-test"
DIMENSION = 32


def vector(number: int) -> Vectors:
    """(D,) of norm 1, by its number: writer and judge know the same faces."""
    v = np.random.default_rng([11, number]).standard_normal(DIMENSION)
    return (v / np.linalg.norm(v)).astype(np.float32)


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def write(folder: Path, first: int, seed: int) -> None:
    service = GalleryService.open(f"sqlite:///{folder}/gallery.db", folder)
    rng = np.random.default_rng(seed)
    live: dict[str, list[tuple[str, int]]] = {}
    for identity in service.list_identities("default", limit=1000).items:
        faces = service.list_faces("default", identity.id, limit=1000).items
        live[identity.id] = [(face.id, int(face.source or -1)) for face in faces]
    say(ready=True)
    number = first
    while True:
        act = rng.choice(["enroll", "enroll", "more", "delete face", "delete identity", "snapshot"])
        names = sorted(live)
        if act in ("enroll", "more") or not names:
            name = f"p{number}" if act == "enroll" or not names else str(rng.choice(names))
            numbers = list(range(number, number + int(rng.integers(1, 4))))
            number = numbers[-1] + 1
            say(trying="enroll", identity=name, faces=numbers)
            new = [NewFace(vector(n), CONTRACT, 0.9, 0.9, source=str(n)) for n in numbers]
            enrolled = service.enroll("default", name, new, create=True)
            live.setdefault(name, []).extend(zip([f.id for f in enrolled.faces], numbers, strict=True))
        elif act == "delete identity":
            name = str(rng.choice(names))
            say(trying=act, identity=name, faces=[n for _, n in live[name]])
            service.delete_identity("default", name)
            del live[name]
        elif act == "delete face":
            name = str(rng.choice(names))
            if not live[name]:
                continue
            face_id, face_number = live[name].pop(int(rng.integers(len(live[name]))))
            say(trying=act, identity=name, faces=[face_number])
            service.delete_face("default", name, face_id)
        else:
            service._maintenance.save_all()
            continue
        say(done=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

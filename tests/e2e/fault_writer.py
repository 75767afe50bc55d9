"""A client that writes to a running service, each write under a key, and knows what must be stored then."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.server import jpeg

Faces = dict[str, int]
"""Face id to the number of its picture."""


def picture(portrait: NDArray[np.uint8], number: int) -> bytes:
    """(200, 200) JPEG of the portrait's face under colored patches that no other number has."""
    noise = np.random.default_rng([5, number]).uniform(-70, 70, (8, 8, 3))
    image = portrait[20:220, 120:320].astype(np.float32) + np.kron(noise, np.ones((25, 25, 1)))
    return jpeg(image.clip(0, 255).astype(np.uint8), quality=95)


@dataclass
class Person:
    """What an identity must look like."""

    name: str
    metadata: dict[str, Any] = field(default_factory=dict)
    faces: Faces = field(default_factory=dict)


@dataclass
class Gallery:
    """What a gallery must look like."""

    name: str
    people: dict[str, Person] = field(default_factory=dict)


@dataclass(frozen=True)
class Write:
    """One request, and the key under which it may be repeated."""

    act: str
    key: str
    method: str
    path: str
    gallery: str
    json: dict[str, Any] | None = None
    person: str = ""
    other: str = ""
    number: int = -1


class Writer:
    """Chooses writes by its seed, sends them, and keeps the model of what was acknowledged.

    Each writer has galleries and pictures of its own, so that the others' writes are none of its model's
    business.
    """

    def __init__(self, number: int, seed: int, portrait: NDArray[np.uint8]) -> None:
        self.rng = np.random.default_rng([seed, number])
        self.portrait = portrait
        self.home = f"writer{number}"
        self.galleries: dict[str, Gallery] = {}
        self.pictures = 1000 * number
        self.gone: set[tuple[str, int]] = set()
        self.count = 0
        self.unanswered: Write | None = None
        self.answered: tuple[Write, bytes] | None = None
        self.repeated = 0

    def choose(self) -> Write:
        """The next write; always one that a healthy service accepts."""
        self.count += 1
        key = f"{self.home}-{self.count}"
        if self.home not in self.galleries:
            body = {"id": self.home, "name": "home", "policy": {"type": "cosine", "value": 0.9999}}
            return Write("make gallery", key, "POST", "/v1/galleries", self.home, body)
        names = sorted(self.galleries)
        gallery = self.home if self.rng.random() < 0.8 else str(self.rng.choice(names))
        people = self.galleries[gallery].people
        path = f"/v1/galleries/{gallery}"
        acts = ["enroll"] * 6 + ["make identity"] * 3 + ["patch gallery", "make gallery"]
        if people:
            acts += ["patch identity"] * 3 + ["add face"] * 3 + ["delete identity"] * 2
        if any(person.faces for person in people.values()):
            acts += ["delete face"] * 3
        if len(people) > 1:
            acts += ["merge"] * 2
        if gallery != self.home:
            acts += ["delete gallery"]
        act = str(self.rng.choice(acts))
        new, person = f"p{self.count}", str(self.rng.choice(sorted(people))) if people else ""
        if act == "make gallery":
            body = {"id": f"{self.home}-{self.count}", "policy": {"type": "cosine", "value": 0.9999}}
            return Write(act, key, "POST", "/v1/galleries", str(body["id"]), body)
        if act == "patch gallery":
            return Write(act, key, "PATCH", path, gallery, {"name": f"name {self.count}"})
        if act == "delete gallery":
            return Write(act, key, "DELETE", path, gallery)
        if act == "make identity":
            body = {"id": new, "name": new.upper(), "metadata": {"n": self.count}}
            return Write(act, key, "POST", f"{path}/identities", gallery, body, new)
        if act in ("enroll", "add face"):
            self.pictures += 1
            who = new if act == "enroll" else person
            where = f"{path}/identities/{who}/faces"
            return Write(act, key, "POST", where, gallery, None, who, number=self.pictures)
        path = f"{path}/identities/{person}"
        if act == "patch identity":
            return Write(act, key, "PATCH", path, gallery, {"name": f"name {self.count}"}, person)
        if act == "delete identity":
            return Write(act, key, "DELETE", path, gallery, None, person)
        if act == "merge":
            other = str(self.rng.choice([name for name in sorted(people) if name != person]))
            return Write(act, key, "POST", f"{path}/merge", gallery, {"source": other}, person, other)
        holders = [name for name, each in sorted(people.items()) if each.faces]
        person = str(self.rng.choice(holders))
        face = str(self.rng.choice(sorted(people[person].faces)))
        path = f"/v1/galleries/{gallery}/identities/{person}/faces/{face}"
        return Write(act, key, "DELETE", path, gallery, None, person, face)

    def send(self, client: httpx.Client, write: Write) -> httpx.Response:
        """Raises httpx.TransportError where the service dies of it."""
        content: dict[str, Any] = {"json": write.json} if write.json is not None else {}
        if write.number >= 0:
            content = {
                "files": {"images": (f"{write.number}.jpg", picture(self.portrait, write.number))},
                "data": {"create": "true", "quality": "off", "face": "largest"},
            }
        headers = {"Idempotency-Key": write.key}
        return client.request(write.method, write.path, headers=headers, **content)

    def step(self, client: httpx.Client) -> None:
        """One write. It counts as unanswered until its answer is here."""
        self.finish(self.unanswered or self.choose(), client)

    def finish(self, write: Write, client: httpx.Client) -> None:
        """Send it, for the first or for another time, and take what it must have done into the model."""
        self.unanswered = write
        response = self.send(client, write)
        if response.status_code == 422 and write.number >= 0:
            self.unanswered = None  # the patches hide the face: nothing happened
            return
        assert response.is_success, (write, response.status_code, response.text)
        self.repeated += response.headers.get("idempotent-replayed") == "true"
        self.apply(write, response.json())
        self.answered, self.unanswered = (write, response.content), None

    def apply(self, write: Write, answer: dict[str, Any]) -> None:
        """What the write does to the model."""
        if write.act == "make gallery":
            self.galleries[write.gallery] = Gallery(answer["name"])
            return
        gallery = self.galleries[write.gallery]
        people = gallery.people
        if write.act == "patch gallery":
            gallery.name = str((write.json or {})["name"])
        elif write.act == "delete gallery":
            del self.galleries[write.gallery]
        elif write.act == "make identity":
            people[write.person] = Person(write.person.upper(), (write.json or {})["metadata"])
        elif write.act in ("enroll", "add face"):
            person = people.setdefault(write.person, Person(write.person))
            (face,) = answer["faces"]
            person.faces[face["id"]] = write.number
        elif write.act == "patch identity":
            people[write.person].name = str((write.json or {})["name"])
        elif write.act == "delete identity":
            self.gone |= {(write.gallery, n) for n in people.pop(write.person).faces.values()}
        elif write.act == "merge":
            people[write.person].faces |= people.pop(write.other).faces
        else:
            self.gone.add((write.gallery, people[write.person].faces.pop(write.other)))

    def judge(self, client: httpx.Client) -> int:
        """Database, index and model say the same; returns how many faces were searched."""
        if self.answered is not None:  # acknowledged and stored under its key, however the process ended
            write, content = self.answered
            again = self.send(client, write)
            assert (again.content, again.headers.get("idempotent-replayed")) == (content, "true"), write
        found = client.get("/v1/galleries", params={"limit": 500}).json()["items"]
        mine = {each["id"]: each for each in found if each["id"].split("-")[0] == self.home}
        assert mine.keys() == self.galleries.keys()
        searched = 0
        for name, gallery in self.galleries.items():
            path = f"/v1/galleries/{name}"
            people = client.get(f"{path}/identities", params={"limit": 500}).json()["items"]
            assert {each["id"]: (each["name"], each["metadata"], each["faces"]) for each in people} == {
                person: (each.name, each.metadata, len(each.faces)) for person, each in gallery.people.items()
            }
            total = sum(len(person.faces) for person in gallery.people.values())
            shown = mine[name]
            assert (shown["name"], shown["identities"], shown["faces"]) == (gallery.name, len(people), total)
            for person, each in gallery.people.items():
                stored = client.get(f"{path}/identities/{person}/faces", params={"limit": 500}).json()[
                    "items"
                ]
                assert {s["id"]: s["source"] for s in stored} == {
                    face: f"{number}.jpg" for face, number in each.faces.items()
                }
                for face, number in each.faces.items():
                    best = self.search(client, path, number)
                    assert best["decision"] == "match", (person, number, best)
                    assert best["identity"]["id"] == person
                    assert best["candidates"][0]["face_id"] == face
                    searched += 1
        for name, number in self.gone:
            if name in self.galleries:
                assert self.search(client, f"/v1/galleries/{name}", number)["decision"] == "unknown"
                searched += 1
        self.gone.clear()
        return searched

    def search(self, client: httpx.Client, path: str, number: int) -> dict[str, Any]:
        """The decision on the largest face of a picture."""
        files = {"image": picture(self.portrait, number)}
        answer = client.post(f"{path}/identify", files=files, data={"k": "1"})
        assert answer.status_code == 200, answer.text
        face: dict[str, Any] = answer.json()["faces"][0]
        return face

    def __repr__(self) -> str:
        people = {name: sorted(gallery.people) for name, gallery in self.galleries.items()}
        return f"{self.home}: {json.dumps(people)}"

"""Compose a clip with exact ground truth from stills, name its people, and score the answer.

    python benchmarks/video.py --json out.json
    python benchmarks/video.py --seed 6 7 8 --json out.json --write docs/video.md

The second composes a clip for each seed; its figures are the means over the clips, `clips` has each, and the
table between the marks in the document is renewed.

Six people are enrolled with one image each; four strangers are among them. A shot shows two to four people
who pan, zoom and cross; their stills change about once a second; shots are cut hard, often with someone else
standing where the last person stood. All ten are identities that training kept out.

Scores, over all frames of the clip; a shown box belongs to a true face when they overlap by IoU >= 0.3:

identification_precision  rightly named faces / named faces (a named stranger or non-face counts as wrong)
identification_recall     rightly named faces / faces of enrolled people on screen
switch_rate               changes of the name shown for one person within a shot (a name to no name counts
                          too) / frames of the clip
frames_per_second         of the analysis, from file to decisions; writing the annotated video is separate
"""

import argparse
import csv
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress as Bar
from scipy.optimize import linear_sum_assignment

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from app.gallery.calibration import ImpostorCalibration  # noqa: E402
from app.gallery.service import GalleryService  # noqa: E402
from app.gallery.types import NewFace  # noqa: E402
from app.pipeline.detect import MtcnnDetector  # noqa: E402
from app.pipeline.embed import OnnxEmbedder  # noqa: E402
from app.pipeline.pipeline import FacePipeline  # noqa: E402
from app.video.gallery import GalleryMatcher  # noqa: E402
from app.video.outputs import read_frames  # noqa: E402
from app.video.process import FRAMES, process_video  # noqa: E402
from app.video.tracks import Links  # noqa: E402
from app.video.types import Box, Mode, ShownFrame, VideoOptions  # noqa: E402
from training.data.store import held_out  # noqa: E402

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT, RATE = 640, 360, 25
ENROLLED, STRANGERS, STILLS = 6, 4, 9


@dataclass(frozen=True, slots=True)
class Truth:
    """A face on screen. person: its number; enrolled: whether the gallery knows it. shot: which cut."""

    person: str
    enrolled: bool
    shot: int
    box: Box


@dataclass(frozen=True, slots=True)
class Score:
    """What one mode reached; see the module's docstring."""

    identification_precision: float
    identification_recall: float
    switch_rate: float
    frames_per_second: float
    render_frames_per_second: float
    detection_recall: float
    named: int
    shown: int
    switches: int


def load_people(data: Path, rng: np.random.Generator) -> dict[str, list[Pixels]]:
    """STILLS stills, (128, 128, 3) RGB, of ENROLLED + STRANGERS identities that training never saw."""
    members: dict[int, list[str]] = {}
    with (data / "train" / "index.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["identity"] and row["file"].startswith(("celeba/", "celebrities/")):
                members.setdefault(int(row["identity"].lstrip("p")), []).append(row["file"])
    numbers = np.array(sorted(number for number, files in members.items() if len(files) >= STILLS))
    numbers = numbers[held_out(numbers, 8)]
    wanted = ENROLLED + STRANGERS
    if len(numbers) < wanted:
        raise SystemExit(f"only {len(numbers)} held-out identities have {STILLS} stills; {wanted} are needed")
    chosen = rng.choice(numbers, wanted, replace=False)
    files = {str(n): [str(f) for f in rng.permutation(members[n])[:STILLS]] for n in chosen}
    stills: dict[str, Pixels] = {}
    for group in sorted({name.split("/")[0] for names in files.values() for name in names}):
        with tarfile.open(data / "train" / f"{group}.tar") as tar:
            for name in (n for names in files.values() for n in names if n.startswith(group + "/")):
                content = tar.extractfile(name)
                assert content is not None
                stills[name] = np.asarray(
                    Image.open(io.BytesIO(content.read())).convert("RGB"), dtype=np.uint8
                )
    return {person: [stills[name] for name in names] for person, names in files.items()}


def on_canvas(still: Pixels, side: int = 320) -> Pixels:
    """A tight crop in the middle of a soft background, so that a detector meets a face and not a texture."""
    canvas = cv2.resize(cv2.GaussianBlur(still, (0, 0), 20), (side, side))
    _blend(canvas, still, (side - 128) / 2, (side - 128) / 2, 128)
    return np.asarray(canvas, dtype=np.uint8)


def compose(
    people: Mapping[str, Sequence[Pixels]], enrolled: set[str], frames: int, rng: np.random.Generator
) -> Iterator[tuple[Pixels, list[Truth]]]:
    """Frames, (HEIGHT, WIDTH, 3) RGB, with the faces in each."""
    names = sorted(people)
    shot, done = 0, 0
    while done < frames:
        length = int(rng.integers(2 * RATE, 4 * RATE))
        if frames - done - length < 2 * RATE:
            length = frames - done
        cast = [str(name) for name in rng.choice(names, int(rng.integers(2, 5)), replace=False)]
        if not enrolled & set(cast):
            cast[0] = str(rng.choice(sorted(enrolled)))
        yield from _shot(people, enrolled, cast, shot, length, rng)
        shot, done = shot + 1, done + length


def _shot(
    people: Mapping[str, Sequence[Pixels]],
    enrolled: set[str],
    cast: Sequence[str],
    shot: int,
    length: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Pixels, list[Truth]]]:
    coarse = rng.integers(20, 160, (4, 6, 3), dtype=np.uint8)
    background = cv2.resize(coarse, (WIDTH + 80, HEIGHT + 40), interpolation=cv2.INTER_CUBIC)
    slots = np.linspace(0, WIDTH, len(cast) + 1)
    starts = np.array([(a + b) / 2 for a, b in pairwise(slots)])
    ends = starts + rng.uniform(-30, 30, len(cast))
    if len(cast) == 2 and rng.random() < 0.5:
        ends = ends[::-1]  # the two cross
    room = 0.95 * WIDTH / len(cast)
    sizes = np.minimum(rng.uniform(100, 190, len(cast)), room)
    zoom = rng.uniform(0.8, 1.2, len(cast))
    level = HEIGHT / 2 + rng.uniform(-60, 60, len(cast))
    swap = rng.uniform(0.7, 1.3, len(cast)) * RATE
    first = rng.integers(0, STILLS, len(cast))
    for frame in range(length):
        share = frame / max(length - 1, 1)
        shift = int(60 * share)
        image = np.ascontiguousarray(background[10 : 10 + HEIGHT, shift : shift + WIDTH])
        truths: list[Truth] = []
        for i, person in enumerate(cast):
            size = sizes[i] * (1 + share * (zoom[i] - 1))
            x = starts[i] + share * (ends[i] - starts[i]) + 2 * np.sin(frame / 7 + i) - size / 2
            y = level[i] + 3 * np.cos(frame / 9 + i) - size / 2
            # The first still is the enrolled one: it is never shown.
            still = people[person][1 + (first[i] + int(frame / swap[i])) % (STILLS - 1)]
            _blend(image, still, float(x), float(y), float(size))
            face = _face(float(x), float(y), float(size))
            truths = [t for t in truths if _iou(t.box, face) < 0.35]  # covered by the one in front
            truths.append(Truth(person, person in enrolled, shot, face))
        yield image, truths


def _face(x: float, y: float, size: float) -> Box:
    """Where the face of a still lies: the part from brow to chin, about what detectors box."""
    return (x + 0.22 * size, y + 0.16 * size, x + 0.78 * size, y + 0.88 * size)


def _blend(image: Pixels, still: Pixels, x: float, y: float, size: float) -> None:
    """Paste a still at (x, y), `size` pixels wide, with a feathered round border, at sub-pixel places."""
    scale = size / 128
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    corner = max(0, int(x) - 1), max(0, int(y) - 1)
    end = min(image.shape[1], int(x + size) + 2), min(image.shape[0], int(y + size) + 2)
    if end[0] <= corner[0] or end[1] <= corner[1]:
        return
    matrix[:, 2] -= corner
    shape = (end[0] - corner[0], end[1] - corner[1])
    patch = cv2.warpAffine(still, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(_MASK, matrix, shape, flags=cv2.INTER_LINEAR)[..., None]
    region = image[corner[1] : end[1], corner[0] : end[0]]
    region[:] = (alpha * patch + (1 - alpha) * region).astype(np.uint8)


def _mask() -> NDArray[np.float32]:
    y, x = np.mgrid[0:128, 0:128].astype(np.float32)
    radius = (np.abs(x - 63.5) / 64) ** 4 + (np.abs(y - 63.5) / 64) ** 4
    return np.asarray(np.clip((1 - radius) / 0.35, 0, 1), dtype=np.float32)


_MASK = _mask()


def write_clip(path: Path, frames: Iterator[tuple[Pixels, list[Truth]]]) -> list[list[Truth]]:
    """Encode the frames as H.264 and return their truths."""
    truths = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, (image, faces) in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            truths.append(faces)
        container.mux(stream.encode(None))
    return truths


def score(shown: Sequence[ShownFrame], truths: Sequence[Sequence[Truth]]) -> dict[str, float]:
    """Compare what was shown with what is true; see the module's docstring."""
    right = named = known = faces = found = switches = 0
    last: dict[tuple[int, str], str | None] = {}
    for frame, true in zip(shown, truths, strict=True):
        named += sum(face.identity is not None for face in frame.faces)
        known += sum(truth.enrolled for truth in true)
        faces += len(true)
        overlap = np.array([[_iou(f.box, t.box) for t in true] for f in frame.faces]).reshape(-1, len(true))
        for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[row, column] < 0.3:
                continue
            face, truth = frame.faces[row], true[column]
            found += 1
            right += face.identity is not None and face.identity == truth.person
            key = (truth.shot, truth.person)
            switches += key in last and last[key] != face.identity
            last[key] = face.identity
    return {
        "identification_precision": round(right / max(named, 1), 4),
        "identification_recall": round(right / max(known, 1), 4),
        "switch_rate": round(switches / max(len(truths), 1), 5),
        "detection_recall": round(found / max(faces, 1), 4),
        "named": named,
        "shown": found,
        "switches": switches,
    }


def _iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return float(width * height / union)


def enroll(
    service: GalleryService, pipeline: FacePipeline, people: Mapping[str, Sequence[Pixels]], chosen: set[str]
) -> None:
    """One image a person, through the same detector and aligner as every other picture."""
    for person in sorted(chosen):
        faces = pipeline.analyze(on_canvas(people[person][0]), max_faces=1).faces
        if not faces or faces[0].embedding is None or faces[0].face.quality is None:
            raise SystemExit(f"no face was found in the enrollment image of {person}")
        face = faces[0].face
        vector = faces[0].embedding.vector
        new = NewFace(vector, pipeline.embedder.contract, face.quality.score, face.score)
        service.enroll("default", person, [new], create=True)


def run(model: Path, data: Path, seconds: float, seed: int, folder: Path, console: Console) -> dict[str, Any]:
    """Compose, analyze in both modes, score."""
    rng = np.random.default_rng(seed)
    people = load_people(data, rng)
    enrolled = set(list(people)[:ENROLLED])
    clip = folder / "composed.mp4"
    truths = write_clip(clip, compose(people, enrolled, round(seconds * RATE), rng))
    (folder / "truth.json").write_text(json.dumps([[asdict(face) for face in faces] for faces in truths]))

    embedder = OnnxEmbedder.load(model)
    pipeline = FacePipeline(MtcnnDetector(), embedder)
    calibration = embedder.manifest.calibration
    calibrations = {}
    if calibration is not None:
        quantiles = [(q.fmr, q.similarity) for q in calibration.quantiles]
        calibrations[embedder.contract] = ImpostorCalibration.from_quantiles(quantiles, calibration.pairs)
    service = GalleryService.open(f"sqlite:///{folder / 'gallery.db'}", folder, calibrations=calibrations)
    try:
        enroll(service, pipeline, people, enrolled)
        matcher = GalleryMatcher(service, "default", embedder.contract)
        modes = {}
        for mode in ("per_frame", "tracks"):
            links = Links.from_calibration(calibrations.get(embedder.contract))
            modes[mode] = asdict(_measure(mode, clip, folder, pipeline, matcher, links, truths, console))
        threshold = service.threshold("default")
    finally:
        service.close()
    return {
        "identification_precision": modes["per_frame"]["identification_precision"],
        "identification_recall": modes["per_frame"]["identification_recall"],
        "switch_rate": modes["tracks"]["switch_rate"],
        "frames_per_second": modes["tracks"]["frames_per_second"],
        "modes": modes,
        "model": {"name": embedder.name, "contract": embedder.contract},
        "threshold": asdict(threshold),
        "clip": {"seconds": seconds, "width": WIDTH, "height": HEIGHT, "frames": len(truths), "seed": seed},
        "cores": os.cpu_count(),
    }


def _measure(
    mode: Mode,
    clip: Path,
    folder: Path,
    pipeline: FacePipeline,
    matcher: GalleryMatcher,
    links: Links,
    truths: Sequence[Sequence[Truth]],
    console: Console,
) -> Score:
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(mode)
        result = process_video(
            clip,
            folder / mode,
            pipeline,
            matcher,
            VideoOptions(mode=mode),
            links=links,
            about=matcher.about(),
            report=lambda p: bar.update(
                task, description=f"{mode}: {p.stage}", completed=p.done, total=p.total
            ),
        )
    numbers = score(list(read_frames(folder / mode / FRAMES)), truths)
    spent = result.seconds
    rate = result.frames / (spent["analyze"] + spent["decide"])
    return Score(
        frames_per_second=round(rate, 1),
        render_frames_per_second=round(result.frames / spent["render"], 1),
        **numbers,  # type: ignore[arg-type]
    )


KEYS = ("identification_precision", "identification_recall", "switch_rate", "frames_per_second")
MARKS = ("<!-- benchmarks/video.py: begin -->", "<!-- benchmarks/video.py: end -->")


def pooled(clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means of several clips, and each of them."""
    means = {key: round(sum(clip[key] for clip in clips) / len(clips), 5) for key in KEYS}
    return means | {"model": clips[0]["model"], "cores": clips[0]["cores"], "clips": list(clips)}


def renew(document: Path, clips: Sequence[dict[str, Any]]) -> None:
    """Put the scores as a table between the document's marks."""
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    rows = [
        f"Model `{clips[0]['model']['name']}`, {clips[0]['cores']} CPU cores, clips of "
        f"{clips[0]['clip']['seconds']:g} s at {WIDTH}×{HEIGHT}, {RATE} frames a second.",
        "",
        "| seed | mode | precision | recall | switches / frames | frames a second |",
        "|---|---|---|---|---|---|",
    ]
    for clip in clips:
        for mode, found in clip["modes"].items():
            rows.append(
                f"| {clip['clip']['seed']} | `{mode}` | {found['identification_precision']:.4f} | "
                f"{found['identification_recall']:.4f} | {found['switch_rate']:.2%} | "
                f"{found['frames_per_second']:g} |"
            )
    table = "\n".join(rows)
    document.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the scores go")
    parser.add_argument("--model", type=Path, help="model folder (default: the first under models/)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the clip (default: 20)")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[6], help="another seed, another clip (default: 6)"
    )
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="renew the table in this document")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep clip, truth and results here")
    options = parser.parse_args()
    data = Path(os.environ.get("SPHEREID_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        raise SystemExit(f"no face data at {data}: set SPHEREID_SHARED_DATA")
    models = sorted(path.parent for path in (ROOT / "models").glob("*/manifest.json"))
    model = options.model or (models[0] if models else None)
    if model is None:
        raise SystemExit("no model under models/: name one with --model")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        clips = []
        for seed in options.seed:
            place = folder if len(options.seed) == 1 else folder / str(seed)
            place.mkdir(parents=True, exist_ok=True)
            clips.append(run(model, data, options.seconds, seed, place, console))
    answer = clips[0] if len(clips) == 1 else pooled(clips)
    if options.write is not None:
        renew(options.write, clips)
    options.json.write_text(json.dumps(answer, indent=2) + "\n")
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()

"""Score the naming of videos: of clips composed of stills, with exact ground truth, and of two labeled ones.

    python benchmarks/video.py --json out.json
    python benchmarks/video.py --seed 6 7 8 --json out.json --write docs/video.md

The second composes a clip for each seed; its figures are the means over the composed clips, `clips` has each
of them, `labeled` the two of the demo, and the table between the marks in the document is renewed.

Composed: six people are enrolled with one image each; four strangers are among them. A shot shows two to four
people who pan, zoom and cross; their stills change about once a second; shots are cut hard, often with
someone else standing where the last person stood. All ten are identities that training kept out.

Labeled: a concert and a street. Each of four people is enrolled with the face of one frame of the clip, as
the SphereFace demo enrolls one image of each; five people who are in neither clip are enrolled too, and
everybody else on screen is a stranger. Who is where was labeled by eye (`demo_clips.toml`).

Scores, over all frames of a clip; a shown box belongs to a true face when they overlap by IoU >= 0.3:

identification_precision  rightly named faces / named faces (a named stranger or non-face counts as wrong)
identification_recall     rightly named faces / faces of enrolled people on screen
switch_rate               changes of the name shown for one person within a shot (a name to no name counts
                          too) / frames of the clip
frames_per_second         of the analysis, from file to decisions; writing the annotated video is separate
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress as Bar
from scipy.optimize import linear_sum_assignment

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sphereid.faces.detect import MtcnnDetector  # noqa: E402
from sphereid.faces.embed import OnnxEmbedder  # noqa: E402
from sphereid.faces.pipeline import AnalyzedFace, FacePipeline  # noqa: E402
from sphereid.gallery.service import GalleryService  # noqa: E402
from sphereid.gallery.thresholds.calibration import ImpostorCalibration  # noqa: E402
from sphereid.gallery.types import NewFace  # noqa: E402
from sphereid.video.files import FRAMES  # noqa: E402
from sphereid.video.matcher import GalleryMatcher  # noqa: E402
from sphereid.video.outputs import read_frames  # noqa: E402
from sphereid.video.process import process_video  # noqa: E402
from sphereid.video.tracks import Links  # noqa: E402
from sphereid.video.types import Box, Mode, ShownFrame, VideoOptions  # noqa: E402

from benchmarks import composed, labeled  # noqa: E402
from benchmarks.composed import HEIGHT, RATE, WIDTH, Truth, iou  # noqa: E402
from benchmarks.labeled import LabeledClip, Portrait  # noqa: E402

MODES: Sequence[Mode] = ("per_frame", "tracks")


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """What every clip is analyzed with."""

    pipeline: FacePipeline
    calibrations: Mapping[str, ImpostorCalibration]

    @classmethod
    def load(cls, model: Path) -> "Engine":
        embedder = OnnxEmbedder.load(model)
        calibrations = {}
        if (calibration := embedder.manifest.calibration) is not None:
            quantiles = [(q.fmr, q.similarity) for q in calibration.quantiles]
            made = ImpostorCalibration.from_quantiles(quantiles, calibration.pairs)
            calibrations[embedder.contract] = made
        return cls(FacePipeline(MtcnnDetector(), embedder), calibrations)

    @property
    def contract(self) -> str:
        return self.pipeline.embedder.contract


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


def score(shown: Sequence[ShownFrame], truths: Sequence[Sequence[Truth]]) -> dict[str, float]:
    """Compare what was shown with what is true; see the module's docstring."""
    right = named = known = faces = found = switches = 0
    last: dict[tuple[int, str], str | None] = {}
    for frame, true in zip(shown, truths, strict=True):
        named += sum(face.identity is not None for face in frame.faces)
        known += sum(truth.enrolled for truth in true)
        faces += len(true)
        overlap = np.array([[iou(f.box, t.box) for t in true] for f in frame.faces])
        overlap = overlap.reshape(len(frame.faces), len(true))
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


@contextmanager
def enrolled(engine: Engine, portraits: Sequence[Portrait]) -> Iterator[GalleryService]:
    """A new gallery of these people, each through the same detector and aligner as every other picture."""
    with tempfile.TemporaryDirectory() as place:
        address = f"sqlite:///{place}/gallery.db"
        service = GalleryService.open(address, Path(place), calibrations=engine.calibrations)
        try:
            for portrait in portraits:
                found = _portrayed(engine.pipeline.analyze(portrait.picture).faces, portrait.box)
                if found is None or found.embedding is None or found.face.quality is None:
                    raise SystemExit(f"no face was found in the enrollment image of {portrait.person}")
                face, vector = found.face, found.embedding.vector
                new = NewFace(vector, engine.contract, face.quality.score, face.score)
                service.enroll("default", portrait.person, [new], create=True)
            yield service
        finally:
            service.close()


def _portrayed(faces: Sequence[AnalyzedFace], box: Box | None) -> AnalyzedFace | None:
    """The face at a place, or the largest."""
    if box is None:
        return faces[0] if faces else None
    near = [face for face in faces if iou(_box(face), box) >= 0.3]
    return max(near, key=lambda face: iou(_box(face), box), default=None)


def _box(face: AnalyzedFace) -> Box:
    left, top, right, bottom = (float(edge) for edge in face.face.box_xyxy)
    return left, top, right, bottom


def measure(
    engine: Engine,
    clip: Path,
    portraits: Sequence[Portrait],
    truths: Sequence[Sequence[Truth]],
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Analyze a clip in both modes, and score them."""
    modes = {}
    with enrolled(engine, portraits) as service:
        matcher = GalleryMatcher(service, "default", engine.contract)
        for mode in MODES:
            modes[mode] = asdict(_measure(mode, engine, clip, folder, matcher, truths, console))
        threshold = service.threshold("default")
    return {
        "identification_precision": modes["per_frame"]["identification_precision"],
        "identification_recall": modes["per_frame"]["identification_recall"],
        "switch_rate": modes["tracks"]["switch_rate"],
        "frames_per_second": modes["tracks"]["frames_per_second"],
        "modes": modes,
        "threshold": asdict(threshold),
        "cores": os.cpu_count(),
    }


def measure_composed(
    engine: Engine, data: Path, seconds: float, seed: int, folder: Path, console: Console
) -> dict[str, Any]:
    """Compose a clip and score it."""
    rng = np.random.default_rng(seed)
    people = composed.load_people(data, rng)
    known = set(list(people)[: composed.ENROLLED])
    clip = folder / "composed.mp4"
    frames = composed.compose(people, known, round(seconds * RATE), rng)
    truths = composed.write_clip(clip, frames)
    (folder / "truth.json").write_text(json.dumps([[asdict(face) for face in faces] for faces in truths]))
    portraits = [Portrait(person, composed.on_canvas(people[person][0])) for person in sorted(known)]
    about = {"seconds": seconds, "width": WIDTH, "height": HEIGHT, "frames": len(truths), "seed": seed}
    scores = measure(engine, clip, portraits, truths, folder, console)
    model = {"name": engine.pipeline.embedder.name, "contract": engine.contract}
    return scores | {"model": model, "clip": about}


def measure_labeled(engine: Engine, clip: LabeledClip, folder: Path, console: Console) -> dict[str, Any]:
    """Score a clip of the demo."""
    scores = measure(engine, clip.path, clip.portraits, clip.truths, folder, console)
    return scores | {"clip": {"name": clip.name, "frames": len(clip.truths)}}


def _measure(
    mode: Mode,
    engine: Engine,
    clip: Path,
    folder: Path,
    matcher: GalleryMatcher,
    truths: Sequence[Sequence[Truth]],
    console: Console,
) -> Score:
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task(mode)
        result = process_video(
            clip,
            folder / mode,
            engine.pipeline,
            matcher,
            VideoOptions(mode=mode),
            links=Links.from_calibration(engine.calibrations.get(engine.contract)),
            about=matcher.about(),
            report=lambda p: bar.update(
                task, description=f"{clip.stem}, {mode}: {p.stage}", completed=p.done, total=p.total
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


def renew(document: Path, clips: Sequence[dict[str, Any]], demo: Sequence[dict[str, Any]]) -> None:
    """Put the scores as a table between the document's marks."""
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    rows = [
        f"Model `{clips[0]['model']['name']}`, {clips[0]['cores']} CPU cores. Composed clips: "
        f"{clips[0]['clip']['seconds']:g} s at {WIDTH}×{HEIGHT}, {RATE} frames a second.",
        "",
        "| clip | mode | precision | recall | switches / frames | frames a second |",
        "|---|---|---|---|---|---|",
    ]
    named = [(f"composed, seed {clip['clip']['seed']}", clip) for clip in clips]
    for name, clip in [*named, *((f"`{clip['clip']['name']}`", clip) for clip in demo)]:
        for mode, found in clip["modes"].items():
            rows.append(
                f"| {name} | `{mode}` | {found['identification_precision']:.4f} | "
                f"{found['identification_recall']:.4f} | {found['switch_rate']:.2%} | "
                f"{found['frames_per_second']:g} |"
            )
    table = "\n".join(rows)
    document.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")


def _below(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    return folder / name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the scores go")
    parser.add_argument("--model", type=Path, help="model folder (default: the first under models/)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a composed clip (default: 20)")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[6], help="another seed, another composed clip (default: 6)"
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
        engine = Engine.load(model)
        clips = [
            measure_composed(engine, data, options.seconds, seed, _below(folder, str(seed)), console)
            for seed in options.seed
        ]
        demo = [
            measure_labeled(engine, clip, _below(folder, clip.name), console)
            for clip in labeled.load(data / "demo")
        ]
    answer = (clips[0] if len(clips) == 1 else pooled(clips)) | {"labeled": demo}
    if options.write is not None:
        renew(options.write, clips, demo)
    options.json.write_text(json.dumps(answer, indent=2) + "\n")
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()

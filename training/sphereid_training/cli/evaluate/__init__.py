"""The command line of `evaluate`: one command a protocol."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(stderr=True)
Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write the result here as JSON, and a page with plots beside it."),
]
ReportFolder = Annotated[
    Path | None, typer.Option("--report", help="Folder for JSON and page [default: runs/reports].")
]
Record = Annotated[bool, typer.Option("--record", help="Put the figures into the manifest and CARD.md.")]
OneModel = Annotated[
    Path | None, typer.Option("--model", help="Model folder [default: the first by name in models/].")
]
Aligned = Annotated[bool, typer.Option("--aligned", help="The images are aligned crops already.")]
Cache = Annotated[Path, typer.Option("--cache", help="Where features are kept; a stopped run goes on there.")]

evaluate = typer.Typer(help="Measure a model by a published protocol.", no_args_is_help=True)


@evaluate.command("lfw")
def evaluate_lfw(
    images: Annotated[Path, typer.Option(help="LFW images: a folder or a tar of PERSON/PERSON_0001.jpg.")],
    pairs: Annotated[Path, typer.Option(help="Pair list, of View 1 or View 2.")],
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Model folder [default: the first by name in models/]; several are concatenated."),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Measure a training checkpoint instead.")] = None,
    threshold_pairs: Annotated[
        Path | None, typer.Option(help="Choose the threshold on these pairs and test on --pairs (View 1).")
    ] = None,
    out: Json = None,
    report: ReportFolder = None,
    aligned: Aligned = False,
    record: Record = False,
    cache: Cache = Path("runs/cache"),
) -> None:
    """Labeled Faces in the Wild, from raw photographs.

    They pass the service's own detector, aligner and embedder. Accuracy is the mean of ten folds, each at
    the threshold that is best on the other nine. A pair with a face that was not found counts as
    "different". View 1: give --threshold-pairs pairsDevTrain.txt --pairs pairsDevTest.txt.
    """
    from sphereid_training.cli.evaluate.lfw import evaluate_lfw as run

    run(
        images,
        pairs,
        models=model or [],
        checkpoint=checkpoint,
        threshold_pairs=threshold_pairs,
        out=out,
        folder=report,
        aligned=aligned,
        record=record,
        cache=cache,
        console=console,
    )


@evaluate.command("bin")
def evaluate_bin(
    path: Annotated[Path, typer.Argument(help="Set such as lfw.bin, cfp_fp.bin or agedb_30.bin.")],
    model: OneModel = None,
    out: Json = None,
    report: ReportFolder = None,
) -> None:
    """InsightFace's packed verification sets.

    They are read without MXNet and without running code from the file.
    """
    from sphereid_training.cli.evaluate.bin import evaluate_bin as run
    from sphereid_training.evaluation.inputs import find_model

    run(path, find_model(model), out=out, folder=report, console=console)


@evaluate.command("openset")
def evaluate_openset(
    store: Annotated[Path, typer.Option(help="Store made by `prepare`.")] = Path("runs/store"),
    model: OneModel = None,
    enrolled: Annotated[int, typer.Option(help="Identities in the gallery.")] = 100,
    trials: Annotated[int, typer.Option(help="Random galleries to average over.")] = 10,
    holdout_percent: Annotated[int, typer.Option(help="As in the recipe.")] = 8,
    record: Record = False,
    out: Json = None,
    report: ReportFolder = None,
) -> None:
    """Open-set identification of held-out identities.

    One image of each enrolled identity is the gallery; its other images are mated probes, all images of the
    other held-out identities non-mated ones. FNIR is reported at FPIR 10 %, 1 % and 0.1 %, and how the
    embeddings lie on the sphere: angular Fisher score, alignment and uniformity, each better when lower.
    """
    from sphereid_training.cli.evaluate.openset import evaluate_openset as run

    run(
        store,
        model=model,
        enrolled=enrolled,
        trials=trials,
        holdout=holdout_percent,
        record=record,
        out=out,
        folder=report,
        console=console,
    )


@evaluate.command("groups")
def evaluate_groups(
    store: Annotated[Path, typer.Option(help="Store made by `prepare`.")] = Path("runs/store"),
    model: OneModel = None,
    faces: Annotated[int, typer.Option(min=50, help="At most so many people of a collection.")] = 2000,
    record: Record = False,
    out: Json = None,
    report: ReportFolder = None,
) -> None:
    """False match rates within each collection.

    A threshold that 1 % of the calibration's strangers reach may be reached by far more among people whom the
    model has seldom seen. Shows what the calibrated thresholds mean within each collection of a store (GROUP
    of GROUP/IDENTITY/FILE), between one face of each identity and the faces without a label.
    """
    from sphereid_training.cli.evaluate.groups import evaluate_groups as run

    run(store, model=model, faces=faces, record=record, out=out, folder=report, console=console)


@evaluate.command("blufr")
def evaluate_blufr(
    images: Annotated[Path, typer.Option(help="Photographs: a folder or a tar of PERSON/IMAGE.")],
    model: OneModel = None,
    lists: Annotated[
        Path | None, typer.Option(help="BLUFR's own trials, blufr_lfw_config.mat; without: random splits.")
    ] = None,
    gallery: Annotated[int, typer.Option(help="People enrolled in a random split, one image each.")] = 1000,
    trials: Annotated[int, typer.Option(help="Random splits.")] = 10,
    aligned: Aligned = False,
    out: Json = None,
    report: ReportFolder = None,
    cache: Cache = Path("runs/cache"),
) -> None:
    """BLUFR's measures at low false accept rates.

    Verification over all pairs at FAR 0.1 %, open-set identification at FAR 1 %; mean less one standard
    deviation over the trials is reported, as BLUFR does. Give --lists to compare with published figures.
    """
    from sphereid_training.cli.evaluate.identification import evaluate_blufr as run

    run(
        images,
        model=model,
        lists=lists,
        gallery=gallery,
        trials=trials,
        aligned=aligned,
        cache=cache,
        out=out,
        folder=report,
        console=console,
    )


@evaluate.command("ytf")
def evaluate_ytf(
    videos: Annotated[Path, typer.Option(help="Frames: a folder or a tar of PERSON/VIDEO/FRAME.jpg.")],
    splits: Annotated[
        Path, typer.Option(help="The list of 5,000 video pairs: meta_and_splits.mat or splits.txt.")
    ],
    model: OneModel = None,
    frames: Annotated[int, typer.Option(help="Frames of each video at most, evenly over its length.")] = 100,
    aligned: Aligned = False,
    out: Json = None,
    report: ReportFolder = None,
    cache: Cache = Path("runs/cache"),
) -> None:
    """YouTube Faces: pairs of videos, in ten folds.

    The feature of a video is the mean of its frames' features.
    """
    from sphereid_training.evaluation.ytf import evaluate_ytf as run

    run(
        videos,
        splits,
        model=model,
        frames=frames,
        aligned=aligned,
        cache=cache,
        out=out,
        folder=report,
        console=console,
    )


@evaluate.command("megaface")
def evaluate_megaface(
    probes: Annotated[Path, typer.Option(help="Probes: a folder or a tar of PERSON/IMAGE (FaceScrub).")],
    distractors: Annotated[
        Path,
        typer.Option(help="A folder or a tar at any depth, or this model's embeddings in an .npy file."),
    ],
    probe_list: Annotated[
        Path | None, typer.Option(help="Only these probes: facescrub_features_list.json of the kit.")
    ] = None,
    distractor_list: Annotated[
        Path | None,
        typer.Option(help="Only these distractors: megaface_features_list.json_1000000_1 of the kit."),
    ] = None,
    model: OneModel = None,
    far: Annotated[float, typer.Option(help="For the TAR among all distractors.")] = 1e-6,
    aligned: Aligned = False,
    out: Json = None,
    report: ReportFolder = None,
    cache: Cache = Path("runs/cache"),
) -> None:
    """MegaFace challenge 1: faces among distractors.

    Rank 1 among 10, 100, … up to all distractors, and TAR at FAR 1e-6.
    Distractors pass by in blocks, so a million fit. Give --probe-list and --distractor-list to compare with
    published figures: raw or cleaned, those on the one can't be compared with those on the other.
    """
    from sphereid_training.cli.evaluate.identification import evaluate_megaface as run

    run(
        probes,
        distractors,
        probe_list=probe_list,
        distractor_list=distractor_list,
        model=model,
        far=far,
        aligned=aligned,
        cache=cache,
        out=out,
        folder=report,
        console=console,
    )


@evaluate.command("trillion")
def evaluate_trillion(
    faces: Annotated[Path, typer.Option(help="Labeled faces: a folder or a tar of PERSON/IMAGE.")],
    distractors: Annotated[
        Path | None,
        typer.Option(help="Of other people: a folder or a tar, or this model's embeddings in an .npy file."),
    ] = None,
    model: OneModel = None,
    far: Annotated[
        list[float] | None, typer.Option(help="False accept rates [default: 1e-9 1e-8 1e-7 1e-6 1e-5 1e-4].")
    ] = None,
    aligned: Aligned = False,
    out: Json = None,
    report: ReportFolder = None,
    cache: Cache = Path("runs/cache"),
) -> None:
    """TPR at tiny FARs over all pairs.

    As the Trillion Pairs challenge has it, in bounded memory. A FAR below one over the number of impostor
    pairs is refused.
    """
    from sphereid_training.cli.evaluate.identification import evaluate_trillion as run

    run(
        faces,
        distractors,
        model=model,
        fars=far or [10.0**-power for power in range(4, 10)],
        aligned=aligned,
        cache=cache,
        out=out,
        folder=report,
        console=console,
    )

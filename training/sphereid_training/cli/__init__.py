"""The command line of training: prepare, train, evaluate, export."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from sphereid_training.cli.evaluate import console, evaluate
from sphereid_training.errors import TrainingError

app = typer.Typer(
    name="python -m training",
    help="""Train, measure and export face embedding networks of the SphereFace family.

A first run, from aligned faces to a model that the service loads:

\b
    python -m training prepare --faces FACES --out runs/store
    python -m training train training/sphereid_training/recipes/sphereface20-w32.yaml
    python -m training export runs/sphereface20-w32/last.pt models/sphereface20-w32
    python -m training evaluate lfw --images LFW.tar --pairs pairs.txt

Everything that a run depends on stands in one YAML recipe; any key can be changed on the command line.""",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def prepare(
    faces: Annotated[
        Path,
        typer.Option(
            help="Aligned faces: a folder of tars (GROUP/IDENTITY/IMAGE, or WebDataset's KEY.jpg and "
            "KEY.cls), of such folders, or a .rec file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the store to make; about 50 kB a face.")] = Path(
        "runs/store"
    ),
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="For distillation: descriptors (.npz with `name` and `embedding`), a model folder, or any "
            "ONNX file; its targets are computed once."
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The images are photographs: detect and align them.")
    ] = False,
    exclude: Annotated[
        Path | None, typer.Option(help="Text file of identities to leave out, one a line.")
    ] = None,
    exclude_set: Annotated[
        Path | None,
        typer.Option(help="Test set whose people to leave out: photographs (PERSON/IMAGE) or a pair list."),
    ] = None,
    exclude_model: Annotated[
        Path | None,
        typer.Option(help="Model folder: compare faces with those of --exclude-set, not names alone."),
    ] = None,
    exclude_similarity: Annotated[
        float | None,
        typer.Option(help="From which two people count as one [default: the model's strictest threshold]."),
    ] = None,
) -> None:
    """Unpack faces once into a store that training maps.

    So training never waits for a decoder, and starts at once.
    A folder or file named `unlabelled` holds faces of no known identity: they teach by distillation only.
    What is left out is counted and written to `dropped.csv` with its reason. A stopped run goes on where
    it stood.
    """
    from sphereid_training.data.overlap import HeldOutSet
    from sphereid_training.data.prepare import prepare as run

    if exclude_set is None and (exclude_model is not None or exclude_similarity is not None):
        raise TrainingError("--exclude-model and --exclude-similarity need --exclude-set")
    test_set = HeldOutSet(exclude_set, exclude_model, exclude_similarity) if exclude_set is not None else None
    run(faces, out, teacher=teacher, raw=raw, exclude=exclude, test_set=test_set, console=console)


@app.command()
def teach(
    store: Annotated[Path, typer.Argument(help="Store made by `prepare`.")],
    teacher: Annotated[Path, typer.Argument(help="Model folder or ONNX file to learn from.")],
) -> None:
    """Compute a teacher's embeddings of a store, once.

    They are the targets of distillation. `prepare --teacher` does the same for a new store. Targets that
    are there already, of the same model and faces, are kept; a stopped run goes on.
    """
    from sphereid_training.data.teacher import cache_targets

    cache_targets(store, teacher, console)


@app.command()
def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="YAML recipe; the shipped ones are in training/sphereid_training/recipes/."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, such as optimizer.lr=0.05 name=try2.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from runs/NAME/last.pt.")] = False,
    max_steps: Annotated[
        int | None, typer.Option(help="Stop, with a checkpoint, after so many steps.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders lie.")] = Path("runs"),
    show: Annotated[bool, typer.Option("--show", help="Print the whole configuration and stop.")] = False,
) -> None:
    """Train as a recipe says.

    Ctrl-C finishes the step, saves and stops. Several processes: `torchrun --nproc-per-node 2 -m training
    train RECIPE`. TensorBoard logs, config.yaml and the checkpoint last.pt are written to runs/NAME/.

    backbone.name: dlib29, iresnet18, iresnet50, iresnet100, mobilefacenet, sphereface4, sphereface10,
    sphereface20, sphereface36, sphereface64, sphereface64_released.

    head.name: a_softmax, adaface, arcface, cosface, l_softmax, magface, normalized_softmax, softmax,
    sphereface2, sphereface_r.
    """
    import yaml

    from sphereid_training.config import load, to_dict

    if recipe is not None and "=" in str(recipe):
        recipe, overrides = None, [str(recipe), *(overrides or [])]
    config = load(recipe, overrides)
    if show:
        typer.echo(yaml.safe_dump(to_dict(config), sort_keys=False), nl=False)
        return
    from sphereid_training.loop.engine import train as run

    path = run(config, resume=resume, max_steps=max_steps, runs=runs)
    if os.environ.get("RANK", "0") == "0":
        console.print(f"checkpoint: {path}")


app.add_typer(evaluate, name="evaluate")
imports = typer.Typer(help="Take over a network that others trained.", no_args_is_help=True)
app.add_typer(imports, name="import")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint, for example runs/NAME/last.pt.")],
    out: Annotated[Path, typer.Argument(help="Model folder to write, for example models/sphereface20-w32.")],
    store: Annotated[
        Path | None,
        typer.Option(help="Store with held-out identities to calibrate on [default: the run's own]."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name in the manifest [default: the folder's].")] = None,
    data: Annotated[str, typer.Option(help="Statement on the training data, for manifest and card.")] = "",
    level: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Shrink the directions in which the store's collections differ by this share."
        ),
    ] = 0.0,
    with_checkpoint: Annotated[
        bool, typer.Option("--with-checkpoint", help="Also write checkpoint.pt (float16) to go on from.")
    ] = False,
) -> None:
    """Write a checkpoint as a model that the service loads.

    That is model.onnx (any batch size, batch norm folded), manifest.json with impostor calibration, and
    CARD.md. Fails, and leaves the folder as it was, when ONNX Runtime and torch differ by more than 1e-4.

    With --level, people of one collection (a region, an age, a kind of camera) are less alike for that alone;
    `evaluate groups` shows the difference. The checkpoint stays as it was trained.
    """
    from sphereid_training.cli.export import export_model as run

    run(
        checkpoint,
        out,
        store=store,
        name=name,
        data=data,
        level=level,
        with_checkpoint=with_checkpoint,
        command=command_line(),
        console=console,
    )


@app.command()
def quantize(
    model: Annotated[Path, typer.Argument(help="Model folder, for example models/sphereface20-w32.")],
    images: Annotated[Path, typer.Option(help="LFW images: a folder or a tar of PERSON/PERSON_0001.jpg.")],
    pairs: Annotated[Path, typer.Option(help="Pair list that the loss of accuracy is measured on.")],
    threshold_pairs: Annotated[
        Path | None, typer.Option(help="Choose the threshold on these pairs (View 1); without: ten folds.")
    ] = None,
    store: Annotated[Path, typer.Option(help="Store of faces to calibrate on.")] = Path("runs/store"),
    faces: Annotated[int, typer.Option(min=32, help="How many of them.")] = 128,
    tune: Annotated[
        int,
        typer.Option(min=0, metavar="STEPS", help="Fine-tune the int8 weights for so many steps; 0: not."),
    ] = 0,
    tune_faces: Annotated[int, typer.Option(min=32, help="Faces of the store to fine-tune on.")] = 10_000,
    tune_rate: Annotated[float, typer.Option(help="Adam's learning rate at its highest.")] = 5e-6,
    ranges: Annotated[
        Path | None, typer.Option(help="JSON to write the activations' ranges to, as shipped for dlib.")
    ] = None,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Make nothing: measure the int8 file that is there.")
    ] = False,
    holdout_percent: Annotated[int, typer.Option(help="As in the recipe; these faces are not used.")] = 8,
    cache: Annotated[Path | None, typer.Option(help="Where crops and embeddings are kept.")] = Path(
        "runs/cache"
    ),
) -> None:
    """Make an int8 rendering of a model for the CPU.

    It is written as model.int8.onnx, and what it costs in accuracy and gains in speed is measured.
    Rounding costs some accuracy. With --tune the int8 weights then learn, without labels, to give the fp32
    model's embeddings with every rounding in place; a step takes 32 faces, one to two seconds of a core for a
    network of dlib's size.

    The manifest then holds its digest, the loss of accuracy and the gain in speed, both measured here. The
    service takes it on the CPU where it loses at most 0.2 percentage points and is faster;
    SPHEREID_PRECISION=fp32 or int8 decides otherwise. Galleries stay valid: both files share one embedding
    space, and the loss, on both pair lists together, counts pairs of one fp32 and one int8 embedding too.
    """
    from sphereid_training.cli.quantize import quantize_model as run
    from sphereid_training.quantize.tune import Tuning

    run(
        model,
        store=store,
        images=images,
        pairs=pairs,
        threshold_pairs=threshold_pairs,
        faces=faces,
        tuning=Tuning(tune, tune_rate) if tune else None,
        tune_faces=tune_faces,
        ranges_file=ranges,
        remeasure=remeasure,
        percent=holdout_percent,
        cache=cache,
        command=command_line(),
        console=console,
    )


@app.command()
def speed(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change.")] = None,
) -> None:
    """Measure what a recipe's backbone costs.

    In training images per second of one core's time. For choosing a backbone: compare accuracy for equal
    processor time, not for equal epochs.
    """
    from sphereid_training.config import load
    from sphereid_training.loop.speed import measure_speed

    config = load(recipe, overrides)
    made = measure_speed(config)
    typer.echo(
        f"{config.backbone.name} width {config.backbone.width}, {config.engine.precision}: "
        f"{made.images_per_cpu_second:.1f} images per core second, {made.parameters / 1e6:.2f} M parameters, "
        f"{made.multiply_adds / 1e6:.0f} M multiply-adds"
    )


@app.command()
def visualize(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/visualize"),
    steps: Annotated[int, typer.Option(help="Training steps of each small net.")] = 600,
) -> None:
    """Draw what the margins do, with digits.

    They are embedded in 2 and 3 dimensions by softmax, A-Softmax and SphereFace-R, as the paper draws them.
    Takes a minute or two and needs no face data.
    """
    from sphereid_training.visualize import visualize as run

    for path in run(out, steps=steps, console=console):
        console.print(f"drawn: {path}")


def _add_imports() -> None:
    from sphereid_training.cli import import_dlib, import_mobilefacenet

    imports.command("dlib")(import_dlib.command)
    imports.command("mobilefacenet")(import_mobilefacenet.command)


_add_imports()


def main() -> None:
    """Run the command line; a TrainingError ends in one line and exit code 1."""
    from sphereid.faces.errors import PipelineError

    try:
        app(standalone_mode=False)
    except (TrainingError, PipelineError) as error:
        if os.environ.get("RANK", "0") == "0":
            console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        show = getattr(error, "show", None)  # click's usage errors print themselves
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))


def command_line() -> str:
    """The command as it was given, to be recorded beside a figure."""
    return shlex.join(["python", "-m", "training", *sys.argv[1:]])

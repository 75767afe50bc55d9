"""What `export` does: export, calibrate on the run's held-out identities, write the card."""

from pathlib import Path

import numpy as np
from rich.console import Console

from app.pipeline.manifest import save_manifest
from training import calibrate
from training import card as cards
from training import checkpoint as checkpoints
from training.evaluation.inputs import held_out_embeddings
from training.export import Exported, export, release_checkpoint

CALIBRATION_PROTOCOL = (
    "all pairs of different identities among the {images} images of {people} identities kept out of "
    "training, each two identities weighted the same"
)


def export_model(
    checkpoint: Path,
    out: Path,
    *,
    store: Path | None,
    name: str | None,
    data: str,
    with_checkpoint: bool,
    command: str,
    console: Console,
) -> Exported:
    """Write model.onnx, manifest.json, CARD.md and, when asked, checkpoint.pt into `out`."""
    state = checkpoints.load(checkpoint)
    config = state.config
    faces = store or Path(config.data.store)
    statement = (
        data
        or f"{state.samples:,} augmented faces seen, drawn from the store {faces.name}; research use only."
    )
    with console.status("exporting"):
        made = export(
            state, out, name=name or out.name, training_data=statement, calibration=None, command=command
        )
    embeddings, identity = held_out_embeddings(out, faces, config.data.holdout_percent, console)
    protocol = CALIBRATION_PROTOCOL.format(images=len(identity), people=len(np.unique(identity)))
    calibration = calibrate.calibrate(*calibrate.impostor_similarities(embeddings, identity), protocol)
    manifest = made.manifest.model_copy(update={"calibration": calibration})
    save_manifest(manifest, out)
    cards.write_card(out, _summary(state))
    for batch, value in made.parity.items():
        console.print(f"ONNX against torch, batch {batch}: largest difference {value:.1e}")
    console.print(
        f"{out}/model.onnx: {made.megabytes:.1f} MB; calibrated on {calibration.pairs:,} impostor pairs"
    )
    if with_checkpoint:
        size = release_checkpoint(state, out / "checkpoint.pt")
        console.print(f"{out}/checkpoint.pt: {size:.1f} MB; go on with init_from={out}/checkpoint.pt")
    return made


def _summary(state: checkpoints.State) -> str:
    config = state.config
    backbone = config.backbone
    norm = "with batch norm" if backbone.batch_norm else "without batch norm"
    pool = (
        f" The crop is averaged {config.data.input_pool}×{config.data.input_pool} before the network."
        if config.data.input_pool > 1
        else ""
    )
    return (
        f"{backbone.name} of width {backbone.width} {norm}, {backbone.embedding_size} outputs.{pool} "
        f"Trained in {state.seconds / 3600:.1f} hours on two CPU cores shared with other work, "
        f"{state.samples:,} faces seen in this phase (recipe `{config.name}`): {config.head.name} "
        f"with weight {config.head.weight:g} on labelled faces, regression to the teacher's descriptor "
        f"with weight {config.distill.weight:g}."
    )

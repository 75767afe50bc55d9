"""What `export` does: export, calibrate on the run's held-out identities, write the card."""

from pathlib import Path

import numpy as np
from rich.console import Console
from sphereid.faces.manifest import save_manifest

from sphereid_training import networks
from sphereid_training.data.store import open_store
from sphereid_training.evaluation.inputs import held_out_embeddings
from sphereid_training.export import calibration
from sphereid_training.export import card as cards
from sphereid_training.export.leveling import as_layer, collection_means, leveling
from sphereid_training.export.model import Exported, export, network_of, release_checkpoint
from sphereid_training.loop import checkpoint as checkpoints

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
    level: float,
    with_checkpoint: bool,
    command: str,
    console: Console,
) -> Exported:
    """Write model.onnx, manifest.json, CARD.md and, when asked, checkpoint.pt into `out`.

    level: share, 0 to 1, by which the directions shrink in which collections differ; checkpoint.pt stays
    without.
    """
    state = checkpoints.load(checkpoint)
    config = state.config
    faces = store or Path(config.data.store)
    statement = (
        data
        or f"{state.samples:,} augmented faces seen, drawn from the store {faces.name}; research use only."
    )
    layer, apart = None, ""
    if level > 0:
        network, _ = network_of(state)
        held = config.data.holdout_percent
        means = collection_means(network, open_store(faces), config.data.template, held, console)
        layer = as_layer(leveling(np.array(list(means.values())), level))
        apart = f" The directions in which the means of {', '.join(means)} differ are shrunk by {level:.0%}."
    with console.status("exporting"):
        made = export(
            state, out, name=name or out.name, training_data=statement, calibration=None, command=command,
            level=layer,
        )  # fmt: skip
    embeddings, identity = held_out_embeddings(out, faces, config.data.holdout_percent, console)
    protocol = CALIBRATION_PROTOCOL.format(images=len(identity), people=len(np.unique(identity)))
    measured = calibration.calibrate(
        *calibration.impostor_similarities(embeddings, identity),
        protocol,
        calibration.clumping(embeddings, identity),
    )
    manifest = made.manifest.model_copy(update={"calibration": measured})
    save_manifest(manifest, out)
    cards.write_card(out, _summary(state) + apart)
    for batch, value in made.parity.items():
        console.print(f"ONNX against torch, batch {batch}: largest difference {value:.1e}")
    console.print(
        f"{out}/model.onnx: {made.megabytes:.1f} MB; calibrated on {measured.pairs:,} impostor pairs"
    )
    if with_checkpoint:
        size = release_checkpoint(state, out / "checkpoint.pt")
        console.print(f"{out}/checkpoint.pt: {size:.1f} MB; go on with init_from={out}/checkpoint.pt")
    return made


def _summary(state: checkpoints.State) -> str:
    config = state.config
    pool = config.data.input_pool
    pooled = f" The crop is averaged {pool}×{pool} before the network." if pool > 1 else ""
    share = config.augment.p_blend
    blended = f" {100 * share:.0f} % of the faces were blended with another one." if share > 0 else ""
    losses = {
        f"{config.head.name} on labeled faces": config.head.weight,
        "regression to the teacher's descriptor": config.distill.weight,
        "agreement with the teacher's cosines within a batch": config.distill.relation,
    }
    terms = ", ".join(f"{loss} (weight {weight:g})" for loss, weight in losses.items() if weight > 0)
    return (
        f"{networks.describe(config.backbone)}.{pooled} Trained in {state.seconds / 3600:.1f} hours on two "
        f"CPU cores shared with other work, {state.samples:,} faces seen in this phase "
        f"(recipe `{config.name}`): {terms}.{blended}"
    )

"""Which models there are."""

from fastapi import APIRouter

from sphereid.api.dependencies import PartsDep, problems
from sphereid.api.schemas import ModelInfo, ModelList

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the models", responses=problems())
async def list_models(parts: PartsDep) -> ModelList:
    """Every model of the models folder with what its manifest says. Each gallery is served by the model that
    enrolled it, which is loaded when it is first asked for."""
    models = [
        ModelInfo(
            name=manifest.name,
            version=manifest.version,
            active=folder == parts.active_model,
            loaded=manifest.contract in parts.serving.contracts,
            contract=manifest.contract,
            embedding_size=manifest.embedding_size,
            template=manifest.template,
            training_data=manifest.training_data,
            license=manifest.license,
            calibrated=manifest.calibration is not None,
            calibration=manifest.calibration,
            metrics=[metric.model_dump(mode="json") for metric in manifest.metrics],
        )
        for folder, manifest in parts.models.items()
    ]
    return ModelList(provider=parts.provider, models=models)

"""From the rooms' dataclasses to the API's JSON."""

from collections.abc import Mapping
from typing import Literal

from sphereid.api import schemas as s
from sphereid.faces.types import Face
from sphereid.gallery import types as g
from sphereid.inference.models import Model


def face_members(face: Face) -> "s.FoundFace":
    """A detected face; coordinates to a hundredth of a pixel."""
    left, top, right, bottom = (float(v) for v in face.box_xyxy)
    reasons, score = (face.quality.reasons, face.quality.score) if face.quality else ((), 0.0)
    return s.FoundFace(
        box=s.Box(
            x=round(left, 2), y=round(top, 2), width=round(right - left, 2), height=round(bottom - top, 2)
        ),
        detection_score=round(face.score, 4),
        landmarks=[(round(float(x), 2), round(float(y), 2)) for x, y in face.landmarks],
        quality=s.Quality(score=round(float(score), 4), reasons=list(reasons)),
    )


def model_ref(model: Model) -> s.ModelRef:
    """Which model made the embeddings."""
    return s.ModelRef(name=model.name, contract=model.contract)


def threshold(value: g.Threshold) -> s.Threshold:
    """The limit that a decision used."""
    return s.Threshold(
        value=round(value.value, 6),
        policy=value.policy,
        target=value.target,
        extrapolated=value.extrapolated,
    )


def margins(value: g.Margins) -> s.Margins:
    """The distances of a decision."""
    return s.Margins(to_threshold=_rounded(value.to_threshold), to_runner_up=_rounded(value.to_runner_up))


def identity_ref(identity_id: str, known: Mapping[str, g.Identity]) -> s.IdentityRef:
    """Who a candidate is; only the id when the identity was deleted a moment ago."""
    found = known.get(identity_id)
    if found is None:
        return s.IdentityRef(id=identity_id, name="", metadata={})
    return s.IdentityRef(id=found.id, name=found.name, metadata=dict(found.metadata))


def decided(decision: g.Decision, known: Mapping[str, g.Identity]) -> s.Decided:
    """A decision with the identities of its candidates. known: identities by id."""
    identity = None
    if decision.identity is not None:
        identity = identity_ref(decision.identity.id, {**known, decision.identity.id: decision.identity})
    return s.Decided(
        decision=decision.outcome,
        reason=decision.reason,
        identity=identity,
        similarity=_rounded(decision.similarity),
        threshold=threshold(decision.threshold),
        candidates=[
            s.Candidate(
                identity=identity_ref(candidate.identity_id, known),
                face_id=candidate.face_id,
                similarity=round(float(candidate.similarity), 6),
            )
            for candidate in decision.candidates
        ],
        margins=margins(decision.margins),
    )


def identified(face: Face, decision: g.Decision, known: Mapping[str, g.Identity]) -> s.IdentifiedFace:
    """A face and who it is."""
    return s.IdentifiedFace(**dict(face_members(face)), **dict(decided(decision, known)))


def stored_face(face: g.StoredFace) -> s.StoredFace:
    """An enrolled face."""
    return s.StoredFace(
        id=face.id,
        identity_id=face.identity_id,
        gallery_id=face.gallery_id,
        quality=round(face.quality, 4),
        detection_score=round(face.detection_score, 4),
        source=face.source,
        created_at=face.created_at,
    )


def gallery(value: g.Gallery, limit: g.Threshold) -> s.Gallery:
    """A gallery with the threshold that its policy gives now."""
    return s.Gallery(
        id=value.id,
        name=value.name,
        metadata=dict(value.metadata),
        policy=policy(value.policy),
        threshold=threshold(limit),
        ambiguity_margin=value.ambiguity_margin,
        template=value.template,
        keep_crops=value.keep_crops,
        quality=value.quality,
        contract=value.contract,
        revision=value.revision,
        identities=value.identities,
        faces=value.faces,
        created_at=value.created_at,
        updated_at=value.updated_at,
    )


def policy(value: g.ThresholdPolicy) -> s.CosinePolicyModel | s.FpirPolicyModel:
    """A gallery's policy."""
    if isinstance(value, g.CosinePolicy):
        return s.CosinePolicyModel(type="cosine", value=value.value)
    return s.FpirPolicyModel(type="fpir", target=value.target)


def policy_of(value: s.CosinePolicyModel | s.FpirPolicyModel) -> g.ThresholdPolicy:
    """The policy that a client asked for."""
    if isinstance(value, s.CosinePolicyModel):
        return g.CosinePolicy(value.value)
    return g.FpirPolicy(value.target)


def identity(value: g.Identity) -> s.Identity:
    """A person in a gallery."""
    return s.Identity(
        id=value.id,
        gallery_id=value.gallery_id,
        name=value.name,
        metadata=dict(value.metadata),
        faces=value.faces,
        created_at=value.created_at,
        updated_at=value.updated_at,
    )


def receipt(value: g.DeleteReceipt) -> s.Receipt:
    """What a delete removed."""
    return s.Receipt(
        identities=value.identities, faces=value.faces, revision=value.revision, scrubbed=value.scrubbed
    )


def verified(outcome: str) -> Literal["match", "unknown"]:
    """The decision of a comparison of two."""
    return "match" if outcome == "match" else "unknown"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)

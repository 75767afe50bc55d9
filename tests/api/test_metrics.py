"""What /metrics shows, and that ids never become labels."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


def samples(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_requests_stages_faces_and_decisions_are_counted(
    client: httpx.Client, gallery: str, face_jpeg: bytes
) -> None:
    before = samples(client)
    files = {"images": face_jpeg}
    client.post(f"{gallery}/identities/eve/faces", files=files, data={"create": "true"}).raise_for_status()
    client.post(f"{gallery}/identify", files={"image": face_jpeg}).raise_for_status()
    after = samples(client)

    def grew(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    identify = "/v1/galleries/{gallery}/identify"
    assert grew("sphereid_requests_total", method="POST", route=identify, status="200") == 1
    assert grew("sphereid_request_seconds_count", route=identify) == 1
    for stage, times in (
        ("queue", 2),
        ("decode", 2),
        ("detect", 2),
        ("embed", 2),
        ("search", 1),
        ("store", 1),
    ):
        assert grew("sphereid_stage_seconds_count", stage=stage) == times
    assert grew("sphereid_faces_total") == 2
    assert grew("sphereid_enrolled_faces_total") == 1
    assert grew("sphereid_decisions_total", outcome="match") == 1
    assert grew("sphereid_batch_faces_sum") == 2
    assert grew("sphereid_batch_wait_seconds_count") >= 1
    assert grew("sphereid_gallery_identities") == 1
    assert grew("sphereid_gallery_faces") == 1
    assert after["sphereid_requests_active", ()] == 0
    assert after["sphereid_embed_queue_faces", ()] == 0


def test_labels_are_bounded(client: httpx.Client) -> None:
    client.get("/v1/galleries/default")  # whatever this route counts exists already
    client.get("/not/there")
    client.request("BREW", "/v1/galleries")
    before = set(samples(client))
    for i in range(20):
        client.get(f"/v1/galleries/nobody-{i}")
        client.get(f"/not/there/{i}")
        client.request(f"BREW{i}", "/v1/galleries")
    fresh = set(samples(client)) - before
    assert not [key for key in fresh if "nobody" in str(key) or "BREW" in str(key) or "not/there" in str(key)]
    assert {dict(labels).get("status") for _, labels in fresh} <= {"404", None}

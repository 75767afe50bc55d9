"""The detector's helping thread works beside its caller, not behind it."""

import os
import threading

import pytest
from sphereid.faces.detect.mtcnn import helper
from sphereid.faces.detect.mtcnn.helper import Helper

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's affinity of threads")


@pytest.fixture
def where(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processor that the caller is told to run on."""
    place = [0]
    monkeypatch.setattr(helper, "_processor", lambda: place[0])
    return place


def affinity() -> set[int]:
    return os.sched_getaffinity(0)


def test_work_is_done_in_another_thread_with_its_answer_and_its_errors() -> None:
    one = Helper({"a": 1})
    assert one.submit(threading.get_ident).result() != threading.get_ident()
    assert one.submit(sum, [1, 2], start=one.tools["a"]).result() == 4
    with pytest.raises(ZeroDivisionError):
        one.submit(lambda: 1 / 0).result()


@linux
def test_the_thread_stays_off_the_processor_of_its_caller(where: list[int]) -> None:
    mine = affinity()
    if len(mine) < 2:
        pytest.skip("needs two processors")
    one = Helper(None)
    for place in sorted(mine)[:2]:
        where[0] = place
        assert one.submit(affinity).result() == mine - {place}
    assert affinity() == mine  # the caller goes where it likes


@linux
def test_on_a_single_processor_both_share_it(where: list[int]) -> None:
    mine = affinity()
    where[0] = min(mine)
    os.sched_setaffinity(0, {where[0]})
    try:
        assert Helper(None).submit(affinity).result() == {where[0]}
    finally:
        os.sched_setaffinity(0, mine)


@linux
def test_the_caller_knows_its_processor() -> None:
    assert helper._processor() in affinity()


def test_where_the_system_does_not_say_the_thread_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(helper, "_processor", helper._asker())
    assert helper._processor() is None
    assert Helper(None).submit(lambda: 7).result() == 7

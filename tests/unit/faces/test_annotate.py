"""Annotation: what is drawn, where, in which color, and that it never fails or leaves the picture."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sphereid.faces.annotate import UNKNOWN_COLOR, Mark, annotate, identity_color, label_tile

BOX = np.array([80, 60, 160, 160], np.float32)


def blank(height: int = 240, width: int = 320) -> np.ndarray:
    return np.full((height, width, 3), 30, np.uint8)


def changed(image: np.ndarray) -> np.ndarray:
    return (image != 30).any(axis=2)


def test_the_box_has_the_color_of_the_identity_and_the_input_stays() -> None:
    image = blank()
    drawn = annotate(image, [Mark(BOX, identity="alice")])
    for x, y in ((80, 100), (160, 100), (120, 60), (120, 160)):
        assert tuple(drawn[y, x]) == identity_color("alice")
    assert not changed(image).any()
    assert not changed(drawn)[70:150, 90:150].any()


def test_unknown_is_grey() -> None:
    assert tuple(annotate(blank(), [Mark(BOX)])[100, 80]) == UNKNOWN_COLOR == identity_color(None)


def test_identities_have_stable_and_different_colors() -> None:
    colors = [identity_color(f"person-{i}") for i in range(50)]
    assert colors == [identity_color(f"person-{i}") for i in range(50)]
    assert len(set(colors)) == 50
    assert all(max(color) == 255 for color in colors)


def test_landmarks_are_drawn_when_given() -> None:
    points = np.array([[100, 90], [140, 90], [120, 110], [105, 140], [135, 140]], np.float32)
    with_points = annotate(blank(), [Mark(BOX, landmarks=points)])
    for x, y in points.astype(int):
        assert changed(with_points)[y, x]


def test_the_label_stands_above_the_box_and_below_it_where_there_is_no_room() -> None:
    above = changed(annotate(blank(), [Mark(BOX, "Alice", 0.63)]))
    assert above[40:58, 80:130].sum() > 100
    assert not above[165:].any()
    below = changed(annotate(blank(), [Mark(BOX - [0, 58, 0, 58], "Alice", 0.63)]))
    assert below[105:125, 80:130].sum() > 100


def test_labels_do_not_hide_other_faces() -> None:
    upper, lower = BOX, BOX + np.float32([0, 105, 0, 105])
    drawn = annotate(blank(400), [Mark(upper, "Upper person"), Mark(lower, "Lower person")])
    assert not changed(drawn)[62:158, 82:158].any()
    assert not changed(drawn)[168:263, 82:158].any()


@pytest.mark.parametrize(
    "text", ["Zoë Žižek", "Łukasz", "Иван", "Ελένη", "王小明", "김철수", "やまだ", "نور"]
)
def test_names_of_any_script_have_glyphs_of_their_own(text: str) -> None:
    """A font without the letters would draw the same box for each of them."""
    tile = label_tile(text, 24, (0, 0, 0))
    missing = label_tile("\U0010fffd" * len(text), 24, (0, 0, 0))
    assert tile.shape != missing.shape or not np.array_equal(tile, missing)
    letters = {label_tile(letter, 24, (0, 0, 0)).tobytes() for letter in set(text)}
    assert len(letters) == len(set(text))


def luminance(color: np.ndarray) -> float:
    """Relative luminance of an sRGB color as WCAG 2.2 defines it."""
    value = np.asarray(color) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_letters_stand_out_from_their_background() -> None:
    for color in [identity_color(str(i)) for i in range(100)] + [UNKNOWN_COLOR]:
        tile = label_tile("Alice", 20, color).reshape(-1, 3)
        ink = tile[np.abs(tile.astype(int) - color).sum(axis=1).argmax()]
        lighter, darker = sorted([luminance(ink), luminance(np.array(color))], reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.5


def test_text_is_one_short_line_with_the_similarity() -> None:
    assert Mark(BOX, "Alice\n\tof  Kent", 0.6349).text == "Alice of Kent 0.63"
    assert Mark(BOX, "", 0.5).text == "0.50"
    assert Mark(BOX, "Bob").text == "Bob"
    assert len(Mark(BOX, "x" * 500).text) == 40


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    box=hnp.arrays(np.float32, 4, elements=st.floats(-200, 200, width=32)),
    label=st.text(max_size=60),
    similarity=st.one_of(st.none(), st.floats(-1, 1)),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_anything_can_be_drawn_on_any_picture(
    height: int, width: int, box: np.ndarray, label: str, similarity: float | None
) -> None:
    image = blank(height, width)
    drawn = annotate(image, [Mark(box, label, similarity, "id", box[:2][None].repeat(5, 0))])
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_text_grows_with_the_picture() -> None:
    small, large = blank(240, 320), blank(2160, 3840)
    rows = [
        changed(annotate(image, [Mark(BOX * scale, "Alice", identity="a")]))[: round(60 * scale) - 5]
        .any(1)
        .sum()
        for image, scale in ((small, 1), (large, 9))
    ]
    assert rows[1] > 3 * rows[0]


def test_threads_draw_the_same() -> None:
    marks = [Mark(BOX + 7 * i, f"Zoë {i}", i / 10, str(i)) for i in range(8)]
    expected = annotate(blank(), marks)
    label_tile.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        for drawn in pool.map(lambda _: annotate(blank(), marks), range(32)):
            np.testing.assert_array_equal(drawn, expected)

"""What `sphereid models install` can install. Another network is one more entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sphereid.faces.errors import ModelError
from sphereid.faces.published import dlib
from sphereid.faces.published.folder import ModelFiles

Say = Callable[[str], None]
"""Hears one line a step."""


@dataclass(frozen=True, slots=True)
class Published:
    """A network that others published.

    name: on the command line, of the model and of its folder. license: of the weights, as the manifest will
    say. use: what that allows, for people to read. package: the Python package that brings the weights. make:
    converts them; raises ModelError, saying what to install, where the package is absent.
    """

    name: str
    license: str
    use: str
    package: str
    make: Callable[[Say], ModelFiles]


def _make_dlib(say: Say) -> ModelFiles:
    from sphereid.faces.published.dlib.model import make  # NumPy and onnx are loaded only now

    return make(say=say)


PUBLISHED: Final = {
    each.name: each
    for each in (
        Published(
            name="dlib",
            license=dlib.LICENSE,
            use="anything, also at work",
            package=dlib.PACKAGE,
            make=_make_dlib,
        ),
    )
}
"""By name."""


def published(name: str) -> Published:
    """The network of this name. Raises ModelError, naming those that there are."""
    try:
        return PUBLISHED[name]
    except KeyError:
        raise ModelError(f"no model {name!r} can be installed; there is: {', '.join(PUBLISHED)}") from None

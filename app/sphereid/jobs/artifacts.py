"""What finished jobs offer, and the file behind each name in their folder of results."""

from collections.abc import Mapping
from typing import Final

from sphereid.jobs import galleries, imports, video

ARTIFACTS: Final[Mapping[str, str]] = {**video.ARTIFACTS, **imports.ARTIFACTS, **galleries.ARTIFACTS}

"""The service, but it dies after a commit: `python -m tests.e2e.dying_service serve`.

The write that brings a gallery to the revision SPHEREID_TEST_DIES_AT is in the database then, and neither in
the index nor answered.
"""

import os
import signal

from sphereid.cli import main
from sphereid.gallery.gallery_index import GalleryIndex

apply = GalleryIndex.apply


def die(self: GalleryIndex, gallery, *changes):  # type: ignore[no-untyped-def]
    if gallery.revision == int(os.environ["SPHEREID_TEST_DIES_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    apply(self, gallery, *changes)


if __name__ == "__main__":
    GalleryIndex.apply = die  # type: ignore[method-assign]
    main()

"""`python -m training` in a checkout is `python -m sphereid_training`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "app")]

from sphereid_training.cli import main  # noqa: E402

if __name__ == "__main__":
    main()

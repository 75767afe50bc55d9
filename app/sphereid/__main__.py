"""`python -m sphereid` is `sphereid`."""

from sphereid.cli import main

if __name__ == "__main__":
    main()

"""`python -m app` is `sphereid`."""

from app.cli import main

if __name__ == "__main__":
    main()

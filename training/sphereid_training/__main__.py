"""`python -m sphereid_training`."""

from sphereid_training.cli import main

if __name__ == "__main__":
    main()

"""The one exception that a user of `python -m training` is meant to read."""


class TrainingError(Exception):
    """Something the user can put right. The message says what happened and what to do, in one line."""

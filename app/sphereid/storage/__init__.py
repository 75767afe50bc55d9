"""Files at rest: encryption, the lock of a data folder, and locks for readers and writers."""

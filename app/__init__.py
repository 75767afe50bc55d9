"""SphereID's service: pixels → faces → embeddings → decisions → answers."""

__version__ = "0.1.0"

"""SphereID's service: pixels → faces → embeddings → decisions → answers."""

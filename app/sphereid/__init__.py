"""SphereID's service: pixels → faces → embeddings → decisions → answers."""

import os

__version__ = "0.1.0"

# The official builds of ONNX Runtime report home by default; they read this once, when first imported.
# Nothing of a face would go with it, but a service for biometric data calls nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

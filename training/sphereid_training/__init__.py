"""Training of the SphereFace family: prepare, train, evaluate, export. Everything that needs torch lives
here."""

import sphereid  # noqa: F401  # its import keeps ONNX Runtime from reporting home, whoever is imported first

"""Training of the SphereFace family: prepare, train, evaluate, export. Everything that needs torch lives
here."""

import app as app  # its import keeps ONNX Runtime from reporting home, whoever is imported first

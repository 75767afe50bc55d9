"""MobileFaceNet of sirius-ai/MobileFaceNet_TF, from its TensorFlow Lite file."""

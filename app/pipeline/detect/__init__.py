"""Face detection: MTCNN on ONNX Runtime."""

from app.pipeline.detect.detector import DetectorConfig, MtcnnDetector

__all__ = ["DetectorConfig", "MtcnnDetector"]

"""Face detection: MTCNN on ONNX Runtime."""

from sphereid.faces.detect.mtcnn.detector import DetectorConfig, MtcnnDetector

__all__ = ["DetectorConfig", "MtcnnDetector"]

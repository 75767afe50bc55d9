"""From an fp32 ONNX model to an int8 one."""

"""From an fp32 ONNX model and the ranges of its activations to an int8 one."""

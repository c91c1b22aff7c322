"""Finds out why ONNX Runtime inference on a GPU is slow, proves it, and shows what helps."""

__version__ = "0.1.0"

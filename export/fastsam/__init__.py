"""Owns FastSAM: its bundle, its ONNX network and its TensorRT plan."""

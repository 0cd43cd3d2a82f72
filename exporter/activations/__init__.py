"""Activations of a graph, observed in ONNX Runtime."""

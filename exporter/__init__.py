"""Build time: from a trained PyTorch model, or an ONNX file, to a verified bundle."""

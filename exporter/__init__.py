"""Build time: a trained PyTorch model, or an ONNX file, becomes a verified bundle."""

"""What each ONNX operator is in torch, one file per kind."""

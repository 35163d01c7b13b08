"""ONNX models as torch modules: reading the nodes, and one function per kind of operator."""

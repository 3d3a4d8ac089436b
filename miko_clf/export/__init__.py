"""Export: a trained classifier as ONNX graphs that were compared with it, row by row."""

"""ONNX forms of models and preprocessors, for a faster engine."""

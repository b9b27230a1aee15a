"""The KServe custom predictor: tensors in, tensors out."""

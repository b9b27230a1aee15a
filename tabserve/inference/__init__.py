"""The Open Inference Protocol (V2): tensors, codecs, errors and the server."""

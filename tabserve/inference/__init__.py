"""The Open Inference Protocol (V2): tensors, codecs, errors, server and client."""

"""The Open Inference Protocol as tests for any V2 server; see README.md."""

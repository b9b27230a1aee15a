"""Compares what a model is asked and answers with what its bundle was saved with, and says when to retrain it."""

"""What asks the predictor: addresses, connections, when to try again, and the bytes that are exchanged."""

"""The transformer: records in, decisions out, by way of a predictor."""

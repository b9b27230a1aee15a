"""The transformer: records in, decisions out, through a predictor."""

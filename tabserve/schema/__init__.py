"""What a schema means: records, features and decisions, as pure functions on arrays."""

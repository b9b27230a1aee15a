"""Compare tabserve with other servers: same model, same bytes, one core each, every answer checked."""

"""tabserve beside other servers: same model, same bytes, one core each, every answer checked."""

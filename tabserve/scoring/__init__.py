"""Records in, decisions out, in process: what the services, files and streams are made of."""

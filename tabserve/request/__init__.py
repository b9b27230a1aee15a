"""`tabserve request`: ask a transformer for decisions on the records of a file."""

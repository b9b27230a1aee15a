"""Kafka records in, decisions out: `tabserve stream`; needs the extra `stream`."""

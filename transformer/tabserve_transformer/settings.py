"""Settings of the transformer."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from tabserve.inference.settings import Positive, ServerSettings, split

_HOST = re.compile(
    r"(?:http://)?(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?/?"
)


class Settings(ServerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The transformer's settings, in addition to those of every service."""

    predictor_host: Annotated[str, Meta(description="HOST or HOST:PORT of the predictor; every address of it is used.")]
    predictor_protocol: Annotated[
        Literal["v2"], Meta(description="Accepted for KServe's sake; the predictor is called over V2 REST.")
    ] = "v2"
    predictor_timeout: Annotated[float, Meta(gt=0, description="Most seconds to wait for the predictor.")] = 10.0
    predictor_ca: Annotated[
        str,
        Meta(description="PEM file with the predictor's authorities; it is then called over TLS, with tls_cert."),
    ] = ""
    predictor_refresh: Annotated[
        float, Meta(gt=0, description="Seconds between looking up the predictor's addresses.")
    ] = 2.0
    decision_log_hash_key_file: Annotated[
        str, Meta(description="File with the secret that hashes the fields that the schema says to hash in the log.")
    ] = ""
    feature_bins: Annotated[
        bool, Meta(description="Count the features of decided records in the bundle's bins, as metrics.")
    ] = False
    max_predictor_bytes: Annotated[Positive, Meta(description="Largest answer of the predictor.")] = 64 * 2**20
    decision_log: Annotated[
        str,
        Meta(
            description="Where decision records go: a folder, s3://BUCKET/PATH or kafka://BROKERS/TOPIC; none if empty."
        ),
    ] = ""
    decision_log_kafka_file: Annotated[
        str, Meta(description="YAML file with librdkafka's own keys for a log in Kafka, such as security.protocol.")
    ] = ""
    decision_log_sample: Annotated[float, Meta(ge=0, le=1, description="The share of records that are logged.")] = 1.0
    decision_log_always: Annotated[
        str, Meta(description="Decisions whose records are all logged: comma-separated.")
    ] = ""
    decision_log_buffer_rows: Annotated[Positive, Meta(description="Most records that wait to be written.")] = 20_000
    decision_log_buffer_bytes: Annotated[Positive, Meta(description="Most bytes that they take.")] = 32 * 2**20
    decision_log_file_seconds: Annotated[float, Meta(gt=0, description="Seconds after which a file ends.")] = 60.0
    decision_log_file_rows: Annotated[Positive, Meta(description="Records after which a file ends.")] = 100_000

    @property
    def always_logged(self) -> tuple[str, ...]:
        """The names in `decision_log_always`."""
        return split(self.decision_log_always)


def host_and_port(predictor_host: str) -> tuple[str, int]:
    """Host and port from HOST, HOST:PORT or [IPv6]:PORT; the default port is 80, as in KServe.

    Raises ValueError.
    """
    found = _HOST.fullmatch(predictor_host)
    port = int(found["port"] or 80) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError(f"predictor_host: expected HOST or HOST:PORT, got {predictor_host!r}")
    return found["ipv6"] or found["name"], port

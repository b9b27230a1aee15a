"""A service's settings: one frozen object, read once from the command line and TABSERVE_ variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, TypeAlias, TypeVar

import click
import msgspec
from msgspec import Meta

from tabserve.inference import names
from tabserve.inference.errors import quoted

PREFIX = "TABSERVE_"

LARGEST_BODY_BYTES = 8 * 2**20
"""The largest body or message if `max_body_bytes` is not set."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._~%-]+(:\d+)?|[a-z]+://\[[0-9a-f:.]+\](:\d+)?").fullmatch
"""An origin as browsers send it, in lower case (RFC 6454, section 6.2)."""

_ENDPOINT = re.compile(r"https?://[^\s/]+/\S+").fullmatch
"""A URL with a path, without which a collector would not know what it gets."""

Server: TypeAlias = Literal["kserve", "kserve-proba", "mlserver"]
"""Servers that a service can answer like; kserve-proba is KServe's where PREDICT_PROBA is true."""

Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings that both services have for serving; each field is an option and a variable.

    `--http_port 8080` and `TABSERVE_HTTP_PORT=8080` mean the same; the option wins. Dashes and underscores are alike.
    """

    model_dir: Annotated[str, Meta(description="The bundle's folder.")] = "/mnt/models"
    model_name: Annotated[str, Meta(description="The name clients call; default: the bundle's.")] = ""
    digest: Annotated[str, Meta(description="The bundle's expected digest, sha256:…; any other is refused.")] = ""
    release: Annotated[str, Meta(description="The release's id; default: the bundle's digest.")] = ""
    allow_joblib: Annotated[bool, Meta(description="Load joblib files, which can run any code.")] = False
    trusted: Annotated[
        str, Meta(description="Types in a skops file to load besides the known safe ones: names, comma-separated.")
    ] = ""
    trust_public_key: Annotated[
        str, Meta(description="PEM file with the keys or authorities, one of which must have signed the bundle.")
    ] = ""
    compatible: Annotated[
        Literal["", Server], Meta(description="Answer as this server's own do: kserve, kserve-proba or mlserver.")
    ] = ""
    model_class: Annotated[str, Meta(description="module:Class, a subclass of the kserve_model adapter.")] = ""
    host: Annotated[str, Meta(description="The address to listen on.")] = "0.0.0.0"
    http_port: Annotated[Port, Meta(description="REST and health.")] = 8080
    grpc_port: Annotated[int, Meta(description="gRPC; 0 for none.", ge=0, le=65535)] = 8081
    admin_port: Annotated[
        int, Meta(description="Health and metrics, in a separate thread; 0: metrics are with REST.", ge=0, le=65535)
    ] = 8082
    max_body_bytes: Annotated[
        int,
        Meta(
            description="Largest body or message; more is a 413. 0: as much as max_rows of the longest records need.",
            ge=0,
        ),
    ] = 0
    max_header_bytes: Annotated[Positive, Meta(description="Largest header section; more is a 431.")] = 64 * 2**10
    max_rows: Annotated[Positive, Meta(description="Most rows in a request; more is a 413.")] = 10_000
    max_concurrency: Annotated[
        Positive, Meta(description="Requests admitted at once; more wait for a moment, or get a 503.")
    ] = 256
    max_connections: Annotated[
        int,
        Meta(
            description="REST connections at once, and the same number over gRPC; 0: as many as there is memory for.",
            ge=0,
        ),
    ] = 0
    memory_limit_bytes: Annotated[
        int, Meta(description="Memory that the process may take; 0: what the container or the machine has.", ge=0)
    ] = 0
    read_timeout: Annotated[Seconds, Meta(description="Seconds a client may take to send one request.")] = 30.0
    write_timeout: Annotated[Seconds, Meta(description="Seconds a client may leave its answers unread.")] = 30.0
    keep_alive: Annotated[Seconds, Meta(description="Seconds an idle connection stays open.")] = 75.0
    drain_seconds: Annotated[Seconds, Meta(description="Seconds after SIGTERM in which requests are answered.")] = 20.0
    tls_cert: Annotated[
        str,
        Meta(description="PEM file with the server's certificates; read again when it changes. Empty: no TLS."),
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file with its private key.")] = ""
    tls_client_ca: Annotated[
        str, Meta(description="PEM file with the authorities of clients, which then need a certificate.")
    ] = ""
    cors_origins: Annotated[
        str, Meta(description="Origins whose pages may call REST from a browser: comma-separated, or * for all.")
    ] = ""
    page: Annotated[bool, Meta(description="Show browsers a page at / to try the model.")] = False
    tracing_endpoint: Annotated[
        str, Meta(description="OTLP over HTTP: where spans go, http://HOST:4318/v1/traces. Empty: no traces.")
    ] = ""
    tracing_ratio: Annotated[
        float, Meta(description="The share of traces that are recorded, where a caller does not decide.", ge=0, le=1)
    ] = 1.0
    workers: Annotated[Positive, Meta(description="Accepted for KServe's sake; there is one process per pod.")] = 1
    threads: Annotated[int, Meta(description="Engine threads; 0: one for each CPU of the container.", ge=0)] = 0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="debug, info, warning or error.")
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="text, or json for one JSON object per line.")] = (
        "text"
    )

    def __post_init__(self) -> None:
        problem = names.misfit(self.model_name) if self.model_name else None
        if problem is not None:
            raise ValueError(f"model_name: {problem}")
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_client_ca and not self.tls_cert):
            raise ValueError("tls_cert: expected tls_cert and tls_key, and with them perhaps tls_client_ca")
        if self.tracing_endpoint and not _ENDPOINT(self.tracing_endpoint):
            expected = "a URL such as http://collector:4318/v1/traces"
            raise ValueError(f"tracing_endpoint: expected {expected}, got {quoted(self.tracing_endpoint)}")
        if self.page and self.model_class:
            raise ValueError("page: expected no model_class, since the page does not know what its hooks take")
        for origin in self.origins:
            if origin != "*" and not _ORIGIN(origin):
                expected = "* or origins such as https://app.example.com, without a path"
                raise ValueError(f"cors_origins: expected {expected}, got {quoted(origin)}")

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins in `cors_origins`."""
        return split(self.cors_origins)

    @property
    def trusted_types(self) -> tuple[str, ...]:
        """The names in `trusted`."""
        return split(self.trusted)


def split(text: str) -> tuple[str, ...]:
    """The parts between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


S = TypeVar("S", bound=ServerSettings)


def command(settings: type[S], run: Callable[[S], None], help_text: str) -> click.Command:
    """A command whose options are the fields of `settings`; it calls `run` with them.

    Wrong values, unknown options and unknown TABSERVE_ variables end it with what was expected.
    """

    def callback(**given: str | None) -> None:
        run(read(settings, given, os.environ))

    fields = msgspec.structs.fields(settings)
    options = [click.Option([f"--{field.name}"], help=_help(field)) for field in fields]
    context = {"token_normalize_func": lambda token: token.replace("-", "_") if token else token}
    return click.Command(None, params=list(options), callback=callback, help=help_text, context_settings=context)


def read(settings: type[S], given: Mapping[str, str | None], environment: Mapping[str, str]) -> S:
    """The settings from options and TABSERVE_ variables. Raises click.UsageError naming what is wrong."""
    names = {PREFIX + field.name.upper(): field.name for field in msgspec.structs.fields(settings)}
    ours = {variable: value for variable, value in environment.items() if variable.startswith(PREFIX)}
    unknown = sorted(set(ours) - set(names))
    if unknown:
        raise click.UsageError(f"unknown variable {unknown[0]}; known are {', '.join(sorted(names))}")
    values = {names[variable]: value for variable, value in ours.items()}
    values |= {name: value for name, value in given.items() if value is not None}
    try:
        return msgspec.convert(values, settings, strict=False)
    except msgspec.ValidationError as error:
        raise click.UsageError(f"{_plain(str(error))} (option --NAME or variable {PREFIX}NAME)") from None


def _plain(message: str) -> str:
    problem, _, path = message.partition(" - at `$.")
    return f"{path.rstrip('`')}: {problem}" if path else problem


def _help(field: msgspec.structs.FieldInfo) -> str:
    description: str = getattr(field.type, "__metadata__", [Meta()])[-1].description
    default = "required" if field.required else field.default
    return f"{description}  [{default}]" if default != "" else description

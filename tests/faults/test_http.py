"""HTTP that is malformed or meant for something else (fault catalogue 16 to 21) is a 4xx, and the server lives on."""

from __future__ import annotations

import pytest

from tests.faults import wire
from tests.faults.conftest import Subject

JSON = "Content-Type: application/json"


@pytest.fixture
def infer(subject: Subject) -> str:
    """The path of inference."""
    return f"{subject.target.path}/infer"


def body(subject: Subject) -> bytes:
    """A valid JSON request."""
    import json

    return json.dumps(subject.payload.rows(1).json()).encode()


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks, including the last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def test_a_chunked_body_is_read(subject: Subject, infer: str) -> None:
    content = body(subject)
    request = wire.post(infer, JSON, "Transfer-Encoding: chunked", body=chunked(content[:9], content[9:]))
    assert wire.ask(subject.service.http_port, request) == [200]


SMUGGLED = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
FRAMING = {
    "length and chunks": (["Content-Length: 4", "Transfer-Encoding: chunked"], chunked(b"{}") + SMUGGLED),
    "chunks and length": (["Transfer-Encoding: chunked", "Content-Length: 4"], chunked(b"{}") + SMUGGLED),
    "two lengths": (["Content-Length: 2", "Content-Length: 3"], b"{}" + SMUGGLED),
    "a length of words": (["Content-Length: two"], b"{}" + SMUGGLED),
    "a negative length": (["Content-Length: -2"], b"{}" + SMUGGLED),
    "a length with a sign": (["Content-Length: +2"], b"{}" + SMUGGLED),
    "a length over 64 bits": (["Content-Length: 99999999999999999999999"], b"{}"),
    "a chunk of a wrong size": (["Transfer-Encoding: chunked"], b"2\r\n{}xx\r\n0\r\n\r\n" + SMUGGLED),
    "a chunk size of words": (["Transfer-Encoding: chunked"], b"zz\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
    "a chunk size over 64 bits": (["Transfer-Encoding: chunked"], b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    "an unknown transfer": (["Transfer-Encoding: xchunked"], b"{}" + SMUGGLED),
    "a header folded": (["X-A: 1", " folded: 2", "Content-Length: 2"], b"{}"),
    "a space before the colon": (["Content-Length : 2"], b"{}" + SMUGGLED),
    "a header without a name": ([": x", "Content-Length: 2"], b"{}"),
    "a header with a null": (["X-A: \x00", "Content-Length: 2"], b"{}"),
}


@pytest.mark.parametrize("case", FRAMING)
def test_doubtful_framing_is_refused_and_closed(subject: Subject, infer: str, case: str) -> None:
    headers, content = FRAMING[case]
    received = wire.exchange(subject.service.http_port, wire.post(infer, JSON, *headers, body=content))
    assert wire.statuses(received) in ([400], [413], [501])
    assert b'{"error":' in received
    subject.assert_serves()


NO_HTTP = {
    "words": b"hello\r\n\r\n",
    "bytes": bytes(range(256)) * 4,
    "tls": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 189,
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a null": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("case", NO_HTTP)
def test_what_is_no_http_is_refused(subject: Subject, case: str) -> None:
    assert wire.ask(subject.service.http_port, NO_HTTP[case])[0] in (400, 404, 405)
    subject.assert_serves()


NO_HOST = ["/", "a b", "localhost/v2", "x@y", "[", "\xff", "a,b c", "[::1", "localhost:port", "[::1]x"]
HOST = ["", "a" * 5000, "localhost:99999", "[::1]", "[::1]:8080", "10.0.0.1:80", "fraud-predictor.models.svc"]


def live(subject: Subject, *headers: str, version: str = "HTTP/1.1") -> int:
    """The status of a request for liveness with these headers."""
    head = "".join(f"{header}\r\n" for header in headers)
    (status,) = wire.ask(subject.service.http_port, f"GET /v2/health/live {version}\r\n{head}\r\n".encode("latin-1"))
    return status


@pytest.mark.parametrize("host", NO_HOST, ids=ascii)
def test_what_is_no_host_is_refused(subject: Subject, host: str) -> None:
    """RFC 9112, section 3.2."""
    assert live(subject, f"Host: {host}") == 400
    subject.assert_serves()


@pytest.mark.parametrize("host", HOST, ids=ascii)
def test_no_host_reaches_another_path(subject: Subject, host: str) -> None:
    assert live(subject, f"Host: {host}") == 200
    repository = f"POST /v2/repository/other HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{{}}"
    assert wire.ask(subject.service.http_port, repository.encode()) == [404]


def test_a_host_stands_once_and_only_http_1_0_needs_none(subject: Subject) -> None:
    """RFC 9112, section 3.2."""
    assert live(subject) == 400
    assert live(subject, "Host: a", "Host: a") == 400
    assert live(subject, version="HTTP/1.0") == 200


def test_another_version_of_http_is_refused(subject: Subject) -> None:
    """RFC 9110, section 15.6.6."""
    assert live(subject, "Host: a", version="HTTP/2.0") == 505
    received = wire.exchange(subject.service.http_port, b"GET /v2/health/live\r\n\r\n")
    assert wire.statuses(received) in ([400], [505])


def test_a_transfer_beyond_chunks_is_not_known(subject: Subject, infer: str) -> None:
    """RFC 9112, section 6.1."""
    request = wire.post(infer, JSON, "Transfer-Encoding: gzip, chunked", body=chunked(body(subject)))
    assert wire.statuses(wire.exchange(subject.service.http_port, request)) == [501]


def test_two_content_encodings_are_two(subject: Subject, infer: str) -> None:
    content = body(subject)
    encodings = ["Content-Encoding: gzip", "Content-Encoding: identity", f"Content-Length: {len(content)}"]
    assert wire.ask(subject.service.http_port, wire.post(infer, JSON, *encodings, body=content)) == [415]


def test_a_client_of_http_1_0_is_not_told_to_go_on(subject: Subject, infer: str) -> None:
    """RFC 9110, section 10.1.1."""
    content = body(subject)
    request = wire.post(infer, JSON, "Expect: 100-continue", f"Content-Length: {len(content)}", body=content)
    received = wire.exchange(subject.service.http_port, request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert wire.statuses(received) == [200]


@pytest.mark.parametrize("trailer", ["x-request-timeout-ms: 0", "Inference-Header-Content-Length: 3", "X-A: b"])
def test_a_trailer_is_no_header(subject: Subject, infer: str, trailer: str) -> None:
    """RFC 9110, section 6.5.1."""
    content = chunked(body(subject)).removesuffix(b"\r\n") + trailer.encode() + b"\r\n\r\n"
    request = wire.post(infer, JSON, "Transfer-Encoding: chunked", body=content)
    assert wire.ask(subject.service.http_port, request + SMUGGLED, 2) == [200, 200]


FLOODS = {
    "many trailers": b"0\r\n" + b"X-A: aaaaaaaaaaaaaaaaaaaaaa\r\n" * 2**16,
    "one trailer": b"0\r\nX-A: " + b"a" * 2**21,
    "an extension": b"1;" + b"a" * 2**21,
    "many extensions": (b"1;" + b"a" * 100 + b"\r\n{\r\n") * 2**14,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_what_frames_a_body_has_a_limit(subject: Subject, infer: str, flood: str) -> None:
    request = wire.post(infer, JSON, "Transfer-Encoding: chunked", body=FLOODS[flood])
    received = wire.exchange(subject.service.http_port, request)
    assert wire.statuses(received) in ([431], []), "closed before everything was sent, which may lose the answer"
    subject.assert_serves()


def test_two_requests_in_one_packet_have_two_answers(subject: Subject, infer: str) -> None:
    content = body(subject)
    request = wire.post(infer, JSON, f"Content-Length: {len(content)}", body=content)
    assert wire.ask(subject.service.http_port, request + SMUGGLED + request, 3) == [200, 200, 200]


def test_what_follows_a_request_and_is_none_is_refused_after_its_answer(subject: Subject, infer: str) -> None:
    content = body(subject)
    request = wire.post(infer, JSON, f"Content-Length: {len(content)}", body=content)
    assert wire.statuses(wire.exchange(subject.service.http_port, request + b"hello\r\n\r\n")) == [200, 400]


def test_an_offer_to_speak_another_protocol_is_not_taken(subject: Subject, infer: str) -> None:
    content = body(subject)
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"]
    request = wire.post(infer, JSON, *offer, f"Content-Length: {len(content)}", body=content)
    assert wire.ask(subject.service.http_port, request + SMUGGLED + request, 3) == [200, 200, 200]


def test_such_an_offer_may_come_with_a_body_in_chunks(subject: Subject, infer: str) -> None:
    """Java's HttpClient sends this for a stream (`ofInputStream`)."""
    content = body(subject)
    offer = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"]
    request = wire.post(infer, JSON, *offer, "Transfer-Encoding: chunked", body=chunked(content[:9], content[9:]))
    assert wire.ask(subject.service.http_port, request + SMUGGLED + request, 3) == [200, 200, 200]


@pytest.mark.parametrize(
    "target", ["http://localhost/v2/health/live", "/v2/health/live?x=1", "http://a/v2/health/live?"]
)
def test_a_target_is_known_by_its_path(subject: Subject, target: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert wire.ask(subject.service.http_port, request.encode()) == [200]


def test_a_client_of_http_1_0_is_answered_and_closed(subject: Subject) -> None:
    received = wire.exchange(subject.service.http_port, b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert wire.statuses(received) == [200]
    assert b"connection: close" in received


def test_a_body_that_waits_for_a_go_ahead_gets_it(subject: Subject, infer: str) -> None:
    content = body(subject)
    head = wire.post(infer, JSON, "Expect: 100-continue", f"Content-Length: {len(content)}")
    with wire.connection(subject.service.http_port) as opened:
        opened.sendall(head)
        assert opened.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        opened.sendall(content)
        assert [answer.status for answer in wire.answers(opened)] == [200]


def test_headers_over_the_limit_are_431(subject: Subject, infer: str) -> None:
    request = wire.post(infer, f"X-A: {'a' * 2**16}", "Content-Length: 2", body=b"{}")
    received = wire.exchange(subject.service.http_port, request)
    assert wire.statuses(received) == [431]
    assert b'{"error":' in received


ENDLESS = {
    "a header": b"GET / HTTP/1.1\r\nX-A: " + b"a" * 2**18,
    "headers": b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 2**15,
    "a target": b"GET /" + b"a" * 2**18,
    "a name": b"GET / HTTP/1.1\r\n" + b"a" * 2**18,
}


@pytest.mark.parametrize("case", ENDLESS)
def test_headers_that_never_end_are_431(subject: Subject, case: str) -> None:
    assert wire.statuses(wire.exchange(subject.service.http_port, ENDLESS[case])) == [431]
    subject.assert_serves()


def test_a_thousand_headers_are_read(subject: Subject, infer: str) -> None:
    content = body(subject)
    headers = [f"X-{index}: 1" for index in range(1000)]
    request = wire.post(infer, JSON, *headers, f"Content-Length: {len(content)}", body=content)
    assert wire.ask(subject.service.http_port, request) == [200]


NAMES = ["../x", "..%2f..%2fetc%2fpasswd", "%2e%2e", "%00", "%20", "", "a%2fb", "%ff", "x" * 3000, "%F0%9F%A6%8A"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_odd_model_names_are_unknown(subject: Subject, name: str, method: str) -> None:
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/infer", f"/v1/models/{name}:predict"):
        subject.target.http(method, path, b"{}").assert_error(400, 405)
    version = f"{subject.target.path}/versions/{name}"
    for path in (version, f"{version}/infer", f"{version}/ready"):
        subject.target.http(method, path, b"{}").assert_error(400, 405)


def escaped(text: str) -> str:
    """Every character as an escape, the first one in lower case."""
    return "".join(f"%{byte:02x}" if at == 0 else f"%{byte:02X}" for at, byte in enumerate(text.encode()))


def test_paths_are_known_by_their_decoded_segments(subject: Subject) -> None:
    target, content = subject.target, subject.payload.rows(1).json()
    name, plain = escaped(target.model), subject.target.infer(content)
    v1 = target.post(f"/v1/models/{target.model}:predict", {"instances": []})
    asked = [target.post(f"/v1/models/{one}predict", {"instances": []}) for one in (f"{target.model}%3A", f"{name}%3a")]

    assert target.post(f"/v2/models/{name}/infer", content).body == plain.body
    assert target.post(f"/{escaped('v2')}/models/{target.model}/{escaped('infer')}", content).body == plain.body
    assert target.http("GET", f"/v1/models/{name}").status == 200
    assert [(answer.status, answer.body) for answer in asked] == [(v1.status, v1.body)] * 2
    assert target.http("GET", f"/v2/models/{name}/infer").headers["Allow"] == "POST"


ESCAPES = ["%2F", "%2f", "%25", "%zz", "%", "%4", "%FF", "%00", "%2e%2e"]


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_escape_leads_to_another_path(subject: Subject, escape: str) -> None:
    target = subject.target
    model = target.model
    twice = f"%25{ord(model[0]):02x}{model[1:]}"
    target.http("GET", f"/v2{escape}models{escape}{model}").assert_error(404, 404)
    target.http("GET", f"/v2/models{escape}{model}").assert_error(404, 404)
    target.http("GET", f"/v2/models/{model}{escape}").assert_error(404, 404)
    target.http("GET", f"/v2/models/{twice}").assert_error(404, 404)
    target.http("POST", f"/v2/models/{model}{escape}infer", b"{}").assert_error(404, 404)
    target.http("POST", f"/v1/models/{model}:{escape}predict", b"{}").assert_error(404, 404)


@pytest.mark.parametrize("path", ["models/m/load", "models/m/unload", f"models/{'..%2f' * 8}etc/load", "models"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_the_repository_has_no_other_model(subject: Subject, path: str, method: str) -> None:
    subject.target.http(method, f"/v2/repository/{path}", b"{}").assert_error(404, 404)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ready": false}', b'{"ready": true}', b'{"other": 1}'])
def test_the_repository_lists_the_model(subject: Subject, content: bytes) -> None:
    target = subject.target
    versions = target.metadata["versions"]
    entries = [{"name": target.model, "version": one, "state": "READY", "reason": ""} for one in versions]
    assert target.http("POST", "/v2/repository/index", content).json() == entries


@pytest.mark.parametrize("content", [b"[]", b'{"ready": 1}', b'{"ready":', b"\xff"])
def test_another_question_to_the_repository_is_refused(subject: Subject, content: bytes) -> None:
    subject.target.http("POST", "/v2/repository/index", content).assert_error(400, 400)


@pytest.mark.parametrize("change", ["load", "unload"])
def test_nothing_is_loaded_or_unloaded(subject: Subject, change: str) -> None:
    answer = subject.target.http("POST", f"/v2/repository/models/{subject.target.model}/{change}", b"{}")
    assert "a new bundle is deployed as a new release" in answer.assert_error(400, 400)
    assert subject.target.http("GET", f"{subject.target.path}/ready").status == 200


def test_a_server_that_answers_says_so(subject: Subject) -> None:
    for accept in ("*/*", "application/json"):
        assert subject.target.http("GET", "/", None, {"Accept": accept}).json() == {"status": "alive"}


def test_models_are_listed_by_v1_and_v2_alike(subject: Subject) -> None:
    listed = [subject.target.http("GET", path).json() for path in ("/v1/models", "/v2/models")]
    assert listed == [{"models": [subject.target.model]}] * 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_of_inference_are_405(subject: Subject, infer: str, method: str) -> None:
    for path in (infer, f"/v1/models/{subject.target.model}:predict"):
        answer = subject.target.http(method, path)
        answer.assert_error(405, 405)
        assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready"])
def test_pages_have_head_and_no_post(subject: Subject, path: str) -> None:
    answer = subject.target.http("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")
    refused = subject.target.http("POST", path, b"{}")
    refused.assert_error(405, 405)
    assert refused.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["//", "/v2/nothing", "/V2", "/v2//health/live", "/docs", "/openapi.yaml", "/%2e%2e/v2"]
)
def test_unknown_paths_are_404(subject: Subject, path: str) -> None:
    subject.target.http("GET", path).assert_error(404, 404)


READ_AS_JSON = [
    None,
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON",
    "application/problem+json",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
]


@pytest.mark.parametrize("content_type", READ_AS_JSON)
def test_what_can_only_be_json_is_read_as_json(subject: Subject, infer: str, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert subject.target.http("POST", infer, body(subject), headers).status == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "", "x"])
def test_other_content_types_are_415(subject: Subject, infer: str, content_type: str) -> None:
    answer = subject.target.http("POST", infer, body(subject), {"Content-Type": content_type})
    expected = "content-type: expected application/json or application/octet-stream"
    assert answer.assert_error(415, 415) == f'{expected}, got "{content_type}"'


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x"])
def test_encoded_bodies_are_415(subject: Subject, infer: str, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    error = subject.target.http("POST", infer, body(subject), headers).assert_error(415, 415)
    assert error == f'content-encoding: expected none (identity), got "{encoding}"'


@pytest.mark.parametrize("encoding", ["identity", "Identity"])
def test_identity_is_no_encoding(subject: Subject, infer: str, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    assert subject.target.http("POST", infer, body(subject), headers).status == 200

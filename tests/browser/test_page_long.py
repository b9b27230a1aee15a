"""The page in Chromium, as people use it: form, answers, faults, keyboard, narrow and dark (make long-page)."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tabserve.bundle import expected, load
from tabserve.client import Client
from tests.browser.conftest import served
from tests.serving import Service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.long
BUNDLES = ("breast_cancer", "payments", "wine", "diabetes", "pump")
WIDE, NARROW = 1200, 390
PICTURES = {
    "binary-light": ("breast_cancer", WIDE, "light"),
    "binary-dark": ("breast_cancer", WIDE, "dark"),
    "multiclass": ("wine", WIDE, "light"),
    "regression": ("diabetes", WIDE, "light"),
    "anomaly": ("pump", WIDE, "light"),
    "narrow": ("payments", NARROW, "light"),
}
"""The whole page at its width; of the narrow one, what is seen of the answer."""
MOST_BYTES = 150_000
SOME = 100
"""Requests before a picture, for its figures."""


@pytest.fixture(scope="module", params=BUNDLES)
def site(request: pytest.FixtureRequest, bundles: Path, logs: Path) -> Generator[dict[str, Service]]:
    """Both services of a bundle, each with a page."""
    with served(bundles / request.param, logs) as services:
        yield services


@pytest.fixture
def bundle(site: dict[str, Service], bundles: Path, request: pytest.FixtureRequest) -> Path:
    """The bundle that is served."""
    name: str = request.node.callspec.params["site"]
    return bundles / name


@contextmanager
def opened(
    browser: Browser, service: Service, width: int = WIDE, scheme: str = "light", scale: int = 1
) -> Generator[Page]:
    """The page of a service. Nothing may be on the console at the end, nor may another host have been asked."""
    size = {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=scale)
    page, told, hosts = context.new_page(), list[str](), set[str]()
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    try:
        page.goto(service.url)
        yield page
        assert (told, hosts) == ([], {urlsplit(service.url).netloc})
    finally:
        context.close()


def decide(page: Page) -> None:
    page.click("#decide")
    page.wait_for_selector("#made:not([hidden])")


def words(page: Page, selector: str) -> list[str]:
    """The texts of all elements that are shown."""
    return [element.inner_text() for element in page.query_selector_all(selector) if element.is_visible()]


def decided(service: Service, bundle: Path, times: int = 1) -> dict[str, Any]:
    """The service's decision on the first record of the reference, which is asked for so often."""
    found = load(bundle)
    record = expected.record(found, 0)
    with Client(service.url) as client:
        return [client.decide(found.manifest.name, [record])[0] for _ in range(times)][-1]


def sideways(page: Page) -> int:
    """How many pixels the page scrolls sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def plain(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def test_the_form_shows_the_services_decision_on_its_record(
    site: dict[str, Service], bundle: Path, browser: Browser
) -> None:
    answer = decided(site["transformer"], bundle)
    with opened(browser, site["transformer"]) as page:
        decide(page)
        assert words(page, "#outcome") == [answer["decision"]]
        assert plain(words(page, "#said")[0].split(" · ")[0].rsplit(" ", 1)[1]) == pytest.approx(
            answer["score"], rel=1e-5
        )
        assert [text.strip() for text in words(page, "#reasons li")] == answer.get("reasons", [])
        assert (len(words(page, "#why tbody tr")) >= 5) == (bundle.name != "pump")
        assert len(words(page, "#classes tr")) == (3 if bundle.name == "wine" else 0)
        assert words(page, ".legend .chosen span:first-child") == (
            [] if bundle.name == "wine" else [answer["decision"]]
        )


def test_contributions_add_up(site: dict[str, Service], bundle: Path, browser: Browser) -> None:
    with opened(browser, site["transformer"]) as page:
        decide(page)
        adds = [plain(text) for text in words(page, "#why tbody td.number") + words(page, "#base")]
        assert sum(adds) == pytest.approx(sum(map(plain, words(page, "#sum"))), abs=1e-2 * max(map(abs, [1, *adds])))


def test_the_predictor_has_a_page_of_features(site: dict[str, Service], bundle: Path, browser: Browser) -> None:
    with opened(browser, site["predictor"]) as page:
        decide(page)
        label = decided(site["transformer"], bundle).get("label")
        (outcome,) = words(page, "#outcome")
        assert outcome == label if label else plain(outcome) > 0
        assert sideways(page) == 0


def test_every_fault_is_told_beside_its_field(site: dict[str, Service], bundle: Path, browser: Browser) -> None:
    found = load(bundle)
    numbers = [at for at, field in enumerate(found.schema.record) if field.type in ("number", "integer")][:3]
    names = [found.schema.record[at].name for at in numbers]
    given = ["lots", "", "-1e9"]
    record = expected.record(found, 0) | dict(zip(names, ("lots", None, -1e9), strict=True))
    del record[names[1]]
    with Client(site["transformer"].url) as client:
        errors = {each["field"]: each for each in client.sift(found.manifest.name, [record]).errors}
    with opened(browser, site["transformer"]) as page:
        for at, text in zip(numbers, given, strict=True):
            page.fill(f"#box-{at}", text)
        page.click("#decide")
        page.wait_for_selector(".wrong:not([hidden])")
        told = {names[place]: words(page, f"#wrong-{at}") for place, at in enumerate(numbers)}
        wanted = {name: f"Expected {one['expected']}, got {one['got']}." for name, one in errors.items()}
        assert told == {name: [wanted[name]] if name in wanted else [] for name in names}
        assert len(wanted) >= 2
        assert words(page, ".box .wrong") == [wanted[name] for name in names if name in wanted]
        assert page.evaluate("document.activeElement.id") == f"box-{numbers[0]}"
        assert page.get_attribute(f"#box-{numbers[0]}", "aria-invalid") == "true"
        assert words(page, "#outcome") == []

        page.click("text=Reset")
        decide(page)
        assert words(page, ".wrong") == []


def test_the_keyboard_alone_suffices(site: dict[str, Service], bundle: Path, browser: Browser) -> None:
    fields = len(load(bundle).schema.record)
    with opened(browser, site["transformer"]) as page:
        reached = [focused(page) for _ in range(fields + 5)]
        wanted = [*(f"box-{at}" for at in range(fields)), "decide"]
        assert [each for each in reached if each in wanted] == wanted

        first = page.input_value("#box-0")
        page.focus("#box-0")
        page.keyboard.press("Control+A")
        page.keyboard.type("-99999")
        page.keyboard.press("Enter")
        page.wait_for_selector("#wrong-0:not([hidden])")
        assert page.evaluate("document.activeElement.id") == "box-0"
        page.keyboard.press("Control+A")
        page.keyboard.type(first)
        assert words(page, "#wrong-0") == []
        page.keyboard.press("Enter")
        page.wait_for_selector("#outcome:not([hidden])")


def focused(page: Page) -> str:
    """The element that the next Tab leads to."""
    page.keyboard.press("Tab")
    return str(page.evaluate("document.activeElement.id"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_scrolls_sideways(site: dict[str, Service], browser: Browser, width: int, scheme: str) -> None:
    with opened(browser, site["transformer"], width, scheme) as page:
        before = sideways(page)
        decide(page)
        page.fill("#box-0", "x" * 300)
        page.click("#decide")
        page.wait_for_selector("#wrong-0:not([hidden])")
        assert (before, sideways(page)) == (0, 0)


def test_the_request_can_be_typed_and_figures_are_live(
    site: dict[str, Service], bundle: Path, browser: Browser
) -> None:
    with opened(browser, site["transformer"]) as page:
        page.wait_for_selector("#requests:not(:text-is('\N{EN DASH}'))")
        before = int(words(page, "#requests")[0])
        decide(page)
        page.wait_for_selector(f"#requests:text-is('{before + 1}')")
        (curl,), (python,) = words(page, "#curl"), words(page, "#python")
    answer = decided(site["transformer"], bundle)
    (made,) = json.loads(printed(["bash", "-c", curl]))["predictions"]
    assert made == ast.literal_eval(printed([sys.executable, "-c", python]))
    assert made == answer | {"score": pytest.approx(answer["score"], abs=1e-6)}


def printed(command: list[str]) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_pictures_of_the_docs(bundles: Path, logs: Path, browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PICTURES", tmp_path))
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        services = {name: stack.enter_context(served(bundles / name, logs))["transformer"] for name in BUNDLES}
        for picture, (name, width, scheme) in PICTURES.items():
            path = folder / f"page-{picture}.png"
            decided(services[name], bundles / name, SOME)
            with opened(browser, services[name], width, scheme, 2 if width == NARROW else 1) as page:
                decide(page)
                page.evaluate("document.activeElement.blur()")
                page.wait_for_selector("#rate:not(:text-is('\N{EN DASH}'))")
                page.evaluate("document.getElementById('answer').scrollIntoView()")
                page.screenshot(path=path, full_page=width == WIDE)
            compress(path)
            print(f"{path}: {path.stat().st_size:,} bytes")
            assert path.stat().st_size < MOST_BYTES


def compress(path: Path) -> None:
    """Write a picture again with a palette."""
    from PIL import Image

    with Image.open(path) as picture:
        palette = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    palette.save(path, optimize=True)

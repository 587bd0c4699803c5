"""The page in headless Chromium: tokens in the colours of their experts, while they come."""

import shutil
import threading
import urllib.parse

import pytest

from .browser import open_page
from .conftest import ScriptedEngine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

GO = "document.getElementById('go').click(), true"
ANSWER = "document.getElementById('answer').textContent"
COLOURS = "[...document.querySelectorAll('#answer span')].map((span) => span.style.background).join('|')"


@pytest.fixture
def open_at(tmp_path):
    """Opens the page of a server, with fields filled in, once it has its list of models."""

    def make(url: str, **fields: str):
        address = f"{url}/?{urllib.parse.urlencode(fields)}"
        return open_page(str(CHROMIUM), tmp_path / "profile", address)

    return make


def test_an_answer_is_watched_while_it_comes(serve, spell, registry, open_at):
    rest = threading.Event()
    first = spell("5120<b>", routing={"e1@1": 0.9, "e2@1": 0.1})[:-1]
    second = spell(" USD", routing={"e1@1": 0.2, "e2@1": 0.8})
    engine = ScriptedEngine(lambda _: [*first, rest, *second])
    url = serve(engine, registry)
    with open_at(url, model="e2", prompt="Cash?", tokens="40") as page:
        page.wait_for("document.getElementById('model').value === 'e2'")
        page.value(GO)
        page.wait_for(f"{ANSWER} === '5120<b>'")
        assert page.value("document.getElementById('stop').disabled") is False
        rest.set()
        page.wait_for(f"{ANSWER} === '5120<b> USD'")
        page.wait_for("document.getElementById('go').disabled === false")
        colours = page.value(COLOURS).split("|")
        assert len(set(colours[:7])) == len(set(colours[7:])) == 1
        assert colours[0] != colours[-1]
        legend = page.value("document.getElementById('legend').innerText")
        assert "e1@1, 64 % of tokens" in legend
        assert "e2@1, 36 % of tokens" in legend
        assert not page.complaints
        assert all(address.startswith((url, "data:")) for address in page.requested)
    request = engine.requests[0]
    assert (request.model, request.max_new_tokens, request.temperature) == ("e2", 40, 0)


def test_weights_are_sent_and_refusals_are_shown(serve, spell, open_at):
    engine = ScriptedEngine(lambda _: spell("x"))
    with open_at(serve(engine), model="weights…", weights='{"e1": 0.7, "e2": 0.3}', prompt="a") as page:
        page.wait_for("!document.getElementById('weights-label').hidden")
        page.value(GO)
        page.wait_for(f"{ANSWER} === 'x'")
        page.value("document.getElementById('tokens').value = 100000")
        page.value("document.getElementById('tokens').removeAttribute('max')")
        page.value(GO)
        assert "100,000" in page.wait_for("document.getElementById('error').textContent")
    assert engine.requests[0].model == {"e1": 0.7, "e2": 0.3}


def test_stop_hangs_up(serve, spell, open_at):
    engine = ScriptedEngine(lambda _: [*spell("abc")[:3], threading.Event()])
    with open_at(serve(engine), model="base", prompt="a") as page:
        page.wait_for("document.getElementById('model').value === 'base'")
        page.value(GO)
        page.wait_for(f"{ANSWER} === 'abc'")
        page.value("document.getElementById('stop').click(), true")
        page.wait_for("document.getElementById('go').disabled === false")
        assert engine.tickets[0].cancelled.wait(30)
        assert page.value("document.getElementById('error').textContent") == ""

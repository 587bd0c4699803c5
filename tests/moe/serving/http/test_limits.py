"""Limits of keys, and the file that names them."""

import hashlib
from contextlib import ExitStack

import pytest

from finlora.experts.errors import FinLoraError
from finlora.moe.serving.http.api_error import ApiError
from finlora.moe.serving.http.keys import Client, Keys
from finlora.moe.serving.http.limits import Limits

KEY = "a-key-of-bank-a-0001"


def test_requests_come_back_evenly_over_the_minute():
    now = [0.0]
    limits = Limits(open_limit=10, clock=lambda: now[0])
    client = Client(name="a", key=KEY, requests_per_minute=6.0)

    def ask() -> bool:
        try:
            with limits.request(client):
                return True
        except ApiError as refusal:
            return (refusal.status, refusal.retry_after or 60) > (429, 10)

    assert [ask() for _ in range(7)] == [True] * 6 + [False]
    now[0] = 10.0
    assert [ask(), ask()] == [True, False]
    now[0] = 1000.0
    assert [ask() for _ in range(7)] == [True] * 6 + [False]


def test_requests_at_once_are_counted_until_they_end():
    limits = Limits(open_limit=3)
    one, other = Client(name="a", key=KEY, concurrent=2), Client(name="b", key=KEY)
    with ExitStack() as open_requests:
        open_requests.enter_context(limits.request(one))
        open_requests.enter_context(limits.request(one))
        with pytest.raises(ApiError, match="2 requests running"), limits.request(one):
            pass
        open_requests.enter_context(limits.request(other))
        with pytest.raises(ApiError, match="3 requests are running"), limits.request(other):
            pass
    with limits.request(one), limits.request(other):
        pass


def test_a_request_that_fails_is_not_counted_any_more():
    limits = Limits(open_limit=1)
    client = Client(name="a", key=KEY)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), limits.request(client):
            raise ZeroDivisionError


def test_keys_are_read_from_a_file(tmp_path):
    digest = hashlib.sha256(b"another long random key").hexdigest()
    file = tmp_path / "keys.toml"
    file.write_text(f'[bank_a]\nkey = "{KEY}"\nrequests_per_minute = 5.0\n\n[bank_b]\nsha256 = "{digest}"\n')
    keys = Keys.read(file)
    first, second = keys.find(f"Bearer {KEY}"), keys.find("bearer another long random key")
    assert (first.name, first.requests_per_minute, first.manages_experts) == ("bank_a", 5.0, False)
    assert second.name == "bank_b"
    assert keys.find(None) is keys.find("Basic x") is keys.find(KEY) is keys.find("Bearer x") is None


@pytest.mark.parametrize(
    "content", ["", "[a]\n", '[a]\nkey = "short"\n', f'[a]\nkey = "{KEY}"\nwrong = 1\n', "[a", "a = 5\n"]
)
def test_wrong_files_of_keys_are_refused_without_telling_the_keys(tmp_path, content):
    file = tmp_path / "keys.toml"
    file.write_text(content)
    with pytest.raises(FinLoraError, match=r"keys\.toml") as caught:
        Keys.read(file)
    assert KEY not in str(caught.value)
    assert "short" not in str(caught.value)


def test_without_keys_everyone_may_ask():
    client = Keys().find(None)
    assert client is not None
    assert client.manages_experts

"""Experts and mixtures are added, replaced and removed over HTTP while others answer."""

import base64
import json
import shutil

import httpx
import pytest

ASK = {"prompt": "Hello", "max_tokens": 8, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def api(serve, engine, registry, tmp_path, folders):
    """Asks a server whose sources are a folder with expert e0's files and a link that leads out of it."""
    sources = tmp_path / "sources"
    shutil.copytree(folders["e0"], sources / "team" / "copy")
    (sources / "link").symlink_to(folders["e1"])
    url = serve(engine, registry, expert_source=sources)
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def upload(folder, **changes) -> dict[str, object]:
    return {
        "name": "new",
        "adapter_config": json.loads((folder / "adapter_config.json").read_text()),
        "adapter_model": base64.b64encode((folder / "adapter_model.safetensors").read_bytes()).decode(),
    } | changes


def answer_of(api, model) -> str:
    answer = api.post("/v1/completions", json=ASK | {"model": model})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def test_an_uploaded_expert_answers_until_it_is_removed(api, folders):
    assert api.post("/v1/completions", json=ASK | {"model": "new"}).status_code == 404
    added = api.post("/v1/experts", json=upload(folders["e1"]))
    assert added.status_code == 201
    assert added.json()["version"] == 1
    assert answer_of(api, "new") == answer_of(api, "e1")
    listed = {one["name"]: one for one in api.get("/v1/experts").json()["data"]}
    assert listed["new"]["resident_bytes"] > 0
    assert api.post("/v1/experts", json=upload(folders["e2"])).status_code == 409
    assert api.post("/v1/experts", json=upload(folders["e2"], replace=True)).json()["version"] == 2
    assert answer_of(api, "new") == answer_of(api, "e2")
    assert api.delete("/v1/experts/new").json() == {"name": "new", "deleted": True}
    assert api.post("/v1/completions", json=ASK | {"model": "new"}).status_code == 404
    missing = api.delete("/v1/experts/new")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_an_expert_of_the_folder_of_sources_is_added_by_its_path(api):
    assert api.post("/v1/experts", json={"name": "new", "source": "team/copy"}).status_code == 201
    assert answer_of(api, "new") == answer_of(api, "e0")


def test_a_mixture_is_added_and_removed(api, mixture_folder, tmp_path, folders):
    for name in ("e0", "e1"):
        shutil.copytree(folders[name], tmp_path / "sources" / name)
    copy = shutil.copytree(mixture_folder, tmp_path / "sources" / "mix")
    content = json.loads((copy / "mixture.json").read_text())
    content["experts"] = [expert | {"path": f"../{expert['name']}"} for expert in content["experts"]]
    (copy / "mixture.json").write_text(json.dumps(content))
    added = api.post("/v1/experts", json={"name": "mix", "kind": "mixture", "source": "mix"})
    assert added.status_code == 201, added.text
    assert answer_of(api, "mix")
    assert {"name": "mix", "kind": "mixture"}.items() <= api.get("/v1/experts").json()["data"][-1].items()
    assert api.delete("/v1/experts/mix").status_code == 200
    assert api.post("/v1/completions", json=ASK | {"model": "mix"}).status_code == 404


def test_what_is_no_expert_for_this_base_is_refused(api, folders, tmp_path):
    good = upload(folders["e0"])
    weights = base64.b64decode(good["adapter_model"])
    cases = [
        ("name", {"name": "../evil"}),
        ("name", {"name": ""}),
        ("name", {"name": "base"}),
        ("name", {"name": "a\u0000b"}),
        ("adapter_model", {"adapter_model": "%%%"}),
        ("adapter_model", {"adapter_model": "é"}),
        ("adapter_model", {"adapter_model": ""}),
        ("adapter_model", {"adapter_model": base64.b64encode(weights[:-100]).decode()}),
        ("adapter_model", {"adapter_model": base64.b64encode(b"\x80\x04pickle").decode()}),
        ("adapter_model", {"adapter_config": {}}),
        ("adapter_model", {"adapter_config": good["adapter_config"] | {"r": 5}}),
        ("adapter_model", {"adapter_config": good["adapter_config"] | {"use_dora": True}}),
        ("adapter_config", {"adapter_config": "text"}),
    ]
    for field, change in cases:
        answer = api.post("/v1/experts", json=good | change)
        assert answer.status_code == 400, (change, answer.text)
        assert answer.json()["error"]["param"] == field, (list(change), answer.text)
        assert str(tmp_path) not in answer.text
        assert "/tmp" not in answer.text
    assert len(api.get("/v1/experts").json()["data"]) == 3


def test_nothing_outside_the_folder_of_sources_is_read(api, folders, tmp_path):
    for source in (
        "../registry",
        str(folders["e0"]),
        "link",
        "missing",
        "team/../../e0",
        "\u0000",
        "x" * 4000,
        ".",
    ):
        answer = api.post("/v1/experts", json={"name": "new", "source": source})
        assert answer.status_code == 400, (source, answer.text)
        assert answer.json()["error"]["param"] == "source"
        assert str(tmp_path) not in answer.text


def test_without_a_folder_of_sources_only_uploads_are_taken(serve, engine, registry):
    url = serve(engine, registry)
    for body in (
        {"name": "new", "source": "x"},
        {"name": "new"},
        {"name": "new", "adapter_config": {}},
        {"name": "new", "source": "x", "adapter_config": {}, "adapter_model": ""},
        {"name": "new", "kind": "mixture", "adapter_config": {}, "adapter_model": ""},
    ):
        assert httpx.post(f"{url}/v1/experts", json=body).status_code == 400

"""Signatures with node keys: formats, directories, and statements that cannot be mistaken."""

import json

import pytest

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from finlora.experts.errors import FinLoraError
from finlora.experts.federated.signing import (
    is_signed,
    load_directory,
    load_private_key,
    public_text,
    sign,
    statement,
)

KEYS = {
    "alpha": ec.generate_private_key(ec.SECP384R1()),
    "beta": ec.generate_private_key(ec.SECP256R1()),
    "gamma": ed25519.Ed25519PrivateKey.generate(),
}


def test_a_public_key_in_openssh_format_is_read(tmp_path) -> None:
    texts = {
        name: key.public_key().public_bytes(forms.Encoding.OpenSSH, forms.PublicFormat.OpenSSH).decode()
        for name, key in KEYS.items()
    }
    (tmp_path / "peers.json").write_text(json.dumps(texts))
    assert load_directory(tmp_path / "peers.json") == {name: key.public_key() for name, key in KEYS.items()}


def test_keys_of_another_kind_are_refused(tmp_path) -> None:
    key = rsa.generate_private_key(65537, 1024)
    file = tmp_path / "key"
    file.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    with pytest.raises(FinLoraError, match="another kind"):
        load_private_key(file)
    public = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "peers.json").write_text(json.dumps({"a": public.decode()}))
    with pytest.raises(FinLoraError, match="another kind"):
        load_directory(tmp_path / "peers.json")


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_a_file_that_is_no_private_key_is_named(tmp_path, content) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(FinLoraError, match="key is no private key"):
        load_private_key(tmp_path / "key")


def test_a_signature_that_is_no_signature_does_not_hold() -> None:
    for key in KEYS.values():
        for junk in (b"", b"junk", bytes(64)):
            assert not is_signed(key.public_key(), junk, b"text")


def test_keys_are_read_back_from_both_formats(tmp_path) -> None:
    (tmp_path / "peers.json").write_text(json.dumps({name: public_text(key) for name, key in KEYS.items()}))
    directory = load_directory(tmp_path / "peers.json")
    for name, key in KEYS.items():
        for encoding, form in (
            (forms.Encoding.PEM, forms.PrivateFormat.PKCS8),
            (forms.Encoding.PEM, forms.PrivateFormat.OpenSSH),
        ):
            (tmp_path / "key").write_bytes(key.private_bytes(encoding, form, forms.NoEncryption()))
            signature = sign(load_private_key(tmp_path / "key"), b"text")
            assert is_signed(directory[name], signature, b"text")
            assert not is_signed(directory[name], signature, b"test")


def test_two_banks_with_one_key_are_refused(tmp_path) -> None:
    text = public_text(ed25519.Ed25519PrivateKey.generate())
    (tmp_path / "peers.json").write_text(json.dumps({"a": text, "b": text}))
    with pytest.raises(FinLoraError, match="same key"):
        load_directory(tmp_path / "peers.json")


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": "no key"}'])
def test_a_broken_directory_is_named(tmp_path, text) -> None:
    (tmp_path / "peers.json").write_text(text)
    with pytest.raises(FinLoraError, match="public key"):
        load_directory(tmp_path / "peers.json")


def test_statements_with_shifted_parts_differ() -> None:
    assert statement("kind", "ab", "c") != statement("kind", "a", "bc")
    assert statement("kind", 1, 23) != statement("kind", 12, 3)

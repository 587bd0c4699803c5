"""Server and banks as real processes over TLS: the same bits as in simulation, and who is not let in.

Starts a SuperLink and SuperNodes, which takes minutes: set FINLORA_DEPLOYMENT_TESTS=1 to run all of it.
"""

import dataclasses
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("flwr")

from cryptography import x509
from safetensors.torch import load_file

from finlora.experts.base_model import load_base
from finlora.experts.errors import FinLoraError
from finlora.experts.federated.bank import WarmBase
from finlora.experts.federated.deployment.bundle import write_bundle
from finlora.experts.federated.deployment.certificates import make_node_key, make_server_certificate
from finlora.experts.federated.deployment.example import bank_file, wait_for_server
from finlora.experts.federated.deployment.parties import BankFile, ServerFile
from finlora.experts.federated.deployment.processes import Deployment, deployment
from finlora.experts.federated.messages import FAILURE
from finlora.experts.federated.server_app import ServerJob
from finlora.experts.federated.settings import BankSettings, FederatedSettings
from finlora.experts.federated.signing import load_directory, load_private_key
from finlora.experts.federated.simulation import InProcessGrid, simulate
from finlora.experts.tasks.task import Example

from .bank_process import DROPS_AFTER_SHARING, FAULT_SEEDS, seeded_noise
from .conftest import SETTINGS
from .test_faults import FaultyGrid, absent

needs_processes = pytest.mark.skipif(
    os.environ.get("FINLORA_DEPLOYMENT_TESTS") != "1",
    reason="starts a SuperLink and SuperNodes; set FINLORA_DEPLOYMENT_TESTS=1",
)
BANK_PROCESS = Path(__file__).with_name("bank_process.py")
PLAIN = dataclasses.replace(SETTINGS, rounds=2)
PRIVATE = dataclasses.replace(PLAIN, epsilon=8.0, delta=1e-3, seed=5)


def test_certificate_names_its_hosts_and_only_the_owner_reads_keys(tmp_path) -> None:
    make_server_certificate(tmp_path, ("127.0.0.1", "bank.example"))
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((tmp_path / "authority.pem").read_bytes())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["bank.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    public = make_node_key(tmp_path / "node.key")
    for secret in ("server.key", "node.key"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600
    (tmp_path / "peers.json").write_text(json.dumps({"bank-0": public.read_text()}))
    assert (
        load_private_key(tmp_path / "node.key").public_key()
        == load_directory(tmp_path / "peers.json")["bank-0"]
    )


def test_bundle_holds_no_code(tmp_path) -> None:
    bundle = write_bundle(tmp_path)
    assert "import" not in (bundle / "installed.py").read_text()


def test_files_of_the_parties_read_back_equal(tmp_path) -> None:
    own = BankSettings(name="bank-0", folder="memory", max_epsilon=8.0)
    bank = BankFile(
        bank=own, examples="a", task="t", base="b", quantization="none", supernode="h:1", secret="s"
    )
    assert BankFile.read(bank.write(tmp_path / "bank.json")) == bank
    unlimited = dataclasses.replace(bank, bank=dataclasses.replace(own, max_epsilon=float("inf")))
    assert BankFile.read(unlimited.write(tmp_path / "bank.json")) == unlimited
    server = ServerFile(
        settings=PLAIN,
        out="o",
        task="t",
        base="b",
        quantization="none",
        superlink="h:1",
        authority="a",
        secret="s",
    )
    assert ServerFile.read(server.write(tmp_path / "server.json")) == server
    (tmp_path / "bad.json").write_text("[]")
    for kind in (BankFile, ServerFile):
        with pytest.raises(FinLoraError, match="must hold a JSON object"):
            kind.read(tmp_path / "bad.json")
        with pytest.raises(FinLoraError, match="cannot be read"):
            kind.read(tmp_path / "none.json")


class Federation:
    """Three banks with a tiny base, as processes; trains one run after the other."""

    def __init__(self, held: Deployment, base: Path, parts: dict[str, list[Example]]) -> None:
        self.held, self.base, self.parts = held, str(base), parts
        self.server = held.start_superlink()
        for bank in parts:
            own = BankSettings(name=bank, folder=str(held.folder / bank / "memory"))
            bank_file(held, own, parts[bank], task="sums", base=self.base, quantization="none")
            self.start_bank(bank)

    def start_bank(self, bank: str) -> None:
        """Start a bank's process; its SuperNode runs already."""
        folder = self.held.folder / bank
        script = [sys.executable, str(BANK_PROCESS), str(folder / "bank.json")]
        self.held.start(bank, script, home=folder / "flower")

    def hide_updates(self) -> None:
        """Start the banks' processes anew, now with keys for secret sums."""
        peers = self.held.write_peers(self.parts)
        for bank in self.parts:
            self.held.stop(bank)
            file = self.held.folder / bank / "bank.json"
            before = BankFile.read(file)
            own = dataclasses.replace(before.bank, key=str(self.held.key(bank)), peers=str(peers))
            dataclasses.replace(before, bank=own).write(file)
            self.start_bank(bank)

    def train(self, name: str, settings: FederatedSettings) -> Path:
        """Do one run; a bank that is killed in it is started again afterwards."""
        out = self.held.folder / name
        file = ServerFile(
            settings=settings,
            out=str(out),
            task="sums",
            base=self.base,
            quantization="none",
            superlink=self.server.address,
            authority=str(self.held.authority),
            secret=str(self.server.secret),
            peers=str(self.held.folder / "peers.json") if settings.secure_aggregation else "",
        ).write(self.held.folder / "server.json")
        self.held.submit()
        home = self.held.folder / "server" / "flower"
        self.held.start("server", ["finlora", "federate", "server", str(file)], home=home)
        ended = self.held.processes["bank-1"]
        try:
            wait_for_server(self.held)
        except FinLoraError:
            # In one test the bank is killed; the run has to go on.
            assert ended.poll() is not None
            self.held.processes.pop("bank-1")
            wait_for_server(self.held)
            self.start_bank("bank-1")
        self.held.processes.pop("server")
        return out


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory, tiny_tokenizer) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=259, pad_token_id=2, **shape)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def all_parts() -> dict[str, list[Example]]:
    return {
        f"bank-{bank}": [
            Example(f"{word} times {i}?", f"{word[0]}{i}") for i in range(9) for word in ("net", "gross")
        ]
        for bank in range(3)
    }


@pytest.fixture(scope="module")
def federation(tmp_path_factory, base_folder, all_parts) -> Iterator[Federation]:
    with deployment(tmp_path_factory.mktemp("federation")) as held:
        yield Federation(held, base_folder, all_parts)


def simulated(
    base: Path, parts: dict[str, list[Example]], folder: Path, settings: FederatedSettings, grid=InProcessGrid
) -> Path:
    warm = WarmBase(load_base(str(base), "none", device="cpu"))
    return simulate(ServerJob(settings, folder / "out", "sums"), parts, warm, folder / "banks", grid=grid)


def assert_same_weights(actual: Path, expected: Path) -> None:
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (actual, expected))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_processes
def test_superlink_gives_the_bits_of_the_simulation(federation, base_folder, all_parts, tmp_path) -> None:
    out = federation.train("plain", PLAIN)
    assert_same_weights(out, simulated(base_folder, all_parts, tmp_path, PLAIN))
    assert (out / "audit.jsonl").read_text() == ""


@needs_processes
def test_private_run_gives_the_bits_of_the_simulation_with_the_same_noise(
    federation, base_folder, all_parts, tmp_path, monkeypatch
) -> None:
    pytest.importorskip("opacus")
    out = federation.train("private", PRIVATE)
    from finlora.experts.federated import simulation

    class SeededBank(simulation.Bank):
        def __init__(self, settings, warm, examples, **others) -> None:
            others["randomness"] = seeded_noise(settings.name)
            super().__init__(settings, warm, examples, **others)

    monkeypatch.setattr(simulation, "Bank", SeededBank)
    assert_same_weights(out, simulated(base_folder, all_parts, tmp_path, PRIVATE))


@needs_processes
@pytest.mark.parametrize("fault", FAULT_SEEDS)
def test_fault_over_the_superlink_is_as_if_the_bank_had_been_absent(
    federation, base_folder, all_parts, tmp_path, fault
) -> None:
    settings = dataclasses.replace(PLAIN, seed=FAULT_SEEDS[fault], timeout=30.0)
    out = federation.train(f"fault {fault}", settings)
    grid = type("Grid", (FaultyGrid,), {"fault": staticmethod(absent)})
    assert_same_weights(out, simulated(base_folder, all_parts, tmp_path, settings, grid))
    log = [json.loads(line) for line in (out / "audit.jsonl").read_text().splitlines()]
    assert (log[0]["round"], log[0]["bank"]) == (2, "bank-1")
    cause = {"raises": FAILURE, "NaN": "not finite", "inf": "not finite"}.get(fault, "No answer within 30 s")
    assert cause in log[0]["cause"]
    assert "4711" not in json.dumps(log)


@needs_processes
def test_bank_that_drops_after_key_sharing_is_left_out_of_the_secret_sum(
    federation, base_folder, all_parts, tmp_path
) -> None:
    settings = dataclasses.replace(PLAIN, seed=DROPS_AFTER_SHARING, secure_aggregation=True)
    federation.hide_updates()
    out = federation.train("secret", settings)
    grid = type("Grid", (FaultyGrid,), {"fault": staticmethod(absent)})
    assert_same_weights(out, simulated(base_folder, all_parts, tmp_path, settings, grid))
    rounds = json.loads((out / "expert.json").read_text())["federated"]["rounds"]
    assert [len(entry["banks"]) for entry in rounds] == [3, 2]


@needs_processes
@pytest.mark.parametrize("stranger", ["unregistered", "plaintext"])
def test_stranger_is_not_let_in(federation, stranger) -> None:
    held = federation.held
    plaintext = stranger == "plaintext"
    held.start_supernode(stranger, register=False, plaintext=plaintext)
    name = f"supernode {stranger}"
    end = time.monotonic() + 120
    while held.processes[name].poll() is None and time.monotonic() < end:
        time.sleep(0.5)
    log = held.log(name).read_text()
    held.stop(name)
    assert "SuperNode ID" not in log
    nodes = held.flwr("supernode", "list", "finlora")
    assert nodes.count("online") <= 3


@needs_processes
def test_expired_certificate_lets_nobody_in(tmp_path) -> None:
    with deployment(tmp_path) as held:
        held.start_superlink(days=-1)
        with pytest.raises(FinLoraError, match="failed"):
            held.flwr("supernode", "register", str(make_node_key(tmp_path / "node.key")), "finlora")
        held.start_supernode("bank-0", register=False)
        process = held.processes["supernode bank-0"]
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.5)
        assert "SuperNode ID" not in held.log("supernode bank-0").read_text()

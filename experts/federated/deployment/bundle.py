"""The bundle that Flower wants for a run, and how a run is submitted with it.

Flower ships an app's code to every node. Ours is installed at the server and at each bank, so the bundle
holds two names and no code; `tasks.py` never looks into it.
"""

from pathlib import Path

from ...atomic_write import write_text

CONNECTION = "finlora"
"""Name of the SuperLink in Flower's own configuration file."""

_PYPROJECT = """[project]
name = "finlora-federated"
version = "1.0.0"
description = "Names of the apps of a federated FinLoRA run; the apps themselves are installed with FinLoRA"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "finlora"

[tool.flwr.app.components]
serverapp = "installed:server"
clientapp = "installed:bank"
"""

_INSTALLED = '''"""Nothing is run from here: server and banks run the apps that they installed."""

server = None
bank = None
'''


def write_bundle(folder: Path) -> Path:
    """Write the folder that `flwr run` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "pyproject.toml", _PYPROJECT)
    write_text(folder / "installed.py", _INSTALLED)
    return folder


def write_flower_home(folder: Path, address: str, authority: Path) -> Path:
    """Write Flower's configuration of one SuperLink, for `flwr` commands with this folder as FLWR_HOME.

    Args:
        folder: The new home.
        address: host:port of the SuperLink.
        authority: Certificate to check its own by.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "[superlink]",
        f'default = "{CONNECTION}"',
        "",
        f"[superlink.{CONNECTION}]",
        f'address = "{address}"',
        f'root-certificates = "{authority.resolve()}"',
        "",
    ]
    write_text(folder / "config.toml", "\n".join(lines))
    return folder

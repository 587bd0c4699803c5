"""A kill in the middle of any change leaves the registry as before the change, or as after it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def test_kills_leave_the_state_before_or_after(written, saved_mixture, tmp_path):
    folder = tmp_path / "written"
    folder.mkdir()
    for name, path in written.items():
        shutil.copytree(path, folder / name)
    shutil.copytree(saved_mixture, folder / "mixture")
    script = Path(__file__).with_name("kill_everywhere.py")
    command = [sys.executable, script, tmp_path, folder, "300", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    killed = json.loads(result.stdout)
    assert killed["random"] == 2
    assert all(count >= 1 for count in killed.values())
    assert sum(killed.values()) >= 15

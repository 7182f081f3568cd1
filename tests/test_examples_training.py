"""The examples run, in a reduced form, and learn."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("script", "arguments", "largest_error"),
    [
        ("quickstart.py", ["0.2", "16"], 1.1),
        ("own_arrays.py", ["12"], 0.25),
        ("physics_only.py", ["4"], 0.6),
        ("particles.py", ["5"], 0.6),
        ("forces.py", ["5", "24"], 0.85),
        ("airfoil/lift.py", ["0.1", "32", "24"], 0.7),
    ],
)
def test_it_runs_and_learns(script, arguments, largest_error, tmp_path):
    command = [sys.executable, str(EXAMPLES / script), str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < largest_error


def test_uncertainty_is_calibrated_and_knows_its_range(tmp_path):
    command = [sys.executable, str(EXAMPLES / "uncertainty.py"), str(tmp_path), "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "ten times the load" in done.stdout and "out of range" in done.stdout and " ± " in done.stdout
    assert float(done.stdout.split()[-1]) > 0.7  # 90 % is promised on average over calibrations
    assert (tmp_path / "calibration.json").is_file()


def test_the_quickstart_is_short():
    lines = (EXAMPLES / "quickstart.py").read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.startswith(("import", "from", "#"))]
    assert len(code) < 40

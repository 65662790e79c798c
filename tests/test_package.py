"""What is installed is the package alone."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent

REUSE = """
import sys
import torch
import tta
from models import MINE
assert MINE == "a user's own module"
assert tta.__file__.startswith(sys.prefix), tta.__file__
nn = torch.nn
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 5))
online = tta.online(model, "sar", lr=1e-3)
assert online(torch.rand(2, 3, 8, 8)).shape == (2, 5)
assert "datamodules" not in sys.modules and "pytorch_lightning" not in sys.modules
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_tta_alone(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tta"}
    assert {"tta/py.typed", "tta/report/report.html", "tta/report/comparison.html"} <= set(names)


def test_the_installed_package_shadows_nothing(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    packages = next((environment / "lib").glob("python*")) / "site-packages"
    with ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Dependencies are borrowed from this environment, whose own link to the checkout is not followed.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    user = tmp_path / "user" / "models"
    user.mkdir(parents=True)
    (user / "__init__.py").write_text('MINE = "a user\'s own module"\n')
    script = tmp_path / "user" / "reuse.py"
    script.write_text(REUSE)
    done = subprocess.run([python, str(script)], cwd=script.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""The architecture as tests: what an import loads, and that no package shadows the standard library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import engram",
        "import engram.cli",
        "import engram.spec",
        "import engram.data",
        "import engram.federation.aggregator",
        "import engram.federation.websocket.server",
        "import engram.metrics.measures",
        "import engram.learning",
        "import engram.report",
        "import engram.importing.command",
        "import engram.sedna.estimator",
        "import engram.sedna.server",
        "import engram_kubectl.cli",
        "import engram_kubectl.edge",
    ],
)
def test_import_stays_light(statement: str) -> None:
    loaded = modules_after(statement)
    heavy = {"torch", "kopf", "kubernetes", "matplotlib", "sklearn", "PIL"}
    assert not loaded & heavy, f"{statement} loads {sorted(loaded & heavy)}"


def test_the_plug_in_works_without_kopf_and_torch() -> None:
    modules = ("looking", "logs", "reports", "waiting", "check.command")
    loaded = modules_after("import " + ", ".join(f"engram_kubectl.{name}" for name in modules))
    assert not loaded & {"torch", "kopf", "numpy", "matplotlib"}


def test_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_layers_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "engram" / "py.typed").is_file()

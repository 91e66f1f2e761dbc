from __future__ import annotations

import subprocess
import sys


def test_package_and_curriculum_load_no_torch() -> None:
    code = (
        "import sys, engram.learning as l; from engram.spec import FederatedIncrementalJob;"
        "job = FederatedIncrementalJob.model_validate({'metadata': {'name': 'a'}});"
        "assert l.curriculum(job, ((0, 1),))[0].rounds == 5;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

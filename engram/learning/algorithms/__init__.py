"""The algorithms, one file each, and how a job's `spec.algorithm` becomes an object."""

from __future__ import annotations

from pydantic import ValidationError

from engram.errors import ConfigurationError
from engram.learning.algorithm import Algorithm
from engram.learning.algorithms.bic import Bic
from engram.learning.algorithms.discmatch import DiscMatch
from engram.learning.algorithms.feddyn import FedDyn
from engram.learning.algorithms.fedewc import FedEwc
from engram.learning.algorithms.fedlwf import FedLwf
from engram.learning.algorithms.fedprox import FedProx
from engram.learning.algorithms.finetune import Finetune
from engram.learning.algorithms.fot import Fot
from engram.learning.algorithms.glfc import Glfc
from engram.learning.algorithms.icarl import Icarl
from engram.learning.algorithms.joint import Joint
from engram.learning.algorithms.lga import Lga
from engram.learning.algorithms.mfcl import Mfcl
from engram.learning.algorithms.replay import Replay
from engram.learning.algorithms.scaffold import Scaffold
from engram.learning.algorithms.semifci import FedCiMatch, SemiFci
from engram.learning.algorithms.target import Target
from engram.spec import FederatedIncrementalJob
from engram.spec.dotted import load_dotted, own_code

BUILT_IN: dict[str, type[Algorithm]] = {
    "finetune": Finetune,
    "joint": Joint,
    "fedprox": FedProx,
    "fedlwf": FedLwf,
    "fedewc": FedEwc,
    "replay": Replay,
    "icarl": Icarl,
    "glfc": Glfc,
    "lga": Lga,
    "bic": Bic,
    "semifci": SemiFci,
    "fedcimatch": FedCiMatch,
    "discmatch": DiscMatch,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "fot": Fot,
    "target": Target,
    "mfcl": Mfcl,
}


def algorithm_class(job: FederatedIncrementalJob) -> type[Algorithm]:
    """Return the class that `spec.algorithm.name` names.

    Raises ConfigurationError when a dotted path does not lead to a subclass of Algorithm.
    """
    name = job.spec.algorithm.name
    if name in BUILT_IN:
        return BUILT_IN[name]
    found = load_dotted(name, "spec.algorithm.name")
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise ConfigurationError(
            f"{name} is not an algorithm",
            field="spec.algorithm.name",
            remedy="make it a subclass of engram.learning.algorithm.Algorithm",
        )
    return found


def build_algorithm(job: FederatedIncrementalJob) -> Algorithm:
    """Return a new object of the job's algorithm with its checked parameters.

    Raises ConfigurationError that names the first wrong parameter, or shows where the user's class failed.
    """
    kind = algorithm_class(job)
    try:
        parameters = kind.Parameters.model_validate(job.spec.algorithm.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"{first['msg']} (got {first['input']!r})",
            field=f"spec.algorithm.parameters.{place}",
            remedy=f"known: {', '.join(sorted(kind.Parameters.model_json_schema().get('properties', {})))}",
        ) from error
    with own_code(job.spec.algorithm.name, "spec.algorithm.name"):
        return kind(parameters)

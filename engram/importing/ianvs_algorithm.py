"""An Ianvs algorithm file: paradigm, data setting, modules with their hyperparameters.

Ianvs names Python files that do the work; here their names are looked up and their hyperparameters mapped.
What several algorithm files say is brought together by `assemble`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engram.importing.counterparts import (
    OWN_CODE,
    Counterpart,
    aggregation_of,
    algorithm_of,
    parameter_field,
    training_field,
)
from engram.importing.draft import Draft, accepts, check_value
from engram.importing.ledger import Document, Reading
from engram.spec.algorithms import ALGORITHMS
from engram.spec.parameters import AGGREGATIONS
from engram.spec.problems import shown

FEDERATED, INCREMENTAL, LIFELONG = (
    "federatedlearning",
    "federatedclassincrementallearning",
    "lifelonglearning",
)
PARADIGMS = (FEDERATED, INCREMENTAL, LIFELONG)

SAME = "the same as in the first algorithm"
DIFFERENT = "differs from the first algorithm, and a job has one value: import it without the others"

OTHER_MODULES: Mapping[str, str] = {
    "hard_example_mining": "every sample is trained on where it is",
    "dataset_processor": f"a data set of your own may do it; {OWN_CODE}",
}


class Follows(Protocol):
    """What finds the files that a file names."""

    def follow(self, reference: Reading) -> Document:
        """Return the document of the file that `reference` names, or raise ConfigurationError."""

    def data_path(self, written: str) -> str:
        """Return a relative path of the input as the job must write it."""


@dataclass(frozen=True)
class Setting:
    """A field of the job and the values that an algorithm file gives it: the first, and those to vary."""

    field: str
    values: tuple[Any, ...]
    reading: Reading
    remark: str = ""


@dataclass
class Facts:
    """What one algorithm file says."""

    paradigm: str
    scenario: Reading
    """The value that says the paradigm."""
    settings: list[Setting] = field(default_factory=list)
    model_url: Reading | None = None


def read_algorithm(item: Reading, files: Follows) -> Facts:
    """Return what the file that `item` of `test_object.algorithms` names says.

    Raises ConfigurationError for a paradigm that has no counterpart, and for values of the wrong kind.
    """
    body = opened(item["url"], files)["algorithm"]
    if not body.mapping():
        raise body.error("is missing", f"name an Ianvs algorithm file in {item['url'].field}")
    facts = Facts(_paradigm(body["paradigm_type"]), body["paradigm_type"])
    _read_data_setting(body, facts)
    facts.model_url = body["initial_model_url"]
    _read_modules(body["modules"], item["name"], facts, files)
    for key in ("third_party_packages", "mode", "quantization_type", "llama_quantize_path"):
        body[key].left("it belongs to Ianvs' own code")
    return facts


def opened(reference: Reading, files: Follows) -> Reading:
    """Return the file that `reference` names, whose values are accounted for from now on."""
    document = files.follow(reference)
    same = posixpath.normpath(reference.text()) == document.file
    reference.becomes(f"read: {document.file}", "" if same else "found there, as a moved file")
    return reference.ledger.open(document)


def assemble(draft: Draft, algorithms: Sequence[Facts]) -> list[str]:
    """Write the first algorithm into `draft`; return a `--vary` value for each field with several values.

    What the other algorithms say is the same, becomes a value to vary (their names), or is left.
    """
    varied: dict[str, list[Any]] = {}
    chosen: dict[str, Setting] = {}
    for setting in algorithms[0].settings:
        if setting.field in chosen:
            setting.reading.left(
                f"{setting.field} has a value already, from {chosen[setting.field].reading.field}"
            )
            continue
        chosen[setting.field] = setting
        for value in setting.values:
            check_value(setting.field, value, setting.reading)
        draft.fill(setting.field, setting.values[0], setting.reading, setting.remark)
        varied[setting.field] = list(dict.fromkeys(setting.values))
    algorithms[0].scenario.becomes("spec.tasks and spec.workers")
    for other in algorithms[1:]:
        if other.paradigm == algorithms[0].paradigm:
            other.scenario.becomes("spec.tasks and spec.workers", SAME)
        else:
            other.scenario.left(DIFFERENT)
        for setting in other.settings:
            _compare(setting, chosen, varied)
    return [_vary(name, values) for name, values in varied.items() if len(values) > 1]


def _compare(setting: Setting, chosen: Mapping[str, Setting], varied: dict[str, list[Any]]) -> None:
    first = chosen.get(setting.field)
    if first is not None and first.values == setting.values:
        setting.reading.becomes(setting.field, SAME)
    elif first is not None and setting.field == "spec.algorithm.name":
        setting.reading.becomes(f"--vary {_option(setting.field)}", setting.remark)
        varied[setting.field] += [value for value in setting.values if value not in varied[setting.field]]
    else:
        setting.reading.left(DIFFERENT)


def _paradigm(reading: Reading) -> str:
    paradigm = reading.text()
    if paradigm not in PARADIGMS:
        problem = f"{shown(paradigm)} has no counterpart" if paradigm else "is missing"
        raise reading.error(problem, f"engram imports {', '.join(PARADIGMS)}")
    return paradigm


def _read_data_setting(body: Reading, facts: Facts) -> None:
    """`fl_data_setting`: who holds what, and how much of it is labelled."""
    for key in ("fl_data_setting", "lifelong_learning_data_setting", "incremental_learning_data_setting"):
        setting = body[key]
        ratio = setting["train_ratio"]
        if ratio.number() == 1:
            remark = "nothing is held out of the training data"
            facts.settings.append(Setting("spec.dataset.validationShare", (0,), ratio, remark))
        else:
            ratio.left("engram trains on all; dataset.samplesPerClass caps, validationShare holds out")
        setting["splitting_method"].left("spec.tasks cuts the data by class, not by line of the index")
    setting = body["fl_data_setting"]
    labels = setting["label_data_ratio"]
    if facts.paradigm != INCREMENTAL:
        labels.left("no effect in Ianvs' own code of this paradigm")
    elif labels.present:
        remark = "Ianvs labels the first samples of each client, engram draws them for each class"
        facts.settings.append(Setting("spec.dataset.labelRatio", (labels.numeric(),), labels, remark))
    _read_partition(setting, facts)


def _read_partition(setting: Reading, facts: Facts) -> None:
    partition, ratio = setting["data_partition"], setting["non_iid_ratio"]
    written = partition.text()
    if written not in ("", "iid", "non-iid"):
        raise partition.error(f"{shown(written)} is not known to Ianvs", "write iid or non-iid")
    method, remark = "iid", ""
    if written == "non-iid":
        method = "shards"
        remark = "nearest: Ianvs draws a set of classes for each client; dirichlet is another way"
        ratio.left("with shards each worker has two label-sorted shards of each task")
    else:
        ratio.left("no effect with iid")
    if written:
        facts.settings.append(Setting("spec.dataset.partition.method", (method,), partition, remark))


def _read_modules(modules: Reading, called: Reading, facts: Facts, files: Follows) -> None:
    """The modules: basemodel is the algorithm, aggregation the rule; the rest has no counterpart.

    `called`: the algorithm's name in the benchmarking job, which counts where the basemodel's says nothing.
    """
    names = [module["name"] for module in modules.items() if module["type"].text() == "basemodel"]
    algorithm = _algorithm([reading for reading in (*names, called) if reading.text()], facts)
    for module in modules.items():
        kind = module["type"].text()
        if kind == "basemodel":
            module["type"].becomes("spec.algorithm")
            look = _algorithm_fields(algorithm)
        elif kind == "aggregation":
            module["type"].becomes("spec.aggregation")
            look = _rule_fields(_rule(module["name"], facts))
        else:
            module.left(OTHER_MODULES.get(kind, "tasks are classes, in the order of the job"))
            continue
        module["url"].left(f"its code is not run; {OWN_CODE}")
        _read_hyperparameters(module["hyperparameters"], look, facts, files)


def _algorithm(named: Sequence[Reading], facts: Facts) -> str:
    """Decide by the names given which algorithm is the nearest."""
    none = f"no counterpart is known: plain federated averaging; {OWN_CODE}"
    taken = algorithm_of(reading.text() for reading in named) or Counterpart("finetune", none)
    for reading in named[:1]:
        facts.settings.append(Setting("spec.algorithm.name", (taken.name,), reading, taken.remark))
    for reading in named[1:]:
        reading.becomes("spec.algorithm.name", "beside the name of the basemodel")
    return taken.name


def _rule(named: Reading, facts: Facts) -> str:
    """Decide by its name which aggregation rule it is."""
    none = f"no counterpart is known: the weighted average; {OWN_CODE}"
    taken = aggregation_of(named.text()) or Counterpart("fedavg", none)
    if named.present:
        facts.settings.append(Setting("spec.aggregation.name", (taken.name,), named, taken.remark))
    return taken.name


def _algorithm_fields(algorithm: str) -> Callable[[str], str]:
    return lambda name: (
        training_field(name) or parameter_field(name, "spec.algorithm.parameters", ALGORITHMS[algorithm])
    )


def _rule_fields(rule: str) -> Callable[[str], str]:
    return lambda name: parameter_field(name, "spec.aggregation.parameters", AGGREGATIONS[rule])


def _read_hyperparameters(listed: Reading, look: Callable[[str], str], facts: Facts, files: Follows) -> None:
    """Every hyperparameter for which `look` has a field of the job; the others are the module's own."""
    for name, values in _named_values(listed, files):
        target = look(name)
        numbers = tuple(_value(target, item) for item in (values.items() if _is_list(values) else [values]))
        if not target:
            values.left(f"only the module's own code knows it; {OWN_CODE}")
        elif not numbers:
            values.left("has no value")
        elif None in numbers:
            values.left(f"{target} takes no such value")
        else:
            several = f"the others: --vary {_option(target)}" if len(set(numbers)) > 1 else ""
            facts.settings.append(Setting(target, numbers, values, several))


def _named_values(listed: Reading, files: Follows) -> Iterator[tuple[str, Reading]]:
    """Yield each hyperparameter with the reading of its values, those of further files included."""
    for item in listed.items():
        for name, reading in item.mapping().items():
            values = reading["values"] if isinstance(reading.value, Mapping) else reading
            if name != "other_hyperparameters":
                yield name, values
                continue
            for reference in values.items():
                yield from opened(reference, files).mapping().items()


def _value(target: str, reading: Reading) -> Any:
    """Return the value of a hyperparameter as `target` takes it, None where it takes no such thing."""
    if target == "spec.training.optimizer.name":
        name = reading.value.lower() if isinstance(reading.value, str) else ""
        return name if accepts(target, name) else None
    return reading.number()


def _is_list(reading: Reading) -> bool:
    return isinstance(reading.value, list)


def _option(target: str) -> str:
    """Return a field of the job as `--vary` wants it."""
    return target.removeprefix("spec.")


def _vary(target: str, values: Sequence[Any]) -> str:
    return f"{_option(target)}={','.join(map(str, values))}"

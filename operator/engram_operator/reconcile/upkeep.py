"""The objects of a run under way: what is missing comes back, what differs is applied, Jobs rest or go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engram.errors import ConfigurationError
from engram.spec.names import Reason
from engram_operator.manifests import Context, build_children, job_patch
from engram_operator.manifests.build import Children
from engram_operator.manifests.names import credentials_name, worker_tokens_name
from engram_operator.model import Object, Patch, Plan, Removal
from engram_operator.reconcile.children import changed, first_objects
from engram_operator.reconcile.run import Run
from engram_operator.status.finding import OBJECTS, Finding

SOON = 0.2
"""Seconds after which what was just made or written is looked at."""


def keep_up(run: Run) -> tuple[Plan, tuple[Finding, ...]]:
    """Return what is missing or differs, and why it cannot be made.

    Nothing is made of an incomplete look, nor in a namespace that goes. What is not ours is left alone.
    """
    observed = run.observed
    if not observed.complete:
        return Plan(), ()
    if observed.namespace_terminating:
        words = (
            "the namespace is being deleted and nothing is made any more: apply the job in another namespace"
        )
        return Plan(), (Finding(Reason.NAMESPACE_TERMINATING, words, OBJECTS),)
    stale = stale_secrets(run) if run.at_rest else ()
    if stale:
        return Plan(delete=stale, wake_after=SOON), ()
    if run.credentials is None:
        return Plan(patch=job_patches(run, suspend=False)), ()
    try:
        context = Context(run.settings, run.credentials, run.endpoints(), run.held.replicas)
        children = build_children(run.held.job, context)
    except ConfigurationError as error:
        # Only after an upgrade to an operator that refuses what an older one made: what runs goes on.
        found = Finding(Reason.INVALID_SPEC, str(error), OBJECTS)
        return Plan(patch=job_patches(run, suspend=False)), (found,)
    plan = _without_secret(run, children) if run.lost and not run.at_rest else _all(run, children)
    return _leaving_alone(plan, observed.foreign)


def _all(run: Run, children: Children) -> Plan:
    return replace(first_objects(children, run.observed), patch=job_patches(run, suspend=False))


def _without_secret(run: Run, children: Children) -> Plan:
    """Return what can be made although the key is lost: nothing that is derived from it, and no growth."""
    tokens = {**children.worker_tokens, "data": {}}
    missing = (item for item in children.jobs if item["metadata"]["name"] not in run.observed.jobs)
    return Plan(
        apply=changed(replace(children, worker_tokens=tokens), run.observed, config=False),
        create=tuple(missing),
        patch=job_patches(run, suspend=False, scale=False),
    )


def stale_secrets(run: Run) -> tuple[Removal, ...]:
    """Return the Secrets of a run that rests which must go before it gets a new key: none unless it lost it.

    What tokens were derived from cannot be seen, so those of the old key go before the new one exists: a
    crash in between leaves no tokens rather than wrong ones.
    """
    if not (run.lost and run.observed.complete):
        return ()
    names = (worker_tokens_name(run.name), credentials_name(run.name))
    return tuple(Removal("Secret", name) for name in names if name in run.observed.secrets)


def _leaving_alone(plan: Plan, foreign: Sequence[str]) -> tuple[Plan, tuple[Finding, ...]]:
    """Return the plan without objects that somebody else has put under our names."""
    if not foreign:
        return plan, ()
    words = (
        f"{', '.join(sorted(foreign)[:5])} of this namespace is not this job's and is left alone: remove it, "
        "and the job's own comes back"
    )

    def ours(item: Object) -> bool:
        return f"{item['kind']}/{item['metadata']['name']}" not in foreign

    kept = replace(plan, apply=tuple(filter(ours, plan.apply)), create=tuple(filter(ours, plan.create)))
    return kept, (Finding(Reason.NAME_CONFLICT, words, OBJECTS),)


def job_patches(run: Run, *, suspend: bool, scale: bool = True) -> tuple[Patch, ...]:
    """Return what brings the batch Jobs to rest or back, and to their number of workers."""
    found = []
    for group, name in run.job_names.items():
        job = run.observed.jobs.get(name)
        count = run.held.replicas[group] if group else 1
        if job is not None:
            found.append(job_patch(job, suspend=suspend, replicas=count if scale else job.completions))
    return tuple(patch for patch in found if patch is not None)

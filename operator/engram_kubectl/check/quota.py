"""Whether a namespace's quotas leave room for all pods of a job at once. Pure.

One pod of each kind is shown to the API server itself (`dry_run`), which knows LimitRanges and Pod Security;
what only shows with the last replica is counted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from engram.spec.names import MAIN_CONTAINER
from engram.spec.quantities import parse_quantity
from engram_kubectl.check.facts import Facts
from engram_kubectl.check.findings import Found, fail, ok, unreadable
from engram_kubectl.check.pods import PodSet
from engram_operator.model import Object

PODS = ("pods", "count/pods")
LEVEL = "pod-security.kubernetes.io/enforce"


def check_namespace(facts: Facts, namespace: str) -> Found:
    """Say whether the namespace is there, and which Pod Security level it enforces."""
    if facts.namespace_missing:
        return fail(
            "namespace", f"there is no namespace {namespace}", f"kubectl create namespace {namespace}"
        )
    if facts.namespace is None:
        return unreadable("namespace", "Namespaces")
    if (facts.namespace.get("status") or {}).get("phase") == "Terminating":
        return fail("namespace", f"{namespace} is being deleted", "apply the job in another namespace")
    level = (facts.namespace["metadata"].get("labels") or {}).get(LEVEL) or "none"
    return ok("namespace", f"{namespace}, Pod Security enforced: {level}")


def check_quota(sets: Sequence[PodSet], facts: Facts) -> list[Found]:
    """Judge each quota of the namespace that counts pods or what they ask for."""
    if facts.quotas is None:
        return [unreadable("quota", "ResourceQuotas")]
    if not facts.quotas:
        return [ok("quota", "the namespace has none")]
    needed = demand(sets)
    return [_quota(item, needed) for item in facts.quotas]


def demand(sets: Sequence[PodSet]) -> dict[str, Decimal]:
    """Return what all pods together ask for, by the names that quotas use."""
    total: dict[str, Decimal] = {}
    for wanted in sets:
        for name, amount in {**_limits(wanted), **_requests(wanted)}.items():
            total[name] = total.get(name, Decimal(0)) + amount * wanted.replicas
    count = Decimal(sum(wanted.replicas for wanted in sets))
    return {**total, **dict.fromkeys(PODS, count)}


def _requests(wanted: PodSet) -> dict[str, Decimal]:
    found = {}
    for name, amount in wanted.requests().items():
        found[f"requests.{name}"] = amount
        if name in ("cpu", "memory"):
            found[name] = amount
    return found


def _limits(wanted: PodSet) -> dict[str, Decimal]:
    main: Object = next(
        (item for item in wanted.spec["containers"] if item.get("name") == MAIN_CONTAINER), {}
    )
    limits = (main.get("resources") or {}).get("limits") or {}
    return {f"limits.{name}": parse_quantity(amount) for name, amount in limits.items()}


def _quota(quota: Object, needed: dict[str, Decimal]) -> Found:
    name, status = quota["metadata"]["name"], quota.get("status") or {}
    hard, used = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}, status.get("used") or {}
    short = []
    for resource, bound in hard.items():
        if resource in needed and not (quota.get("spec") or {}).get("scopes"):
            free = parse_quantity(bound) - parse_quantity(used.get(resource, "0"))
            if needed[resource] > free:
                short.append(f"{resource}: {_plain(needed[resource])} needed, {_plain(free)} of {bound} free")
    if short:
        return fail(
            f"quota: {name}",
            "; ".join(short),
            "have the quota raised, or lower replicas and resources",
        )
    return ok(f"quota: {name}", "leaves room for all pods")


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():f}"

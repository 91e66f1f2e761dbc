"""Where files are looked for, and files that cannot be read: one sentence, and never an endless read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engram.errors import ConfigurationError
from engram.importing.files import LARGEST, MOST_LEAVES, Files, read_documents
from engram.importing.ledger import Document, Ledger, Reading


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with an example two folders deep; the working directory is another one beside it."""
    example = tmp_path / "checkout" / "examples" / "digits"
    (example / "testenv").mkdir(parents=True)
    (example / "bench.yaml").write_text("benchmarkingjob: {}\n")
    (example / "testenv" / "testenv.yaml").write_text("testenv: {}\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "checkout"


def reference(written: str) -> Reading:
    return Ledger().open(Document("bench.yaml", {"testenv": written}))["testenv"]


def files(repository: Path, out: Path | None = None) -> Files:
    return Files(repository / "examples" / "digits" / "bench.yaml", out)


@pytest.mark.parametrize(
    "written",
    [
        "./examples/digits/testenv/testenv.yaml",
        "examples/digits/testenv/testenv.yaml",
        "./testenv/testenv.yaml",
        "/home/author/ianvs/examples/digits/testenv/testenv.yaml",
        "/home/author/somewhere/testenv/testenv.yaml",
        "./examples/moved/testenv/testenv.yaml",
    ],
)
def test_a_file_is_found_wherever_the_checkout_lies(repository: Path, written: str) -> None:
    document = files(repository).follow(reference(written))
    assert document.value == {"testenv": {}}
    assert document.file == str(repository / "examples" / "digits" / "testenv" / "testenv.yaml")


def test_the_working_directory_comes_first_as_with_ianvs(repository: Path) -> None:
    here = Path("testenv")
    here.mkdir()
    (here / "testenv.yaml").write_text("testenv: {here: true}\n")
    assert files(repository).follow(reference("./testenv/testenv.yaml")) == Document(
        "testenv/testenv.yaml", {"testenv": {"here": True}}
    )


@pytest.mark.parametrize("written", ["./none.yaml", "/none.yaml", "a/../none.yaml", "x" * 5000, "a\0b"])
def test_a_file_that_is_nowhere(repository: Path, written: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        files(repository).follow(reference(written))
    assert str(caught.value).startswith("bench.yaml: testenv: ")
    assert "was not found" in str(caught.value)
    assert "run the command where ianvs is run, or correct the path" in str(caught.value)


def test_a_folder_is_no_file(repository: Path) -> None:
    Path("folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"testenv: 'folder' is a directory: name the file in it"):
        files(repository).follow(reference("folder"))


def test_a_reference_without_a_path(repository: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"testenv: is missing: write the path of a YAML file"):
        files(repository).follow(reference(""))


def test_a_reference_to_several_documents(repository: Path) -> None:
    Path("two.yaml").write_text("a: 1\n---\nb: 2\n")
    with pytest.raises(
        ConfigurationError, match=r"two.yaml: found 2 documents where one is meant: testenv names"
    ):
        files(repository).follow(reference("two.yaml"))


@pytest.mark.parametrize(
    ("out", "written", "path"),
    [
        (None, "./data/x", "./data/x"),
        (None, "/data/x", "/data/x"),
        ("job.yaml", "data/x", "data/x"),
        ("jobs/job.yaml", "data/x", "../data/x"),
        ("jobs/job.yaml", "/data/x", "/data/x"),
    ],
)
def test_data_paths_start_at_the_folder_of_the_job(
    repository: Path, out: str | None, written: str, path: str
) -> None:
    Path("jobs").mkdir()
    assert files(repository, Path(out) if out else None).data_path(written) == path


def test_data_paths_start_where_the_other_files_were_found(repository: Path) -> None:
    found = files(repository)
    found.follow(reference("./examples/digits/testenv/testenv.yaml"))
    assert found.data_path("./data/x") == "../checkout/data/x"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f: is empty: name a file with a YAML document"),
        (b"# nothing\n---\n", "f: is empty"),
        (b"a: [\n", "f: line 2, column 1: not YAML"),
        (b"\xff\xfe", "f: byte 0 is not UTF-8: save the file as UTF-8 text"),
        (b"a" * (LARGEST + 1), f"f: has {LARGEST + 1:,} bytes: name a job's file"),
        (b"- 1\n" * (MOST_LEAVES + 1), f"f: holds {MOST_LEAVES + 1:,} values: name a file with at most"),
        (b"[" * 500 + b"]" * 500, "f: "),
        (b"a: !!python/object:os.system x\n", "f: line 1, column 4: the tag"),
    ],
)
def test_files_that_are_no_input(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_documents(path, "f")
    assert str(caught.value).startswith(message)


def test_things_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("pipe", "x: is no regular file: save it as a file"),
        (".", "x: is a directory: name the file in it"),
        ("none", "x: no such file: check the path"),
        ("n" * 5000, "x: cannot be read: File name too long"),
        ("a\0b", "x: is no path"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            read_documents(tmp_path / name, "x")
        assert str(caught.value).startswith(message)
    for endless in ("/dev/zero", "/dev/stdin"):
        with pytest.raises(ConfigurationError, match=r"no regular file|no such file|cannot be read"):
            read_documents(Path(endless), "x")


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_documents(tmp_path / "f", "f") == [{"a": 1}]


def test_documents_of_one_file_have_numbers(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a: 1\n---\n---\nb: 2\n")
    assert [document.file for document in Files(tmp_path / "f", None).first()] == [
        f"{tmp_path / 'f'}: document 1",
        f"{tmp_path / 'f'}: document 2",
    ]

"""Reading files line by line, element by element, packed or not, against reading them whole."""

from __future__ import annotations

import gzip
import json
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offprint.daily.importing import files, json_records
from offprint.daily.importing.files import Line, SourceFile, identity
from offprint.daily.importing.json_records import array_values

CONTENT = b"first\n\nthird \xff\r\nfourth without an end"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('"\\[]{},\né', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
files_at_random = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def packed(folder: Path, how: str, content: bytes) -> Path:
    path = folder / f"{how}.data"
    if how == "gzip":
        path.write_bytes(gzip.compress(content))
    elif how == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("snapshot.json", content)
    else:
        path.write_bytes(content)
    return path


def lines(path: Path, position: int = 0, number: int = 0) -> list[Line]:
    with closing(SourceFile(path)) as file:
        return list(file.lines(position, number))


@pytest.mark.parametrize("how", ["plain", "gzip", "zip"])
def test_lines_are_the_same_however_the_file_is_packed_and_wherever_one_begins(how: str, tmp_path: Path) -> None:
    found = lines(packed(tmp_path, how, CONTENT))
    assert [line.content for line in found] == CONTENT.splitlines(keepends=True)
    assert [line.number for line in found] == [1, 2, 3, 4]
    assert found[-1].position == len(CONTENT)
    for number, line in enumerate(found, start=1):
        assert lines(packed(tmp_path, how, CONTENT), line.position, line.number) == found[number:]


def test_of_an_endless_line_only_the_start_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    path = packed(tmp_path, "plain", b"a\n" + b"x" * 25_000 + b"\nlast\n" + b"y" * 999 + b"\n")
    found = lines(path)
    assert [(line.number, len(line.content), bool(line.fault)) for line in found] == [
        (1, 2, False),
        (2, 1000, True),
        (3, 5, False),
        (4, 1000, False),
    ]
    assert found[1].position == 25_003
    assert lines(path, found[1].position, 2) == found[2:]


@pytest.mark.parametrize("how", ["gzip", "zip"])
def test_what_comes_before_the_damage_is_read_and_the_damage_is_named(how: str, tmp_path: Path) -> None:
    content = b"".join(b"%d\n" % number for number in range(100_000))
    path = packed(tmp_path, how, content)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    if how == "zip":
        whole[middle : middle + 40] = bytes(40)
    path.write_bytes(whole if how == "zip" else whole[:middle])
    found = lines(path)
    assert found[-1].fault.startswith("the file is damaged from here on")
    read = b"".join(line.content for line in found)
    assert 1000 < len(read) < len(content)
    assert content.startswith(read[:1000])


def test_packings_that_are_not_read_are_refused_in_words(tmp_path: Path) -> None:
    several = tmp_path / "several.zip"
    with zipfile.ZipFile(several, "w") as archive:
        archive.writestr("a.json", "{}")
        archive.writestr("b.json", "{}")
    with pytest.raises(ValueError, match="holds 2 files"):
        SourceFile(several)
    (tmp_path / "new.zst").write_bytes(b"\x28\xb5\x2f\xfd rest")
    with pytest.raises(ValueError, match="unpack it first"):
        SourceFile(tmp_path / "new.zst")
    (tmp_path / "cut.zip").write_bytes(several.read_bytes()[:60])
    with pytest.raises(ValueError, match="damaged"):
        SourceFile(tmp_path / "cut.zip")


def test_a_file_is_known_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"other"), ("d", b"sam")):
        (tmp_path / name).write_bytes(content)
    names = [identity(tmp_path / name, "kind") for name in "abcd"]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert identity(tmp_path / "a", "another kind") != names[0]


@files_at_random
@given(items=st.lists(values, max_size=5), indent=st.sampled_from([None, 2]), chunk=st.integers(1, 40))
def test_the_elements_of_an_array_are_those_that_json_finds(
    items: list[object], indent: int | None, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the file is cut into chunks, and from wherever one goes on; each with the line it begins on."""
    monkeypatch.setattr(json_records, "_CHUNK", chunk)
    text = json.dumps(items, indent=indent)
    path = packed(tmp_path, "plain", text.encode())
    with closing(SourceFile(path)) as file:
        found = list(array_values(file))
    assert [json.loads(line.content) for line in found] == items
    for number, line in enumerate(found):
        assert line.content.strip().decode().splitlines()[0] in text.splitlines()[line.begun - 1]
        with closing(SourceFile(path)) as file:
            assert list(array_values(file, line.position, line.number)) == found[number + 1 :]


@files_at_random
@given(content=st.binary(max_size=300) | st.text(alphabet='[]{}",:\\\n a1', max_size=80).map(str.encode))
def test_no_array_is_too_broken(content: bytes, tmp_path: Path) -> None:
    with closing(SourceFile(packed(tmp_path, "plain", b"[" + content))) as file:
        found = list(array_values(file))
    positions = [line.position for line in found]
    assert positions == sorted(positions)
    assert all(line.content.strip() for line in found)


def test_a_giant_element_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "LONGEST_LINE", 100)
    monkeypatch.setattr(json_records, "_CHUNK", 64)
    path = packed(tmp_path, "plain", json.dumps(["x" * 1000, {"a": 1}]).encode())
    with closing(SourceFile(path)) as file:
        first, second = array_values(file)
    assert "longer" in first.fault
    assert len(first.content) <= 100
    assert json.loads(second.content) == {"a": 1}

"""Adult: small files written here in the official layout, and as a CSV file with a header."""

from __future__ import annotations

import numpy as np
import pytest

from offprint.data import MissingDataError, load

TRAIN = """\
39, State-gov, 77516, Masters, 14, Widowed, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K
18, ?, 10, HS-grad, 9, Divorced, ?, Wife, Other, Female, 0, 7, 20, ?, >50K

"""
TEST = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Divorced, Machine-op-inspct, Own-child, Black, Male, 0, 0, 40, Trinadad&Tobago, <=50K.
"""
HEADER = (
    "age,workclass,fnlwgt,education,education-num,marital-status,occupation,relationship,race,sex,"
    "capital-gain,capital-loss,hours-per-week,native-country,income-per-year\n"
)


def write(root, **files):
    (root / "adult").mkdir(exist_ok=True)
    for name, content in files.items():
        (root / "adult" / name.replace("_", ".")).write_text(content)
    return root


def test_official_files_come_back_as_columns(tmp_path):
    write(tmp_path, adult_data=TRAIN, adult_test=TEST)
    train, test, whole = (load("adult", split, root=tmp_path) for split in ("train", "test", "all"))
    assert train.inputs["age"].tolist() == [39, 18]
    assert train.inputs["age"].dtype == np.float64
    assert train.inputs["workclass"].tolist() == ["State-gov", ""]
    assert train.inputs["native-country"].tolist() == ["United-States", ""]
    assert train.targets.tolist() == [0, 1]
    assert test.inputs["native-country"].tolist() == ["Trinadad&Tobago"]
    assert test.targets.tolist() == [0]
    assert len(whole) == 3
    assert whole.features == train.inputs.dtype.names
    assert len(train.features) == 14
    assert train.take([1]).inputs["sex"].tolist() == ["Female"]
    with pytest.raises(TypeError, match="encoding='one_hot'"):
        train.tensors()


def test_a_csv_file_stands_for_the_training_part(tmp_path):
    write(tmp_path, adult_csv=HEADER + TRAIN.replace(", ", ",").strip())
    data = load("adult", root=tmp_path)
    assert data.split == "train"
    assert data.inputs["hours-per-week"].tolist() == [40, 20]
    assert data.targets.tolist() == [0, 1]
    with pytest.raises(MissingDataError, match=r"adult/adult\.test"):
        load("adult", "test", root=tmp_path)
    write(tmp_path, adult_test=TEST)
    assert len(load("adult", "all", root=tmp_path)) == 3


def test_one_hot_columns_mark_categories_and_leave_the_missing_at_zero(tmp_path):
    write(tmp_path, adult_data=TRAIN.replace("18, ?", "?, ?"))
    columns, data = (load("adult", root=tmp_path, encoding=encoding) for encoding in ("columns", "one_hot"))
    assert np.isnan(columns.inputs["age"][1])
    assert data.inputs.shape == (2, 105) == (2, len(data.features))
    row = dict(zip(data.features, data.inputs[0], strict=True))
    assert (row["age"], row["capital-gain"]) == (39, 2174)
    marked = {name for name, value in row.items() if "=" in name and value == 1}
    assert marked == {
        f"{name}={columns.inputs[name][0]}" for name in columns.features if columns.inputs[name].dtype.kind == "U"
    }
    missing = dict(zip(data.features, data.inputs[1], strict=True))
    assert (
        sum(value for name, value in missing.items() if name.startswith(("workclass=", "occupation=", "native-"))) == 0
    )
    assert sum(value for name, value in missing.items() if name.startswith("race=")) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TRAIN.replace(", 14,", ","), "adult.data, line 1 must hold 15 values; it holds 14"),
        (TRAIN.replace("HS-grad", "GCSE"), "adult.data, line 2 must hold a known education; it holds 'GCSE'"),
        (TRAIN.replace("39,", "old,"), "adult.data, line 1 must hold a whole number for age; it holds 'old'"),
        (TRAIN.replace(">50K", "rich"), "adult.data, line 2 must end with <=50K or >50K; it ends with 'rich'"),
        ("", "adult.data holds no rows"),
    ],
)
def test_malformed_lines_are_named(tmp_path, content, words):
    write(tmp_path, adult_data=content)
    with pytest.raises(ValueError, match=words):
        load("adult", root=tmp_path)


def test_a_csv_file_without_its_header_and_an_unknown_encoding_are_refused(tmp_path):
    write(tmp_path, adult_csv=TRAIN)
    with pytest.raises(ValueError, match=r"adult\.csv, line 1 must name the columns age, "):
        load("adult", root=tmp_path)
    with pytest.raises(ValueError, match="encoding must be 'columns' or 'one_hot'; got 'ordinal'"):
        load("adult", root=tmp_path, encoding="ordinal")

"""The user's own numbers: csv and numpy."""

import numpy as np
import pytest
import torch

from accel_cli.data.base import SPLITS
from accel_cli.errors import ConfigError

IRIS = "length;width;kind\n" + "".join(
    f"{i},5;{i % 7};{'setosa' if i % 2 else 'virginica'}\n".replace(",", ".") for i in range(40)
)


@pytest.fixture
def table(make, tmp_path):
    def table(text, **values):
        path = tmp_path / "table.csv"
        path.write_text(text, encoding="utf-8")
        return make("csv", path=str(path), cache=str(tmp_path / "cache"), **{"target": "kind"} | values)

    return table


@pytest.fixture
def arrays(make, tmp_path):
    def arrays(values=None, **stored):
        path = tmp_path / "arrays.npz"
        np.savez(path, **stored)
        return make("numpy", path=str(path), cache=str(tmp_path / "cache"), **values or {})

    return arrays


def problems(data):
    with pytest.raises(ConfigError) as refusal:
        data.describe()
    return "\n".join(f"{p.where} | {p.why} | {p.fix}" for p in refusal.value.problems)


def everything(data):
    parts = [data.split(name).batch(torch.arange(len(data.split(name)))) for name in SPLITS]
    return torch.cat([inputs for inputs, _ in parts]), torch.cat([targets for _, targets in parts])


def test_table_of_classes_with_a_sniffed_delimiter(table):
    data = table(IRIS)
    facts = data.describe()
    assert (facts.input, facts.target, facts.input_shape) == ("vector", "class", (2,))
    assert facts.class_names == ("setosa", "virginica")
    inputs, targets = everything(data)
    assert sorted(inputs[:, 0].tolist()) == [i + 0.5 for i in range(40)]
    assert torch.equal(targets, 1 - inputs[:, 0].long() % 2)


def test_preparing_reports_a_share_of_a_known_total(table):
    reports = []
    table(IRIS).prepare(lambda *report: reports.append(report))
    assert reports
    assert all(0 <= done <= total > 0 for _, done, total in reports)


def test_table_of_numbers_and_ignored_columns(table):
    data = table(
        "name,x,y\n" + "".join(f"n{i},{i},{2 * i}\n" for i in range(20)),
        target="y",
        target_kind="number",
        ignore=["name"],
    )
    facts = data.describe()
    assert (facts.target, facts.outputs, facts.input_shape) == ("number", 1, (1,))
    inputs, targets = everything(data)
    assert targets.dtype == torch.float32
    assert torch.equal(targets, 2 * inputs)


def test_classes_that_are_numbers_are_ordered_by_value(table):
    data = table("x,kind\n" + "".join(f"{i},{(10, 9, 2)[i % 3]}\n" for i in range(30)))
    assert data.describe().class_names == ("2", "9", "10")


def test_quotes_byte_order_mark_and_blank_lines(table):
    data = table("\ufeffkind,x\n" + '"a, b",1\n\n"c",2\n' * 5)
    assert data.describe().class_names == ("a, b", "c")


def test_far_off_features_keep_their_spread(table):
    data = table("x,kind\n" + "".join(f"{16_000_000 + i % 5},{i % 2}\n" for i in range(40)))
    inputs = data.split("train").batch(torch.arange(len(data.split("train"))))[0].double()
    assert data.describe().std == pytest.approx(inputs.std(0, correction=0).tolist(), rel=1e-9)


def test_cells_that_are_no_numbers_are_named_by_line(table):
    found = problems(table("x,z,kind\n1,2,a\nred,2,b\n1,,a\n1,nan,b\n1,2\n1,2,\n"))
    assert "line 3, column x: 'red' is not a number | correct it, or try data.ignore=[x]" in found
    assert "line 4, column z: is empty" in found
    assert "line 5, column z: 'nan' is not a number" in found
    assert "line 6: 2 cells, the first row has 3" in found
    assert "line 7, column kind: is empty" in found


def test_number_target_that_is_text(table):
    assert "line 2, column kind: 'a' is not a number | correct it, or try data.target_kind=class" in problems(
        table("x,kind\n1,a\n", target_kind="number")
    )


def test_cell_too_large_for_float32_is_not_lost(table):
    assert "line 3, column x: '1e300' is not a number" in problems(table("x,kind\n1,a\n1e300,b\n"))


def test_columns_that_are_not_there(table):
    found = problems(table("x,kind\n1,a\n", target="knd", ignore=["id"]))
    assert "data.target=knd | no such column; has x, kind | did you mean data.target=kind ?" in found
    assert "data.ignore=id | no such column" in found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("x,kind\n", "no rows"),
        ("x,kind\n1,a\n2,a\n", "one class only, 'a'"),
        ("x,kind\n1,a\n2,b\n", "2 samples are too few"),
        ("kind\na\nb\n", "no column is left"),
        ("x,x,kind\n1,1,a\n", "columns named twice: x"),
        ('x,kind\n1,"a\n', "line 2"),
    ],
)
def test_unfit_tables(table, text, why):
    assert why in problems(table(text))


def test_table_that_is_not_text(make, tmp_path):
    (tmp_path / "t.csv").write_bytes(b"x,kind\n\xff\xfe,1\n")
    assert "not UTF-8" in problems(make("csv", path=str(tmp_path / "t.csv"), target="kind", cache=str(tmp_path)))
    assert "no such file" in problems(make("csv", path=str(tmp_path / "u.csv"), target="kind", cache=str(tmp_path)))


def test_changed_table_is_read_again(table):
    table(IRIS).describe()
    assert table(IRIS.replace("setosa", "iris")).describe().class_names == ("iris", "virginica")


@pytest.mark.parametrize(
    ("shape", "dtype", "input_kind", "input_shape"),
    [
        ((30, 3, 4, 5), np.uint8, "image", (3, 4, 5)),
        ((30, 4, 5), np.uint8, "image", (1, 4, 5)),
        ((30, 7), np.float64, "vector", (7,)),
        ((30, 7), np.int32, "vector", (7,)),
    ],
)
def test_arrays_of_classes(arrays, shape, dtype, input_kind, input_shape):
    stored = np.random.default_rng(0).integers(200, size=shape).astype(dtype)
    data = arrays(inputs=stored, targets=np.arange(30, dtype=np.int16) % 3)
    facts = data.describe()
    assert (facts.input, facts.input_shape, facts.target, facts.classes) == (input_kind, input_shape, "class", 3)
    inputs, targets = everything(data)
    assert inputs.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    assert targets.dtype == torch.int64
    assert inputs.sum() == stored.sum()


@pytest.mark.parametrize(("shape", "outputs"), [((30,), 1), ((30, 4), 4)])
def test_arrays_of_numbers_under_other_names(arrays, shape, outputs):
    data = arrays({"inputs": "x", "targets": "y"}, x=np.ones((30, 2)), y=np.ones(shape))
    assert (data.describe().target, data.describe().outputs) == ("number", outputs)
    assert everything(data)[1].shape == (30, outputs)


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ({"inputs": np.ones((4, 2)), "labels": np.ones(4)}, "data.targets=targets | no such array; has inputs, labels"),
        ({"inputs": np.ones((4, 2)), "targets": np.ones(3)}, "[3] for inputs [4, 2]"),
        ({"inputs": np.ones((9, 8, 8, 3)), "targets": np.arange(9)}, "channels last"),
        ({"inputs": np.ones(4), "targets": np.arange(4)}, "has shape [4]"),
        ({"inputs": np.full((4, 2), np.nan), "targets": np.arange(4)}, "nan or infinity"),
        ({"inputs": np.ones((4, 2)), "targets": np.arange(4) - 1}, "class number -1"),
        ({"inputs": np.ones((4, 2)), "targets": np.zeros(4, dtype=int)}, "one class only"),
        ({"inputs": np.ones((4, 2)), "targets": np.ones((4, 2), dtype=int)}, "integers of shape [4, 2]"),
        ({"inputs": np.array(["a", "b"]), "targets": np.arange(2)}, "not numbers"),
        ({"inputs": np.array([{}, []], dtype=object), "targets": np.arange(2)}, "cannot be read"),
    ],
)
def test_unfit_arrays(arrays, stored, why):
    assert why in problems(arrays(**stored))


def test_file_that_is_no_archive(make, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"\x80\x04pickle")
    assert "not a .npz file" in problems(make("numpy", path=str(tmp_path / "a.npz"), cache=str(tmp_path)))

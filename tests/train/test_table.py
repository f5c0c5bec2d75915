import polars

from gnflow.train.journal import Step
from gnflow.train.table import make_table


def test_known_columns_come_first_and_rows_are_sorted() -> None:
    steps = [
        Step(1, 1.0, {"zeta": 1.5, "time/seconds": 1.0, "loss/train": 2.0, "tokens/total": 96}),
        Step(0, 0.0, {"loss/held_out": 3.0, "tokens/total": 0, "time/seconds": 0.0}),
    ]
    found = make_table(steps)
    assert found.columns == ["step", "loss/train", "loss/held_out", "tokens/total", "time/seconds", "zeta"]
    assert found["step"].to_list() == [0, 1]
    assert found["loss/train"].to_list() == [None, 2.0]
    assert found["tokens/total"].dtype == polars.Int64
    assert found["zeta"].to_list() == [None, 1.5]


def test_a_column_that_is_whole_numbers_for_a_while_is_a_float_column() -> None:
    found = make_table([Step(0, 0.0, {"gn/alpha": 0}), Step(1, 0.0, {"gn/alpha": 0.5}), Step(2, 0.0, {"gn/alpha": 1})])
    assert found["gn/alpha"].to_list() == [0.0, 0.5, 1.0]


def test_flops_may_exceed_64_bits() -> None:
    assert make_table([Step(0, 0.0, {"flops/total": 10**20})])["flops/total"].to_list() == [1e20]


def test_no_step_at_all_is_an_empty_table() -> None:
    assert make_table([]).shape == (0, 1)

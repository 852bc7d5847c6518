"""The command `scanloop plan`: what it prints, and how it ends."""

import json
import re
import shlex
from decimal import Decimal
from typing import Any

import pytest
from click.testing import Result
from test_cli import invoke, shell

from scanloop.errors import BudgetError, ConfigError
from scanloop.money.plan_request import PlanRequest
from scanloop.plan_command import EXAMPLES, euros

ARCHIVE = ("plan", "--images", "4000000", "--bytes-per-image", "40000")


def planned(*options: str) -> dict[str, Any]:
    result = invoke(*ARCHIVE, *options, "--json")
    assert result.exit_code == 0, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def flat(result: Result) -> str:
    return " ".join(re.sub(r"[│┃]", " ", result.output).split())


def test_the_table_shows_every_line_with_its_assumption_and_the_total_under_the_cap() -> None:
    result = invoke(*ARCHIVE, "--gpu", "t4")
    assert result.exit_code == 0, result.exception
    for line in planned("--gpu", "t4")["lines"]:
        assert line["name"] in result.output
    text = flat(result)
    for said in ("20.00", "1,650.00", "assumed 2026-11-21", "within the cap of 5,000.00 EUR", "not judged"):
        assert said in text, said


def test_json_is_one_object_whose_lines_and_reserve_add_up_to_the_total() -> None:
    found = planned("--gpu", "l4", "--nodes", "4")
    assert found["spent_eur"] == pytest.approx(sum(line["euros"] for line in found["lines"]), rel=1e-12)
    assert found["total_eur"] == pytest.approx(found["spent_eur"] * 1.1, rel=1e-12)
    assert found["hours"]["embed_elapsed"] == pytest.approx(found["hours"]["embed"] / 4, rel=1e-12)
    assert all(line["assumes"] and line["price"] for line in found["lines"])
    assert found["counts"]["archive_objects"] == 4_000_000
    assert found["faults"] == []


def test_a_total_above_the_cap_is_printed_and_ends_with_8() -> None:
    done = shell(*ARCHIVE, "--cap", "100", "--json")
    assert done.returncode == BudgetError.exit_code == 8
    found = json.loads(done.stdout)
    assert found["over_cap"] is True
    assert done.stderr.startswith("error: the total of ")
    assert "over the cap of 100.00 EUR" in done.stderr
    assert invoke(*ARCHIVE, "--cap", str(found["total_eur"] + 1)).exit_code == 0


def test_a_kind_of_spending_above_its_bucket_ends_with_8_under_the_cap() -> None:
    result = invoke(*ARCHIVE, "--bucket", "labels=1500", "--bucket", "compute=3000")
    assert isinstance(result.exception, BudgetError)
    assert str(result.exception) == "labels takes 1650.00 EUR, its bucket holds 1500.00 EUR"


def test_the_goal_is_judged_from_the_measured_rate() -> None:
    met, missed = (planned("--node", "cpu-2core", "--images-per-second", rate)["goals"][0] for rate in ("700", "350"))
    assert (met["met"], missed["met"]) == (True, False)
    assert met["eur"] <= 0.10 < missed["eur"]
    assert planned("--node", "cpu-2core")["goals"][0]["met"] is None


def test_an_unknown_gpu_is_one_clear_line_that_names_the_known_and_ends_with_2() -> None:
    done = shell(*ARCHIVE, "--gpu", "t5")
    assert done.returncode == ConfigError.exit_code
    assert len(done.stderr.strip().splitlines()) == 1
    for gpu in ("t4", "l4", "a10g", "a100", "h100"):
        assert f"{gpu} (spot)" in done.stderr


def test_three_mistakes_are_one_error_that_lists_them() -> None:
    result = invoke("plan", "--images", "many", "--bytes-per-image", "0", "--cap", "-1", "--gpu", "t4")
    assert isinstance(result.exception, ConfigError)
    for name in ("images", "bytes_per_image", "cap_eur"):
        assert f"  {name}: " in str(result.exception)


def test_any_assumption_is_set_by_its_name() -> None:
    found = planned("--set", "labels=500", "--set", "months=3")
    assert (found["request"]["labels"], found["request"]["months"]) == (500, "3")
    result = invoke(*ARCHIVE, "--set", "labels")
    assert isinstance(result.exception, ConfigError)
    assert "write NAME=VALUE" in str(result.exception)
    assert isinstance(invoke(*ARCHIVE, "--set", "colour=red").exception, ConfigError)


def test_the_help_names_every_assumption_and_its_examples_run() -> None:
    assert flat(invoke("plan", "--help")).count("scanloop plan --images") == 4
    shown = invoke("plan", "--help").output
    options = {"images", "bytes_per_image", "gpu", "node", "market", "nodes", "images_per_second", "images_per_object"}
    for name in set(PlanRequest.model_fields) - options - {"cap_eur", "buckets"}:
        assert name in shown, name
    for example in (line for line in EXAMPLES.splitlines() if line.startswith("scanloop ")):
        result = invoke(*shlex.split(example)[1:])
        assert result.exit_code == 0, (example, result.exception)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("1234.567", "1,234.57"), ("0.0031252", "0.0031"), ("0", "0.00"), ("0.00000312", "0.0000031"), ("0.5", "0.50")],
)
def test_a_small_amount_is_not_rounded_to_nothing(amount: str, shown: str) -> None:
    assert euros(Decimal(amount)) == shown

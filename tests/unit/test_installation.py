"""Modules that hide those of the distribution."""

from pathlib import Path

import pytest

from worker import installation


def test_modules_of_the_distribution_are_not_hidden() -> None:
    installation.check()


def test_a_module_of_the_same_name_ends_the_worker_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "strangers_config.py").write_text("broker_url = 'amqp://'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit, match=r"strangers_config\.py hides the module 'strangers_config'"):
        installation.check(["strangers_config"])

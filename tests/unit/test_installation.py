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


def test_another_package_of_the_name_of_the_client_is_found_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(installation.CLIENT, "stranger", "fold.py")
    with pytest.raises(SystemExit, match="hides the module 'stranger'"):
        installation.check(["stranger"], home=tmp_path)
    (tmp_path / "stranger" / "fold.py").touch()
    installation.check(["stranger"], home=tmp_path / "elsewhere")

"""Where files are kept that can be made anew."""

import sys

import pytest

from jaxdefend.results.cache import cache_folder


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is another variable")
def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "jaxdefend"
    assert not (tmp_path / "jaxdefend").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyError, OSError])
def test_a_user_without_a_home_has_no_cache(monkeypatch, error):
    def no_home(*arguments, **more):
        raise error("no home")

    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    assert cache_folder() is None


def test_a_home_that_is_not_known_is_not_a_folder_called_so(monkeypatch):
    from pathlib import Path

    monkeypatch.setattr("platformdirs.user_cache_path", lambda *arguments, **more: Path("~/.cache/jaxdefend"))
    assert cache_folder() is None

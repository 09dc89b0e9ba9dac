"""What is set before jax is imported: devices, vectors, memory, and the cache of what is compiled."""

import os
import stat
import sys

import pytest
from cli.helpers_programs import PRINTS, program

from jaxdefend.cli import jax_setup


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "jaxdefend"
    monkeypatch.setattr("jaxdefend.results.cache.cache_folder", lambda: folder)
    return folder


def test_compilations_are_kept_in_a_folder_of_ones_own(cache, capsys):
    assert jax_setup.compilations() == cache / "xla"
    assert stat.S_IMODE((cache / "xla").stat().st_mode) == 0o700
    assert jax_setup.compilations() == cache / "xla"
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users")
def test_a_folder_that_others_can_write_is_not_used(cache, capsys, monkeypatch):
    jax_setup.compilations()
    (cache / "xla").chmod(0o777)
    assert jax_setup.compilations() is None
    assert "can be written by other users" in capsys.readouterr().err
    (cache / "xla").chmod(0o700)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert jax_setup.compilations() is None
    assert "belongs to another user" in capsys.readouterr().err


def test_no_cache_is_no_trouble(cache, monkeypatch):
    cache.write_text("a file")
    assert jax_setup.compilations() is None
    monkeypatch.setattr("jaxdefend.results.cache.cache_folder", lambda: None)
    assert jax_setup.compilations() is None


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    from jaxdefend.results.cache import cache_folder

    assert cache_folder().name == "jaxdefend"
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert cache_folder() is None


def test_cores_are_those_of_the_container(tmp_path):
    bound = jax_setup.cores(tmp_path / "none")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert jax_setup.cores(tmp_path / "cpu.max") == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert jax_setup.cores(tmp_path / "cpu.max") == bound


def test_a_users_own_flags_count(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512f\n")
    for before, after in (
        ("", "--xla_cpu_prefer_vector_width=512"),
        ("--a=1", "--a=1 --xla_cpu_prefer_vector_width=512"),
        ("--xla_cpu_prefer_vector_width=256", "--xla_cpu_prefer_vector_width=256"),
        ("flags.txt", "flags.txt"),
    ):
        monkeypatch.setenv("XLA_FLAGS", before)
        jax_setup.use_wide_vectors(tmp_path / "cpuinfo")
        assert os.environ["XLA_FLAGS"] == after


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_a_shell_with_too_little_memory():
    done = program(PRINTS, "ulimit -v 600000; exec {python} -c {code}")
    assert done.returncode == 2
    assert done.stderr.startswith("jaxdefend: this shell allows a process 614 MB") and done.stderr.count("\n") == 1

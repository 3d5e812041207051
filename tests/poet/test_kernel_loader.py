"""The kernel loader: what is built is found again, what is stale or untrusted is never loaded, and running needs no numba."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent import kernels
from agent.kernels import aot, cache
from agent.kernels.errors import CacheUntrustedError, CompilerMissingError, KernelsNotBuiltError, KernelSourceError

MODULE = "agent.poet.perceive_kernels"
SMALL = """
SIGNATURES = {"twice": "f8(f8)", "fill": "void(f8[::1], f8)"}
HELPERS = ("double",)


def double(x):
    return x * FACTOR


def twice(x):
    return double(x)


def fill(out, x):
    for i in range(out.shape[0]):
        out[i] = double(x) + i


FACTOR = 2.0
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "small_kernels.py").write_text(SMALL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "small_kernels", raising=False)
    monkeypatch.setenv("POETD_CACHE", str(tmp_path / "cache"))
    return "small_kernels"


def build(name: str) -> Path:
    from agent.kernels import jit, modules

    source = modules.read(name)
    return aot.build(name, source.source, jit.aot_exports(source), source.module)


def test_python_mode_gives_the_plain_functions(small: str) -> None:
    module = kernels.load(small, "python")
    assert module.kind == "python"
    assert module.twice is sys.modules[small].twice


def test_aot_is_built_once_and_then_found_without_numba(small: str, tmp_path: Path) -> None:
    assert not kernels.available_aot(small)
    with pytest.raises(KernelsNotBuiltError, match="poetd compile"):
        kernels.load(small, "aot")
    path = build(small)
    assert path.parent == tmp_path / "cache"
    assert kernels.available_aot(small)
    code = (
        "import sys, array; from agent import kernels; import numpy as np\n"
        "k = kernels.load('small_kernels', 'aot'); out = np.zeros(3); k.fill(out, 2.0)\n"
        "assert k.kind == 'aot' and k.twice(4.0) == 8.0 and out.tolist() == [4.0, 5.0, 6.0]\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('numba', 'llvmlite')]\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, env=_environment(tmp_path))


def test_a_build_of_other_source_is_never_loaded(small: str, tmp_path: Path) -> None:
    build(small)
    (tmp_path / f"{small}.py").write_text(SMALL.replace("2.0", "3.0"))
    assert not kernels.available_aot(small)
    with pytest.raises(KernelsNotBuiltError):
        kernels.load(small, "aot")


def test_a_build_of_another_toolchain_is_never_loaded(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = aot.extension_name(small, b"source")
    monkeypatch.setattr(cache, "toolchain", lambda: "another CPU")
    assert aot.extension_name(small, b"source") != before


def test_jit_second_start_compiles_nothing(small: str, tmp_path: Path) -> None:
    code = (
        "from agent import kernels\n"
        "k = kernels.load('small_kernels', 'jit')\n"
        "assert k.twice(4.0) == 8.0\n"
        "print(sum(k.twice.stats.cache_hits.values()), sum(k.twice.stats.cache_misses.values()))\n"
    )

    def start() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            cwd=tmp_path,
            env=_environment(tmp_path),
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    assert start() == "0 1"
    assert start() == "1 0"
    assert list((tmp_path / "cache" / "jit").rglob("*.nbi"))


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_nothing_is_loaded_from_a_folder_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "x.so").write_bytes(b"")
    (folder / "x.so").chmod(0o644)
    monkeypatch.setenv("POETD_CACHE", str(folder))
    folder.chmod(0o755)
    assert cache.find("x.so") == folder / "x.so"
    folder.chmod(mode)
    with pytest.raises(CacheUntrustedError, match="chmod go-w"):
        cache.find("x.so")
    with pytest.raises(CacheUntrustedError, match="chmod go-w"):
        cache.write_folder()


def test_a_build_others_can_write_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POETD_CACHE", str(tmp_path))
    (tmp_path / "x.so").write_bytes(b"")
    (tmp_path / "x.so").chmod(0o666)
    with pytest.raises(CacheUntrustedError):
        cache.find("x.so")


def test_another_users_build_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.os, "geteuid", lambda: 4711)
    target = tmp_path / "x.so"
    target.write_bytes(b"")
    if target.stat().st_uid == 0:
        cache.require_trusted(target)  # root's is fine
    else:
        with pytest.raises(CacheUntrustedError, match="belongs to user"):
            cache.require_trusted(target)


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    (place / "x.so").write_bytes(b"")
    (tmp_path / "x.so").symlink_to(place / "x.so")
    with pytest.raises(CacheUntrustedError):
        cache.require_trusted(tmp_path / "x.so")


def test_folders_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("POETD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.search_folders() == (cache.SYSTEM_FOLDER, tmp_path / ".cache" / "poetd")
    monkeypatch.setattr(cache, "SYSTEM_FOLDER", Path("/proc/nothing"))
    assert cache.write_folder() == tmp_path / ".cache" / "poetd"


def test_without_a_compiler_the_remedy_is_named(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import numba.pycc.platform

    monkeypatch.setattr(numba.pycc.platform, "external_compiler_works", lambda: False)
    with pytest.raises(CompilerMissingError, match="apt-get install gcc"):
        build(small)


def test_without_a_writable_folder_the_remedy_is_named(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POETD_CACHE", "/proc/nothing")
    with pytest.raises(CompilerMissingError, match="POETD_CACHE"):
        build(small)
    assert kernels.load(small, "jit").twice(1.0) == 2.0, "JIT runs without a disk cache"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "has no SIGNATURES"),
        ('SIGNATURES = {"gone": "f8(f8)"}\n', "'gone'"),
        ('SIGNATURES = {"x": "f8(f8)"}\nx = 1\n', "'x'"),
    ],
)
def test_a_module_that_is_no_kernels_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (tmp_path / "no_kernels.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "no_kernels", raising=False)
    with pytest.raises(KernelSourceError, match=message):
        kernels.load("no_kernels", "python")


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="aot, jit, python"):
        kernels.load(MODULE, "fast")


def test_auto_prefers_what_is_built_and_never_compiles_where_memory_may_not_be_executable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for wanted in ("aot", "jit", "python"):
        assert kernels.choose_mode(wanted)[0] == wanted
    monkeypatch.setattr(kernels, "available_aot", lambda name: True)
    assert kernels.choose_mode("auto")[0] == "aot"
    monkeypatch.setattr(kernels, "available_aot", lambda name: name == MODULE)
    assert kernels.choose_mode("auto")[0] == "jit"
    assert kernels.choose_mode("auto", (MODULE,))[0] == "aot"
    monkeypatch.setattr(aot, "executable_memory_allowed", lambda: False)
    assert kernels.choose_mode("auto")[0] == "python"
    assert "poetd compile" in kernels.choose_mode("auto")[1]


def test_every_registered_module_keeps_the_convention() -> None:
    for name in kernels.KERNEL_MODULES:
        assert kernels.load(name, "python").kind == "python"


def _environment(folder: Path) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {
        "POETD_CACHE": str(folder / "cache"),
        "PYTHONPATH": f"{root}:{folder}",
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
    }

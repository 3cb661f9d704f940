"""What a zygote does before its first job: paths, the application's import, callbacks."""

from __future__ import annotations

import os
import sys

import pytest

from remote_agent.job import JobError

HOOK = {"name": "hook", "spec": {"_target_": "simple.Hook"}, "pickle": None, "why": "a test", "on_error": None}


def test_code_by_value_needs_the_same_minor_version(new_host, python):
    """The error comes before any job starts, with both versions and the next step."""
    host = new_host(python)
    controller = {"python": [3, 7], "by_value": True, "omegaconf": "2.3.0", "hydra": None, "cloudpickle": "3.0.0"}
    answer = host.start(None, controller=controller)
    assert answer.header["t"] == "unusable"
    error = JobError.from_json(answer.header["error"])
    assert error.kind == "config"
    assert "the controller has 3.7, gpu1 has " in error.message
    assert "--python" in error.message


def test_the_application_is_also_the_main_module(host):
    """`_target_: __main__.Thing` and a pickle with `__main__` find the application. Its guard does not run."""
    host.write(
        {
            "my_app.py": """
                import sys
                class Thing: pass
                def task(cfg):
                    return sys.modules["__main__"] is sys.modules["my_app"]
                if __name__ == "__main__":
                    raise RuntimeError("run as a script")
            """
        }
    )
    host.start("my_app:task", main_module="my_app")
    assert host.run().part() is True


_LOOKS = {
    "sub/my_app.py": """
        import sys
        def task(cfg):
            main = sys.modules["__main__"]
            orig = getattr(sys, "orig_argv", None)
            return [main.__spec__ and main.__spec__.name, main.__package__, getattr(main, "__file__", None),
                    sys.path[0], list(sys.argv), orig and orig[1:]]
    """,
    "sub/__init__.py": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_the_main_module_looks_as_it_was_started(new_host, isolation):
    """A script has no `__spec__`, and a module has one. The application comes first on the path, before the bundle."""
    host = new_host()
    host.write(_LOOKS)
    script = {"main_module": "my_app", "sys_path": [f"{host.code}/sub"], "isolation": isolation}
    # An omegaconf that is nowhere installed: that of the bundle is used.
    family = {
        "python": list(sys.version_info[:2]),
        "by_value": False,
        "omegaconf": "1.0.0",
        "hydra": None,
        "cloudpickle": "0",
    }
    host.start("my_app:task", **script, controller=family, argv=["sub/my_app.py", "x=1"])
    file = f"{host.code}/sub/my_app.py"
    argv = ["sub/my_app.py", "x=1"]
    assert host.run().part() == [
        None,
        None,
        file,
        f"{host.code}/sub",
        argv,
        argv if sys.version_info >= (3, 10) else None,
    ]


def test_the_main_module_of_a_module_has_its_name(new_host):
    """For `python -m sub.my_app`, `sys.argv[0]` is the whole path, and code that restarts it finds its name."""
    host = new_host()
    host.write(_LOOKS)
    host.start(
        "sub.my_app:task",
        main_module="sub.my_app",
        main_is_module=True,
        argv0_is_absolute=True,
        argv=["sub/my_app.py", "x=1"],
    )
    file = f"{host.code}/sub/my_app.py"
    assert host.run().part() == ["sub.my_app", "sub", file, str(host.code), [file, "x=1"], ["-m", "sub.my_app", "x=1"]]


@pytest.mark.slow
def test_the_main_module_is_empty_without_a_script(new_host):
    """A notebook's job sees nothing of ours in `__main__`."""
    host = new_host()
    host.write({"thing.py": "import sys\ndef task(cfg): return sorted(vars(sys.modules['__main__']))\n"})
    host.start("thing:task")
    assert host.run().part() == ["__doc__", "__loader__", "__name__", "__package__", "__spec__"]


@pytest.mark.parametrize(
    ("code", "type_", "text"),
    [
        ("import no_such_package", "ModuleNotFoundError", "no_such_package"),
        pytest.param("raise SystemExit(3)", "SystemExit", "raise SystemExit(3)", marks=pytest.mark.slow),
        pytest.param("def broken(:", "SyntaxError", "def broken", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("isolation", ["auto", pytest.param("spawn", marks=pytest.mark.slow)])
def test_an_import_error_is_reported_once(host, code, type_, text, isolation):
    """With its own traceback, before any job. If jobs would import the application themselves, a probe does so first."""
    host.write({"bad.py": code + "\n"})
    answer = host.start("bad:task", main_module="bad", isolation=isolation)
    assert answer.header["t"] == "unusable"
    error = JobError.from_json(answer.header["error"])
    assert (error.kind, error.type) == ("import", type_) or type_ == "SystemExit"
    assert text in error.traceback
    assert "prepare.py" not in error.traceback
    if type_ == "ModuleNotFoundError":
        # The most frequent reason why nothing runs on a new host: which Python it is, and how to choose another.
        assert f"next: jobs run there under {sys.executable}" in error.message
        assert "--python PATH" in error.message
        assert "importlib" not in error.traceback
    assert host.process.wait(30) in (0, 1)


def test_importing_the_controller_is_a_clear_error(host):
    """A host has only the table of contents of `launcher`. The error says where the import belongs."""
    host.write({"bad.py": "import launcher.hosts.inventory\n"})
    answer = host.start("bad:task", main_module="bad")
    error = JobError.from_json(answer.header["error"])
    assert "import it below `if __name__ == '__main__':`" in error.message


def test_a_missing_working_folder_is_the_hosts_fault(host):
    """The error names it."""
    answer = host.start("simple:task", cwd=str(host.root / "nowhere"))
    error = JobError.from_json(answer.header["error"])
    assert error.kind == "host"
    assert f"{host.root / 'nowhere'}, cannot be entered on gpu1: No such file" in error.message


def test_a_callback_that_cannot_be_built_is_named(host):
    """With its constructor's traceback."""
    host.write(
        {
            "simple.py": "class Bad:\n    def __init__(self):\n        raise ValueError('bad start')\ndef task(cfg): pass\n"
        }
    )
    answer = host.start("simple:task", [{**HOOK, "spec": {"_target_": "simple.Bad"}}])
    error = JobError.from_json(answer.header["error"])
    assert error.kind == "config"
    assert "callback 'hook' cannot be built on the host" in error.message
    assert "bad start" in error.message


def test_a_gpu_in_use_counts_like_a_thread(monkeypatch):
    """torch.cuda is initialised, or an nvidia device is open."""
    from types import SimpleNamespace

    from remote_agent.zygote.imports import prepare

    # Other tests of this process may have left threads; here it is the GPU that counts.
    monkeypatch.setattr(prepare.threading, "enumerate", lambda: [prepare.threading.main_thread()])
    monkeypatch.setattr(prepare, "unforkable_threads", lambda threads: "")
    assert prepare.why_not_forkable() == ""
    torch = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert prepare.why_not_forkable() == "initialised CUDA"
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(os, "readlink", lambda path: "/dev/nvidia0")
    assert prepare.why_not_forkable() == "initialised CUDA"

"""The caching loader composes the same configs as Hydra, and gives the same errors, for any overrides."""

from __future__ import annotations

import enum
import textwrap
from dataclasses import dataclass, field
from typing import Any

import hydra
import pytest
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobRuntime, setup_globals
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import MISSING, Container, DictConfig, OmegaConf

if not hydra.__version__.startswith("1.3."):
    pytest.skip("the loader with a memory is of use with Hydra 1.3 alone", allow_module_level=True)

from launcher.config import hydra as hydra_config
from launcher.config.caching_loader import CachingConfigLoader
from tests.examples import examples


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Schema:
    depth: int = MISSING
    name: str = "x"
    colour: Colour = Colour.RED
    sizes: list[int] = field(default_factory=lambda: [1, 2])


FILES = {
    "config.yaml": """
        defaults:
          - db: mysql
          - net: small
          - optional extra: none_such
          - sub/part@here: a
          - _self_
          - override hydra/job_logging: default
        lr: 0.1
        text: ${db.name}-${lr}
        through: ${db}
        nested: {a: {b: 1, c: [1, 2, {d: 3}]}, none: null, missing: '???'}
        stamp: ${now:%Y}
        hydra:
          job: {config: {override_dirname: {exclude_keys: [lr]}}}
    """,
    "by_env.yaml": """
        defaults:
          - db: ${oc.env:LAUNCHER_TEST_DB}
        lr: 1
    """,
    "by_choice.yaml": """
        defaults:
          - db: mysql
          - net: small
          - both: ${db}_${net}
          - _self_
        lr: 1
    """,
    "bare.yaml": "lr: 3\n",
    "dynamic.yaml": """
        defaults: [overrides_part, _self_]
        part: {m: 1}
        lr: 1
    """,
    "overrides_part.yaml": "part: ${launcher_test_dict:}\n",
    "db/mysql.yaml": "name: mysql\nport: 3306\n",
    "db/pg.yaml": "# @package _group_\nname: pg\nport: 5432\noptions: {ssl: true}\n",
    "db/none.yaml": "# @package _global_\ndb: null\n",
    "db/broken.yaml": "name: [\n",
    "net/small.yaml": "defaults: [base_net]\ndepth: 2\n",
    "net/big.yaml": "defaults:\n  - base_net\n  - /db@_global_.netdb: pg\ndepth: 20\ncolour: BLUE\n",
    "net/bad.yaml": "defaults: [base_net]\ndepth: deep\n",
    "sub/part/a.yaml": "x: 1\n",
    "sub/part/b.yaml": "x: ${db.port}\ny: [a, b]\n",
    "both/mysql_small.yaml": "which: ms\n",
    "both/pg_big.yaml": "which: pb\n",
}

LINES = [
    "lr=0.2",
    "lr=1e-3",
    "lr=abc",
    "lr=null",
    "lr='0.5'",
    "lr=[1,2]",
    "+lr=3",
    "++lr=3",
    "~lr",
    "~lr=0.1",
    "db=pg",
    "db=mysql",
    "db=none",
    "db=broken",
    "db=nothing",
    "~db",
    "+db=pg",
    "db={name:z}",
    "db.name=zz",
    "db.port=x",
    "+db.more={a:1,b:[2,3]}",
    "db@other=pg",
    "+db@other=pg",
    "db@db2=pg",
    "net=small",
    "net=big",
    "net=bad",
    "net.depth=7",
    "net.depth=deep",
    "net.colour=BLUE",
    "net.sizes=[3]",
    "+net.q=1",
    "sub/part@here=b",
    "here.x=9",
    "sub/part=a",
    "+sub/part=b",
    "+extra=e",
    "both=pg_big",
    "nested.a.b=2",
    "nested.a.c=[]",
    "nested.a.c.0=9",
    "nested.missing=1",
    "nested.none=1",
    "+nested.none.x=1",
    "~nested.a",
    "through.port=1",
    "+through.z=1",
    "text=${lr}",
    "text='a=b,c'",
    'text="q:\\""',
    "+new={a:{b:c}}",
    "+new.deep.key=1",
    "stamp=1",
    "hydra.job.name=other",
    "+hydra.job.env_set.A=1",
    "hydra.job.env_copy=[HOME]",
    "hydra.sweep.dir=/x/${now:%Y}",
    "hydra.runtime.cwd=/nowhere",
    "hydra.job.config.override_dirname.kv_sep=:",
    "hydra/launcher=basic",
    "hydra/hydra_logging=none",
    "hydra.mode=RUN",
    "hydra.verbose=true",
    "hydra.nothing=1",
    "+hydra.nothing=1",
    "hydra.output_subdir=null",
    "~hydra.help",
    "hydra.searchpath=[file://{extra}]",
    "hydra.run.dir=${lr}",
    "+hydrate.x=1",
    "a,b=1",
    "=",
    "lr=1,2",
    "net=small,big",
    "lr=range(1,3)",
    "hydra.verbose=true,false",
    "lr=choice(1,2)",
    "lr=shuffle(1,2)",
]


@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    """(Hydra's loader, ours, the folder of an extra search path) for one application's configs."""
    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    more = tmp_path_factory.mktemp("more")
    (more / "extra").mkdir()
    (more / "extra" / "e.yaml").write_text("e: 1\n")
    (more / "db").mkdir()
    (more / "db" / "third.yaml").write_text("name: third\nport: 3\n")
    setup_globals()
    store = ConfigStore.instance()
    store.store(group="net", name="base_net", node=Schema)
    before = version.VersionBase.instance().version_base
    version.setbase("1.3")
    JobRuntime().set("name", "app")
    search_path = create_config_search_path(str(folder))
    yield ConfigLoaderImpl(search_path), CachingConfigLoader(search_path), more
    version.VersionBase.instance().version_base = before
    del store.repo["net"]


def shape(node: Any) -> Any:
    """Return everything in a config: values, types of nodes, flags, metadata, cached resolvers, down to the leaves."""
    meta = dict(vars(node._metadata))
    content: Any
    if isinstance(node, Container) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        inner = node._content
        items = inner.items() if isinstance(node, DictConfig) else enumerate(inner)
        content = [(key, shape(child), child._get_parent() is node) for key, child in items]
    else:
        content = repr(node._value())
    return (type(node).__name__, {key: repr(value) for key, value in meta.items()}, content)


def master_of(name: str | None, *lines: str) -> Any:
    """Return the parts of a multirun's config that `load_sweep_config` needs."""
    return OmegaConf.create({"hydra": {"overrides": {"hydra": list(lines)}, "job": {"config_name": name}}})


def outcome(loader: ConfigLoaderImpl, name: str | None, lines: list[str]) -> Any:
    """Return a job's whole config, or the error with its message."""
    try:
        return shape(loader.load_sweep_config(master_of(name, "hydra.mode=MULTIRUN"), list(lines)))
    except Exception as error:
        return (type(error).__name__, str(error), str(error.__cause__))


@pytest.mark.slow
@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["config", "config", "config", "by_choice", "bare", None, "missing"]),
    lines=st.lists(st.sampled_from(LINES), max_size=5),
)
@pytest.mark.filterwarnings("ignore")
def test_any_overrides_compose_as_in_hydra(loaders, name, lines):
    """One caching loader gets many examples.

    Each config and each error is the same as that of a fresh loader of Hydra.
    """
    by_hydra, ours, more = loaders
    lines = [line.replace("{extra}", str(more)) if "searchpath" in line else line for line in lines]
    expected = outcome(by_hydra, name, lines)
    assert outcome(ours, name, lines) == expected
    assert outcome(ours, name, lines) == expected


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
@pytest.mark.filterwarnings("ignore")
def test_each_override_composes_as_in_hydra(loaders, line):
    """This tests each kind of override by itself, after a choice of groups."""
    by_hydra, ours, more = loaders
    lines = ["net=big", line.replace("{extra}", str(more)) if "searchpath" in line else line]
    expected = outcome(by_hydra, "config", lines)
    assert outcome(ours, "config", lines) == expected


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_jobs_of_a_sweep_compose_as_in_hydra(loaders):
    """`load_sweep_config` gives each job the same as Hydra's, with the master's resolver caches."""
    by_hydra, ours, _ = loaders
    lines = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=/tmp/${now:%H%M%S%f}", "lr=1,2"]
    master = by_hydra.load_configuration("config", lines, RunMode.MULTIRUN)
    assert master.hydra.sweep.dir.startswith("/tmp/")
    for job in (["lr=1", "db=pg"], ["lr=2", "db=pg"], ["lr=2", "db=mysql", "+x=1"]):
        expected = by_hydra.load_sweep_config(master, job)
        config = ours.load_sweep_config(master, job)
        assert shape(config) == shape(expected)
        assert config.hydra.sweep.dir == master.hydra.sweep.dir
        assert config.hydra.overrides.task == job


@pytest.mark.filterwarnings("ignore")
def test_configs_are_independent(loaders):
    """What an application does to one job's config affects no other."""
    _, ours, _ = loaders
    master = master_of("config")
    first = ours.load_sweep_config(master, ["net=big"])
    before = shape(ours.load_sweep_config(master, ["net=big"]))
    first.nested.a.c.append(4)
    first.hydra.job.name = "changed"
    OmegaConf.set_struct(first, False)
    first.more = 1
    assert shape(ours.load_sweep_config(master, ["net=big"])) == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_may_change_is_read_again(loaders, monkeypatch, tmp_path):
    """The environment in a defaults list and in env_copy, and the working folder, have their current values."""
    by_hydra, ours, _ = loaders
    for value in ("mysql", "pg"):
        monkeypatch.setenv("LAUNCHER_TEST_DB", value)
        for name, lines in (("by_env", []), ("config", ["hydra.job.env_copy=[LAUNCHER_TEST_DB]"])):
            assert outcome(ours, name, lines) == outcome(by_hydra, name, lines)
    monkeypatch.chdir(tmp_path)
    assert ours.load_sweep_config(master_of("bare"), []).hydra.runtime.cwd == str(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_resolver_that_gives_a_config_is_called_again(loaders):
    """What such a resolver returns may become part of the config, so it is called for every job."""
    by_hydra, ours, _ = loaders
    calls = []

    def resolver() -> dict[str, int]:
        calls.append(1)
        return {"n": len(calls)}

    OmegaConf.register_new_resolver("launcher_test_dict", resolver, replace=True)
    try:
        assert outcome(ours, "dynamic", ["lr=1"]) == outcome(by_hydra, "dynamic", ["lr=1"])
        asked = len(calls)
        ours.load_sweep_config(master_of("dynamic"), ["lr=2"])
        assert len(calls) > asked
    finally:
        OmegaConf.clear_resolver("launcher_test_dict")


@pytest.mark.filterwarnings("ignore")
def test_resolvers_registered_while_composing_stay(loaders, monkeypatch):
    """A config package may register resolvers when it is imported, perhaps while the first job is composed."""
    _, ours, _ = loaders
    loader = CachingConfigLoader(ours.config_search_path)
    original = ConfigLoaderImpl._compose_config_from_defaults_list

    def registering(self, *args: Any, **kwargs: Any) -> Any:
        OmegaConf.register_new_resolver("launcher_test_late", lambda: 7, replace=True)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", registering)
    try:
        config = loader.load_sweep_config(master_of("bare"), ["+x=${launcher_test_late:}"])
        assert config.x == 7
    finally:
        OmegaConf.clear_resolver("launcher_test_late")


@pytest.mark.filterwarnings("ignore")
def test_the_cache_is_used(loaders, monkeypatch):
    """A second job with the same groups reads no file and merges no config."""
    _, ours, _ = loaders
    ours.load_sweep_config(master_of("config"), ["net=big", "lr=1"])

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("composed from files again")

    monkeypatch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", refuse)
    assert ours.load_sweep_config(master_of("config"), ["net=big", "lr=2"]).lr == 2


@pytest.mark.filterwarnings("ignore")
def test_another_release_of_hydra_composes_itself(loaders, monkeypatch):
    """What holds for Hydra 1.3 is not assumed for a later release."""
    _, ours, _ = loaders
    monkeypatch.setattr(hydra_config, "_IS_HYDRA_1_3", False)
    loader = hydra_config.make_loader(ours.config_search_path)
    assert type(loader) is ConfigLoaderImpl
    assert loader.load_sweep_config(master_of("bare"), ["lr=4"]).lr == 4

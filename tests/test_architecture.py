"""Holds the rules of the architecture on the syntax trees of all files: nothing here imports the code it reads.

Each rule is a function from one file to a list of complaints, so that the rules themselves are tested on lines that
break them; the tests then run every rule over every file there is.
"""

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("modeling_videoqa", "processing")
SCRIPTS = ("examples", "benchmarks", "tests")
# What `dynamic_module_utils` of transformers looks for, in the bare text: docstrings count.
COPIED_IMPORT = re.compile(r"^\s*(?:import\s+\.(\S+)\s*$|from\s+\.(\S+)\s+import)", re.MULTILINE)


class File(NamedTuple):
    path: str  # from the root, with "/"
    text: str

    @property
    def tree(self):
        return ast.parse(self.text)

    @property
    def package(self):
        return self.path.split("/")[0]

    @property
    def module(self):
        """ "processing.loaders" for its `__init__.py`, "processing.loaders.schema" for the file beside it."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def travels(self):
        """Whether this is a P file, one that goes to the Hub as custom code."""
        return self.path.count("/") == 1 and self.path.endswith("_videoqa.py") and self.package in PACKAGES


def files_in(*folders):
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [File(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def imports(file):
    """(line, absolute module, names, level as written) of every import, wherever in the file it stands."""
    parent = file.module.split(".") if file.path.endswith("__init__.py") else file.module.split(".")[:-1]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, [], 0
        elif isinstance(node, ast.ImportFrom):
            base = parent[: len(parent) - node.level + 1] if node.level else []
            module = ".".join(base + (node.module.split(".") if node.module else []))
            yield node.lineno, module, [alias.name for alias in node.names], node.level


def top(module):
    return module.split(".")[0]


# --- the rules


def imports_against_the_stream(file):
    """examples, benchmarks, tests -> processing -> modeling_videoqa.configuration_videoqa."""
    for line, module, _, _ in imports(file):
        if file.package == "modeling_videoqa" and top(module) == "processing":
            yield f"{file.path}:{line} imports processing: hand the processor over as an argument"
        if file.package == "processing" and top(module) == "modeling_videoqa":
            if module != "modeling_videoqa.configuration_videoqa":
                yield f"{file.path}:{line} imports {module}: only modeling_videoqa.configuration_videoqa is allowed"
            elif file.path != "processing/__init__.py":
                yield f"{file.path}:{line} imports the configuration: only processing/__init__.py may"
        if file.package in PACKAGES and top(module) in SCRIPTS:
            yield f"{file.path}:{line} imports {module}: the packages do not know the scripts"


def private_names_in_scripts(file):
    if file.package in ("examples", "benchmarks"):
        for line, module, names, _ in imports(file):
            private = [name for name in [*module.split("."), *names] if name.startswith("_") and name[:2] != "__"]
            if top(module) in PACKAGES and private:
                yield f"{file.path}:{line} uses {private}: scripts stand on public names"


def nameless_relative_imports(file):
    if file.package in PACKAGES:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ImportFrom) and node.level and not node.module:
                yield f"{file.path}:{node.lineno} says `from . import`: custom code loses it silently, name the module"


def imports_that_do_not_travel(file, siblings):
    """P files import P siblings, as `from .name import ...`. `siblings` are the names of the P files of the folder."""
    if not file.travels:
        return
    for line, module, _, level in imports(file):
        if not level and top(module) in PACKAGES:
            yield f"{file.path}:{line} imports {module} absolutely: on the Hub it would become a requirement"
        if level > 1 or (level and module.split(".", 1)[-1] not in siblings):
            yield f"{file.path}:{line} imports {module}: only P files of its own folder travel with it"
    for match in COPIED_IMPORT.finditer(file.text):
        name = match[1] or match[2]
        if name not in siblings:
            line = file.text.count("\n", 0, match.start(1 if match[1] else 2)) + 1
            yield f"{file.path}:{line} has an import of .{name} in its text, which saving to the Hub would follow"


def statements_that_do_not_belong(file):
    for node in ast.walk(file.tree):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if file.package in PACKAGES and called == "print":
            yield f"{file.path}:{node.lineno} prints: use logging"
        if file.package in PACKAGES and isinstance(node, ast.Assert):
            yield f"{file.path}:{node.lineno} asserts: raise an error that says what to do"
        text = ast.unparse(node) if called else ""
        unsafe = (called == "torch.load" and "weights_only=True" not in text) or "allow_pickle=True" in text
        if file.package != "tests" and unsafe:
            yield f"{file.path}:{node.lineno} loads pickles, which can run code from the file: use safetensors"
    for line, module, names, _ in [] if file.package == "tests" else imports(file):
        # One file reads pickles, by an unpickler that knows no class and no function.
        is_restricted = file.path == "processing/loaders/pickles.py" and module == "pickle"
        if top(module) in ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve") and not is_restricted:
            yield f"{file.path}:{line} imports {module}: loading with it runs code from the file"
        if module == "torch" and "load" in names:
            yield f"{file.path}:{line} imports torch.load: use safetensors"


def missing_docstrings(file):
    if file.package not in PACKAGES:
        return
    tree = file.tree
    if not ast.get_docstring(tree) and not file.path.endswith("__init__.py"):
        yield f"{file.path} does not say what it is for"
    for node in tree.body:
        is_definition = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_definition and not node.name.startswith("_") and not ast.get_docstring(node):
            yield f"{file.path}:{node.lineno} {node.name} is public and has no docstring"


def undeclared_imports(file, declared):
    """Imports of other people's packages outside of `try`; `declared` are the distributions of install_requires."""
    tree = file.tree
    attempts = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
    optional = {id(node) for attempt in attempts for node in ast.walk(attempt)}
    owners = packages_distributions()
    for node in ast.walk(tree):
        if id(node) in optional or not isinstance(node, ast.Import | ast.ImportFrom) or getattr(node, "level", 0):
            continue
        for module in [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]:
            name = top(module)
            distributions = {normal(owner) for owner in owners.get(name, [name])}
            if name not in sys.stdlib_module_names and name not in PACKAGES and not distributions & declared:
                yield f"{file.path}:{node.lineno} imports {name}: name it in install_requires of setup.cfg"


def normal(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()


def cycle_among(files):
    """The modules of one cycle of imports inside a package, or an empty list.

    `from .name import x` leads to `name`, and to `name.x` where that is a file too. That a package runs its
    `__init__` before its files is Python's own doing and no edge here, unless a file asks the package for a name.
    """
    known = {file.module for file in files}
    edges = {file.module: set() for file in files}
    for file in files:
        for _, module, names, _ in imports(file):
            below = {f"{module}.{name}" for name in names} & known
            targets = below if below and len(below) == len(names) else below | {module}
            edges[file.module] |= {target for target in targets & known if top(target) == file.package}

    def walk(module, trail):
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges[module]):
            found = walk(target, [*trail, module])
            if found:
                return found
        done.add(module)
        return []

    done = set()
    return next((found for found in (walk(module, []) for module in sorted(edges)) if found), [])


# --- the rules on lines that break them


def complaints(rule, path, text, *more):
    return list(rule(File(path, text), *more))


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (imports_against_the_stream, "modeling_videoqa/hub.py", "def f():\n    import processing.collator"),
        (imports_against_the_stream, "modeling_videoqa/hub.py", "from processing import VideoQAProcessor"),
        (imports_against_the_stream, "processing/__init__.py", "from modeling_videoqa import VideoQAConfig"),
        (imports_against_the_stream, "processing/__init__.py", "import modeling_videoqa.metrics"),
        (imports_against_the_stream, "processing/a.py", "from modeling_videoqa.configuration_videoqa import C"),
        (imports_against_the_stream, "processing/a.py", "from tests.test_a import helper"),
        (private_names_in_scripts, "examples/train.py", "from processing.collator import _pad"),
        (private_names_in_scripts, "benchmarks/speed.py", "import processing._hidden"),
        (nameless_relative_imports, "processing/a.py", "from . import collator"),
        (nameless_relative_imports, "processing/loaders/a.py", "def f():\n    from .. import collator"),
        (statements_that_do_not_belong, "processing/a.py", "print(1)"),
        (statements_that_do_not_belong, "modeling_videoqa/a.py", "def f(x):\n    assert x"),
        (statements_that_do_not_belong, "examples/a.py", "import torch\ntorch.load('x')"),
        (statements_that_do_not_belong, "examples/a.py", "from torch import load"),
        (statements_that_do_not_belong, "benchmarks/a.py", "import pickle"),
        (statements_that_do_not_belong, "processing/a.py", "import numpy as np\nnp.load('x.npy', allow_pickle=True)"),
        (missing_docstrings, "processing/a.py", "x = 1"),
        (missing_docstrings, "processing/__init__.py", "def f():\n    return 1"),
        (missing_docstrings, "processing/a.py", '"""What."""\nclass A:\n    x = 1'),
    ],
)
def test_a_rule_notices(rule, path, text):
    assert len(complaints(rule, path, text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "from ..a_videoqa import x",
        "from .loaders.schema import x",
        "from .collator import x",
        "from modeling_videoqa.a_videoqa import x",
        "import processing",
        '"""Example:\n    from .elsewhere import x\n"""',
    ],
)
def test_what_does_not_travel_is_noticed(text):
    siblings = {"a_videoqa", "b_videoqa"}
    assert complaints(imports_that_do_not_travel, "processing/b_videoqa.py", text, siblings)
    assert not complaints(imports_that_do_not_travel, "processing/b.py", text, siblings)


def test_what_is_allowed_is_let_through():
    allowed = '"""What."""\nimport math\n\nfrom .a_videoqa import x\n\n\ndef _f():\n    return ">>> print(1)"\n'
    file = File("processing/b_videoqa.py", allowed)
    assert not list(imports_that_do_not_travel(file, {"a_videoqa"}))
    for rule in (imports_against_the_stream, nameless_relative_imports, statements_that_do_not_belong):
        assert not list(rule(file))
    assert not list(missing_docstrings(file))
    config = "from modeling_videoqa.configuration_videoqa import VideoQAConfig"
    assert not complaints(imports_against_the_stream, "processing/__init__.py", config)


def test_undeclared_imports_are_noticed():
    text = (
        "import os\nimport h5py\nfrom .x import y\ntry:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n"
    )
    assert not complaints(undeclared_imports, "processing/a.py", text, {"h5py"})
    assert len(complaints(undeclared_imports, "processing/a.py", text, {"numpy"})) == 1


def test_a_cycle_is_noticed():
    a = File("processing/a.py", "from .b import x")
    b = File("processing/b.py", "def f():\n    from .loaders.c import x")
    c = File("processing/loaders/c.py", "from ..a import y")
    assert cycle_among([a, b, c]) == ["processing.a", "processing.b", "processing.loaders.c", "processing.a"]
    assert cycle_among([a, b]) == []
    package = File("processing/__init__.py", "from .a import y")
    assert cycle_among([package, File("processing/a.py", "from processing import y")])


# --- the rules on all files


@pytest.mark.parametrize(
    "rule",
    [
        imports_against_the_stream,
        private_names_in_scripts,
        nameless_relative_imports,
        statements_that_do_not_belong,
        missing_docstrings,
    ],
)
def test_all_files_keep(rule):
    assert [complaint for file in files_in(*PACKAGES, *SCRIPTS) for complaint in rule(file)] == []


def test_files_for_the_hub_import_only_what_travels():
    found = []
    for package in PACKAGES:
        travelling = [file for file in files_in(package) if file.travels]
        siblings = {Path(file.path).stem for file in travelling}
        found += [complaint for file in travelling for complaint in imports_that_do_not_travel(file, siblings)]
    assert found == []


def test_files_for_the_hub_have_names_of_their_own():
    # They land in one flat folder, where equal names overwrite each other without a word.
    names = [Path(file.path).name for file in files_in(*PACKAGES) if file.travels]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_cycle_inside_a_package(package):
    assert cycle_among(files_in(package)) == []


def test_setup_cfg_names_what_the_packages_import():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"].split("\n")
    declared = {normal(re.split(r"[^\w.-]", line)[0]) for line in lines if line.strip()}
    assert [complaint for file in files_in(*PACKAGES) for complaint in undeclared_imports(file, declared)] == []


def test_every_requirement_has_a_pin_and_no_floor_is_above_it():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    parts = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    required = [Requirement(line) for part in parts for line in part.split("\n") if line.strip()]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {normal(pin.name): pin for pin in map(Requirement, (line for line in lines if line and line[0] != "#"))}
    assert all(re.fullmatch(r"==[\d.]+", str(pin.specifier)) for pin in pins.values())
    versions = {name: next(iter(pin.specifier)).version for name, pin in pins.items()}
    assert len(required) >= 20
    for requirement in required:
        # One floor and nothing else: that is what `make test-oldest` turns into the version it installs.
        assert re.fullmatch(r">=[\d.]+", str(requirement.specifier)), f"{requirement}: write name>=version"
        assert normal(requirement.name) in versions, f"{requirement}: pin it in constraints.txt"
        version = versions[normal(requirement.name)]
        assert version in requirement.specifier, f"{requirement} is above its pin {version}: raise the pin too"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_are_marked_as_typed(package):
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert (ROOT / package / "py.typed").is_file()
    assert "py.typed" in setup["options.package_data"][package]

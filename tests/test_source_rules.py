"""What the source may not hold, and what the sandbox may not listen on."""

import ast
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World

PACKAGE = Path(__file__).parent.parent / "pipeline"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "telnetlib", "ftplib", "xml"}
CALLS = {"eval", "exec", "compile", "__import__", "input"}
ATTRIBUTES = {"system", "popen", "_create_unverified_context", "read_pickle", "to_pickle", "CERT_NONE", "mktemp"}


def breaches(source: str) -> Iterator[str]:
    """Yield what a module has that runs text as code, unpacks objects, starts a shell or trusts any certificate."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES:
                yield node.module or ""
            yield from (alias.name for alias in node.names if alias.name in ATTRIBUTES)
        elif isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            yield node.attr
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                yield node.func.id
            for word in node.keywords:
                value = word.value.value if isinstance(word.value, ast.Constant) else None
                if (word.arg, value) in {("shell", True), ("verify", False), ("ssl", False), ("check_hostname", False)}:
                    yield f"{word.arg}={value}"


def test_no_module_runs_text_unpacks_objects_or_trusts_any_certificate() -> None:
    assert len(SOURCES) > 100
    found = {str(path.relative_to(PACKAGE)): list(breaches(path.read_text())) for path in SOURCES}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "import yaml",
        "eval('1')",
        "os.system('ls')",
        "from os import system",
        "subprocess.run('ls', shell=True)",
        "httpx.get(url, verify=False)",
        "ssl._create_unverified_context()",
        "context.verify_mode = ssl.CERT_NONE",
        "frame.to_pickle('x')",
    ],
)
def test_each_breach_would_be_found(line: str) -> None:
    assert len(list(breaches(line))) == 1


def other_addresses() -> list[str]:
    """Return this machine's addresses beside 127.0.0.1: another one of loopback, and its own where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: this only asks which address would be used
            own = [probe.getsockname()[0]]
        except OSError:
            own = []
    return ["127.0.0.2", *own]


def test_the_sandbox_listens_on_loopback_and_nowhere_else() -> None:
    with serve(World(seed=1, runs=1)) as server:
        port = int(server.base_url.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        for address in other_addresses():
            with socket.socket() as asking:
                asking.settimeout(5)
                assert asking.connect_ex((address, port)) in (errno.ECONNREFUSED, errno.EADDRNOTAVAIL), address

"""Takes out of an image's /venv all that the program does not use, and compiles the modules that it does, once for all.

Each figure is of linux/amd64 and Python 3.13.
"""

import importlib
import pkgutil
import py_compile
import shutil
import site
import subprocess
import sys
from pathlib import Path

PACKAGES = Path(site.getsitepackages()[0])
SUPERFLUOUS = (
    "bazel-project",  # 16 MB: sources that cel-expr-python's wheel carries by mistake
    "cel_expr_python/ext",  # 36 MB: extensions of CEL; filters have none
    "pygments/lexers",  # 8 MB: colours for source code; tables have none
    "sqlalchemy/testing",  # 2 MB
    "cffi",  # 1 MB with the next one: for building; what it built needs neither
    "pycparser",
    "pydantic/v1",  # 1 MB: nothing of it is imported
    "sqlalchemy/dialects/mssql",  # 1 MB with the next one: databases that the program does not use
    "sqlalchemy/dialects/mysql",
)
# Modules that others import late, by a name.
LATE = (
    "anyio._backends._asyncio",
    "httpcore2",
    "sqlalchemy.dialects.oracle.oracledb",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.http.httptools_impl",
)


def main() -> None:
    """Works on the environment of the Python that runs it."""
    for name in SUPERFLUOUS:
        shutil.rmtree(PACKAGES / name)
    for stub in PACKAGES.rglob("*.pyi"):  # 1 MB
        stub.unlink()
    for script in Path(sys.prefix, "bin").iterdir():
        if not script.name.startswith(("python", "kafka-webhooks")):
            script.unlink()
    libraries = [str(path) for path in PACKAGES.rglob("*.so*")]
    subprocess.run(["strip", "--strip-unneeded", *libraries], check=True)  # noqa: S603, S607 (of the build)
    for root in ("consumer", "models"):
        for module in pkgutil.walk_packages(importlib.import_module(root).__path__, f"{root}."):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None) or ""
        if source.startswith(str(PACKAGES)) and source.endswith(".py"):
            py_compile.compile(source, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


main()

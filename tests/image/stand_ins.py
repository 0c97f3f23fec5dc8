"""Stand-ins for the two images of others in docker-compose.yml: the same settings, commands and health checks.

Each is this machine's own files with a few more, so that Java, the jars and the emulated Oracle are there.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.kafka_broker import CLUSTER_ID, JVM_FLAGS, KAFKA_VERSION, provision
from tests.oracle_emulator import java
from tests.processes import ROOT
from tests.provided import find_java

PROPERTIES = "/tmp/server.properties"  # noqa: S108 (of the container)
TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs.sh": "org.apache.kafka.tools.ConfigCommand",
    "kafka-broker-api-versions.sh": "org.apache.kafka.tools.BrokerApiVersionsCommand",
}
# apache/kafka makes a property of each variable: KAFKA_NODE_ID is node.id.
KAFKA = f"""set -eu
env | sed -n 's/^KAFKA_//p' | while IFS== read -r name value; do
  echo "$(echo "$name" | tr A-Z_ a-z.)=$value"
done >{PROPERTIES}
JAVA kafka.tools.StorageTool format --ignore-formatted -t {CLUSTER_ID} -c {PROPERTIES}
exec JAVA kafka.Kafka {PROPERTIES}
"""
ORACLE = """cd ROOT
exec PYTHON -m tests.oracle_emulator --host 0.0.0.0 --port 1521 --profile 23ai \\
  --user "$APP_USER" --password "$APP_USER_PASSWORD"
"""
# The real one, too, logs on and asks.
ORACLE_HEALTH = """exec PYTHON -c 'import os, oracledb
user, password = os.environ["APP_USER"], os.environ["APP_USER_PASSWORD"]
oracledb.connect(user=user, password=password, dsn="localhost/FREEPDB1").ping()'
"""
COMMANDS = {"apache/kafka": "/usr/local/bin/kafka", "gvenzl/oracle-free": "/usr/local/bin/oracle"}


def root_of(image: str, folder: Path) -> tuple[list[str], list[str]]:
    """The stand-in for an image, as options of podman, and its command. `folder`: empty, on another file system."""
    if (command := COMMANDS.get(image.partition(":")[0])) is None:
        raise ValueError(f"nothing stands in for the image {image}: add it to tests/image/stand_ins.py")
    below = {name: folder / name for name in ("upper", "work", "root")}
    for path in below.values():
        path.mkdir(parents=True)
    layers = f"lowerdir=/,upperdir={below['upper']},workdir={below['work']}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(below["root"])], check=True)  # noqa: S607 (the user's)
    jars = f"{provision()}/*:{java.provision(f'org.apache.kafka:kafka-tools:{KAFKA_VERSION}')}"
    started = shlex.join([find_java(), *JVM_FLAGS, "-cp", jars])
    java.provision(java.H2)
    scripts = {
        "/usr/local/bin/kafka": KAFKA.replace("JAVA", started),
        "/usr/local/bin/oracle": ORACLE,
        "/usr/local/bin/healthcheck.sh": ORACLE_HEALTH,
    } | {f"/opt/kafka/bin/{name}": f'exec {started} {main} "$@"\n' for name, main in TOOLS.items()}
    for name, script in scripts.items():
        place = below["root"] / name[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("#!/bin/bash\n" + script.replace("ROOT", str(ROOT)).replace("PYTHON", sys.executable))
        place.chmod(0o755)
    return [f"--env=HOME={os.environ['HOME']}", "--rootfs", str(below["root"])], [command]

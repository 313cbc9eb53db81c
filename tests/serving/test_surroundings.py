"""What servers find around them: ports, users, read-only folders, missing packages."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.serving.gated import ECHO, descendants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serving.conftest import Server


@pytest.mark.contract(68)
def test_only_the_given_port_is_bound(start, model_root, front):
    server = start(
        model_root(ECHO), BYOC_FRONT=front, SAGEMAKER_SAFE_PORT_RANGE="9100-9200"
    ).wait_ready()
    inodes = set()
    for pid in [server.process.pid, *descendants(server.process.pid)]:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                match = re.match(r"socket:\[(\d+)\]", str(entry.readlink()))
                inodes |= {match[1]} if match else set()
    listening = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.add(int(fields[1].rsplit(":", 1)[1], 16))
    assert listening == {server.port}


def test_only_the_processes_that_hold_a_model_and_their_parent_load_torch(
    shared_server: Server, variant: str
):
    master = shared_server.process.pid
    pids = [master, *descendants(master)]
    with_torch = [pid for pid in pids if "libtorch" in Path(f"/proc/{pid}/maps").read_text()]
    with_numpy = [pid for pid in pids if "_multiarray" in Path(f"/proc/{pid}/maps").read_text()]
    # Without GPUs the processes with a model share what the master has imported.
    assert master in with_torch
    assert len(with_torch) == 3
    if "isolated" not in variant:
        # All but the porter.
        assert len(pids) == 4
        assert set(with_numpy) == set(with_torch)


@pytest.mark.parametrize("module", ["main", "master", "gunicorn_conf", "settings"])
def test_importing_the_main_parts_loads_neither_torch_nor_numpy_nor_boto3(module):
    code = (
        f"import sys, byoc_serving.{module}; "
        "print([m for m in ('torch', 'numpy', 'boto3', 'flask', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.contract(60)
def test_read_only_model_directory_serves_and_stays_as_it_was(start, model_root, front):
    root = model_root(ECHO)
    before = sorted(str(path) for path in root.rglob("*"))
    if os.geteuid() == 0:
        done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("no mount namespaces here, and root ignores permissions")
        serve = Path(sys.executable).with_name("serve")
        script = f"mount --bind {root} {root} && mount -o remount,bind,ro {root} && exec {serve}"
        server = start(root, ["unshare", "-m", "sh", "-c", script], BYOC_FRONT=front)
    else:
        for path in (root / "model", root / "model" / "code"):
            path.chmod(0o555)
        server = start(root, BYOC_FRONT=front)
    server.wait_ready()
    assert server.invoke("[[1]]").json == [[1.0]]
    assert server.terminate() == 0
    assert sorted(str(path) for path in root.rglob("*")) == before


@pytest.mark.contract(61)
@pytest.mark.parametrize("missing", [True, False])
def test_image_with_its_own_handler_serves_without_a_model_directory(
    start, tmp_path, missing, front
):
    own = tmp_path / "own.py"
    own.write_text("import torch\ndef model_fn(model_dir): return torch.nn.Identity()\n")
    if not missing:
        (tmp_path / "ml" / "model").mkdir(parents=True)
    server = start(tmp_path / "ml", BYOC_HANDLER=str(own), BYOC_FRONT=front).wait_ready()
    assert server.invoke("[[3]]").json == [[3.0]]


@pytest.mark.contract(74)
def test_idle_keep_alive_connection_is_kept_beyond_a_minute(shared_server: Server):
    from byoc_serving.gunicorn_conf import KEEPALIVE_S

    assert KEEPALIVE_S > 60
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", shared_server.port)
    ) as connection:
        for _ in range(3):
            connection.request("GET", "/ping")
            response = connection.getresponse()
            response.read()
            assert not response.will_close


@pytest.mark.contract(70)
@pytest.mark.slow
def test_request_of_59_seconds_is_answered(start, model_root, front):
    handler = """
        import time, torch
        def model_fn(model_dir): return torch.nn.Identity()
        def predict_fn(data, model):
            time.sleep(59)
            return data
    """
    server = start(model_root(handler), BYOC_FRONT=front).wait_ready()
    answer = server.invoke("[[1]]", timeout=70)
    assert (answer.status, answer.json) == (200, [[1.0]])


def test_bad_settings_are_all_told_with_exit_code_2(start, model_root):
    server = start(
        model_root(ECHO), SAGEMAKER_BIND_TO_PORT="eighty", BYOC_FRONT="nginx", BYOC_QUEUE_SIZE="0"
    )
    assert server.wait_end() == 2
    assert len(server.lines) == 3
    assert "SAGEMAKER_BIND_TO_PORT='eighty'" in server.log
    assert "BYOC_FRONT='nginx'" in server.log
    assert "BYOC_QUEUE_SIZE='0'" in server.log


def test_variable_of_gunicorn_that_is_no_number_changes_nothing(start, model_root):
    handler = """
        import os
        def model_fn(model_dir): return os.environ["WEB_CONCURRENCY"]
        def predict_fn(data, model): return model
    """
    server = start(model_root(handler), WEB_CONCURRENCY="many").wait_ready()
    assert server.invoke("[[1]]").json == "many"
    assert server.terminate() == 0


@pytest.mark.parametrize("topology", ["inline", "isolated"])
def test_handler_that_closes_standard_output_ends_like_any_other(
    start, model_root, front, topology
):
    handler = """
        import sys
        def model_fn(model_dir): return "closed"
        def predict_fn(data, model):
            sys.stdout.close()
            return model
    """
    server = start(model_root(handler), BYOC_FRONT=front, BYOC_TOPOLOGY=topology).wait_ready()
    assert server.invoke("[[1]]").json == "closed"
    assert server.terminate() == 0
    assert "Traceback" not in server.log
    assert "ERROR" not in server.log


def test_port_that_is_taken_is_one_clear_line(start, model_root):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(model_root(ECHO), SAGEMAKER_BIND_TO_PORT=str(port))
        assert server.wait_end() != 0
    assert f"{port}" in server.lines[-1]
    assert "in use" in server.lines[-1]


@pytest.mark.contract(92)
def test_other_user_without_home_or_shared_memory_serves(start, front, closed_to_nobody):
    root = closed_to_nobody / "ml"
    (root / "model" / "code").mkdir(parents=True)
    (root / "model" / "code" / "inference.py").write_text(textwrap.dedent(ECHO))
    serve = Path(sys.executable).with_name("serve")
    script = (
        "mount -t tmpfs -o size=4k,mode=000 none /dev/shm && "
        f"exec setpriv --reuid 54321 --regid 54321 --clear-groups {serve}"
    )
    command = ["unshare", "-m", "sh", "-c", script]
    server = start(root, command, BYOC_FRONT=front, HOME="/nonexistent").wait_ready()
    assert server.invoke("[[1]]").json == [[1.0]]
    assert server.terminate() == 0


@pytest.fixture
def closed_to_nobody() -> Iterator[Path]:
    """A folder below /tmp that any user can read."""
    probe = [
        *("unshare", "-m", "setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"),
        *(sys.executable, "-c", "import torch"),
    ]
    if os.geteuid() != 0 or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("another user cannot run this environment's Python (the image tests do it)")
    with tempfile.TemporaryDirectory(prefix="byoc-open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("missing", ["gunicorn", "flask", "orjson", "torch"])
def test_missing_package_is_one_clear_line(start, model_root, missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from byoc_serving.main import main; main()"
    )
    server = start(model_root(ECHO), [sys.executable, "-c", code])
    assert server.wait_end() == 3
    assert missing in server.lines[-1]
    assert "not installed" in server.lines[-1]
    assert "Traceback" not in server.log

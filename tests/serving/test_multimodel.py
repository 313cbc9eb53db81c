"""The multi-model container API (contract, section 10) on real servers with both fronts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.serving.conftest import Models

#: Answers with its process id; waits, dies or grows on request.
PROBE = """
    import os, pathlib, time
    import torch
    GATE = pathlib.Path({gate!r})
    def wait(name):
        (GATE / f"{{name}}.reached").touch()
        while not (GATE / name).exists():
            time.sleep(0.005)
    def model_fn(model_dir):
        wait("load")
        return torch.zeros({floats})
    def predict_fn(data, model):
        if data.sum() == 99:
            wait("predict")
        if data.sum() == 66:
            os.kill(os.getpid(), 9)
        if data.sum() == 55:
            raise MemoryError
        return data * 0 + os.getpid()
    def output_fn(prediction, accept):
        import json
        return json.dumps(prediction.long().tolist()), "application/json"
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    folder = tmp_path / "gate"
    folder.mkdir()
    (folder / "load").touch()
    return folder


@pytest.fixture
def probe(gate: Path) -> Callable[..., str]:
    def make(floats: int = 1) -> str:
        return textwrap.dedent(PROBE.format(gate=str(gate), floats=floats))

    return make


def running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def named(comm: str, root: int) -> list[int]:
    """Processes of that name in the session that a server leads."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                if name == comm and int(rest.split()[3]) == root:
                    found.append(int(folder.name))
    return found


@contextlib.contextmanager
def held(models: Models, name: str, gate: Path) -> Iterator[None]:
    """A request that is inside predict_fn until the gate opens, and then is answered."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(models.invoke, name, "[[99]]")
        models.server.wait_until((gate / "predict.reached").exists)
        try:
            yield
        finally:
            (gate / "predict").touch()
        assert future.result(60).status == 200


@pytest.mark.contract(81)
def test_server_without_a_model_is_healthy_and_lists_none(models: Models):
    ping = models.server.ping()
    assert ping is not None
    assert ping.status == 200
    answer = models.server.request("GET", "/models")
    assert (answer.status, answer.json) == (200, {"models": []})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.contract(82)
def test_load_list_get_invoke_and_unload_have_the_contracts_codes(models: Models):
    url = models.write()
    item = {"modelName": "one", "modelUrl": url}
    assert models.invoke("one").status == 404
    assert models.get("one").status == 404
    assert models.delete("one").status == 404
    assert models.load("one", url).status == 200
    again = models.load("one", url)
    assert (again.status, again.json["error"]["code"]) == (409, "model_already_loaded")
    assert (models.get("one").status, models.get("one").json) == (200, item)
    assert models.server.request("GET", "/models").json == {"models": [item]}
    assert (models.invoke("one").status, models.invoke("one").json) == (200, [[1.0]])
    assert models.delete("one").status == 200
    assert models.delete("one").status == 404
    assert models.invoke("one").status == 404
    assert models.load("one", url).status == 200


@pytest.mark.contract(64, 67)
def test_invocations_of_a_model_follow_the_rules_of_a_single_one(models: Models):
    handler = """
        import torch
        def model_fn(model_dir): return torch.nn.Identity()
        def predict_fn(data, model): return model(data)
        def output_fn(prediction, accept, context):
            context.custom_attributes = context.custom_attributes + " back"
            target = context.get_request_header(0, "x-amzn-sagemaker-target-model")
            context.set_response_header(0, "X-Seen", target)
            return str(prediction.numel()), "text/plain"
    """
    assert models.load("strict").status == 200
    assert models.load("attributes", models.write(handler)).status == 200
    assert models.invoke("strict", "[[1,").status == 400
    assert models.invoke("strict", b"1", Content_Type="video/mp4").status == 415
    assert models.invoke("strict", "[[1]]", Accept="video/mp4").status == 406
    assert models.invoke("strict", "1,2\n3,4", Content_Type="text/csv").json == [[1, 2], [3, 4]]
    answer = models.invoke(
        "attributes",
        json.dumps([[0] * 400_000]),
        X_Amzn_SageMaker_Custom_Attributes="there and",
        X_Amzn_SageMaker_Target_Model="attributes.tar.gz",
    )
    assert (answer.status, answer.body) == (200, b"400000")
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "there and back"
    assert answer.headers["x-seen"] == "attributes.tar.gz"
    assert answer.headers["content-type"] == "text/plain"
    body = json.dumps([[0.5] * 3_000_000])
    assert models.invoke("strict", body).json == json.loads(body)


def test_plain_invocations_and_adapters_are_refused_with_the_way_to_go(models: Models):
    refused = models.server.invoke("[[1]]")
    assert refused.status == 404
    assert "/models/<name>/invoke" in refused.error
    assert models.server.request("POST", "/adapters", '{"name": "a"}').status == 404
    for method, path, allowed in (
        ("PUT", "/models", "GET, POST"),
        ("POST", "/models/a", "GET, DELETE"),
        ("GET", "/models/a/invoke", "POST"),
    ):
        answer = models.server.request(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)


NAMES = [
    "a/b", "/", "..", "../../ping", "50%", "a%2Fb", "ü-€-😀", " spaces ", "x/invoke", "invoke",
    "a?b#c&d=e", "a+b", "a//b", "0" * 1024, "new\nline", "tab\tNUL\0", '"quoted"',
]  # fmt: skip


@pytest.mark.contract(82, 84)
def test_names_are_opaque(models: Models):
    url = models.write()
    with ThreadPoolExecutor(4) as pool:
        assert {a.status for a in pool.map(lambda name: models.load(name, url), NAMES)} == {200}
    for name in NAMES:
        assert models.get(name).json == {"modelName": name, "modelUrl": url}, name
        assert models.invoke(name).json == [[1.0]], name
    assert models.names(limit=3) == sorted(NAMES)
    # A slash may also come as it is.
    assert models.server.request("GET", "/models/a/b").json["modelName"] == "a/b"
    answer = models.server.request(
        "POST", "/models/a/b/invoke", "[[2]]", {"Content-Type": "application/json"}
    )
    assert answer.json == [[2.0]]
    for name in NAMES:
        assert models.delete(name).status == 200, name
    assert models.names() == []


@pytest.mark.contract(64)
def test_bad_load_requests_are_refused_with_one_clear_line(models: Models):
    root = models.server.root
    good = models.write()
    (root / "models" / "file").write_bytes(b"")
    (root / "secret").mkdir(exist_ok=True)
    links = root / "models" / f"links-{os.urandom(4).hex()}"
    links.mkdir()
    (links / "out").symlink_to(root / "secret")
    (links / "loop").symlink_to(links / "loop")
    bodies = [
        b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000, b"{}", b'{"model_name": "a"}',
        json.dumps({"url": good}).encode(), b'{"model_name": 1, "url": "/opt/ml/models/a"}',
        json.dumps({"model_name": "", "url": good}).encode(),
        json.dumps({"model_name": "a" * 1025, "url": good}).encode(),
        b" " * 70_000,
    ]  # fmt: skip
    urls = [
        "", "relative", "/etc", "/opt/ml/model", "/opt/ml/models", "/opt/ml/models/",
        f"{good}/../../../secret", "/opt/ml/models/../secret", "/opt/ml/models/../../../etc",
        f"/opt/ml/models/{links.name}/out", f"/opt/ml/models/{links.name}/loop",
        "/opt/ml/models/file", "/opt/ml/models/missing", "/opt/ml/models/a\0b",
        f"/opt/ml/models/{'x' * 5000}", str(root / "secret"), "s3://bucket/key",
    ]  # fmt: skip
    bodies += [json.dumps({"model_name": "a", "url": url}).encode() for url in urls]
    for body in bodies:
        answer = models.server.request("POST", "/models", body)
        assert answer.status == 400, (body, answer.body)
        assert len(answer.body) < 2048
        assert "Traceback" not in answer.error
    assert models.names() == []
    assert models.load("a", str(root / "models" / Path(good).relative_to("/opt/ml/models"))).status
    assert models.load("b", good).status == 200
    assert "Traceback" not in models.server.log


@pytest.mark.contract(59, 83)
def test_model_that_cannot_load_tells_why_and_harms_nobody(models: Models):
    assert models.load("good").status == 200
    cases = [
        ("def model_fn(model_dir):\n    raise OSError('no weights')\n", 500, "no weights"),
        ("def model_fn(model_dir)\n", 500, "inference.py:1"),
        ("import a_missing_package\ndef model_fn(d): ...\n", 500, "a_missing_package"),
        ("def model_fn(model_dir): return None\n", 500, "returned None"),
        ("import sys\ndef model_fn(model_dir): sys.exit(7)\n", 500, "SystemExit"),
        ("import os\ndef model_fn(model_dir): os._exit(7)\n", 500, "exit code 7"),
        ("import os\ndef model_fn(model_dir): os.abort()\n", 500, "signal 6"),
        ("def model_fn(model_dir): raise MemoryError\n", 507, "memory"),
        ("import torch\ndef model_fn(model_dir): torch.empty(1 << 60)\n", 507, "memory"),
        ("import os\ndef model_fn(model_dir): os.kill(os.getpid(), 9)\n", 507, "killed"),
    ]
    for handler, status, words in cases:
        answer = models.load("bad", models.write(handler))
        assert (answer.status, words in answer.error) == (status, True), (handler, answer.body)
        assert models.names() == ["good"]
        assert models.invoke("good").status == 200
    assert models.load("bad").status == 200


@pytest.mark.contract(83)
def test_too_little_memory_is_507_and_the_server_stays_healthy(models: Models, probe):
    assert models.load("small").status == 200
    url = models.write()
    weights = models.server.root / "models" / Path(url).parts[-2] / "model" / "weights.bin"
    with weights.open("wb") as file:
        # Nothing is written: the size alone decides.
        file.truncate(6 * 1024**3)
    refused = models.load("large", url)
    assert (refused.status, refused.json["error"]["code"]) == (507, "insufficient_memory")
    assert "MiB" in refused.error
    ping = models.server.ping()
    assert ping is not None
    assert ping.status == 200
    assert models.names() == ["small"]
    assert models.invoke("small").status == 200
    assert models.load("other").status == 200
    # Out of memory during a request: SageMaker unloads others and tries again.
    assert models.load("greedy", models.write(probe())).status == 200
    assert models.invoke("greedy", "[[55]]").status == 507
    assert models.invoke("greedy").status == 200


@pytest.mark.contract(83)
def test_memory_is_free_and_the_process_gone_when_the_reply_to_an_unload_arrives(
    models: Models, probe
):
    assert models.load("big", models.write(probe(floats=50_000_000))).status == 200
    pid = models.pid("big")
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private = next(int(ln.split()[1]) for ln in rollup.splitlines() if "Private_Dirty" in ln)
    assert private > 190_000
    assert models.delete("big").status == 200
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.contract(82)
def test_two_concurrent_loads_of_one_name_are_one_200_and_one_409(models: Models, probe, gate):
    (gate / "load").unlink()
    url = models.write(probe())
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(models.load, "slow", url)
        models.server.wait_until((gate / "load.reached").exists)
        assert models.load("slow", url).status == 409
        assert models.get("slow").status == 404
        assert models.names() == []
        waiting = pool.submit(models.invoke, "slow")
        # Others come and go meanwhile.
        assert models.load("quick").status == 200
        assert models.invoke("quick").json == [[1.0]]
        assert models.delete("quick").status == 200
        assert not first.done()
        assert not waiting.done()
        (gate / "load").touch()
        assert first.result(60).status == 200
        assert waiting.result(60).status == 200


def test_unload_during_a_load_ends_it(models: Models, probe, gate):
    (gate / "load").unlink()
    with ThreadPoolExecutor(2) as pool:
        load = pool.submit(models.load, "slow", models.write(probe()))
        models.server.wait_until((gate / "load.reached").exists)
        assert models.delete("slow").status == 200
        assert load.result(60).status == 503
    assert models.names() == []
    assert named("byoc-model", models.server.process.pid) == []


def test_running_requests_are_answered_before_an_unload_and_new_ones_get_404(
    models: Models, probe, gate
):
    assert models.load("busy", models.write(probe())).status == 200
    pid = models.pid("busy")
    with ThreadPoolExecutor(1) as pool:
        with held(models, "busy", gate):
            unload = pool.submit(models.delete, "busy")
            models.server.wait_until(lambda: models.get("busy").status == 404)
            assert models.invoke("busy").status == 404
            assert models.delete("busy").status == 404
            # The name is free again only when the memory is.
            reload = pool.submit(models.load, "busy")
            assert running(pid)
            assert not unload.done()
        assert unload.result(60).status == 200
        assert not running(pid)
        assert reload.result(60).status == 200


@pytest.mark.contract(73)
def test_full_model_refuses_with_503_while_others_and_ping_answer(models: Models, probe, gate):
    assert models.load("other").status == 200
    assert models.load("busy", models.write(probe())).status == 200
    with ThreadPoolExecutor(8) as pool:
        with held(models, "busy", gate):
            asked = [pool.submit(models.invoke, "busy") for _ in range(6)]
            models.server.wait_until(lambda: sum(future.done() for future in asked) >= 3)
            refused = [future.result() for future in asked if future.done()]
            assert {answer.status for answer in refused} == {503}
            assert {answer.headers["retry-after"] for answer in refused} == {"1"}
            assert refused[0].json["error"]["code"] == "full"
            assert models.invoke("other").status == 200
            ping = models.server.ping()
            assert ping is not None
            assert ping.status == 200
        assert sorted(future.result(60).status for future in asked) == [200] * 3 + [503] * 3


@pytest.mark.contract(72)
def test_poisoned_request_fails_alone_and_the_model_comes_back(models: Models, probe, gate):
    assert models.load("other").status == 200
    assert models.load("fragile", models.write(probe())).status == 200
    before = models.pid("fragile")
    with ThreadPoolExecutor(4) as pool:
        with held(models, "fragile", gate):
            poisoned = pool.submit(models.invoke, "fragile", "[[66]]")
            neighbours = [pool.submit(models.invoke, "fragile", f"[[{i}]]") for i in range(2)]
        failed = poisoned.result(60)
        assert (failed.status, "signal 9" in failed.error) == (500, True)
        assert [future.result(60).status for future in neighbours] == [200, 200]
    assert models.pid("fragile") != before
    assert models.get("fragile").status == 200
    assert models.names() == ["fragile", "other"]
    assert models.invoke("other").status == 200


@pytest.mark.contract(72)
def test_request_inside_a_killed_process_is_answered_by_the_next_one(models: Models, probe, gate):
    assert models.load("killed", models.write(probe())).status == 200
    pid = models.pid("killed")
    with held(models, "killed", gate):
        os.kill(pid, signal.SIGKILL)
        models.server.wait_until(lambda: not running(pid))
    assert models.pid("killed") != pid


def test_models_have_modules_and_working_state_of_their_own(models: Models):
    handler = """
        import os
        import helper, torch
        import random, numpy
        def model_fn(model_dir):
            os.environ["SHARED"] = os.environ.get("SHARED", "") + helper.WORD
            return None or helper
        def predict_fn(data, model):
            return [os.environ["SHARED"], torch.get_num_threads(), random.random(),
                    float(numpy.random.rand()), float(torch.rand(1))]
        def output_fn(prediction, accept):
            import json
            return json.dumps(prediction), "application/json"
    """
    for word in ("left", "right"):
        url = models.write(handler, helper__py=f"WORD = {word!r}\n".encode())
        assert models.load(word, url).status == 200
    left, right = models.invoke("left").json, models.invoke("right").json
    assert (left[:2], right[:2]) == (["left", 1], ["right", 1])
    assert not set(left[2:]) & set(right[2:])


STREAM = """
    import pathlib, time
    import torch
    GATE = pathlib.Path({gate!r})
    def model_fn(model_dir):
        return torch.nn.Identity()
    def predict_fn(data, model):
        return chunks(int(data.sum()))
    def chunks(number):
        try:
            yield "first"
            while not (GATE / "go").exists():
                time.sleep(0.005)
                yield ""
            yield "x" * number
        finally:
            (GATE / f"ended.{{number}}").touch()
"""


@pytest.mark.contract(88, 89)
def test_streams_leave_chunk_by_chunk_beside_each_other_and_end_with_their_client(models, gate):
    url = models.write(textwrap.dedent(STREAM.format(gate=str(gate))))
    assert models.load("talker", url).status == 200
    headers = {"Content-Type": "application/json", "Accept": "text/plain"}
    with contextlib.ExitStack() as stack:
        replies = []
        leaver: http.client.HTTPConnection | None = None
        # The last body is longer than what any buffer between holds.
        for number in (1, 3_000_000):
            client = http.client.HTTPConnection("127.0.0.1", models.server.port, timeout=60)
            stack.enter_context(contextlib.closing(client))
            client.request("POST", "/models/talker/invoke", f"[[{number}]]", headers)
            replies.append(client.getresponse())
            leaver = leaver or client
        for reply in replies:
            assert reply.status == 200
            assert reply.read(5) == b"first"
        # A client that leaves ends its stream, although nothing else would.
        assert leaver is not None
        leaver.close()
        replies[0].close()
        models.server.wait_until((gate / "ended.1").exists)
        (gate / "go").touch()
        assert replies[1].read() == b"x" * 3_000_000
    assert models.delete("talker").status == 200


@pytest.mark.contract(84)
@pytest.mark.slow
def test_two_hundred_models_are_listed_exactly_once_by_pages(models: Models, front):
    # The registry is the same behind both fronts: one of them gets the full number.
    count = 200 if front == "asgi" else 20
    url = models.write()
    names = [f"model-{number:03d}" for number in range(count)]
    with ThreadPoolExecutor(4) as pool:
        assert {a.status for a in pool.map(lambda name: models.load(name, url), names)} == {200}
        assert models.names() == names
        assert models.names(limit=7) == names
        assert len(models.server.request("GET", "/models").json["models"]) == min(100, count)
        if count == 200:
            assert models.load("one-too-many", url).status == 507
        # Models that come and go between two pages move no other.
        first = models.server.request("GET", "/models?limit=10").json
        shown = [item["modelName"] for item in first["models"]]
        models.delete(names[0])
        models.delete(names[9])
        assert models.load("a-new-one", url).status == 200
        token = first["nextPageToken"]
        rest = models.server.request("GET", f"/models?limit=1000&next_page_token={token}").json
        shown += [item["modelName"] for item in rest["models"]]
        assert "nextPageToken" not in rest
        assert shown == names
        answers = pool.map(models.invoke, names)
        assert [answer.status for answer in answers].count(200) == count - 2
        left = models.names()
        assert {a.status for a in pool.map(models.delete, left)} == {200}
    assert models.names() == []
    assert named("byoc-model", models.server.process.pid) == []


def test_bad_page_requests_are_400(models: Models):
    for query in ("limit=0", "limit=-1", "limit=ten", "limit=", "next_page_token=100"):
        assert models.server.request("GET", f"/models?{query}").status == 400, query


@pytest.mark.contract(69, 72)
def test_front_and_zygote_may_die_and_a_stop_answers_what_runs(own_models, probe, gate):
    models = own_models()
    server = models.server
    for name in ("one", "two"):
        assert models.load(name, models.write(probe())).status == 200
    processes = {name: models.pid(name) for name in ("one", "two")}
    # Without the zygote models go on, can be unloaded, and others loaded by its successor.
    (zygote,) = named("byoc-zygote", server.process.pid)
    os.kill(zygote, signal.SIGKILL)
    assert models.load("three", models.write(probe())).status == 200
    assert models.pid("one") == processes["one"]
    assert models.delete("one").status == 200
    assert not running(processes["one"])
    # A new front loads again what the old one had.
    (zygote,) = named("byoc-zygote", server.process.pid)
    front = parent(zygote)
    os.kill(front, signal.SIGKILL)
    server.wait_until(lambda: not running(front))
    server.wait_until(lambda: serves(server), 120)
    assert models.names() == ["three", "two"]
    assert models.pid("two") != processes["two"]
    server.wait_until(lambda: not running(processes["two"]))
    with ThreadPoolExecutor(1) as pool:
        with held(models, "two", gate):
            other = pool.submit(models.invoke, "three", "[[99]]")
            server.wait_until(lambda: established(server.port) >= 2)
            server.process.send_signal(signal.SIGTERM)
            server.wait_until(lambda: refused(server.port), 10)
            assert server.process.poll() is None
        assert other.result(60).status == 200
    assert server.wait_end(25) == 0
    assert named("byoc-model", server.process.pid) == []
    assert named("byoc-zygote", server.process.pid) == []
    assert "Traceback" not in server.log


def serves(server) -> bool:
    """Whether ``/ping`` is 200; on a busy machine an answer may also be late."""
    try:
        answer = server.ping()
    except TimeoutError:
        return False
    return answer is not None and answer.status == 200


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def established(port: int) -> int:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(f[1].endswith(f":{port:04X}") and f[3] == "01" for f in fields)


def refused(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    # Reset: the listening socket was closed while this connection was being made.
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


@pytest.mark.contract(69)
def test_stop_during_a_load_ends_at_once_with_exit_code_0(own_models, probe, gate):
    models = own_models()
    (gate / "load").unlink()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(models.load, "slow", models.write(probe()))
        models.server.wait_until((gate / "load.reached").exists)
        began = time.monotonic()
        assert models.server.terminate() == 0
        assert time.monotonic() - began < 10
        assert load.result(60).status == 503
    assert named("byoc-model", models.server.process.pid) == []

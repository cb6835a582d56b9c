"""The stand-ins Nawal and Kinich: what a job gives, what is refused, the limit, the fallback."""

import importlib.util
import json
import sys
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "playbooks/roles/images/files/standins"


def load(name):
    """As in their image they import what stands beside them."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


jobs = load("jobs")
nawal = load("nawal")
kinich = load("kinich")


@pytest.fixture
def serving():
    """Serve one on loopback; gives `ask(path, body) -> status, document`."""
    ended = []

    def start(service, workers=1):
        server = ThreadingHTTPServer(("127.0.0.1", 0), jobs.handler(service))
        threads = [threading.Thread(target=service.work) for _ in range(workers)]
        threads.append(threading.Thread(target=server.serve_forever))
        for thread in threads:
            thread.start()
        ended.append((service, server, threads))

        def ask(path, body=None):
            data = None if body is None else json.dumps(body).encode()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", data, timeout=10) as answer:
                    text, status = answer.read().decode(), answer.status
            except urllib.error.HTTPError as refused:
                text, status = refused.read().decode(), refused.code
            return status, text if path == "/metrics" else json.loads(text)

        return ask

    yield start
    for service, server, threads in ended:
        service.stopping.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()


def a_nawal(**changed):
    one = nawal.Nawal(b"key", **changed)
    return jobs.Service("nawal", jobs.Alone(50), one.check, one.run, (), {"layers_on": 6}, {"/layers": one.page})


def a_kinich(limit=50, credentials=""):
    one = kinich.Kinich(("azure", "ibm"), credentials=credentials)
    store = jobs.Alone(limit)
    one.used = store.counts
    return jobs.Service("kinich", store, one.check, one.run, ("fallbacks_total",), {}, {"/backends": one.page})


def test_a_training_learns_and_its_result_is_there_to_ask_for(serving):
    ask = serving(a_nawal())
    status, job = ask("/jobs?wait=9", {"participants": 5, "rounds": 60})
    assert (status, job["state"]) == (200, "done")
    assert job["result"]["error"] < job["result"]["error_before"] / 10
    assert ask(f"/jobs/{job['id']}") == (200, job)
    assert ask("/layers")[1]["on"] == 6
    assert 'nawal_jobs_total{kind="done"} 1' in ask("/metrics")[1]


@pytest.mark.parametrize("participants", [2, 101, "many", None, True])
def test_a_training_has_3_to_100_participants(serving, participants):
    status, answer = serving(a_nawal())("/jobs", {"participants": participants})
    assert status == 400
    assert "participants must be a whole number from 3 to 100" in answer["error"]


def test_what_lies_is_rejected_and_without_that_layer_it_does_harm():
    job = {"participants": 9, "rounds": 40, "byzantine": 3}
    guarded, counted = nawal.Nawal(b"key").run(job)
    assert counted["byzantine_updates_rejected_total"] >= 3
    open_to_all, _ = nawal.Nawal(b"key", layers=("validation",)).run(job)
    assert guarded["error"] < 1 < open_to_all["error"]


def test_the_fallback_runs_what_the_primary_can_not(serving):
    ask = serving(a_kinich())
    circuit = {"qubits": 2, "gates": [["h", 0], ["cx", 0, 1]]}
    normal = ask("/jobs?wait=9", circuit)[1]["result"]
    assert (normal["backend"], normal["fallback"]) == ("azure", False)
    without = ask("/jobs?wait=9", {**circuit, "outage": ["azure"]})[1]["result"]
    assert (without["backend"], without["fallback"]) == ("ibm", True)
    neither = ask("/jobs?wait=9", {**circuit, "outage": ["azure", "ibm"]})[1]
    assert (neither["state"], neither["error"]) == ("failed", "no backend is up of azure, ibm")
    assert [(b["role"], b["jobs"]) for b in ask("/backends")[1]["backends"]] == [("primary", 1), ("fallback", 1)]


def test_a_backend_without_a_key_is_not_up(tmp_path):
    (tmp_path / "ibm").write_text("key")
    one = kinich.Kinich(("azure", "ibm"), credentials=str(tmp_path))
    assert one.run(one.check({"qubits": 1}))[0]["backend"] == "ibm"


def test_mitigation_comes_nearer_to_the_truth():
    one = kinich.Kinich(("azure", "ibm"))
    result, _ = one.run(one.check({"qubits": 2, "gates": [["h", 0], ["cx", 0, 1], ["rx", 1, 0.4], ["rx", 1, -0.3]]}))
    assert result["gates_run"] == 3
    assert abs(result["mitigated"] - result["exact"]) < abs(result["measured"] - result["exact"]) / 10


@pytest.mark.parametrize(("level", "left"), [(0, 6), (1, 5), (2, 3), (3, 2)])
def test_each_level_optimises_more(level, left):
    gates = [["rz", 0, 0], ["h", 0], ["h", 0], ["rx", 0, 0.5], ["rx", 0, 0.25], ["x", 0]]
    assert len(kinich.optimised(gates, level)) == left


def test_the_51st_job_is_turned_away(serving):
    service = a_kinich()
    ask = serving(service, workers=0)  # nothing is taken
    answers = [ask("/jobs", {"qubits": 1})[0] for _ in range(51)]
    assert answers == [202] * 50 + [429]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"qubits": 11}, "qubits must be"),
        ({"qubits": 1, "gates": [["y", 0]]}, "is no gate"),
        ({"qubits": 1, "gates": [["cx", 0, 1]]}, "a qubit of"),
        ({"qubits": 2, "gates": [["cx", 0, 0]]}, "wrong number"),
        ({"qubits": 1, "outage": ["aws"]}, "backends are azure, ibm"),
        ([], "a JSON object"),
    ],
)
def test_a_circuit_that_is_none_is_refused(serving, body, said):
    status, answer = serving(a_kinich())("/jobs", body)
    assert status == 400
    assert said in answer["error"]

"""The deployment files parse, agree with each other, and start what ``recallm serve`` accepts."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recallm_core.cli import serve as serve_cli

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _capacity() -> Any:
    spec = importlib.util.spec_from_file_location("capacity", DEPLOY / "capacity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["capacity"] = module
    spec.loader.exec_module(module)
    return module


capacity = _capacity()


@pytest.mark.parametrize("path", sorted(KUBERNETES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_manifest_is_one_named_object(path: Path) -> None:
    (found,) = yaml.safe_load_all(path.read_text())
    assert found["apiVersion"]
    if found["kind"] != "Kustomization":
        assert found["metadata"]["name"]
        assert found["metadata"]["labels"] == {"app.kubernetes.io/name": "recallm"}


def test_the_kustomization_names_files_that_are_there() -> None:
    named = set(loaded(KUBERNETES / "kustomization.yaml")["resources"])
    there = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert there - named == {"kustomization.yaml", "servicemonitor.yaml"}
    assert named <= there


def accepted(words: list[str]) -> Any:
    """What ``recallm serve`` makes of its arguments, its checks of flags and keys included."""
    args, extra = serve_cli._read(words)
    serve_cli.check_flags(extra)
    assert args.api_key_file is not None
    serve_cli.check_host(args.host, ["a-key-of-enough-characters"])
    return args


def test_the_deployment() -> None:
    deployment = loaded(KUBERNETES / "deployment.yaml")["spec"]
    pod = deployment["template"]["spec"]
    (server,) = pod["containers"]
    args = accepted(server["args"])
    assert deployment["replicas"] > 1
    assert (args.host, args.port) == ("0.0.0.0", server["ports"][0]["containerPort"])
    assert int(server["resources"]["limits"]["nvidia.com/gpu"]) == args.tensor_parallel_size
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert pod["securityContext"]["runAsNonRoot"]
    assert not server["securityContext"]["allowPrivilegeEscalation"]
    mounted = {mount["name"] for mount in server["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    places = {mount["mountPath"] for mount in server["volumeMounts"]}
    assert str(args.api_key_file.parent) in places
    shutdown = next(word for word in server["args"] if word.startswith("--shutdown-timeout="))
    assert int(shutdown.split("=")[1]) < pod["terminationGracePeriodSeconds"]


def test_selectors_meet_the_pods() -> None:
    labels = loaded(KUBERNETES / "deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    claim = loaded(KUBERNETES / "models.yaml")["metadata"]["name"]
    assert f"claimName: {claim}" in (KUBERNETES / "deployment.yaml").read_text()
    service = loaded(KUBERNETES / "service.yaml")["spec"]
    assert service["selector"] == labels
    assert loaded(KUBERNETES / "network.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert loaded(KUBERNETES / "disruption.yaml")["spec"]["selector"]["matchLabels"] == labels


def test_compose() -> None:
    found = loaded(DEPLOY / "compose.yaml")
    server = found["services"]["server"]
    words = [word.replace("${TENSOR_PARALLEL:-1}", "1") for word in server["command"]]
    accepted([words[0].replace("${MODEL:-recallm-mini}", "recallm-mini"), *words[1:]])
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    assert set(server["secrets"]) <= set(found["secrets"])
    scrape = loaded(DEPLOY / "prometheus.yaml")["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == ["server:8000"]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/recallm_keys"


def test_the_dockerfile_copies_what_is_there_and_serves() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for line in text.splitlines():
        if line.startswith("COPY "):
            *sources, _ = shlex.split(line)[1:]
            assert all((ROOT / source).exists() for source in sources)
    assert 'ENTRYPOINT ["recallm", "serve"]' in text
    assert "\nUSER 10001\n" in text
    assert "HEALTHCHECK" in text


def test_the_readme_shows_the_tables_that_the_formulas_give() -> None:
    text = (DEPLOY / "README.md").read_text()
    assert capacity.memory_table() in text
    assert capacity.rate_table() in text


def test_known_sizes_of_keys_and_values() -> None:
    """By hand: 2 x layers x KV heads x head size x 2 bytes."""
    found = {model.name: model.kv_bytes() for model in capacity.MODELS}
    assert found == {"Qwen3-1.7B": 114_688, "Qwen2.5-7B": 57_344, "Llama-3.1-8B": 131_072}


@given(
    st.sampled_from(capacity.MODELS),
    st.integers(1, 131_072),
    st.integers(1, 8192),
    st.floats(0, 1),
    st.floats(0.01, 100),
)
def test_more_work_never_needs_less(
    model: Any, prompt: int, output: int, cached: float, rate: float
) -> None:
    load = capacity.Load(prompt, output, cached)
    longer = capacity.Load(prompt + 1000, output, cached)
    colder = capacity.Load(prompt, output, cached / 2)
    busy = capacity.seconds_per_question(model, load)
    assert busy <= capacity.seconds_per_question(model, longer)
    assert busy <= capacity.seconds_per_question(model, colder)
    assert capacity.replicas(model, load, rate) <= capacity.replicas(model, load, 2 * rate)
    assert capacity.questions_at_once(model, load) >= capacity.questions_at_once(model, longer)

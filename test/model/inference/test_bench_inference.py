# SPDX-License-Identifier: Apache-2.0
"""bench/inference.py: one script that compares all modes, and that no broken mode stops."""

import copy
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from gr00t_model.network import Gr00tN1d6

BENCH = Path(__file__).resolve().parents[3] / "bench"
STAGES = {"processing", "upload", "backbone", "action", "download"}


def environment() -> dict[str, str]:
    """One thread, and no path by which gr00t_model could be found but the script's own."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


def bench(*arguments: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = [str(BENCH / "inference.py")] if code is None else ["-c", textwrap.dedent(code)]
    command = [sys.executable, *start, "--preset", "tiny", "--device", "cpu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=600)


def by_name(modes: list[dict]) -> dict[str, dict]:
    return {entry["name"]: entry for entry in modes}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """One run of modes that need no compiler, and of one that cannot work: there is no engine."""
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    modes = ["network", "deployed", "deployed-eager", "tensorrt"]
    done = bench("--repeats", 1, "--cameras", 1, "--horizon", 50, 16, "--json", path, "--modes", *modes)
    assert done.returncode == 0, done.stderr
    return done, json.loads(path.read_text()), modes


def test_every_mode_has_an_entry_and_a_row_in_its_place(compared):
    done, figures, modes = compared
    assert [entry["name"] for entry in figures["modes"]] == modes
    for name in modes:
        assert done.stdout.count(f"\n{name} ") == 2  # a table for each horizon


def test_an_entry_holds_times_stages_memory_and_likeness(compared):
    _, figures, _ = compared
    found = by_name(figures["modes"])
    for name in ("network", "deployed", "deployed-eager"):
        entry = found[name]
        assert (entry["preset"], entry["cameras"], entry["horizon"]) == ("tiny", 1, 50)
        assert entry["runs"] == 1
        assert 0 < entry["min_ms"] <= entry["median_ms"] <= entry["p99_ms"]
        assert entry["processor_ms"] > 0
        assert set(entry["stages"]) == STAGES
        assert all(entry["stages"][stage] > 0 for stage in STAGES - {"processing"})
        assert 0.9999 < entry["cosine"] < 1.0001
        assert 0.9999 < entry["cosine_to_network"] < 1.0001
        assert entry["finite"] is True
        assert entry["share_of_floor"] == pytest.approx(figures["floor_ms"] / entry["median_ms"])
        assert 0 < entry["memory_held_mb"] <= entry["peak_memory_mb"]
    ratio = found["network"]["median_ms"] / found["deployed"]["median_ms"]
    assert found["deployed"]["speedup_vs_network"] == pytest.approx(ratio)
    assert found["deployed"]["speedup_vs_network_compiled"] is None
    # Of 32 embodiments one is left, and no language head.
    assert found["deployed"]["memory_held_mb"] < 0.6 * found["network"]["memory_held_mb"]


def test_what_cannot_run_is_reported_and_the_others_go_on(compared):
    done, figures, _ = compared
    entry = by_name(figures["modes"])["tensorrt"]
    assert "--engine" in entry["error"]
    assert entry["median_ms"] is None
    assert entry["error"] in done.stdout


def test_the_file_says_on_what_it_was_measured(compared):
    _, figures, _ = compared
    assert figures["configuration"] == {"preset": "tiny", "dtype": "float32", "cameras": 1, "horizon": 50}
    assert figures["floor_ms"] > 0
    assert figures["bandwidth"]["bytes_per_second"] > 1e8
    assert figures["device"]["type"] == "cpu"
    assert figures["versions"]["torch"] == torch.__version__
    assert "--horizon 50 16" in figures["command"]
    assert figures["interrupted"] is False


def test_a_shorter_horizon_is_a_deviation_with_its_size(compared):
    _, figures, modes = compared
    (other,) = figures["others"]
    assert other["configuration"]["horizon"] == 16
    assert [entry["name"] for entry in other["modes"]] == modes
    network = by_name(other["modes"])["network"]
    assert network["cosine"] > 0.9999
    # Steps 0 to 15 alone are not what they are among 50.
    assert 0.5 < network["cosine_to_full_horizon"] < 0.99999
    assert "cosine_to_full_horizon" not in figures["modes"][0]


def test_a_mode_that_breaks_later_keeps_its_figures_and_stops_nothing(tmp_path):
    """On a machine without OpenCV and tokenizer, and with the repository's own code."""
    code = f"""
        import sys
        sys.modules.update(cv2=None, tiktoken=None)
        sys.path.insert(0, {str(BENCH)!r})
        import inference, inference_modes
        import gr00t_model
        assert gr00t_model.__file__.startswith({str(BENCH.parent)!r}), gr00t_model.__file__
        make = inference_modes.Modes.make

        def breaking(self, name):
            mode, calls = make(self, name), []
            def run(inputs, noise, go_on=mode.run):
                calls.append(name)
                if len(calls) > 5:
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
                return go_on(inputs, noise)
            if name == "deployed-eager":
                mode.run = run
            return mode

        inference_modes.Modes.make = breaking
        sys.exit(inference.main())
    """
    path = tmp_path / "figures.json"
    modes = ["network", "deployed-eager", "deployed"]
    done = bench("--repeats", 6, "--cameras", 1, "--horizon", 8, "--json", path, "--modes", *modes, code=code)
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())
    found = by_name(figures["modes"])
    assert found["deployed-eager"]["error"].startswith("RuntimeError: CUDA error: an illegal memory access")
    assert 0 < found["deployed-eager"]["runs"] < 6
    assert [found[name]["runs"] for name in ("network", "deployed")] == [6, 6]
    assert figures["processing_ms"] is None
    assert found["network"]["stages"]["processing"] is None


def test_an_interrupted_run_gives_what_there_is(tmp_path):
    path = tmp_path / "figures.json"
    command = [
        sys.executable,
        BENCH / "inference.py",
        "--preset",
        "tiny",
        "--device",
        "cpu",
        "--cameras",
        "1",
    ]
    command += ["--repeats", "1000000", "--seconds", "1000", "--json", path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            for line in process.stderr:
                if "1000000 runs each" in line:
                    break
            # Not earlier than a turn is over, which is shown by nothing.
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()  # a shell's background ignores SIGINT: what does not end is not waited for
    assert process.returncode == 130
    figures = json.loads(path.read_text())
    assert figures["interrupted"] is True
    assert all(entry["median_ms"] > 0 for entry in figures["modes"])
    assert "\ndeployed " in out


@pytest.mark.slow
def test_compiled_modes(tmp_path):
    """Needs a C++ compiler, as torch.compile does on a CPU."""
    path = tmp_path / "figures.json"
    modes = ["network", "network-compiled", "deployed", "deployed-compiled"]
    done = bench("--repeats", 1, "--cameras", 1, "--horizon", 16, "--json", path, "--modes", *modes)
    assert done.returncode == 0, done.stderr
    found = by_name(json.loads(path.read_text())["modes"])
    for name in modes:
        assert "error" not in found[name]
        assert found[name]["cosine"] > 0.9999
        ratio = found["network-compiled"]["median_ms"] / found[name]["median_ms"]
        assert found[name]["speedup_vs_network_compiled"] == pytest.approx(ratio)


@pytest.fixture
def modes(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import inference_modes

    return inference_modes


def test_the_reference_computes_in_float32_and_leaves_the_weights_as_they_were(modes):
    network = modes.random_network("tiny", torch.bfloat16, torch.device("cpu"))
    inputs, noise = modes.make_inputs(network.config, 2), modes.make_noise(network.config, 16)
    before = {name: (p.dtype, p.data_ptr()) for name, p in network.named_parameters()}
    found = modes.reference(network, inputs, noise)
    assert {name: (p.dtype, p.data_ptr()) for name, p in network.named_parameters()} == before

    wide: Gr00tN1d6 = copy.deepcopy(network).float()
    images = [image.float() / 127.5 - 1 for image in inputs["pixel_values"]]
    expected = wide.get_action({**inputs, "pixel_values": images}, torch.from_numpy(noise))["action_pred"]
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=2e-5, rtol=0)


def test_likeness_is_of_what_was_added_to_the_noise(modes):
    noise = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(0)).numpy() * 100
    one, two = noise.copy(), noise.copy()
    one[..., 0] += 1
    two[..., 1] += 1
    assert abs(modes.likeness(one, two, noise)) < 1e-3  # of the actions themselves it would be 1
    assert modes.likeness(one[:, :4], one, noise[:, :4]) == pytest.approx(1, abs=1e-3)

# SPDX-License-Identifier: Apache-2.0
"""The PyTorch engine: recorded or not, compiled or not, a chunk is the readable network's chunk.

Where there is no GPU, "recording" is running the same function again: everything about a recording but CUDA
itself (fixed addresses, buckets, prompts, what is captured when) is the same.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gr00t_model.errors import BackendError, ConfigError, EmbodimentError, ObservationError
from gr00t_model.inference.deployed import deploy
from gr00t_model.inference.guidance import Guidance
from gr00t_model.inference.program import Shape
from gr00t_model.inference.pytorch import MAX_PROGRAMS, PREPARED_TEXT_TOKENS, PyTorchEngine
from support_engines import CONFIG, EMBODIMENT, NETWORKS, prompt, ragged_inputs
from support_engines import chunk_noise as noise
from support_engines import expected_actions as expected

SHAPE = (1, CONFIG.action_horizon, CONFIG.max_action_dim)


class Recorder:
    """Stands for CUDA graphs: counts recordings, and spoils what a recorded function reads afterwards."""

    def __init__(self) -> None:
        self.count = 0
        self.replays = 0

    def __call__(self, body: Callable[[], object]) -> Callable[[], object]:
        self.count += 1
        body()

        def replay() -> None:
            self.replays += 1
            body()

        return replay


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and found.dtype == np.float32 and np.abs(found - wanted).max() < 1e-4


@pytest.mark.parametrize("alternate", [True, False], ids=["alternate", "plain"])
def test_layer_by_layer_and_recorded_are_the_network(alternate: bool) -> None:
    network = NETWORKS[alternate]
    recorder = Recorder()
    plain = PyTorchEngine(deploy(network, EMBODIMENT))
    recorded = PyTorchEngine(deploy(network, EMBODIMENT), record=recorder)
    recorded.prepare(prompt())
    prepared = recorder.count
    assert prepared > 1
    for text, seed in ((9, 0), (31, 1), (33, 2), (100, 3), (9, 4)):  # several buckets, and back
        inputs, start = prompt(text), noise(seed)
        wanted = expected(inputs, start, network)
        assert close(plain.run(inputs, start), wanted)
        assert close(recorded.run(inputs, start), wanted)
    assert recorder.replays == 5
    assert recorder.count == prepared, "an instruction of a usual length was recorded in the control path"


class Listening(Recorder):
    """Remembers the memory that a recorded function used and did not make: a graph has only its address."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[weakref.ref[Any]] = []

    def __call__(self, body: Callable[[], object]) -> Callable[[], object]:
        with _Storages() as storages:
            body()
        self.used += storages.found.values()
        return super().__call__(body)


class _Storages(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, weakref.ref[Any]] = {}
        self._made: list[Any] = []

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        mine = {storage._cdata for storage in self._made}
        for tensor in _tensors((given, named)):
            storage = tensor.untyped_storage()
            if storage._cdata not in mine and storage._cdata not in self.found:
                self.found[storage._cdata] = weakref.ref(storage)
        result = function(*given, **(named or {}))
        fresh = [tensor.untyped_storage() for tensor in _tensors(result)]
        self._made += [storage for storage in fresh if storage._cdata not in self.found]
        return result


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def test_what_a_recording_reads_outlives_everything() -> None:
    """A longer prompt, another camera, a plan to join: nothing may free what an older graph reads."""
    recorder = Listening()
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=recorder)
    engine.prepare(prompt())
    guidance = Guidance(np.zeros(SHAPE, np.float32), np.zeros((4, SHAPE[1]), np.float32))
    engine.run(prompt(), noise(), guidance)
    engine.catch_up()
    engine.run(prompt(300), noise())
    engine.run(prompt(250, sizes=((84, 28),)), noise())
    engine.catch_up()
    gc.collect()
    assert len(recorder.used) > 100
    assert all(used() is not None for used in recorder.used)


def test_every_input_reaches_a_recording() -> None:
    """Nothing of the chunk before is used again."""
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=Recorder())
    engine.prepare(prompt())
    first = prompt()
    engine.run(first, noise())
    for change in ("input_ids", "pixel_values", "state"):
        second = {
            **first,
            change: prompt(11)["pixel_values"] if change == "pixel_values" else first[change].clone(),
        }
        if change == "input_ids":
            second[change][0, 0] += 1
        if change == "state":
            second[change] += 1
        wanted = expected(second, noise())
        assert not close(wanted, expected(first, noise())), f"{change} does not matter"
        assert close(engine.run(second, noise()), wanted)
        assert close(engine.run(first, noise()), expected(first, noise()))


def test_what_is_not_recorded_runs_and_is_recorded_between_chunks() -> None:
    recorder = Recorder()
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=recorder)
    engine.prepare(prompt())
    prepared = recorder.count
    others: list[tuple[dict[str, Any], np.ndarray, bool]] = [
        (prompt(sizes=((84, 28),)), noise(), False),  # a camera went away, another has another size
        (prompt(PREPARED_TEXT_TOKENS + 1), noise(), True),  # fits into the recording of the longest text
        (prompt(), noise(horizon=3), False),
    ]
    for inputs, start, fits in others:
        before, replays = recorder.count, recorder.replays
        assert close(engine.run(inputs, start), expected(inputs, start))
        assert (recorder.count, recorder.replays) == (before, replays + fits)
        engine.catch_up()
        assert recorder.count == before + 1
        assert close(engine.run(inputs, start), expected(inputs, start))
        assert recorder.replays == replays + fits + 1
        engine.catch_up()
        assert recorder.count == before + 1
    assert recorder.count == prepared + len(others)


def test_a_recording_with_more_room_does_meanwhile() -> None:
    recorder = Recorder()
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=recorder)
    engine.prepare(prompt(60))
    prepared = recorder.count
    assert close(engine.run(prompt(9), noise()), expected(prompt(9), noise()))
    assert (recorder.count, recorder.replays) == (prepared, 1)
    engine.catch_up()
    assert recorder.count == prepared + 1
    assert close(engine.run(prompt(9), noise(1)), expected(prompt(9), noise(1)))


def test_text_longer_than_any_bucket_runs_without_a_recording() -> None:
    recorder = Recorder()
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=recorder)
    inputs = prompt(300)
    assert close(engine.run(inputs, noise()), expected(inputs, noise()))
    engine.catch_up()
    assert recorder.count == 0


class Unwilling(Recorder):
    """Records as often as it is told to, then fails."""

    def __init__(self, willing: int) -> None:
        super().__init__()
        self.willing = willing

    def __call__(self, body: Callable[[], object]) -> Callable[[], object]:
        if self.count == self.willing:
            raise RuntimeError("capture is not possible\nat all")
        return super().__call__(body)


def test_a_machine_that_cannot_record_computes_all_the_same() -> None:
    for willing in (0, 1):
        engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=Unwilling(willing))
        engine.prepare(prompt())
        assert "layer by layer where no graph is recorded: RuntimeError: capture" in engine.notes[0]
        for text in (9, 60, 100):
            assert close(engine.run(prompt(text), noise()), expected(prompt(text), noise()))
            engine.catch_up()  # asks for nothing any more


def test_a_recording_that_fails_between_chunks_is_told_once() -> None:
    recorder = Unwilling(5)
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=recorder)
    engine.prepare(prompt(60))
    recorder.willing = recorder.count
    engine.run(prompt(9), noise())
    with pytest.raises(RuntimeError, match="capture is not possible"):
        engine.catch_up()
    engine.run(prompt(9), noise())
    engine.catch_up()
    assert close(engine.run(prompt(9), noise(1)), expected(prompt(9), noise(1)))


def test_recordings_are_bounded() -> None:
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=Recorder())
    for width in range(1, MAX_PROGRAMS + 3):
        engine.run(prompt(sizes=((28, 28 * width),)), noise())
        engine.catch_up()
    assert len(engine._programs) <= MAX_PROGRAMS


@pytest.mark.parametrize("record", [None, Recorder()], ids=["layers", "recorded"])
def test_guidance(record: Any) -> None:
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=record)
    generator = np.random.default_rng(0)
    prefix = generator.standard_normal(SHAPE).astype(np.float32)
    weight = generator.random((CONFIG.num_inference_timesteps, SHAPE[1])).astype(np.float32)
    weight[:, -1] = 1.0
    for _ in range(2):  # the second time from a recording, where there is one
        alone = engine.run(prompt(), noise())
        guided = engine.run(prompt(), noise(), Guidance(prefix, weight))
        assert np.abs(guided - alone).max() > 0.1
        ones = engine.run(prompt(), noise(), Guidance(prefix, np.ones_like(weight)))
        assert np.abs(ones - alone).max() < 1e-5
        zeros = engine.run(prompt(), noise(), Guidance(prefix, np.zeros_like(weight)))
        assert np.abs(zeros - prefix).max() < 1e-6
        engine.catch_up()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prefix": np.zeros((1, 2, 3), np.float32)}, "prefix has shape"),
        ({"weight": np.zeros((9, SHAPE[1]), np.float32)}, r"weight has shape \[9, 6\], expected \[4, 6\]"),
        ({"weight": np.full((4, SHAPE[1]), 1.5, np.float32)}, "expected 0 to 1"),
        ({"prefix": np.full(SHAPE, np.nan, np.float32)}, "prefix holds a value that is not finite"),
    ],
)
def test_wrong_guidance(change: dict[str, np.ndarray], words: str) -> None:
    values = {"prefix": np.zeros(SHAPE, np.float32), "weight": np.ones((4, SHAPE[1]), np.float32), **change}
    with pytest.raises(ObservationError, match=words):
        PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT)).run(prompt(), noise(), Guidance(**values))


def test_wrong_inputs() -> None:
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT))
    with pytest.raises(EmbodimentError, match="id 1 was given to an engine made for 3"):
        engine.run({**prompt(), "embodiment_id": torch.tensor([1])}, noise())
    with pytest.raises(ObservationError, match="lack state"):
        engine.run({name: value for name, value in prompt().items() if name != "state"}, noise())
    with pytest.raises(ObservationError, match="horizon"):
        engine.run(prompt(), noise(horizon=CONFIG.action_horizon + 1))
    with pytest.raises(ConfigError, match="'maybe'; expected one of auto, on, off"):
        PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), compile="maybe")


def test_batch_and_drawn_noise() -> None:
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=Recorder())
    inputs = ragged_inputs(CONFIG, [5, 9], [[(56, 56)], [(28, 28)]])
    start = np.random.default_rng(0).standard_normal((2, *SHAPE[1:])).astype(np.float32)
    wanted = NETWORKS[True].get_action(inputs, torch.from_numpy(start))["action_pred"].numpy()
    assert close(engine.run(inputs, start), wanted)
    first, second = engine.run(inputs, None), engine.run(inputs, None)
    assert np.abs(first - second).max() > 1e-3


def test_out_of_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT))

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.form, "backbone", full)
    with pytest.raises(BackendError, match="device cpu has too little memory"):
        engine.run(prompt(), noise())


@pytest.mark.parametrize("record", [None, Recorder()], ids=["layers", "recorded"])
def test_stages(record: Any) -> None:
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=record)
    engine.prepare(prompt())
    for _ in range(2):
        stages = engine.stages(prompt(), noise())
        assert list(stages) == ["upload", "backbone", "action", "download"]
        assert all(seconds > 0 for seconds in stages.values())
    assert close(engine.run(prompt(), noise(1)), expected(prompt(), noise(1)))


# ---- compiled layers ------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_layers_are_the_network() -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), compile="on")
    engine.prepare(prompt())
    assert close(engine.run(prompt(), noise()), expected(prompt(), noise()))
    made = counters["stats"]["unique_graphs"]
    # One for each kind of layer and shape, not one a layer.
    layers = len(engine.form.vision.layers) + len(engine.form.language.layers) + len(engine.form.head.blocks)
    assert 0 < made < layers * 2
    assert close(engine.run(prompt(), noise(1)), expected(prompt(), noise(1)))
    assert counters["stats"]["unique_graphs"] == made


class TestAuto:
    """What "auto" does on CUDA, with compilers that this test makes up."""

    def engine(self) -> PyTorchEngine:
        engine = PyTorchEngine(deploy(NETWORKS[True], EMBODIMENT), record=Recorder())
        engine.compile = "auto"  # as on CUDA
        return engine

    def use(self, monkeypatch: pytest.MonkeyPatch, compiler: Callable[[Any], Any]) -> None:
        from gr00t_model.inference import compiling

        compiling._compiled.clear()
        monkeypatch.setattr(torch, "compile", lambda function, **_: compiler(function))

    def finish(self, engine: PyTorchEngine, compiled: bool, words: str) -> None:
        from gr00t_model.inference import compiling

        compiling._compiled.clear()
        assert engine.compile == ("on" if compiled else "off")
        assert ("forward" in engine.form.head.blocks[0].__dict__) == compiled
        assert words in engine.notes[0]
        assert close(engine.run(prompt(), noise()), expected(prompt(), noise()))
        assert Shape in {type(shape) for shape in engine._programs}

    def test_faster(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = self.engine()
        self.use(monkeypatch, lambda function: function)
        times = iter([1.0, 0.5])
        monkeypatch.setattr("gr00t_model.inference.pytorch.median", lambda _: next(times))
        engine.prepare(prompt())
        self.finish(engine, True, "layers are compiled: a chunk takes 500.00 ms with, 1000.00 ms without")

    def test_slower(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = self.engine()
        self.use(monkeypatch, lambda function: function)
        times = iter([0.5, 1.0])
        monkeypatch.setattr("gr00t_model.inference.pytorch.median", lambda _: next(times))
        engine.prepare(prompt())
        self.finish(engine, False, "layers are not compiled: a chunk takes")

    def test_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = self.engine()
        self.use(monkeypatch, lambda function: lambda *given: function(*given) * 0)
        engine.prepare(prompt())
        self.finish(engine, False, "compiled layers give other actions")

    def test_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = self.engine()

        def broken(*_: Any) -> None:
            raise RuntimeError("no compiler\nat all")

        self.use(monkeypatch, lambda function: broken)
        engine.prepare(prompt())
        self.finish(engine, False, "layers are not compiled: RuntimeError: no compiler")

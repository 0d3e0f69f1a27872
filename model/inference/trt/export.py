# SPDX-License-Identifier: Apache-2.0
"""The deployed form as two ONNX files, `backbone.onnx` and `action.onnx`, with their weights beside them.

One way for every precision: the graph is exported as it is, and a `Recipe` (quantize.py) then puts explicit
quantise/dequantise pairs around the layers it names. Only operators that TensorRT 10.3's parser knows come
out (operators.py), except with an NVFP4 recipe.

In bfloat16 graphs, LayerNormalization says itself that its statistics are float32 (stash_type), and RMSNorm
is spelled out in float32. Softmax is left in bfloat16 between its two products, the pattern that TensorRT
fuses into one attention kernel.
"""

import contextlib
import gc
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import BackendError
from gr00t_model.inference.deployed import Context, Deployed
from gr00t_model.inference.deployed.language import rms_norm
from gr00t_model.inference.trt import qdq
from gr00t_model.network.language import rotation

if TYPE_CHECKING:
    from gr00t_model.inference.trt.quantize import Recipe

OPSET = 20
"""The newest that TensorRT 10.3 reads; the first with Gelu as one operator."""
BACKBONE, ACTION = "backbone", "action"
MAX_TEXT_TOKENS = 256
HIDDEN = -30000.0
"""Added to the score of what must not be seen: exp of it is 0 in every type, and it is finite in all."""
# Elements up to which the exporter folds constants.
_SMALL = 8192

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Shapes:
    """What is fixed in a pair of engines, and what may vary."""

    groups: tuple[tuple[int, int, int], ...]
    """number, height and width [px] of the images that go through the vision tower together"""
    images: int
    """image tokens of an observation, I"""
    horizon: int
    text_tokens: int = MAX_TEXT_TOKENS
    """the most text tokens there is room for"""
    state_steps: int = 1
    """steps of state history"""


def shapes_of(
    config: Gr00tN1d6Config,
    image_sizes: Sequence[tuple[int, int]],
    horizon: int | None = None,
    text_tokens: int = MAX_TEXT_TOKENS,
    state_steps: int = 1,
) -> Shapes:
    """The shapes of engines for images of these sizes (height, width in pixels).

    Raises:
        BackendError: a size that does not divide into tokens, a horizon longer than the checkpoint's, or a
            network whose blocks do not alternate between text and images: the engines are laid out for those
            that do, as the released one.
    """
    if not config.use_alternate_vl_dit:
        raise BackendError(
            "TensorRT engines are made for checkpoints with use_alternate_vl_dit; this one has it off. Use "
            "backend pytorch"
        )
    longest = config.action_horizon
    chosen = longest if horizon is None else horizon
    if not 1 <= chosen <= longest:
        raise BackendError(f"horizon {chosen} is outside 1 to {longest}, this checkpoint's")
    unit = config.image_multiple
    for height, width in image_sizes:
        if height % unit or width % unit or not height or not width:
            raise BackendError(f"image size {height} x {width} is not a multiple of {unit} pixels")
    if not image_sizes or text_tokens < 1:
        raise BackendError("engines need at least one image and one text token")
    tokens = sum((height // unit) * (width // unit) for height, width in image_sizes)
    groups = tuple((count, *size) for size, count in Counter(image_sizes).items())
    return Shapes(groups, tokens, chosen, text_tokens, state_steps)


class BackboneModule(nn.Module):
    """Pixels and text embeddings to what the action engine looks at; batch 1.

    Inputs: pixels_0, pixels_1, ... [n, 3, H, W] in [-1, 1], one for each distinct image size, in the order of
    `Shapes.groups`; text_embeddings [1, T, W]; order int32 [T + I], the sequence as indices into the text
    embeddings followed by the tokens of pixels_0, pixels_1, ...; text_index int32 [T] and image_index int32
    [I], where text and image tokens lie in the sequence (`prompt.py` makes all three).
    Outputs: text_features [1, T, W], image_features [1, I, W]. Floats in the form's type.
    """

    def __init__(self, form: Deployed, shapes: Shapes) -> None:
        super().__init__()
        self.vision, self.language = form.vision, form.language
        for _, height, width in shapes.groups:
            self.vision.prepare(height, width)
        longest = shapes.images + shapes.text_tokens
        cos, sin = rotation(longest, self.language.head_dim, self.language.rope_theta, self.language.norm)
        first, second = sin.chunk(2, dim=-1)
        seen = torch.ones(longest, longest, dtype=torch.bool, device=cos.device).tril()
        self.register_buffer("cos", cos)
        self.register_buffer("sin", torch.cat((-first, second), dim=-1))
        self.register_buffer("causal", hidden_where(~seen, cos.dtype))

    def forward(
        self,
        pixels: Sequence[Tensor],
        text_embeddings: Tensor,
        order: Tensor,
        text_index: Tensor,
        image_index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        tokens = [self.vision(group).flatten(0, 1) for group in pixels]
        x = torch.cat((text_embeddings[0], *tokens)).index_select(0, order)[None]
        length = order.shape[0]
        rotary = self.cos[:, :length], self.sin[:, :length]
        mask = self.causal[:length, :length]
        for layer in self.language.layers:
            x = layer(x, rotary, None, mask)
        flat = rms_norm(x, self.language.norm, self.language.eps)[0]
        return flat.index_select(0, text_index)[None], flat.index_select(0, image_index)[None]


class ActionModule(nn.Module):
    """What the backbone gave, and a start, to a chunk of actions; batch 1.

    Inputs: text_features [1, T, W], image_features [1, I, W] in the form's type; text_mask bool [1, T], False
    on padding; float32 state [1, S, Ds], noise [1, H, D], prefix [1, H, D], weight [num_steps, H]
    (`engine.Guidance`; prefix 0 and weight 1 where there is none). Output: actions float32 [1, H, D].
    """

    def __init__(self, form: Deployed) -> None:
        super().__init__()
        self.head = form.head
        self.dtype = form.dtype

    def forward(
        self,
        text_features: Tensor,
        image_features: Tensor,
        text_mask: Tensor,
        state: Tensor,
        noise: Tensor,
        prefix: Tensor,
        weight: Tensor,
    ) -> Tensor:
        """See the class."""
        hidden = hidden_where(~text_mask, self.dtype)
        context = Context(text_features, hidden, image_features, None)
        return self.head(context, state.to(self.dtype), noise, prefix, weight)


def hidden_where(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to attention scores: 0, and `HIDDEN` where the mask is True."""
    zero, low = (torch.tensor(value, dtype=dtype, device=mask.device) for value in (0.0, HIDDEN))
    return torch.where(mask, low, zero)


# ---- example inputs, which fix names and shapes -------------------------------------------------------


def backbone_inputs(form: Deployed, shapes: Shapes, text_tokens: int) -> dict[str, Any]:
    """Inputs of the right shapes, zeros, as `BackboneModule.forward` takes them."""
    factory = {"dtype": form.dtype, "device": form.device}
    index = {"dtype": torch.int32, "device": form.device}
    return {
        "pixels": [torch.zeros(n, 3, height, width, **factory) for n, height, width in shapes.groups],
        "text_embeddings": torch.zeros(1, text_tokens, form.embed_tokens.shape[1], **factory),
        "order": torch.zeros(text_tokens + shapes.images, **index),
        "text_index": torch.zeros(text_tokens, **index),
        "image_index": torch.zeros(shapes.images, **index),
    }


def action_inputs(form: Deployed, shapes: Shapes, text_tokens: int) -> dict[str, Tensor]:
    """Inputs of the right shapes, zeros, as `ActionModule.forward` takes them."""
    config, width = form.config, form.embed_tokens.shape[1]
    factory = {"dtype": form.dtype, "device": form.device}
    plain = {"dtype": torch.float32, "device": form.device}
    chunk = 1, shapes.horizon, config.max_action_dim
    return {
        "text_features": torch.zeros(1, text_tokens, width, **factory),
        "image_features": torch.zeros(1, shapes.images, width, **factory),
        "text_mask": torch.ones(1, text_tokens, dtype=torch.bool, device=form.device),
        "state": torch.zeros(1, shapes.state_steps, config.max_state_dim, **plain),
        "noise": torch.zeros(*chunk, **plain),
        "prefix": torch.zeros(*chunk, **plain),
        "weight": torch.ones(form.num_steps, shapes.horizon, **plain),
    }


def profiles(form: Deployed, shapes: Shapes) -> dict[str, dict[str, tuple[tuple[int, ...], ...]]]:
    """Smallest, most usual and largest shape of each dynamic input, by engine and name."""
    found: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {}
    usual = min(64, shapes.text_tokens)
    for engine, make in ((BACKBONE, backbone_inputs), (ACTION, action_inputs)):
        ends = [_flat(make(form, shapes, tokens)) for tokens in (1, usual, shapes.text_tokens)]
        found[engine] = {
            name: tuple(tuple(end[name].shape) for end in ends)
            for name in ends[0]
            if name in ("text_embeddings", "order", "text_index", "text_features", "text_mask")
        }
    return found


def _flat(inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Inputs by the names that the engine knows: pixels are numbered."""
    named = {f"pixels_{index}": group for index, group in enumerate(inputs.get("pixels", ()))}
    return {**named, **{name: value for name, value in inputs.items() if name != "pixels"}}


# ---- export -----------------------------------------------------------------------------------------


def export(
    form: Deployed,
    directory: Path,
    shapes: Shapes,
    *,
    recipe: "Recipe | None" = None,
    progress: Progress = lambda text: None,
) -> dict[str, Path]:
    """Write both ONNX files with external data into `directory`, and give their paths by engine.

    The weights are not copied: files are written from the form's own tensors, one after another.

    Raises:
        BackendError: onnx or onnxscript is not installed, or a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokens = torch.export.Dim("T", min=1, max=shapes.text_tokens)
    fixed = dict.fromkeys(("state", "noise", "prefix", "weight"))
    dynamic: dict[str, dict[str, Any]] = {
        BACKBONE: {
            "pixels": [None] * len(shapes.groups),
            "text_embeddings": {1: tokens},
            "order": {0: tokens + shapes.images},
            "text_index": {0: tokens},
            "image_index": None,
        },
        ACTION: {"text_features": {1: tokens}, "image_features": None, "text_mask": {1: tokens}, **fixed},
    }
    usual = min(8, shapes.text_tokens)
    jobs: tuple[tuple[str, nn.Module, dict[str, Any], list[str]], ...] = (
        (
            BACKBONE,
            BackboneModule(form, shapes),
            backbone_inputs(form, shapes, usual),
            ["text_features", "image_features"],
        ),
        (ACTION, ActionModule(form), action_inputs(form, shapes, usual), ["actions"]),
    )
    paths = {}
    for name, module, example, outputs in jobs:
        progress(f"{name}: tracing")
        program = _traced(module.eval(), example, dynamic[name], outputs)
        if recipe is not None:
            qdq.apply(recipe, program.model, linear_layers(form, name))
        progress(f"{name}: writing")
        paths[name] = directory / f"{name}.onnx"
        try:
            program.save(str(paths[name]), external_data=True)
        except OSError as error:
            raise BackendError(f"{paths[name]} cannot be written: {error.strerror or error}") from error
        del program
    return paths


def linear_layers(form: Deployed, engine: str) -> list[tuple[str, nn.Linear]]:
    """The linear layers of an engine, by their names in the form."""
    return [
        (name, layer)
        for name, layer in form.named_modules()
        if isinstance(layer, nn.Linear) and name.startswith("head.") == (engine == ACTION)
    ]


def _traced(module: nn.Module, example: dict[str, Any], dynamic: dict[str, Any], outputs: list[str]) -> Any:
    """An ONNX program of the module."""
    try:
        import onnxscript  # noqa: F401
        from onnx_ir.passes.common import DeduplicateInitializersPass
    except ImportError as error:
        raise BackendError(
            f"exporting engines needs onnx and onnxscript: `pip install onnx onnxscript` ({error})"
        ) from error
    with torch.no_grad(), _quiet(), _few_collections():
        program = torch.onnx.export(
            module,
            kwargs=example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            input_names=list(_flat(example)),
            output_names=outputs,
            custom_translation_table=_translations(),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    # Small weights that several steps use were folded apart for each.
    DeduplicateInitializersPass(size_limit=_SMALL)(program.model)
    return program


def _translations() -> dict[Any, Callable[..., Any]]:
    """Operators that are written in a way that every TensorRT fuses."""
    from onnxscript import opset20 as op

    def attention(
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        if is_causal or enable_gqa or dropout_p:
            raise NotImplementedError("attention with a causal flag, grouped queries or dropout")
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        query = op.Mul(query, op.CastLike(op.Constant(value_float=factor), query))
        scores = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
        if attn_mask is not None:
            scores = op.Add(scores, attn_mask)
        return op.MatMul(op.Softmax(scores, axis=-1), value)

    return {torch.ops.aten.scaled_dot_product_attention.default: attention}


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Garbage collection passes over what is there already: tracing sets it off so often that looking through
    all that is imported took a third of the time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

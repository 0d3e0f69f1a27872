# SPDX-License-Identifier: Apache-2.0
"""What one chunk costs by counting: weights read, arithmetic, the least time both can take, memory held.

Nothing here is measured. The network is counted in two forms: "network", as `network/` is written (AdaLN and
cross-attention keys and values recomputed at each denoising step), and "deployed", where what does not depend
on the step or on the observation has been moved out. A multiply-add counts as two operations; only matrix
products count, only weights count as traffic (activations of one chunk fit the caches of the devices in
question or are small beside the weights).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gr00t_model.config import Gr00tN1d6Config
from gr00t_model.errors import ConfigError
from gr00t_model.sizes import UNSHUFFLE

FORMS = ("network", "deployed")

# Bytes per element of a weight matrix. NVFP4 has half a byte and an FP8 scale for each 16 elements; int8 and
# fp8 have one scale a row, which is nothing.
MATRIX_BYTES = {"float32": 4.0, "bfloat16": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": 0.5 + 1 / 16}
# Stages whose matrices the quantised precisions shrink; the others stay bfloat16.
QUANTISED = frozenset({"vision", "language", "cross_kv", "dit"})

# SigLIP-2 and the checkpoint's time encoder, see network/timestep.py.
TIME_CHANNELS = 256
# Words around an instruction of about ten, and around each image: the prompt template.
TEXT_TOKENS, TEXT_TOKENS_PER_IMAGE = 27, 7


@dataclass(frozen=True)
class Workload:
    """The shapes of one chunk, batch 1."""

    image_sizes: tuple[tuple[int, int], ...]
    """Height and width of each image in pixels."""
    text_tokens: int
    horizon: int
    num_steps: int
    state_tokens: int = 1

    @classmethod
    def typical(
        cls,
        config: Gr00tN1d6Config,
        cameras: int = 2,
        size: int = 252,
        *,
        text_tokens: int | None = None,
        horizon: int | None = None,
        num_steps: int | None = None,
    ) -> "Workload":
        """Square images of `size` pixels and the configuration's horizon and number of steps."""
        text = TEXT_TOKENS + TEXT_TOKENS_PER_IMAGE * cameras if text_tokens is None else text_tokens
        return cls(
            ((size, size),) * cameras,
            text,
            config.action_horizon if horizon is None else horizon,
            config.num_inference_timesteps if num_steps is None else num_steps,
        )


@dataclass(frozen=True)
class Stage:
    """One pass through part of the network, done `passes` times a chunk."""

    name: str
    matrices: int
    """Elements of weight matrices."""
    vectors: int
    """Elements of biases, norms and tables."""
    linear_flops: float
    """Operations with weights."""
    attention_flops: float = 0.0
    """Operations between activations, which are never quantised."""
    passes: int = 1


def stages(config: Gr00tN1d6Config, work: Workload, form: str = "deployed") -> tuple[Stage, ...]:
    """The stages of one chunk: vision, projector, language, cross_kv (keys and values of the
    cross-attention), state (its encoder, and the norm of the features), dit (the transformer's blocks),
    actions (their encoder and decoder).

    Raises:
        ConfigError: an unknown form, or an image that the network cannot take.
    """
    if form not in FORMS:
        raise ConfigError(f"form is {form!r}; expected one of {', '.join(FORMS)}")
    image_tokens = sum(_tokens(config, size) for size in work.image_sizes)
    return (
        _vision(config, work, form),
        _projector(config, image_tokens),
        _language(config, work.text_tokens + image_tokens),
        *_head(config, work, image_tokens, form),
    )


def weight_bytes(
    config: Gr00tN1d6Config,
    work: Workload,
    precision: str = "bfloat16",
    form: str = "deployed",
    quantised: frozenset[str] = QUANTISED,
) -> dict[str, float]:
    """Bytes of weights read for one chunk, by stage."""
    return {
        stage.name: stage.passes * _bytes(stage, precision, quantised) for stage in stages(config, work, form)
    }


def flops(config: Gr00tN1d6Config, work: Workload, form: str = "deployed") -> dict[str, float]:
    """Operations of one chunk, by stage."""
    return {
        stage.name: stage.passes * (stage.linear_flops + stage.attention_flops)
        for stage in stages(config, work, form)
    }


def stage_ms(
    config: Gr00tN1d6Config,
    work: Workload,
    bandwidth: float,
    peak: Mapping[str, float] | None = None,
    precision: str = "bfloat16",
    form: str = "deployed",
    quantised: frozenset[str] = QUANTISED,
) -> dict[str, float]:
    """The least milliseconds of each stage: the larger of its traffic and its arithmetic.

    Args:
        bandwidth: of the device's memory, bytes per second.
        peak: precision -> dense operations per second; None or empty counts traffic only.

    Raises:
        ConfigError: `peak` is given and has no figure for `precision`.
    """
    result = {}
    for stage in stages(config, work, form):
        own = precision if stage.name in quantised or precision == "float32" else "bfloat16"
        seconds = _bytes(stage, precision, quantised) / bandwidth
        if peak:
            missing = sorted({own, _activations(precision)} - set(peak))
            if missing:
                raise ConfigError(f"no peak is known for {', '.join(missing)} on this device")
            arithmetic = stage.linear_flops / peak[own]
            arithmetic += stage.attention_flops / peak[_activations(precision)]
            seconds = max(seconds, arithmetic)
        result[stage.name] = 1000 * seconds * stage.passes
    return result


def floor_ms(
    config: Gr00tN1d6Config,
    work: Workload,
    bandwidth: float,
    peak: Mapping[str, float] | None = None,
    precision: str = "bfloat16",
    form: str = "deployed",
    quantised: frozenset[str] = QUANTISED,
) -> float:
    """The least milliseconds one chunk can take, as `stage_ms`, all stages one after another."""
    return sum(stage_ms(config, work, bandwidth, peak, precision, form, quantised).values())


def held_bytes(
    config: Gr00tN1d6Config,
    work: Workload,
    precision: str = "bfloat16",
    quantised: frozenset[str] = QUANTISED,
) -> dict[str, float]:
    """Bytes the deployed form keeps: "weights", "embeddings" (the table of words) and "activations".

    The activations are an estimate: the widest layer's inputs, intermediates and outputs, and what passes
    from stage to stage. Not counted: CUDA's context, the runtime's own workspace, the operating system, ROS.
    """
    width = 4 if precision == "float32" else 2
    language = config.language
    return {
        "weights": sum(_bytes(stage, precision, quantised) for stage in stages(config, work)),
        "embeddings": language.vocab_size * language.hidden_size * width,
        "activations": _activation_elements(config, work) * width,
    }


# ---- stages --------------------------------------------------------------------------------------------


def _vision(config: Gr00tN1d6Config, work: Workload, form: str) -> Stage:
    sizes = config.vision
    width, inner, depth = sizes.hidden_size, sizes.intermediate_size, sizes.num_hidden_layers
    pixels = sizes.num_channels * sizes.patch_size**2
    patches = [_tokens(config, size) * UNSHUFFLE**2 for size in work.image_sizes]
    # Images of one size go through together and share one reading of the weights.
    distinct = dict(zip(work.image_sizes, patches, strict=True))
    layer, matrices = 4 * width**2 + 2 * width * inner, pixels * width
    vectors = depth * (4 * width + inner + width + 4 * width) + width + 2 * width
    # The grid of positions is resized at each call, or was once a load for each size.
    positions = [sizes.num_patches] * len(distinct) if form == "network" else list(distinct.values())
    matrices += depth * layer
    return Stage(
        "vision",
        matrices * len(distinct),
        vectors * len(distinct) + sum(positions) * width,
        2.0 * matrices * sum(patches),
        4.0 * depth * width * sum(count**2 for count in patches),
    )


def _projector(config: Gr00tN1d6Config, image_tokens: int) -> Stage:
    merged, width = config.vision.hidden_size * UNSHUFFLE**2, config.language.hidden_size
    matrices = merged * width + width**2
    return Stage("projector", matrices, 2 * merged + 2 * width, 2.0 * matrices * image_tokens)


def _language(config: Gr00tN1d6Config, tokens: int) -> Stage:
    sizes, depth = config.language, config.select_layer
    width, heads = sizes.hidden_size, sizes.num_attention_heads * sizes.head_dim
    layer = 2 * width * heads + 2 * width * sizes.num_key_value_heads * sizes.head_dim
    layer += 3 * width * sizes.intermediate_size
    vectors = depth * (2 * width + 2 * sizes.head_dim) + width
    pairs = tokens * (tokens + 1) / 2  # causal
    return Stage(
        "language", depth * layer, vectors, 2.0 * depth * layer * tokens, 4.0 * depth * heads * pairs
    )


def _head(config: Gr00tN1d6Config, work: Workload, image_tokens: int, form: str) -> tuple[Stage, ...]:
    width, hidden, steps = config.input_embedding_dim, config.hidden_size, work.num_steps
    states = config.max_state_dim * hidden + hidden * width
    seen = _context_tokens(config, work.text_tokens, image_tokens, form)
    context, cross = config.backbone_embedding_dim, len(seen)
    norm = 2 * context if config.use_vlln else 0
    keys = cross * 2 * context * width
    key_flops = 4.0 * context * width * sum(seen)
    dit = _dit(config, work, seen, form)
    actions = _actions(config, work, form)
    state = Stage("state", states, hidden + width + norm, 2.0 * states * work.state_tokens)
    # As written, keys and values are computed in each pass of the transformer.
    passes = steps if form == "network" else 1
    return Stage("cross_kv", keys, cross * 2 * width, key_flops, passes=passes), state, dit, actions


def _context_tokens(config: Gr00tN1d6Config, text: int, images: int, form: str) -> list[int]:
    """Tokens whose keys and values each cross-attention block needs: all where masks are used or where there
    are none, gathered in the deployed form."""
    blocks = [i for i in range(config.dit.num_layers) if not _is_self(config, i)]
    if form == "network" or not config.use_alternate_vl_dit:
        return [text + images] * len(blocks)
    period = 2 * config.attend_text_every_n_blocks
    return [text if i % period == 0 else images for i in blocks]


def _is_self(config: Gr00tN1d6Config, block: int) -> bool:
    return config.dit.interleave_self_attention and block % 2 == 1


def _dit(config: Gr00tN1d6Config, work: Workload, seen: list[int], form: str) -> Stage:
    sizes = config.dit
    width, depth, inner = sizes.width, sizes.num_layers, 4 * sizes.width
    own = depth - len(seen)
    tokens = work.state_tokens + work.horizon
    # Queries and outputs of every block, keys and values of the self-attention ones, feed-forward.
    matrices = 2 * depth * width**2 + 2 * own * width**2 + 2 * depth * width * inner
    vectors = 2 * depth * width + 2 * own * width + depth * (inner + width)
    linear = 2.0 * matrices * tokens
    # Scales and shifts of every block and of the output: computed from the time, or a table's row.
    modulation = (depth + 1) * 2 * width
    if form == "network":
        time = TIME_CHANNELS * width + width**2 + modulation * width
        out = width * sizes.output_dim
        matrices += time + out
        vectors += modulation + 2 * width + sizes.output_dim
        linear += 2.0 * time + 2.0 * out * tokens
    else:
        vectors += modulation
    attention = 4.0 * width * tokens * (own * tokens + sum(seen))
    return Stage("dit", matrices, vectors, linear, attention, work.num_steps)


def _actions(config: Gr00tN1d6Config, work: Workload, form: str) -> Stage:
    """Action encoder and decoder of one embodiment. Deployed, W1 and the half of W2 that sees it are one
    matrix (the time's half is a table's row); so are the transformer's last layer and the decoder's first.
    """
    dim, width, hidden = config.max_action_dim, config.input_embedding_dim, config.hidden_size
    table = work.horizon * width if config.add_pos_embed else 0
    if form == "network":
        encode = dim * width + 2 * width**2 + width**2
        decode = config.dit.output_dim * hidden + hidden * dim
        tokens = work.state_tokens + work.horizon
        vectors = 3 * width + hidden + dim + table
    else:
        encode = dim * width + width**2
        decode = config.dit.width * hidden + hidden * dim
        tokens = work.horizon  # the state's own output is not an action
        vectors = 2 * width + hidden + dim + table
    linear = 2.0 * encode * work.horizon + 2.0 * decode * tokens
    return Stage("actions", encode + decode, vectors, linear, passes=work.num_steps)


# ---- sizes ---------------------------------------------------------------------------------------------


def _tokens(config: Gr00tN1d6Config, size: tuple[int, int]) -> int:
    multiple = config.image_multiple
    if any(side <= 0 or side % multiple for side in size):
        raise ConfigError(f"an image has {size[0]} x {size[1]} pixels; expected multiples of {multiple}")
    return size[0] * size[1] // multiple**2


def _activations(precision: str) -> str:
    return "float32" if precision == "float32" else "bfloat16"


def _bytes(stage: Stage, precision: str, quantised: frozenset[str]) -> float:
    if precision not in MATRIX_BYTES:
        raise ConfigError(f"precision is {precision!r}; expected one of {', '.join(MATRIX_BYTES)}")
    plain = MATRIX_BYTES[_activations(precision)]
    matrix = MATRIX_BYTES[precision] if stage.name in quantised else plain
    return stage.matrices * matrix + stage.vectors * plain


def _activation_elements(config: Gr00tN1d6Config, work: Workload) -> int:
    vision, language, dit = config.vision, config.language, config.dit
    image_tokens = sum(_tokens(config, size) for size in work.image_sizes)
    context = work.text_tokens + image_tokens
    patches = image_tokens * UNSHUFFLE**2
    heads = (language.num_attention_heads + 2 * language.num_key_value_heads) * language.head_dim
    tokens = work.state_tokens + work.horizon
    widest = max(
        patches * (2 * vision.hidden_size + max(3 * vision.hidden_size, vision.intermediate_size)),
        context * (2 * language.hidden_size + max(heads, 2 * language.intermediate_size)),
        tokens * (2 * dit.width + 4 * dit.width),
    )
    keys = 2 * dit.width * sum(_context_tokens(config, work.text_tokens, image_tokens, "deployed"))
    return widest + keys + context * language.hidden_size

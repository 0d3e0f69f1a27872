# SPDX-License-Identifier: Apache-2.0
"""Instruction and image tokens to the ids the language model reads, padded to a batch.

The ids of a prompt depend only on its text and on how many tokens each image has, so they are computed once
an instruction and kept.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from gr00t_model.errors import ObservationError
from gr00t_model.processing.tokenizer import IMAGE_CONTEXT, PAD_TOKEN_ID, QwenTokenizer

# Longest instruction in tokens. Task descriptions in the training data have tens of tokens. Attention over
# the text is paid in every chunk and text longer than this is a file or a flood on the topic, so it is
# refused rather than cut.
MOST_INSTRUCTION_TOKENS = 512
# No token of the vocabulary has more characters than this, so a longer text need not be tokenized to be
# refused.
LONGEST_TOKEN = 128
# Prompts kept: an instruction changes rarely, but an operator may go back and forth between a few.
CACHED_PROMPTS = 64

_NOT_WORD_OR_SPACE = re.compile(r"[^\w\s]")


def formalize_language(text: str) -> str:
    """Lower case, without punctuation; underscores, digits, letters of any script and white space stay."""
    return _NOT_WORD_OR_SPACE.sub("", text.lower())


def prompt_text(text: str, image_tokens: Sequence[int]) -> str:
    """The conversation as one string; ``image_tokens`` holds the number of tokens of each image, in order."""
    images = "".join(
        f"<image {number}><img>{IMAGE_CONTEXT * tokens}</img>"
        for number, tokens in enumerate(image_tokens, start=1)
    )
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{text}{images}<|im_end|>\n"
    )


class PromptEncoder:
    """Prompts to ids, with the last ``CACHED_PROMPTS`` kept. May be called from several threads.

    Args:
        tokenizer: shared, never changed.
        formalize: whether :func:`formalize_language` is applied first, as the checkpoint says.
    """

    def __init__(self, tokenizer: QwenTokenizer, formalize: bool) -> None:
        self.tokenizer = tokenizer
        self._formalize = formalize
        self._cache: OrderedDict[tuple[str, tuple[int, ...]], NDArray[np.int64]] = OrderedDict()
        self._lock = Lock()

    def encode(self, instruction: str, image_tokens: tuple[int, ...]) -> NDArray[np.int64]:
        """Ids [L] of one sample; the array is read-only and shared between calls.

        Raises:
            ObservationError: the instruction is too long, or holds the image placeholder.
        """
        cache_key = (instruction, image_tokens)
        with self._lock:
            if cache_key in self._cache:
                self._cache.move_to_end(cache_key)
                return self._cache[cache_key]
        ids = self._encode(instruction, image_tokens)
        with self._lock:
            self._cache[cache_key] = ids
            while len(self._cache) > CACHED_PROMPTS:
                self._cache.popitem(last=False)
        return ids

    def _encode(self, instruction: str, image_tokens: tuple[int, ...]) -> NDArray[np.int64]:
        text = formalize_language(instruction) if self._formalize else instruction
        length = len(text)
        tokens = (
            None if length > MOST_INSTRUCTION_TOKENS * LONGEST_TOKEN else len(self.tokenizer.encode(text))
        )
        if tokens is None or tokens > MOST_INSTRUCTION_TOKENS:
            raise ObservationError(
                f"instruction: {length} "
                f"characters{'' if tokens is None else f' ({tokens} tokens)'}, expected at most "
                f"{MOST_INSTRUCTION_TOKENS} tokens; send a shorter instruction (it begins {text[:40]!r})"
            )
        ids = np.asarray(self.tokenizer.encode(prompt_text(text, image_tokens)), np.int64)
        placeholders = int((ids == self.tokenizer.image_token_id).sum())
        if placeholders != sum(image_tokens):
            raise ObservationError(
                f"instruction: it holds the text {IMAGE_CONTEXT}, which stands for images; send it without"
            )
        ids.setflags(write=False)
        return ids


def pad_left(
    prompts: Sequence[NDArray[np.int64]], pad: int = PAD_TOKEN_ID
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of different length to (input_ids, attention_mask), int64 [B, L], padding on the left."""
    longest = max(len(ids) for ids in prompts)
    input_ids = np.full((len(prompts), longest), pad, np.int64)
    mask = np.zeros_like(input_ids)
    for row, ids in enumerate(prompts):
        input_ids[row, longest - len(ids) :] = ids
        mask[row, longest - len(ids) :] = 1
    return torch.from_numpy(input_ids), torch.from_numpy(mask)

# SPDX-License-Identifier: Apache-2.0
"""The options of a run as transformers' training arguments."""

from __future__ import annotations

from transformers import TrainingArguments

from gr00t_ros.training.options import Options
from gr00t_ros.training.processes import Process, deepspeed_config

# Seconds that processes wait for each other before they give up.
_LONGEST_WAIT_S = 4 * 3600


def training_arguments(
    options: Options, process: Process, optimizer: str, *, saving: bool = True
) -> TrainingArguments:
    """What the library is to do; ``saving`` False leaves no checkpoints, for measurements.

    Making them joins the process group where there are several processes.
    """
    arguments = TrainingArguments(
        output_dir=str(options.output),
        max_steps=options.total_steps,
        per_device_train_batch_size=options.micro_batch(process.count),
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        max_grad_norm=options.clip,
        optim=optimizer,
        seed=options.seed,
        use_cpu=process.device_type == "cpu",
        ddp_backend="gloo" if process.device_type == "cpu" and process.count > 1 else None,
        # The first process measures a large dataset's statistics while the others wait.
        ddp_timeout=_LONGEST_WAIT_S,
        # Every trained parameter takes part in every loss: see network.configure.
        ddp_find_unused_parameters=False,
        deepspeed=deepspeed_config(options.deepspeed),
        save_strategy="steps" if saving else "no",
        save_steps=options.saving_interval,
        eval_strategy="steps" if options.eval_episodes else "no",
        eval_steps=options.evaluation_interval,
        logging_steps=options.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=list(options.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        # Batches are taken up again by their number.
        ignore_data_skip=True,
    )
    # Several GPUs are for several processes; one process with all of them would be DataParallel.
    if process.count == 1 and arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments

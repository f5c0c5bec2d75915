"""The names that nanoGPT, Hugging Face, axolotl, torchtitan, levanter and litgpt use, by the name that gnflow uses.

A key is the path of the value in a spec; a remark for the user may follow after a blank.
"""

from typing import NamedTuple

_KEYS = {
    "model": "model_config network",
    "data": "data_module dataloader",
    "training": "train trainer training_args",
    "metrics": "eval evaluation validation",
    "name": "run_name exp_name experiment_name wandb_run_name job_name",
    "model.kind": "model_type model_name architecture arch flavor",
    "model.layers": "n_layer n_layers num_layers num_hidden_layers depth",
    "model.width": "n_embd d_model dim hidden_size hidden_dim embed_dim model_dim",
    "model.heads": "n_head n_heads num_heads num_attention_heads",
    "model.key_value_heads": "n_kv_heads num_kv_heads num_key_value_heads n_query_groups",
    "model.hidden": "intermediate_size intermediate_dim ffn_dim d_ff mlp_dim ffn_hidden_size",
    "model.feedforward": "hidden_act activation activation_function mlp_class_name mlp_type",
    "model.qk_norm": "use_qk_norm qk_layernorm norm_qk",
    "model.tie_embeddings": "tie_word_embeddings weight_tying tie_weights enable_weight_tying",
    "model.rope_theta": "rope_base rotary_base",
    "model.rope_fraction": "partial_rotary_factor rotary_percentage rotary_pct rotary_percent",
    "model.biases (of every linear map, the head included)": "bias use_bias attention_bias mlp_bias",
    "model.logit_cap": "final_logit_softcapping logit_softcap logits_soft_cap logit_softcapping",
    "model.attention_scale": "softmax_scale attention_multiplier",
    "model.norm_epsilon": "norm_eps rms_norm_eps layer_norm_eps layer_norm_epsilon",
    "data.context": "block_size seq_len seq_length sequence_len sequence_length max_seq_len max_seq_length "
    "max_position_embeddings context_length n_ctx n_positions cutoff_len",
    "data.source": "dataset datasets dataset_name dataset_path train_data train_file train_files train_urls data_dir "
    "data_path corpus",
    "data.source.held_out_fraction": "val_set_size val_size validation_split validation_split_percentage test_size",
    "data.source.held_out": "validation_file val_data eval_data eval_dataset test_datasets validation_urls",
    "data.source.column": "text_column text_field dataset_text_field field_name",
    "data.source.documents": "max_train_samples max_samples num_samples",
    "data.tokenizer": "tokenizer_name tokenizer_path tokenizer_dir tokenizer_config tokenizer_type",
    "data.tokenizer.vocabulary": "vocab_size padded_vocab_size vocab n_vocab",
    "optimizer.kind": "optim optimizer_name optimizer_type",
    "optimizer.learning_rate": "lr max_lr peak_lr base_lr",
    "optimizer.weight_decay": "wd decoupled_weight_decay",
    "optimizer.betas (both in one list)": "beta1 beta2 adam_beta1 adam_beta2",
    "optimizer.eps": "epsilon adam_epsilon adam_eps",
    "optimizer.clip": "grad_clip max_grad_norm max_norm gradient_clipping gradient_clip_val clip_grad_norm",
    "optimizer.microbatches": "gradient_accumulation_steps accumulate_grad_batches grad_accum_steps grad_accum "
    "accumulation_steps gradient_accumulation gradient_accumulation_iters",
    "optimizer.schedule": "lr_scheduler lr_schedule lr_scheduler_type scheduler decay_lr learning_rate_schedule "
    "lr_decay_style",
    "optimizer.schedule.warmup (in updates)": "warmup_iters warmup_steps lr_warmup_steps lr_warmup_iters "
    "num_warmup_steps warmup_ratio lr_warmup_fraction warmup_percent",
    "optimizer.schedule.final (a part of the full rate, not a rate)": "min_lr min_learning_rate lr_min min_lr_ratio "
    "min_lr_factor min_lr_rate cosine_min_lr_ratio lr_min_ratio end_lr final_lr",
    "training.steps (a schedule decays over all of them)": "lr_decay_iters lr_decay_steps decay_steps decay_iters",
    "training.steps": "max_iters max_steps num_train_steps num_steps total_steps train_steps train_iters "
    "num_iterations max_train_steps iterations iters",
    "training.tokens (gnflow counts steps or tokens)": "num_train_epochs num_epochs epochs max_epochs n_epochs",
    "training.tokens": "max_tokens num_tokens total_tokens train_tokens token_budget",
    "training.rows (of one micro-batch; `optimizer.microbatches` multiplies it)": "global_batch_size train_batch_size "
    "total_batch_size effective_batch_size global_train_batch_size",
    "training.rows": "batch_size micro_batch_size device_batch_size local_batch_size per_device_train_batch_size "
    "per_device_parallelism mbs microbatch_size device_train_microbatch_size",
    "training.evaluate_every": "eval_interval eval_every eval_steps eval_freq steps_per_eval val_check_interval "
    "evals_per_epoch eval_strategy evaluation_strategy val_interval",
    "training.checkpoint_every": "checkpoint checkpointer checkpointing save_interval save_steps save_every "
    "checkpoint_interval checkpoint_freq saves_per_epoch save_strategy ckpt_interval ckpt_every keep_every",
    "training.precision": "dtype bf16 fp16 tf32 mp mixed_precision torch_dtype amp mixed_precision_param compute_dtype",
    "training.device": "accelerator device_type",
    "training.seed": "random_seed data_seed manual_seed",
    "training.start": "init_from base_model model_name_or_path initialize_from_hf initial_checkpoint_dir pretrained "
    "load_checkpoint_path checkpoint_path load_from",
    "metrics.microbatches (of the metric `loss`)": "eval_iters eval_batches max_eval_batches max_eval_steps "
    "eval_max_batches",
    "compile.mode": "torch_compile use_compile compile_model torch_compile_mode",
    "compile.attention": "flash_attention attn_implementation use_flash_attention flash_attn sdpa_attention "
    "use_flash_attn",
    "compile.activations (in MiB)": "gradient_checkpointing activation_checkpointing activation_checkpoint "
    "use_gradient_checkpointing recompute",
    "tracking": "report_to logger logger_name wandb wandb_log use_wandb enable_wandb tracker tensorboard "
    "enable_tensorboard logging",
    "tracking.experiment": "wandb_project project project_name mlflow_experiment_name",
}  # fmt: skip
_NONE = {
    "gnflow has no dropout": "dropout attention_dropout attn_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop",
    "a run goes to `runs/<name>`, or to `--run-dir` of the command line": "out_dir output_dir save_dir dump_folder "
    "log_dir checkpoint_dir run_dir",
    "the same command resumes a run": "resume resume_from_checkpoint auto_resume_from_checkpoints load_checkpoint",
    "every step is recorded": "log_interval logging_steps log_every log_freq logging_strategy",
    "every checkpoint of `training.checkpoint_every` is kept": "save_total_limit always_save_checkpoint "
    "keep_latest_k",
    "rows are always packed": "sample_packing packing pad_to_sequence_len group_by_length",
    "gnflow trains all weights": "adapter lora_r lora_alpha lora_dropout lora_target_modules use_peft load_in_8bit "
    "load_in_4bit peft_config",
    "how many devices compute a run is no part of its spec": "num_nodes devices fsdp fsdp_config deepspeed ddp "
    "backend num_gpus tensor_parallel_degree data_parallel_shard_degree pipeline_parallel_degree "
    "data_parallel_replicate_degree",
}  # fmt: skip
# What other tools call a `kind`.
KIND = {"type", "name", "class_path", "_target_", "class", "algorithm", "method"}
_VALUES = {
    "adamw": "adam adamw_torch adamw_torch_fused adamw_hf adamw_bnb_8bit fused_adam fused_adamw torch.optim.adamw "
    "torch.optim.adam",
    "bfloat16": "bf16 bf16_mixed bf16_true bfloat16_mixed amp torch.bfloat16",
    "float32": "fp32 f32 32 32_true single float full torch.float32",
    "cuda": "gpu nvidia cuda:0 gpu:0",
    "cpu": "host",
    "cosine": "cosine_with_min_lr cosine_annealing cosineannealinglr cosine_decay cosine_warmup",
    "constant": "constant_with_warmup none fixed",
    "decoder": "gpt gpt2 gpt_2 nanogpt llama llama2 llama3 qwen2 qwen3 mistral transformer causal_lm olmo",
    "swiglu": "silu swish llamamlp gemmamlp geglu",
    "gelu": "gptneoxmlp quick_gelu",
    "gelu_tanh": "gelu_new gelu_pytorch_tanh",
    "relu_squared": "relu2 squared_relu relu_square",
    "mlflow": "comet neptune aim clearml",
    "tensorboard": "tb tensorboardx",
    "wandb": "weights_and_biases weights_biases",
    "bytes": "byte char character byte_level",
    "bpe": "tiktoken sentencepiece gpt2_bpe",
    "files": "text txt json jsonl csv parquet local_files",
    "huggingface": "hf hub auto pretrained",
    "flash": "flash_attention_2 flash_attention sdpa flash_attn fa2",
    "plain": "eager math naive",
    "off": "false no none disabled eager",
    "default": "true reduce_overhead inductor on",
    "scratch": "random none init",
    "checkpoint": "resume pretrained ckpt",
}  # fmt: skip


class Meaning(NamedTuple):
    """The place in a spec that corresponds to a key of another tool, and a remark for the user."""

    path: tuple[str, ...]
    remark: str

    @property
    def key(self) -> str:
        """The last name of the path."""
        return self.path[-1]


def _normalize(word: str) -> str:
    return word.lower().replace("-", "_")


def _parse_meaning(target: str) -> Meaning:
    path, _, remark = target.partition(" ")
    return Meaning(tuple(path.split(".")), remark.strip("()"))


_MEANINGS = {word: _parse_meaning(target) for target, words in _KEYS.items() for word in words.split()}
_REASONS = {word: reason for reason, words in _NONE.items() for word in words.split()}


def find_meaning(word: str) -> Meaning | None:
    """Return the place in a spec that corresponds to a key of another tool, or None."""
    return _MEANINGS.get(_normalize(word))


def find_reason(word: str) -> str | None:
    """Return the reason why gnflow has no such key as another tool, or None."""
    return _REASONS.get(_normalize(word))


def find_value(word: str, choices: tuple[str, ...]) -> str | None:
    """Return the one of `choices` that another tool calls `word`, or None."""
    return next((choice for choice in choices if _normalize(word) in _VALUES.get(choice, "").split()), None)

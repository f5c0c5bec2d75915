"""Keys and values of other tools are named by what gnflow calls the same, and every name given exists."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gnflow.spec import elsewhere
from gnflow.spec.grammar import ROOT, list_shapes, walk_models
from gnflow.spec.load import load
from gnflow.spec.problems import SpecProblems

Write = Callable[[str, str], Path]
REST = "name: a\ndata: text\noptimizer: adamw\ntraining: {steps: 3}\n"

# Files as their authors publish them, keys alone: what each tool's default configuration for pretraining holds.
NANOGPT = """out_dir eval_interval log_interval eval_iters always_save_checkpoint init_from wandb_log wandb_project
wandb_run_name dataset gradient_accumulation_steps batch_size block_size n_layer n_head n_embd dropout bias max_iters
beta1 beta2 grad_clip decay_lr warmup_iters lr_decay_iters min_lr backend dtype"""
TRAINER = """output_dir per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps
lr_scheduler_type warmup_steps warmup_ratio adam_beta1 adam_beta2 adam_epsilon max_grad_norm logging_steps eval_steps
eval_strategy save_steps save_total_limit bf16 fp16 tf32 optim gradient_checkpointing torch_compile report_to run_name
resume_from_checkpoint model_name_or_path hidden_size num_hidden_layers num_attention_heads num_key_value_heads
intermediate_size max_position_embeddings rms_norm_eps vocab_size tie_word_embeddings hidden_act attention_dropout"""
AXOLOTL = """base_model datasets val_set_size sequence_len sample_packing micro_batch_size num_epochs lr_scheduler
flash_attention warmup_steps evals_per_epoch saves_per_epoch adapter lora_r load_in_8bit gradient_checkpointing"""
TORCHTITAN = """flavor local_batch_size global_batch_size seq_len max_norm dataset dump_folder log_freq
enable_wandb mixed_precision_param data_parallel_shard_degree activation_checkpoint min_lr_factor"""
LEVANTER = """hidden_dim num_layers num_kv_heads intermediate_dim train_batch_size num_train_steps steps_per_eval
max_eval_batches tracker mp lr_schedule min_lr_ratio initialize_from_hf train_urls per_device_parallelism"""
LITGPT = """model_name out_dir initial_checkpoint_dir save_interval log_interval max_tokens max_seq_length
lr_warmup_steps tokenizer_dir logger_name n_query_groups padded_vocab_size norm_eps max_norm devices num_nodes"""


def sentences(path: Path) -> list[str]:
    with pytest.raises(SpecProblems) as raised:
        load(path)
    return [problem.sentence for problem in raised.value.problems]


@pytest.mark.parametrize("keys", [NANOGPT, TRAINER, AXOLOTL, TORCHTITAN, LEVANTER, LITGPT])
def test_every_key_of_another_tool_has_a_hint_by_meaning(keys: str, write: Write) -> None:
    path = write("specs/other.yaml", REST + "".join(f"{key}: 1\n" for key in keys.split()))
    found = sentences(path)
    assert len(found) == len(keys.split())
    assert not [sentence for sentence in found if "valid keys are" in sentence]
    for key, sentence in zip(keys.split(), found, strict=True):
        known = elsewhere.find_meaning(key)
        assert (f"`{known.key}`" if known else elsewhere.find_reason(key) or "?") in sentence, sentence


def test_every_name_that_is_given_exists() -> None:
    places = {path: set() for path, _ in walk_models()}
    for path, model in walk_models():
        places[path] |= set(list_shapes(model))
    known = {
        (*(step for step in path if isinstance(step, str)), name) for path, names in places.items() for name in names
    }
    for words, target in ((words, elsewhere._parse_meaning(target)) for target, words in elsewhere._KEYS.items()):
        assert target.path in known, words
    choices = {
        str(choice)
        for _, model in walk_models(ROOT)
        for shape in list_shapes(model).values()
        for choice in (*shape.choices, *shape.kinds)
    }
    assert set(elsewhere._VALUES) <= choices


def test_no_word_has_two_meanings() -> None:
    for table in (elsewhere._KEYS, elsewhere._NONE):
        words = [word for line in table.values() for word in line.split()]
        assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("training: {steps: 3, device: gpu}", "did you mean `cuda`?"),
        ("training: {steps: 3, precision: bf16-mixed}", "did you mean `bfloat16`?"),
        ("training: {steps: 3, micro_batch_size: 4}", "did you mean `rows`?"),
        ("training: {steps: 1M}", "got the text `1M`; write `1000000`"),
        ("training: {steps: 3, temporary_checkpoint_minutes: 10min}", "got the text `10min`; write `10`"),
        ("compile: {activations: 2GiB}", "got the text `2GiB`; write `2048`"),
        ("optimizer: adamw_torch", "did you mean `adamw`?"),
        ("optimizer: {kind: adamw, max_grad_norm: 1}", "did you mean `clip`?"),
        ("optimizer: {name: adamw}", "gnflow calls `name` `kind`"),
        ("optimizer: {kind: gauss_newton, lr: 1}", "gnflow calls it `learning_rate`, which belongs in `inner`"),
        ("data: {kind: text, n_embd: 3}", "gnflow calls it `width`, which belongs in `model`"),
        ("model: {kind: llama}", "did you mean `decoder`?"),
        ("tracking: comet", "did you mean `mlflow`?"),
        ("n_embd: 64", "gnflow calls it `width`, which belongs in `model`"),
    ],
)
def test_the_nearest_in_meaning_is_named(part: str, sentence: str, write: Write) -> None:
    key = part.partition(":")[0]
    rest = "".join(line + "\n" for line in REST.splitlines() if not line.startswith(f"{key}:"))
    [found] = sentences(write("specs/other.yaml", rest + part + "\n"))
    assert found.endswith(sentence)

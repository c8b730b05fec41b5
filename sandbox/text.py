"""Stage `text`: the CLIP and T5 text encoders with their tokenizers, trained to read what captions say.

Both are trained on words alone: from its output each must tell every attribute a caption names (or that it names
none). They are frozen before the base is trained, so that the base's transformer starts from a conditioning in which
the world's attributes are already apart; a first try that trained them along needed its budget for that.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from sandbox import words
from sandbox.media import BACKGROUNDS, COLOURS, MEDIA
from sandbox.world import PLACES, SIZES, SUBJECTS, Scene, random_scene

WIDTH = 128
MAX_TOKENS = 28
ATTRIBUTES = {
    "subject": SUBJECTS,
    "colour": tuple(COLOURS),
    "place": tuple(PLACES),
    "size": tuple(SIZES),
    "background": tuple(BACKGROUNDS),
    "medium": tuple(MEDIA),
    "style": tuple(s for pair in words.STYLE.values() for s in pair),
    "technique": tuple(s for pair in words.TECHNIQUE.values() for s in pair),
    "emotion": words.EMOTION,
}


def clip_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer in CLIP's form whose merges make every word of the world one token."""
    tok = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    blank = CLIPTokenizer().backend_tokenizer
    tok.normalizer, tok.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1100, initial_alphabet=alphabet, end_of_word_suffix="</w>", min_frequency=2, show_progress=False
    )
    tok.train_from_iterator(words.corpus(), trainer)
    state = json.loads(tok.to_str())["model"]
    vocab, merges = dict(state["vocab"]), [tuple(m) for m in state["merges"]]
    for byte in sorted(alphabet):  # a word that ends in a letter the corpus never ended with must not be unknown
        vocab.setdefault(byte + "</w>", len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab.setdefault(special, len(vocab))
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def t5_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer in T5's form: every word of the world is one piece, any other falls apart into letters."""
    spoken = sorted({w for line in words.corpus() for w in re.findall(r"[a-z0-9-]+", line)})
    letters = [chr(c) for c in range(33, 127)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab = special + [(f"▁{w}", -6.0) for w in spoken] + [(c, -14.0) for c in ["▁", *letters]]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=MAX_TOKENS)


def clip_model(vocab_size: int, eos: int, bos: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocab_size, hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH,
            num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=77, eos_token_id=eos, bos_token_id=bos,
            pad_token_id=eos,
        )
    )  # fmt: skip


def t5_model(vocab_size: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=vocab_size, d_model=WIDTH, d_kv=32, d_ff=2 * WIDTH, num_layers=2, num_heads=4, dropout_rate=0.0,
            feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )
    )  # fmt: skip


class _Reader(nn.Module):
    """Reads attributes off token states: one learned query per attribute, then a linear map to its values."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(ATTRIBUTES), WIDTH) * 0.02)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(v) + 1) for v in ATTRIBUTES.values())

    def forward(self, states: torch.Tensor) -> list[torch.Tensor]:
        weight = (self.queries @ states.transpose(1, 2)).softmax(-1)  # (N, attributes, tokens)
        pooled = weight @ states
        return [head(pooled[:, i]) for i, head in enumerate(self.heads)]


def _spoken(rng: np.random.Generator) -> tuple[str, list[int]]:
    """A caption with a random choice of parts, and the index of each named attribute's value (0: not named)."""
    scene: Scene = random_scene(rng, media=tuple(MEDIA))
    pick, emotion = int(rng.integers(2)), str(rng.choice(words.EMOTION))
    if rng.random() < 0.15:
        parts = {"medium", "size", "colour", "place", "background", "style", "technique"}
        text = ", ".join(words.tags(scene, pick=pick))
    else:
        parts = {p for p in words.PARTS if rng.random() < 0.55}
        text = words.caption(scene, frozenset(parts), emotion=emotion, pick=pick)
    said = {"subject": scene.subject, "style": words.STYLE[scene.medium][pick], "emotion": emotion,
            "technique": words.TECHNIQUE[scene.medium][pick]}  # fmt: skip
    truth = []
    for name, values in ATTRIBUTES.items():
        value = said.get(name) or getattr(scene, name)
        truth.append(values.index(value) + 1 if name in parts or name == "subject" else 0)
    return text, truth


def train(out: Path, *, steps: int, seed: int, batch: int = 64) -> None:
    """Train both encoders and write them with their tokenizers in the layout `FluxPipeline` loads."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    clip_tok, t5_tok = clip_tokenizer(), t5_tokenizer()
    clip = clip_model(len(clip_tok), clip_tok.eos_token_id, clip_tok.bos_token_id)
    t5 = t5_model(len(t5_tok))
    reader = _Reader()
    heads = nn.ModuleList(nn.Linear(WIDTH, len(v) + 1) for v in ATTRIBUTES.values())
    parameters = [*clip.parameters(), *t5.parameters(), *reader.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, step / 50, (steps - step) / (0.5 * steps))
        texts, truth = zip(*(_spoken(rng) for _ in range(batch)), strict=True)
        target = torch.tensor(truth)
        states = t5(t5_tokens(t5_tok, texts)).last_hidden_state
        pooled = clip(clip_tokens(clip_tok, texts)).pooler_output
        guesses = [*reader(states), *(h(pooled) for h in heads)]
        loss = torch.stack([F.cross_entropy(o, target[:, i % len(heads)]) for i, o in enumerate(guesses)]).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 100 == 99:
            right = torch.stack([o.argmax(1) == target[:, i] for i, o in enumerate(reader(states))]).float().mean(1)
            pooled_right = torch.stack([h(pooled).argmax(1) == target[:, i] for i, h in enumerate(heads)]).float()
            print(
                f"text step {step + 1}/{steps} loss {loss.item():.3f} worst attribute t5 {right.min():.2f} "
                f"clip {pooled_right.mean(1).min():.2f}", flush=True,
            )  # fmt: skip
    _rescale(clip, t5, clip_tok, t5_tok)
    for name, part in {"text_encoder": clip, "text_encoder_2": t5}.items():
        part.to(torch.bfloat16).save_pretrained(out / name)
    clip_tok.save_pretrained(out / "tokenizer")
    t5_tok.save_pretrained(out / "tokenizer_2")


@torch.no_grad()
def _rescale(clip: CLIPTextModel, t5: T5EncoderModel, clip_tok: CLIPTokenizer, t5_tok: T5Tokenizer) -> None:
    """Give both outputs a deviation of 1, so that the transformer's embedders start in their linear range."""
    rng = np.random.default_rng(1)
    texts = [_spoken(rng)[0] for _ in range(256)]
    t5.encoder.final_layer_norm.weight /= t5(t5_tokens(t5_tok, texts)).last_hidden_state.std()
    norm, factor = clip.final_layer_norm, clip(clip_tokens(clip_tok, texts)).pooler_output.std()
    norm.weight /= factor
    norm.bias /= factor


def t5_tokens(tokenizer: T5Tokenizer, texts: list[str] | tuple[str, ...]) -> torch.Tensor:
    """(N, MAX_TOKENS) ids, padded as the Flux pipeline pads: without a mask."""
    return tokenizer(
        list(texts), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def clip_tokens(tokenizer: CLIPTokenizer, texts: list[str] | tuple[str, ...]) -> torch.Tensor:
    """(N, 77) ids, padded as the Flux pipeline pads."""
    return tokenizer(list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
